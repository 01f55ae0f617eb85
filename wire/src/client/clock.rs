//! Clocks that count only the time in which the process runs. A process that is stopped (Ctrl-Z, a debugger, a
//! paused virtual machine) receives nothing, so that time must not count as silence of the other side.

use std::pin::{Pin, pin};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// A task that wakes up later than this was stopped; a busy machine is late by less. This much of a stop is counted,
/// so that a process that is always late reaches its deadlines, too.
const LATE: Duration = Duration::from_millis(250);

/// The clock of a conversation: the microseconds that the process has run since the clock was made.
#[derive(Debug)]
pub(super) struct Clock {
    origin: Instant,
    stood_still: Duration,
    /// The latest time at which a running process reads the clock next. `None`: no deadline is set.
    due: Option<Instant>,
}

impl Clock {
    pub(super) fn new() -> Clock {
        Clock { origin: Instant::now(), stood_still: Duration::ZERO, due: None }
    }

    pub(super) fn now(&mut self) -> u64 {
        self.read(Instant::now())
    }

    fn read(&mut self, real: Instant) -> u64 {
        let late = self.due.map_or(Duration::ZERO, |due| real.saturating_duration_since(due));
        self.stood_still += late.saturating_sub(LATE);
        // The caller runs until it calls `sleep_until`, so it reads the clock again at once.
        self.due = Some(real);
        (real - self.origin - self.stood_still).as_micros() as u64
    }

    /// The caller sleeps until this conversation time at the latest. Returns the same moment as an instant.
    pub(super) fn sleep_until(&mut self, micros: Option<u64>) -> Option<Instant> {
        let now = self.read(Instant::now());
        let left = micros.map(|micros| Duration::from_micros(micros.saturating_sub(now)));
        self.due = self.due.zip(left).map(|(real, left)| real + left);
        self.due
    }
}

/// A deadline that counts only the time in which the process runs.
#[derive(Debug)]
pub struct Patience(Option<JoinHandle<()>>);

impl Patience {
    /// A patience that ends after `deadline`, or never with `None`.
    ///
    /// # Panics
    ///
    /// With a deadline, when the caller does not run on a tokio runtime.
    pub fn of(deadline: Option<Duration>) -> Patience {
        Patience(deadline.map(|deadline| tokio::spawn(sleep_running(deadline))))
    }

    /// Whether the deadline has passed.
    pub fn is_over(&self) -> bool {
        self.0.as_ref().is_some_and(JoinHandle::is_finished)
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Sleeps until the process has run for `duration`.
pub async fn sleep_running(duration: Duration) {
    let mut left = duration;
    while !left.is_zero() {
        // A slice that ends late counts with its own length only.
        let slice = left.min(LATE);
        sleep(slice).await;
        left -= slice;
    }
}

/// The output of `awaited`, or `None` if the process runs for `patience` before `awaited` is ready.
pub(super) async fn within<T>(patience: Duration, awaited: impl Future<Output = T>) -> Option<T> {
    before(pin!(sleep_running(patience)), awaited).await
}

/// The output of `awaited`, or `None` if `end` is ready first.
pub(super) async fn before<T>(
    mut end: Pin<&mut impl Future<Output = ()>>,
    awaited: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        outcome = awaited => Some(outcome),
        () = &mut end => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn time_in_which_the_process_stands_still_is_not_counted() {
        let mut clock = Clock::new();
        let mut real = clock.origin;
        assert_eq!(clock.read(real), 0);
        // The process runs.
        for n in 1..=100 {
            real += SECOND / 100;
            assert_eq!(clock.read(real), n * 10_000);
        }
        // It is stopped while it runs ...
        real += 3600 * SECOND;
        assert_eq!(clock.read(real), 1_250_000);
        // ... and while it sleeps.
        clock.due = Some(real + 2 * SECOND);
        real += 3600 * SECOND;
        assert_eq!(clock.read(real), 1_250_000 + 2_250_000);
        assert_eq!(clock.read(real), 3_500_000);
    }

    #[test]
    fn time_in_which_nobody_waits_is_counted() {
        let mut clock = Clock::new();
        let real = clock.origin + SECOND;
        clock.due = None;
        assert_eq!(clock.read(real), 1_000_000);
    }

    #[test]
    fn who_sleeps_is_woken_at_his_time_on_his_own_clock() {
        let mut clock = Clock::new();
        clock.stood_still = SECOND;
        clock.origin -= 3 * SECOND;
        let before = Instant::now();
        let due = clock.sleep_until(Some(5_000_000)).unwrap();
        assert!(due >= clock.origin + 6 * SECOND && due <= before + 4 * SECOND, "3 s from now");
        assert_eq!(clock.sleep_until(None), None);
    }
}
