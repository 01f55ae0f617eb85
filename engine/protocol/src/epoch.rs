//! The life of an epoch at one replica, and what becomes of the words of other epochs (law, section 9).

use crate::contract::Sealed;
use crate::mutant::{self, Mutant};
use crate::replica::Replica;
use isonomy_wire::id::{Epoch, RecordId};
use isonomy_wire::message::Refusal;

/// The first epoch of a cluster. Each later one begins with the state at the Seal of the epoch before.
pub const FIRST: Epoch = Epoch(1);

/// How far a replica has come in its epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EpochStage {
    /// The replica lacks the state in which the epoch began: it votes, and executes and answers nothing.
    Waiting,
    /// The replica takes part.
    Open,
    /// A Seal has executed.
    Ended {
        sealed: Sealed,
        /// Whether the core of the next epoch has the state.
        is_handed_over: bool,
    },
}

impl EpochStage {
    /// The stage of a replica with an empty log.
    pub(crate) fn of(epoch: Epoch) -> EpochStage {
        if epoch > FIRST { EpochStage::Waiting } else { EpochStage::Open }
    }
}

impl Replica {
    /// Checks that a message is one of this epoch (B17). Messages of other epochs count for nothing.
    ///
    /// # Errors
    ///
    /// [`Refusal::WrongEpoch`], which tells the sender in which epoch this replica is.
    pub fn check_epoch(&self, there: Epoch) -> Result<(), Refusal> {
        let here = self.config.epoch;
        if there == here || mutant::is(Mutant::EpochUnchecked) {
            return Ok(());
        }
        Err(Refusal::WrongEpoch { here, there })
    }

    /// The end of the epoch, if a Seal has executed here.
    pub fn sealed(&self) -> Option<Sealed> {
        match self.stage {
            EpochStage::Ended { sealed, .. } => Some(sealed),
            EpochStage::Waiting | EpochStage::Open => None,
        }
    }

    /// Whether a Seal has executed here, so that nothing else will.
    pub(crate) fn is_sealed(&self) -> bool {
        matches!(self.stage, EpochStage::Ended { .. })
    }

    /// Whether the state in which the epoch began has not come yet.
    pub fn lacks_state(&self) -> bool {
        matches!(self.stage, EpochStage::Waiting)
    }
}

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
pub enum Found {
    /// The record that the replica has entered.
    Same,
    /// The record of a later epoch.
    Later,
}

/// Why the store of records cannot be in its newest state: it was restored from an old backup, or belongs to another
/// cluster. The replica stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WentBack {
    /// The record is of an earlier epoch.
    #[error(
        "the record in etcd is of epoch {}, and this replica has entered epoch {}: etcd was restored from an old backup, \
         or the prefix is that of another cluster; put back etcd's newest state", there.0, here.0
    )]
    Epoch {
        /// The epoch of the replica.
        here: Epoch,
        /// The epoch of the record.
        there: Epoch,
    },
    /// The record is another one of the same epoch.
    #[error(
        "epoch {} has another record in etcd than this replica has entered: etcd was restored from an old backup, or the \
         prefix is that of another cluster; put back etcd's newest state", epoch.0
    )]
    Record {
        /// The epoch of both.
        epoch: Epoch,
    },
    /// The record follows another one than the replica has entered.
    #[error(
        "the record of epoch {} in etcd follows another record of epoch {} than this replica has entered: etcd was \
         restored from an old backup, or the prefix is that of another cluster; put back etcd's newest state",
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
pub fn judge(entered: Entered, read: Entered, predecessor: RecordId) -> Result<Found, WentBack> {
    if mutant::is(Mutant::RecordUnchecked) {
        return Ok(if read.epoch > entered.epoch { Found::Later } else { Found::Same });
    }
    if read.epoch < entered.epoch {
        return Err(WentBack::Epoch { here: entered.epoch, there: read.epoch });
    }
    if read.epoch == entered.epoch {
        let is_same = read.record == entered.record;
        return if is_same { Ok(Found::Same) } else { Err(WentBack::Record { epoch: read.epoch }) };
    }
    if read.epoch.0 == entered.epoch.0 + 1 && predecessor != entered.record {
        return Err(WentBack::Predecessor { next: read.epoch });
    }
    Ok(Found::Later)
}
