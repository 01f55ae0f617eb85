//! What the demo starts ends with it, however it ends.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often it is looked whether the user wants an end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Starts a process that the system kills when this one has ended, in whatever way: neither SIGKILL nor
/// an abort leaves time to end anything. Called on the main thread, since the system looks at the thread
/// that starts it.
pub(super) fn spawn(command: &mut Command) -> std::io::Result<Child> {
    let demo = getpid();
    // Settings of the user's own cluster must not leak into this one.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"ISONOMY_")) {
        command.env_remove(name);
    }
    // A group of its own: Ctrl-C is for the demo, which ends the others in good order.
    command.process_group(0);
    // SAFETY: between fork and exec only system calls are made; nothing is allocated or locked.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || end_with(demo));
    }
    command.spawn()
}

fn end_with(demo: Pid) -> std::io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before that.
    if getppid() == Some(demo) { Ok(()) } else { Err(std::io::ErrorKind::Interrupted.into()) }
}

/// Whether the user wants an end.
#[derive(Clone)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes the signals that end a program. The second ends it at once.
    pub(super) fn watch() -> Result<Interrupt> {
        let wanted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // nohup keeps a program running when its terminal closes.
            if signal == SIGHUP && is_ignored(signal) {
                continue;
            }
            flag::register_conditional_default(signal, wanted.clone())
                .and_then(|_| flag::register(signal, wanted.clone()))
                .context("signals cannot be handled")?;
        }
        Ok(Interrupt(wanted))
    }

    /// Waits for it.
    pub(super) async fn wanted(&self) {
        while !self.0.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Whether the process began with this signal ignored.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
