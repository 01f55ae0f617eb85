//! The life of an epoch at one replica, and what becomes of the words of other epochs (law, section 9).

use crate::contract::Sealed;
use crate::mutant::{self, Mutant};
use crate::replica::Replica;
pub use isonomy_wire::epoch::{Entered, RecordFound, WentBack};
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

/// Judges a record that was read ([`isonomy_wire::epoch::judge`]).
///
/// # Errors
///
/// [`WentBack`] if no store that only goes forward could have this record after the other.
pub fn judge(entered: Entered, read: Entered, predecessor: RecordId) -> Result<RecordFound, WentBack> {
    if mutant::is(Mutant::RecordUnchecked) {
        return Ok(if read.epoch > entered.epoch { RecordFound::Later } else { RecordFound::Same });
    }
    isonomy_wire::epoch::judge(entered, read, predecessor)
}
