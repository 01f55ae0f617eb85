//! A model of the store of records (section 9): one record, changed by compare-and-swap, and never read but as it was
//! at some time.

use isonomy_protocol::epoch::Entered;
use isonomy_wire::id::RecordId;

/// Whether a change is announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// None is.
    Active,
    /// The next epoch's record is to have this id, and this member, if any, begins it with an empty directory.
    Changing(RecordId, Option<u8>),
}

/// The record of an epoch. Places do not change here: a member is replaced by another one in its place.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// The epoch, and the id of the record.
    pub of: Entered,
    /// The record of the epoch before.
    pub predecessor: RecordId,
    /// The member that began the epoch with an empty directory.
    pub fresh: Option<u8>,
    /// Whether a change is announced.
    pub state: State,
}

/// See the module.
pub struct Store {
    /// All that the record was, by revision.
    history: Vec<Record>,
}

impl Store {
    /// A store that was initialised.
    pub fn new(first: Record) -> Store {
        Store { history: vec![first] }
    }

    /// The newest revision.
    pub fn revision(&self) -> usize {
        self.history.len() - 1
    }

    /// The record as it was at a revision.
    pub fn at(&self, revision: usize) -> Record {
        self.history[revision]
    }

    /// Changes the record, if it is still the one of this revision. Whether it was.
    pub fn swap(&mut self, revision: usize, record: Record) -> bool {
        if revision != self.revision() {
            return false;
        }
        let before = self.at(revision);
        let (old, new) = (before.of, record.of);
        let goes_on = old == new && before.predecessor == record.predecessor;
        let follows = new.epoch.0 == old.epoch.0 + 1 && record.predecessor == old.record;
        assert!(
            goes_on || follows,
            "section 9: two records of one epoch, or one left out: {before:?}, {record:?}"
        );
        self.history.push(record);
        true
    }
}
