//! How far a hook is.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a trouble that lasts is logged.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// How far a hook is, counted from its start.
#[derive(Debug, Default)]
pub struct HookStatus {
    posted: AtomicU64,
    retried: AtomicU64,
    skipped: AtomicU64,
    trouble: Mutex<Option<(String, Instant)>>,
}

impl HookStatus {
    /// Decisions that the hook has taken.
    pub fn posted(&self) -> u64 {
        self.posted.load(Ordering::Relaxed)
    }

    /// Requests that have failed and were to be tried again.
    pub fn retried(&self) -> u64 {
        self.retried.load(Ordering::Relaxed)
    }

    /// Decisions that were skipped.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// The newest failure; `None` as soon as the hook takes a decision.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().expect("nobody panics with this lock").as_ref().map(|(text, _)| text.clone())
    }

    pub(super) fn on_posted(&self) {
        self.posted.fetch_add(1, Ordering::Relaxed);
        *self.trouble.lock().expect("nobody panics with this lock") = None;
    }

    pub(super) fn on_skipped(&self, text: &str) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
        log::warn!("{text}");
    }

    pub(super) fn on_retry(&self, text: String) {
        self.retried.fetch_add(1, Ordering::Relaxed);
        let mut trouble = self.trouble.lock().expect("nobody panics with this lock");
        let told = trouble.as_ref().map(|(_, told)| *told).filter(|told| told.elapsed() < TELL_EVERY);
        if told.is_none() {
            log::warn!("{text}; tries again");
        }
        *trouble = Some((text, told.unwrap_or_else(Instant::now)));
    }
}
