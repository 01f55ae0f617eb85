//! The tick of a shard, at which work is done that is due by time alone.
//!
//! The tick comes from a thread of its own and not from a timer of the executor, because glommio 0.9.0
//! can park for ever while tasks are runnable: when the preemption timer fires before any task of
//! a round has run, the executor takes that for "nothing to do" (glommio/glommio#53). Its own timers
//! do not fire any more then, but a wake-up from outside ends the pause.

use isonomy_mesh::bell::Bell;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::thread::Thread;
use std::time::Duration;

/// The longest wait before a tick is repeated that the task did not take; the wait doubles each time. Until the task
/// runs, each tick holds a reference to it, of which glommio allows 32,767.
const REPEAT_MAX: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Shared {
    bell: Bell,
    ticks: AtomicU64,
    heard: AtomicU64,
    period_us: AtomicU64,
    ended: AtomicBool,
}

/// The source of ticks, until it is dropped.
pub(crate) struct Ticks {
    shared: Arc<Shared>,
    thread: Thread,
}

impl Ticks {
    /// Starts the thread.
    pub(crate) fn start(period: Duration) -> std::io::Result<Ticks> {
        let shared = Arc::new(Shared::default());
        shared.set_period(period);
        let ticking = shared.clone();
        let thread = std::thread::Builder::new().name("ticks".into()).spawn(move || ticking.run())?;
        Ok(Ticks { shared, thread: thread.thread().clone() })
    }

    /// Sets the period from the next tick on.
    pub(crate) fn set_period(&self, period: Duration) {
        self.shared.set_period(period);
    }

    /// Makes the ticks wake the executor of this task.
    pub(crate) async fn attach(&self) {
        poll_fn(|context| {
            self.shared.bell.listen(context.waker());
            Poll::Ready(())
        })
        .await;
    }

    /// Waits for the next tick. Only one task may wait. A task that missed ticks, as a shard does while it reads its
    /// log, is woken at once and not when the thread would have repeated the tick.
    pub(crate) async fn wait(&self) {
        poll_fn(|context| {
            self.shared.bell.listen(context.waker());
            let ticks = self.shared.ticks.load(Ordering::Acquire);
            match ticks - self.shared.heard.swap(ticks, Ordering::AcqRel) {
                0 => return Poll::Pending,
                1 => {}
                _ => self.thread.unpark(),
            }
            Poll::Ready(())
        })
        .await;
    }
}

impl Shared {
    fn set_period(&self, period: Duration) {
        self.period_us.store(period.as_micros() as u64, Ordering::Relaxed);
    }

    fn run(&self) {
        let mut unheard = 0;
        while !self.ended.load(Ordering::Relaxed) {
            let period = Duration::from_micros(self.period_us.load(Ordering::Relaxed));
            std::thread::park_timeout((period * (1 << unheard)).min(REPEAT_MAX.max(period)));
            let ticks = self.ticks.load(Ordering::Relaxed);
            let is_heard = self.heard.load(Ordering::Acquire) == ticks;
            unheard = if is_heard { 0 } else { (unheard + 1).min(10) };
            self.ticks.store(ticks + 1, Ordering::Release);
            // The task may be scheduled already, so the wake-up is for the executor.
            self.bell.wake();
        }
    }
}

impl Drop for Ticks {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::task::{Wake, Waker};

    struct Counter(mpsc::Sender<()>);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }

    /// Longer than any test.
    const NEVER: Duration = Duration::from_secs(86_400);

    #[test]
    fn whoever_missed_some_gets_the_next_at_once() {
        let ticks = Ticks::start(NEVER).unwrap();
        ticks.shared.ticks.store(12, Ordering::Release);
        let (woken, wakes) = mpsc::channel();
        let waker = Waker::from(Arc::new(Counter(woken)));
        let mut context = std::task::Context::from_waker(&waker);
        assert!(std::pin::pin!(ticks.wait()).poll(&mut context).is_ready());
        wakes.recv_timeout(Duration::from_secs(60)).unwrap();
        let mut wait = std::pin::pin!(ticks.wait());
        assert!(wait.as_mut().poll(&mut context).is_ready());
        wait.set(ticks.wait());
        assert!(wait.as_mut().poll(&mut context).is_pending(), "it misses none any more");
    }

    #[test]
    fn it_goes_on_waking_who_does_not_come() {
        let ticks = Ticks::start(Duration::from_millis(1)).unwrap();
        let (woken, wakes) = mpsc::channel();
        let waker = Waker::from(Arc::new(Counter(woken)));
        let mut context = std::task::Context::from_waker(&waker);
        let mut wait = std::pin::pin!(ticks.wait());
        while wait.as_mut().poll(&mut context).is_ready() {
            wait.set(ticks.wait());
        }
        (0..3).for_each(|_| wakes.recv().unwrap());
        assert!(wait.as_mut().poll(&mut context).is_ready());
    }
}
