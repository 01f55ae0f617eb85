//! How far an agent is.

use crate::error::Error;
use crate::projection::Standing;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How far an agent is, counted from its start.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Decisions that were applied.
    pub decisions: u64,
    /// Batches that were applied.
    pub batches: u64,
    /// How often the agent has begun at the positions of the projection: once, and after each failure that passes.
    pub sessions: u64,
    /// The partitions that are read. Empty until Kafka has told.
    pub partitions: BTreeMap<i32, Standing>,
    /// The last moment of which the projection is known to have all that was committed by then, in all its partitions;
    /// `None` if there was none since the start.
    pub known_at: Option<Instant>,
    /// What keeps the agent from going on; `None` if nothing does.
    pub trouble: Option<String>,
}

impl Status {
    /// How old what the projection shows may be; `None` if that is not known yet.
    pub fn staleness(&self) -> Option<Duration> {
        self.known_at.map(|at| at.elapsed())
    }
}

/// The status as the agent changes it.
#[derive(Debug, Default)]
pub(crate) struct Meters(Mutex<Status>);

impl Meters {
    pub(crate) fn status(&self) -> Status {
        self.0.lock().expect("nobody panics with this lock").clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.0.lock().expect("nobody panics with this lock"));
    }

    /// Something keeps the agent from going on. It is logged when it is new.
    pub(crate) fn trouble(&self, error: &Error) {
        let text = error.to_string();
        let mut is_new = false;
        self.change(|status| is_new = status.trouble.replace(text.clone()).as_ref() != Some(&text));
        if is_new {
            log::warn!("Waits: {text}");
        }
    }

    /// Nothing does any more.
    pub(crate) fn is_well(&self) {
        self.change(|status| {
            if status.trouble.take().is_some() {
                log::info!("Goes on: Kafka answers.");
            }
        });
    }
}
