//! Wakes a task of the same executor.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// A signal that one task waits for. A signal that comes while no task waits is not lost.
#[derive(Default)]
pub(super) struct Signal {
    told: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Signal {
    pub(super) fn notify(&self) {
        self.told.set(true);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Waits until a signal has come since the last wait.
    pub(super) async fn wait(&self) {
        poll_fn(|context| {
            if self.told.replace(false) {
                return Poll::Ready(());
            }
            self.waiting.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}
