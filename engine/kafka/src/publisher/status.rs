//! How far a publisher is.

use crate::cursor::Cursor;
use crate::error::Error;
use std::sync::Mutex;

/// How far a publisher is, counted from its start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// Decisions that are published.
    pub decisions: u64,
    /// Batches that are published.
    pub batches: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Transactions that are committed.
    pub transactions: u64,
    /// How often the publisher has begun at the cursor of Kafka: once, and after each failure that passes.
    pub sessions: u64,
    /// What is published; `None` until Kafka has told.
    pub cursor: Option<Cursor>,
    /// The newest failure, which may be over. Empty after a transaction.
    pub error: Option<String>,
}

/// The status as the publisher changes it.
#[derive(Debug, Default)]
pub(super) struct Meters(Mutex<Status>);

impl Meters {
    pub(super) fn status(&self) -> Status {
        self.0.lock().expect("nobody panics with this lock").clone()
    }

    pub(super) fn set_error(&self, error: &Error) {
        self.0.lock().expect("nobody panics with this lock").error = Some(error.to_string());
    }

    pub(super) fn opened(&self, cursor: Cursor) {
        let mut status = self.0.lock().expect("nobody panics with this lock");
        status.sessions += 1;
        status.cursor = Some(cursor);
    }

    pub(super) fn committed(&self, taken: &Taken, cursor: Cursor) {
        let mut status = self.0.lock().expect("nobody panics with this lock");
        status.decisions += taken.decisions;
        status.batches += taken.batches;
        status.bytes += taken.bytes as u64;
        status.transactions += 1;
        status.cursor = Some(cursor);
        status.error = None;
    }
}

/// What a transaction holds.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) decisions: u64,
    pub(super) batches: u64,
    pub(super) bytes: usize,
}
