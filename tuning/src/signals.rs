//! Signals that end a program.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_default};
use std::fs;
use std::io::Result;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Returns a flag that is set when the user wants an end (SIGINT, SIGTERM, SIGHUP). The second signal ends the
/// process at once.
///
/// # Errors
/// The system takes no handler.
pub fn watch_end() -> Result<Arc<AtomicBool>> {
    let is_wanted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // nohup keeps a program running when its terminal closes.
        if signal == SIGHUP && is_ignored(signal) {
            continue;
        }
        register_conditional_default(signal, is_wanted.clone())?;
        register(signal, is_wanted.clone())?;
    }
    Ok(is_wanted)
}

/// Whether this process ignores the signal.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    has_ignored(&status, signal)
}

/// Whether the status of a process has the signal among those that the process ignores.
fn has_ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_the_bits_of_the_mask() {
        let status =
            "Name:\tx\nSigBlk:\t0000000000000003\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        assert_eq!([SIGHUP, SIGINT, SIGTERM].map(|signal| has_ignored(status, signal)), [true, false, false]);
        assert!(has_ignored(status, 13) && !has_ignored("", SIGHUP));
    }
}
