//! A wake-up from another thread.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Wake, Waker};
use std::thread::Thread;

/// Wakes a thread that has parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What wakes the calling thread when it has parked.
pub fn own_waker() -> Waker {
    Waker::from(Arc::new(Unpark(std::thread::current())))
}

/// Counts the times that it was rung, and wakes the listener each time.
///
/// A shard's listener is a task that never ends, and only the shard drops its waker: glommio 0.9.0 can free a task
/// whose last waker another thread is about to drop.
#[derive(Debug, Default)]
pub struct Bell {
    waker: Mutex<Option<Waker>>,
    rung: AtomicU64,
}

impl Bell {
    /// Wakes the listener.
    pub fn ring(&self) {
        self.rung.fetch_add(1, Ordering::Release);
        self.wake();
    }

    /// Wakes the listener, whose reason is counted elsewhere.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Names the listener, of which there is one at a time.
    pub fn listen(&self, task: &Waker) {
        let mut waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(task)) {
            *waker = Some(task.clone());
        }
    }

    /// Waits until the bell was rung more often than `heard` times, and returns how often that is.
    pub async fn rung(&self, heard: u64) -> u64 {
        poll_fn(|context| {
            self.listen(context.waker());
            let rung = self.rung.load(Ordering::Acquire);
            if rung == heard { Poll::Pending } else { Poll::Ready(rung) }
        })
        .await
    }
}
