//! The beat of a shard: what is due by time alone is looked at then.
//!
//! It comes from a thread of its own and not from a timer of the executor, because glommio 0.9.0
//! can park for ever while tasks are runnable: when the preemption timer fires before any task of
//! a round has run, the executor takes that for "nothing to do" (glommio/glommio#53). Its own timers
//! do not fire any more then; a wake-up from outside ends it.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

/// A beat that was not heard is repeated after twice the time, up to this. A shard hears none while it
/// reads its log; then the others wait for what it does at its first beat.
const REPEAT_MAX: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Shared {
    waker: Mutex<Option<Waker>>,
    beats: AtomicU64,
    heard: AtomicU64,
    period_us: AtomicU64,
    ended: AtomicBool,
}

/// Beats until it is dropped.
pub(crate) struct Pulse(Arc<Shared>);

impl Pulse {
    /// Starts the thread.
    pub(crate) fn start(period: Duration) -> std::io::Result<Pulse> {
        let shared = Arc::new(Shared::default());
        let pulse = Pulse(shared.clone());
        pulse.set_period(period);
        std::thread::Builder::new().name("pulse".into()).spawn(move || shared.beat())?;
        Ok(pulse)
    }

    /// From the next beat on.
    pub(crate) fn set_period(&self, period: Duration) {
        self.0.period_us.store(period.as_micros() as u64, Ordering::Relaxed);
    }

    /// From here on the executor of this task is woken.
    pub(crate) async fn attach(&self) {
        poll_fn(|context| {
            self.attach_to(context.waker());
            Poll::Ready(())
        })
        .await;
    }

    fn attach_to(&self, task: &Waker) {
        let mut waker = self.0.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(task)) {
            *waker = Some(task.clone());
        }
    }

    /// Until the next beat. For one task.
    pub(crate) async fn wait(&self) {
        poll_fn(|context| {
            self.attach_to(context.waker());
            let beats = self.0.beats.load(Ordering::Acquire);
            if self.0.heard.swap(beats, Ordering::AcqRel) == beats { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}

impl Shared {
    fn beat(&self) {
        let mut unheard = 0u32;
        while !self.ended.load(Ordering::Relaxed) {
            let period = Duration::from_micros(self.period_us.load(Ordering::Relaxed));
            std::thread::sleep(pause(period, unheard));
            let beats = self.beats.load(Ordering::Relaxed);
            let is_heard = self.heard.load(Ordering::Acquire) == beats;
            unheard = if is_heard { 0 } else { unheard.saturating_add(1) };
            self.beats.store(beats + 1, Ordering::Release);
            // The task may be scheduled already: the wake-up is for the executor.
            if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
                waker.wake_by_ref();
            }
        }
    }
}

/// How long until the next beat, after so many that were not heard.
fn pause(period: Duration, unheard: u32) -> Duration {
    period.saturating_mul(1u32.checked_shl(unheard).unwrap_or(u32::MAX)).min(REPEAT_MAX.max(period))
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::task::Wake;

    struct Counter(mpsc::Sender<()>);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }

    #[test]
    fn whoever_heard_nothing_for_long_hears_it_soon() {
        let [millis, micros] = [Duration::from_millis, Duration::from_micros];
        assert_eq!([0, 1, 2, 3].map(|unheard| pause(millis(5), unheard).as_millis()), [5, 10, 20, 20]);
        assert_eq!(pause(micros(1), u32::MAX), millis(20));
        assert_eq!(pause(millis(30), 7), millis(30), "a slow beat stays what it is");
    }

    #[test]
    fn it_goes_on_waking_who_does_not_come() {
        let pulse = Pulse::start(Duration::from_millis(1)).unwrap();
        let (woken, wakes) = mpsc::channel();
        let waker = Waker::from(Arc::new(Counter(woken)));
        let mut context = std::task::Context::from_waker(&waker);
        let mut wait = std::pin::pin!(pulse.wait());
        while wait.as_mut().poll(&mut context).is_ready() {
            wait.set(pulse.wait());
        }
        (0..3).for_each(|_| wakes.recv().unwrap());
        assert!(wait.as_mut().poll(&mut context).is_ready());
    }
}
