//! What the process knows of the membership.

use crate::bad::BadRecord;
use crate::error::Error;
use crate::follow::{REMEDY, Refused};
use crate::id::Incarnation;
use crate::mark::Marks;
use crate::presence::Presence;
use crate::record::Record;
use crate::tuning::{BadTuning, Chosen, Word};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// What the process knows of the membership.
#[derive(Clone, Debug)]
pub struct View {
    /// The newest record that was followed. It is in the file. None before the first.
    pub record: Option<Arc<Record>>,
    /// The revision of etcd that wrote the record; none while etcd has not been reached. A write in place of the record
    /// names it.
    pub revision: Option<i64>,
    /// Who has given a sign of life, and where each listens, as etcd said last. A member that is replaced while it lives
    /// is there twice under one number, with two directories.
    pub alive: BTreeMap<Incarnation, Presence>,
    /// What members have told of themselves in a change.
    pub marks: Marks,
    /// How etcd is reached.
    pub etcd: Etcd,
    /// Why what lies in etcd is not followed, if it is not.
    pub unfollowed: Option<Unfollowed>,
    /// The settings, and what members say of fast quorums.
    pub tuning: TuningView,
}

/// The settings, and what members say of fast quorums.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TuningView {
    /// The newest settings that were followed; at first, those in the file.
    pub chosen: Chosen,
    /// Why those in etcd are not followed, if they are not.
    pub trouble: Option<BadTuning>,
    /// The word that stood when etcd answered last.
    pub word: Option<Word>,
    /// Whether that is what etcd has now. Without etcd no word counts.
    pub is_reached: bool,
}

impl TuningView {
    /// Whether the members have agreed not to wait for fast quorums.
    #[must_use]
    pub fn is_slow_agreed(&self) -> bool {
        self.is_reached && self.word.is_some()
    }
}

/// How etcd is reached.
#[derive(Clone, Debug)]
pub enum Etcd {
    /// What is known is what etcd has.
    Reached,
    /// What is known is what etcd had before.
    Gone {
        /// Since when; at first, since the service has begun.
        since: Instant,
        /// What was wrong when it was tried last; nothing before the first try has ended.
        why: Option<Arc<Error>>,
    },
}

/// Why what lies in etcd is not followed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfollowed {
    /// There is no record.
    #[error(
        "there is no record in etcd; initialise the cluster (`isonomy member init`), or check the prefix"
    )]
    Absent,
    /// There is no record any more.
    #[error("there is no record in etcd any more: {REMEDY}")]
    Removed,
    /// There is no record of this cluster.
    #[error("the record in etcd cannot be used: {0}")]
    Bad(BadRecord),
    /// The record is of another history.
    #[error("{0}")]
    Refused(Refused),
    /// The record cannot be kept in the file.
    #[error("{0}")]
    Uncached(String),
}

impl View {
    pub(crate) fn new(record: Option<Arc<Record>>, chosen: Chosen) -> View {
        let etcd = Etcd::Gone { since: Instant::now(), why: None };
        View {
            record,
            revision: None,
            alive: BTreeMap::new(),
            marks: Marks::default(),
            etcd,
            unfollowed: None,
            tuning: TuningView { chosen, ..TuningView::default() },
        }
    }

    /// The directories of those who live.
    #[must_use]
    pub fn living(&self) -> BTreeSet<Incarnation> {
        self.alive.keys().copied().collect()
    }

    pub(super) fn reached(&mut self) {
        self.etcd = Etcd::Reached;
    }

    /// Notes a failure. The first one begins the time without etcd.
    pub(super) fn gone(&mut self, error: Error) {
        let since = match self.etcd {
            Etcd::Reached => Instant::now(),
            Etcd::Gone { since, .. } => since,
        };
        self.etcd = Etcd::Gone { since, why: Some(Arc::new(error)) };
    }
}
