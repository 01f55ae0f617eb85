//! A flag that a thread can wait for.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// Whether a thread, such as a publisher's, is to end.
#[derive(Debug, Default)]
pub struct Stop {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Sets the flag for good.
    pub fn set(&self) {
        *self.is_set.lock().expect("nobody panics with this lock") = true;
        self.changed.notify_all();
    }

    /// Whether the flag is set.
    pub fn is_set(&self) -> bool {
        *self.is_set.lock().expect("nobody panics with this lock")
    }

    /// Waits for so long, or until the flag is set. Returns whether it is.
    pub fn wait(&self, at_most: Duration) -> bool {
        let is_set = self.is_set.lock().expect("nobody panics with this lock");
        let waited = self.changed.wait_timeout_while(is_set, at_most, |is_set| !*is_set);
        *waited.expect("nobody panics with this lock").0
    }
}
