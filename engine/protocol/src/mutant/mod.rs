//! Faults that tests put into the core on purpose, to see that they are caught (law, section 11).
//!
//! Without the feature `mutants` nothing of them is compiled: `is` is false.

mod faults;

pub(crate) use faults::{on_accept, on_promise};

use crate::listed::listed;

listed! {
    /// A rule broken on purpose. The first word of each comment is the rule.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Mutant {
        /// R3.2: a promise makes an accepted value look as young as itself.
        DropAbal,
        /// C3a: one equal answer less is a fast quorum.
        SmallFastQuorum,
        /// C5, R3, R5: what answers an earlier ballot of one's own counts.
        EarlierAnswersCount,
        /// R3.4: one supporter more is asked for.
        ManySupporters,
        /// R3.5: the candidate is proposed without validation.
        SkipValidate,
        /// R4: the validator does not keep what it validated.
        ValidateForgets,
        /// R4: a late Validate is taken.
        LateValidate,
        /// R6c: two supporters less end the wait.
        EagerWaiting,
        /// R5.4: the one who waits does not hear of it itself.
        DeafWaiting,
        /// Section 3: what became a Nop is no conflict any more.
        NopsLeaveIndex,
        /// D1: messages leave before what they rest on is durable.
        SpeakBeforeSync,
        /// D4: the coordinator counts its own answer before it is durable.
        EagerCoordinator,
        /// D6: a hole in the log is taken for its end.
        HoleIsEnd,
        /// D8: what was forgotten in a crash is not named.
        NoRestartMarks,
        /// S1: sessions are not in the footprint.
        SessionsOutside,
        /// S2: a number is executed though the one before it was not.
        EarlyNumbers,
        /// S5: a process that was fenced still writes.
        FencedWrites,
        /// S4: a session is ended by the clock of each replica.
        ClockEndsSessions,
        /// Section 6: the client is answered when its command is committed.
        ReplyAtCommit,
        /// C1: deps of the own row are left out.
        NoRowEdge,
        /// C2: what the index lacks since a snapshot is not named.
        NoFloorInDeps,
        /// R5: a validator's floor is not told.
        NoAfter,
        /// G3: what is forgotten is answered as if it had never been seen.
        ForgottenIsNew,
        /// G1: the log is cut before the floor is durable.
        CutBeforeFloor,
        /// G4: a barrier does not conflict with reads.
        BarrierPassesReads,
        /// G5: a snapshot's frontier is not taken for what the index lacks.
        FrontierUnnamed,
        /// Section 7: what a replayed floor passes over is not taken for what the index lacks.
        ReplayedFloorUnnamed,
        /// G3: an Accept of what is forgotten is taken.
        ForgottenAccepts,
        /// G4: the floor follows what has executed when a snapshot is durable.
        CutBetweenBarriers,
        /// G4: the frontier of a barrier is what has executed.
        CutAtE,
        /// C4: `after` is not kept with an accepted value.
        AfterLostInAccept,
        /// Section 7: a replayed commit has no `after`.
        AfterLostInReplay,
        /// R4, R6a, R6b: what comes after by its `after` only does not count as coming after.
        AfterIsNoOrder,
        /// G5: a transfer that failed is tried again as it was, and nobody hears of it.
        SameSourceForever,
        /// G5: whoever asks is waited for, whether it gets on or not.
        EndlessHold,
        /// G6: a replica that was set back is welcomed.
        SetBackUnnoticed,
        /// Section 6: inside a component rows execute one after the other.
        RowsInTurn,
        /// Section 6: only the first member of a component waits for what it is after.
        GateOfOne,
        /// G4: the frontier of a barrier leaves out what its component is after.
        BarrierWithoutAfter,
        /// Section 6: the gate waits for what does not conflict, too.
        StrictGate,
        /// D9: a refusal waits for the disk as answers do.
        RefusalsWait,
        /// D9: a replica whose disk hangs goes on proposing.
        HungProposes,
        /// D9: who waits at a replica whose disk hangs goes on waiting.
        HungKeepsWaiters,
        /// D9: nobody counts a replica out whose disk hangs.
        StalledIsReached,
        /// Section 9: what comes after the Seal executes, too.
        PastTheSeal,
        /// Section 9: the messages of another epoch are taken.
        EpochUnchecked,
        /// Section 9: another record of the same epoch, or an earlier one, is taken.
        RecordUnchecked,
        /// Section 9: the next epoch begins without the sessions.
        SessionsLeftBehind,
    }
}

#[cfg(feature = "mutants")]
mod planted {
    use super::Mutant;
    use std::cell::Cell;
    use std::panic::UnwindSafe;

    thread_local! {
        static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Breaks the rule in all cores that this thread drives, until the next call.
    pub fn plant(mutant: Option<Mutant>) {
        PLANTED.set(mutant);
    }

    /// Whether a test fails while the rule is broken.
    pub fn is_noticed(mutant: Mutant, test: impl FnOnce() + UnwindSafe) -> bool {
        plant(Some(mutant));
        let outcome = std::panic::catch_unwind(test);
        plant(None);
        outcome.is_err()
    }

    pub(crate) fn is(mutant: Mutant) -> bool {
        PLANTED.get() == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub(crate) use planted::is;
#[cfg(feature = "mutants")]
pub use planted::{is_noticed, plant};

/// Whether the rule is broken.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub(crate) fn is(_: Mutant) -> bool {
    false
}
