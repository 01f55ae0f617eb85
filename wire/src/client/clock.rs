//! Time as somebody who waits counts it. A process that is stopped (Ctrl-Z, a debugger, a virtual machine that is
//! paused) hears nothing, so what passes meanwhile is no silence of anybody, and is not counted.

use std::pin::{Pin, pin};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Whoever wakes up later than this did not run; a busy machine is late by less. So much of the time is counted all
/// the same: a process that is always late gets to its deadlines, too.
const LATE: Duration = Duration::from_millis(250);

/// The clock of a session: microseconds since it was made in which the process ran.
#[derive(Debug)]
pub(super) struct Clock {
    origin: Instant,
    stood_still: Duration,
    /// When it is looked at next, at the latest, if the process runs. `None`: nobody waits for anything.
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
        // Until somebody says that he sleeps he runs, and so looks again at once.
        self.due = Some(real);
        (real - self.origin - self.stood_still).as_micros() as u64
    }

    /// Whoever looks sleeps until something comes, and until this time at the latest: when that is.
    pub(super) fn sleep_until(&mut self, micros: Option<u64>) -> Option<Instant> {
        let now = self.read(Instant::now());
        let left = micros.map(|micros| Duration::from_micros(micros.saturating_sub(now)));
        self.due = self.due.zip(left).map(|(real, left)| real + left);
        self.due
    }
}

/// How long somebody tries, as far as the process runs meanwhile.
#[derive(Debug)]
pub struct Patience(Option<JoinHandle<()>>);

impl Patience {
    /// It ends after this time; `None`: never.
    pub fn of(deadline: Option<Duration>) -> Patience {
        Patience(deadline.map(|deadline| tokio::spawn(sleep_running(deadline))))
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.0.as_ref().is_some_and(JoinHandle::is_finished)
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Sleeps until the process has run for so long.
pub async fn sleep_running(duration: Duration) {
    let mut left = duration;
    while !left.is_zero() {
        // However late it ends, it counts as what it was to be.
        let slice = left.min(LATE);
        sleep(slice).await;
        left -= slice;
    }
}

/// What comes of it before the process has run for so long; `None` if that comes first.
pub(super) async fn within<T>(patience: Duration, awaited: impl Future<Output = T>) -> Option<T> {
    before(pin!(sleep_running(patience)), awaited).await
}

/// What comes of it before the other ends.
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
        // It runs.
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
