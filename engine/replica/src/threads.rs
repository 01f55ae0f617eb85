//! Threads beside the shards: one that the system does not give, and those that are to end.

use crate::fatal::{Fatal, Reason};
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long threads that were told to stop may take.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether they have stopped.
const STOP_LOOK: Duration = Duration::from_millis(10);

/// The error when there is no thread for a purpose.
pub(crate) fn no_thread(purpose: &'static str) -> impl FnOnce(io::Error) -> Fatal {
    move |error| {
        let text = format!("no thread {purpose} ({error}); raise the limit on threads");
        Fatal::new(Reason::Machine, text)
    }
}

/// Waits until threads have ended, but not for long.
pub(crate) fn await_end(have_ended: impl Fn() -> bool) {
    let began = Instant::now();
    while began.elapsed() < STOP_PATIENCE && !have_ended() {
        sleep(STOP_LOOK);
    }
}
