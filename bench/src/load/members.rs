//! The members of the cluster, as the threads of a run know them: whatever thread connects hears of a change.

use isonomy_wire::id::{ClusterId, Epoch};
use isonomy_wire::message::Welcome;
use isonomy_wire::view::{BadView, View};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The newest members that any thread has heard of.
pub(crate) struct Members {
    pub(crate) cluster: ClusterId,
    pub(crate) shards: u16,
    /// The epoch of the view, for threads that look often.
    epoch: AtomicU32,
    view: Mutex<View>,
    changed: Condvar,
}

impl Members {
    pub(crate) fn of(welcome: &Welcome) -> Result<Members, BadView> {
        let view = View::of(welcome)?;
        Ok(Members {
            cluster: welcome.cluster,
            shards: welcome.shards,
            epoch: AtomicU32::new(view.epoch().0),
            view: Mutex::new(view),
            changed: Condvar::new(),
        })
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Relaxed))
    }

    pub(crate) fn view(&self) -> View {
        self.lock().clone()
    }

    /// A replica has named these members.
    pub(crate) fn learn(&self, told: View) {
        let mut view = self.lock();
        if told.is_news_to(&view) {
            self.epoch.store(told.epoch().0, Ordering::Relaxed);
            *view = told;
            self.changed.notify_all();
        }
    }

    /// Sleeps for `pause`, or until another epoch than this one has begun.
    pub(crate) fn sleep_in(&self, epoch: Epoch, pause: Duration) {
        let same = |view: &mut View| view.epoch() == epoch;
        let slept = self.changed.wait_timeout_while(self.lock(), pause, same);
        drop(slept.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
