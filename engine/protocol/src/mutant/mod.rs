//! Faults that tests put into the core on purpose, to see that they are caught (law, section 11).
//!
//! Without the feature `mutants` no fault is compiled, and `is` is always false.

mod faults;

pub(crate) use faults::{on_accept, on_promise, voters};

use crate::listed::listed;

listed! {
    /// A rule broken on purpose. The first word of each comment is the rule.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Mutant {
        /// R3.2: a promise makes an accepted value look as young as the promise.
        DropAbal,
        /// C3a: one equal answer less makes a fast quorum.
        SmallFastQuorum,
        /// C3b: in slow mode the own answer makes a slow quorum.
        SlowWithoutQuorum,
        /// C5, R3, R5: answers to an earlier ballot of the same replica count.
        EarlierAnswersCount,
        /// R3.4: one supporter more is needed.
        ManySupporters,
        /// R3.5: the candidate is proposed without validation.
        SkipValidate,
        /// R4: the validator does not keep the value that it validated.
        ValidateForgets,
        /// R4: a late Validate is taken.
        LateValidate,
        /// R6c: two supporters less end the wait.
        EagerWaiting,
        /// R5.4: a waiting replica does not hear its own Waiting.
        DeafWaiting,
        /// Section 3: an instance that became a Nop is no conflict any more.
        NopsLeaveIndex,
        /// D1: messages leave before the records on which they rest are durable.
        SpeakBeforeSync,
        /// D4: the coordinator counts its own answer before it is durable.
        EagerCoordinator,
        /// D6: a hole in the log is taken for its end.
        HoleIsEnd,
        /// D8: instances that a crash made the replica forget are not named.
        NoRestartMarks,
        /// S1: sessions are not in the footprint.
        SessionsOutside,
        /// S2: a number is executed although the number before it was not.
        EarlyNumbers,
        /// S5: a process that was fenced still writes.
        FencedWrites,
        /// S4: a session is ended by the clock of each replica.
        ClockEndsSessions,
        /// Section 6: the client is answered when its command is committed.
        ReplyAtCommit,
        /// C1: deps of the own row are left out.
        NoRowEdge,
        /// C2: the conflicts that the index lacks since a snapshot are not named.
        NoFloorInDeps,
        /// R5: a validator does not tell its floor.
        NoAfter,
        /// G3: a forgotten instance is answered as if it had never been seen.
        ForgottenIsNew,
        /// G1: the log is cut before the floor is durable.
        CutBeforeFloor,
        /// G1: behind a Begin that a crash left unfinished, records name batches that only records before it carry.
        BatchBeforeBegin,
        /// G4: a barrier does not conflict with reads.
        BarrierPassesReads,
        /// G5: a snapshot's frontier does not count as missing in the index.
        FrontierUnnamed,
        /// Section 7: the instances that a replayed floor passes over do not count as missing in the index.
        ReplayedFloorUnnamed,
        /// G3: an Accept of a forgotten instance is taken.
        ForgottenAccepts,
        /// G4: the floor follows the executed instances when a snapshot is durable.
        CutBetweenBarriers,
        /// G4: the frontier of a barrier is the frontier E.
        CutAtE,
        /// C4: `after` is not kept with an accepted value.
        AfterLostInAccept,
        /// Section 7: a replayed commit has no `after`.
        AfterLostInReplay,
        /// R4, R6a, R6b: an instance that comes after another only by its `after` does not count as coming after.
        AfterIsNoOrder,
        /// G5: a transfer that failed is tried again unchanged, and no replica hears of the failure.
        SameSourceForever,
        /// G5: a source waits for every peer that asks, whether the peer gets on or not.
        EndlessHold,
        /// G6: a replica that was set back is welcomed.
        SetBackUnnoticed,
        /// Section 6: inside a component rows execute one after the other.
        RowsInTurn,
        /// Section 6: only the first member of a component waits for the instances at or below its `after`.
        GateOfOne,
        /// G4: the frontier of a barrier leaves out the `after` of its component.
        BarrierWithoutAfter,
        /// Section 6: the gate waits for instances without conflict, too.
        StrictGate,
        /// D9: a refusal waits for the disk as answers do.
        RefusalsWait,
        /// D9: a replica whose disk hangs goes on proposing.
        HungProposes,
        /// D9: a client that waits at a replica whose disk hangs goes on waiting.
        HungKeepsWaiters,
        /// D9: no replica counts out a replica whose disk hangs.
        StalledIsReached,
        /// Section 9: what comes after the Seal executes, too.
        PastTheSeal,
        /// Section 9: the messages of another epoch are taken.
        EpochUnchecked,
        /// Section 9: another record of the same epoch, or an earlier one, is taken.
        RecordUnchecked,
        /// Section 9: the next epoch begins without the sessions.
        SessionsLeftBehind,
        /// Section 9: a learner answers like a member, and its answers count.
        LearnerVotes,
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
