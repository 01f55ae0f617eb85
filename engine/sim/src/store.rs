//! A model of the store of records (section 9): one record, changed by compare-and-swap, and never read but as it was
//! at some time.

use isonomy_protocol::epoch::Entered;
use isonomy_wire::id::RecordId;

/// A change that is announced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The id that the record of the next epoch is to have.
    pub id: RecordId,
    /// The members of the next epoch, by process.
    pub to: Vec<u8>,
    /// How far the change is.
    pub stage: Stage,
}

/// How far a change is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// New members copy the state.
    Learning,
    /// The same, and an operator says when they have.
    Held,
    /// A Seal may have been proposed.
    Sealing,
}

/// The record of an epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The epoch, and the id of the record.
    pub of: Entered,
    /// The record of the epoch before.
    pub predecessor: RecordId,
    /// The members by process, in the order of their places.
    pub members: Vec<u8>,
    /// The change that is announced, if one is.
    pub change: Option<Change>,
}

impl Record {
    /// The processes that are new in the next epoch, which are learners in this one, in the order of their places.
    pub fn learners(&self) -> Vec<u8> {
        let to = self.change.iter().flat_map(|change| &change.to);
        to.copied().filter(|process| !self.members.contains(process)).collect()
    }
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
    pub fn at(&self, revision: usize) -> &Record {
        &self.history[revision]
    }

    /// Changes the record, if it is still the one of this revision. Whether it was.
    pub fn swap(&mut self, revision: usize, record: Record) -> bool {
        if revision != self.revision() {
            return false;
        }
        let before = self.at(revision);
        assert!(
            goes_on(before, &record) || follows(before, &record),
            "section 9: two records of one epoch, or one left out: {before:?}, {record:?}"
        );
        self.history.push(record);
        true
    }
}

/// Whether the change of an epoch goes one step on, or is given up before a Seal can have been proposed. Once one can
/// have been, only the members of the next epoch can change, and only to those of this one.
fn goes_on(before: &Record, after: &Record) -> bool {
    let is_same =
        (before.of, before.predecessor, &before.members) == (after.of, after.predecessor, &after.members);
    is_same
        && match (&before.change, &after.change) {
            (None, Some(new)) => new.stage != Stage::Sealing,
            (Some(old), None) => old.stage != Stage::Sealing,
            (Some(old), Some(new)) => {
                let stays = old.to == new.to || (old.stage == Stage::Sealing && new.to == before.members);
                old.id == new.id && stays && new.stage == Stage::Sealing
            }
            (None, None) => false,
        }
}

/// Whether the next epoch follows by a change whose Seal can have been proposed.
fn follows(before: &Record, after: &Record) -> bool {
    let is_next = after.of.epoch.0 == before.of.epoch.0 + 1 && after.predecessor == before.of.record;
    let by = before.change.as_ref().filter(|change| change.stage == Stage::Sealing);
    is_next && by.is_some_and(|change| change.id == after.of.record && change.to == after.members)
}
