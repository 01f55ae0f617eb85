//! What a record of the membership says to a replica that has entered another one (law, section 9).

use crate::id::{Epoch, RecordId};

/// The record of an epoch that a replica has entered. It notes both durably, before it says anything in the epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entered {
    /// The epoch.
    pub epoch: Epoch,
    /// The id of the record.
    pub record: RecordId,
}

/// What a record says to a replica that has entered another one or the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordFound {
    /// The record that the replica has entered.
    Same,
    /// The record of a later epoch.
    Later,
}

/// Why the store of records cannot be in its newest state: it was restored from an old backup, or belongs to another
/// cluster. Nothing of it is followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WentBack {
    /// The record is of an earlier epoch.
    #[error("the record in etcd is of epoch {}, but this replica has seen epoch {}", there.0, here.0)]
    Epoch {
        /// The epoch of the replica.
        here: Epoch,
        /// The epoch of the record.
        there: Epoch,
    },
    /// The record is another one of the same epoch.
    #[error("epoch {} has another record in etcd than this replica has seen", epoch.0)]
    Record {
        /// The epoch of both.
        epoch: Epoch,
    },
    /// The record follows another one than the replica has entered.
    #[error(
        "the record of epoch {} in etcd follows another record of epoch {} than this replica has seen",
        next.0, next.0 - 1
    )]
    Predecessor {
        /// The epoch of the record.
        next: Epoch,
    },
}

/// Judges a record that was read, which follows the record `predecessor`, by the record that the replica has entered.
///
/// # Errors
///
/// [`WentBack`] if no store that only goes forward could have this record after the other.
pub fn judge(entered: Entered, read: Entered, predecessor: RecordId) -> Result<RecordFound, WentBack> {
    if read.epoch < entered.epoch {
        return Err(WentBack::Epoch { here: entered.epoch, there: read.epoch });
    }
    if read.epoch == entered.epoch {
        let is_same = read.record == entered.record;
        return if is_same { Ok(RecordFound::Same) } else { Err(WentBack::Record { epoch: read.epoch }) };
    }
    if read.epoch.0 == entered.epoch.0 + 1 && predecessor != entered.record {
        return Err(WentBack::Predecessor { next: read.epoch });
    }
    Ok(RecordFound::Later)
}
