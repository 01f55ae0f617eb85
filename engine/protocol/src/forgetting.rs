//! The instances and records that a replica may forget (G1 to G4): its floor, the barriers that it has executed, the
//! snapshot that is being taken, and the position at which the log may be cut.

use crate::contract::{Position, StateAt, Time};
use crate::limits::{BARRIERS_REMEMBERED, HOLD_BARRIERS};
use crate::snapshot::Taking;
use crate::transfer::Pause;
use isonomy_wire::deps::{Floor, Frontier};
use std::collections::VecDeque;

/// A snapshot that is being taken.
#[derive(Clone, Debug)]
struct Underway {
    taking: Taking,
    /// The position up to which the log must be durable before the file counts; records before it may go then.
    cut: Position,
    /// The bytes that the log had taken when the snapshot was begun.
    log_bytes: u64,
}

/// Records before a position may go once the floor's record is durable.
#[derive(Clone, Copy, Debug)]
struct Cut {
    floor: Position,
    before: Position,
}

/// The state of forgetting (G1 to G4).
#[derive(Clone, Debug, Default)]
pub(crate) struct Forgetting {
    /// G1: the instances that are executed and forgotten.
    floor: Floor,
    /// The last barrier on which the floor rests: that of the own snapshot, or of one from which a floor was taken over.
    floor_barrier: u64,
    /// The part of the floor that the newest durable snapshot covers.
    covered: Floor,
    /// Since when the rest of the floor keeps learners from catching up, if it does.
    short_since: Option<Time>,
    /// The index may lack conflicts at or below this floor (law, section 3), because the index does not come with a
    /// snapshot, nor with a floor that was taken over from a peer.
    unindexed: Floor,
    /// The number of barriers executed since the shard began.
    barriers: u64,
    /// The last barriers, and the state hash at each.
    hashes: VecDeque<StateAt>,
    /// The bytes that the log held at the start and has taken since, now and at the last barrier.
    log_bytes: u64,
    at_barrier: u64,
    /// The barrier of the newest durable snapshot, and the bytes that the log had taken when it was begun.
    snapshot: u64,
    snapshot_log_bytes: u64,
    underway: Option<Underway>,
    /// The pause after a snapshot that could not be written.
    pause: Pause,
    cut: Option<Cut>,
}

impl Forgetting {
    /// The instances that are executed and forgotten.
    pub(crate) fn floor(&self) -> &Floor {
        &self.floor
    }

    /// The last barrier on which the floor rests.
    pub(crate) fn floor_barrier(&self) -> u64 {
        self.floor_barrier
    }

    /// The floor rests on this barrier from here on, or on a later one.
    pub(crate) fn rest_floor(&mut self, barrier: u64) {
        self.floor_barrier = self.floor_barrier.max(barrier);
    }

    /// Whether the newest durable snapshot covers the floor, so that whoever installs it lacks nothing that is forgotten
    /// here.
    pub(crate) fn is_floor_covered(&self) -> bool {
        self.covered.covers(&self.floor)
    }

    /// Notes whether a further snapshot is needed. How long one has been needed, in microseconds, if it is.
    pub(crate) fn short_us(&mut self, now: Time, is_short: bool) -> Option<u64> {
        self.short_since = is_short.then(|| self.short_since.unwrap_or(now));
        self.short_since.map(|since| now.since(since))
    }

    /// Notes the instances that the newest durable snapshot covers.
    pub(crate) fn on_covered(&mut self, upto: &Floor) {
        self.covered.merge(upto);
    }

    /// The instances whose conflicts may be missing in the index.
    pub(crate) fn unindexed(&self) -> &Floor {
        &self.unindexed
    }

    /// The number of barriers executed since the shard began.
    pub(crate) fn barriers(&self) -> u64 {
        self.barriers
    }

    /// The last barrier that has executed, and the state hash at it.
    pub(crate) fn last_barrier(&self) -> Option<StateAt> {
        self.hashes.back().copied()
    }

    /// The state hash at a barrier, while it is remembered.
    pub(crate) fn hash_at(&self, barrier: u64) -> Option<u64> {
        self.hashes.iter().find(|known| known.barrier == barrier).map(|known| known.hash)
    }

    /// The barrier of the newest durable snapshot; 0 if there is none.
    pub(crate) fn snapshot(&self) -> u64 {
        self.snapshot
    }

    /// G1: forgets all instances up to `upto`.
    pub(crate) fn raise_floor(&mut self, upto: &Floor) {
        self.floor.merge(upto);
    }

    /// Notes that the index may lack instances at or below `upto`.
    pub(crate) fn on_unindexed(&mut self, upto: &Floor) {
        self.unindexed.merge(upto);
    }

    /// Notes the bytes that the log has taken so far.
    pub(crate) fn on_log_bytes(&mut self, bytes: u64) {
        self.log_bytes = bytes;
    }

    /// The bytes that the log has taken since the last barrier.
    pub(crate) fn grown(&self) -> u64 {
        self.log_bytes - self.at_barrier
    }

    /// G5: whether the log has room to wait for a peer that fetches the newest snapshot, if barriers come after
    /// `barrier_bytes`.
    pub(crate) fn may_hold(&self, barrier_bytes: u64) -> bool {
        self.log_bytes - self.snapshot_log_bytes < barrier_bytes.saturating_mul(HOLD_BARRIERS)
    }

    /// Counts one more executed barrier, and remembers the state hash for comparison (V13).
    pub(crate) fn count_barrier(&mut self, hash: u64) -> u64 {
        self.barriers += 1;
        self.remember(StateAt { barrier: self.barriers, hash });
        self.barriers
    }

    fn remember(&mut self, state: StateAt) {
        self.hashes.push_back(state);
        if self.hashes.len() > BARRIERS_REMEMBERED {
            self.hashes.pop_front();
        }
    }

    /// Counts the growth of the log from now on, at a barrier.
    pub(crate) fn on_barrier(&mut self) {
        self.at_barrier = self.log_bytes;
    }

    /// Whether a snapshot may be taken: none is under way, and none has just failed.
    pub(crate) fn may_take(&self, now: Time) -> bool {
        self.underway.is_none() && self.pause.is_over(now)
    }

    /// G4: begins to take a snapshot.
    pub(crate) fn begin(&mut self, taking: Taking, cut: Position) {
        self.underway = Some(Underway { taking, cut, log_bytes: self.log_bytes });
    }

    /// The barrier of the snapshot that is being taken, and the position that must be durable before it counts.
    pub(crate) fn taking(&self) -> Option<(u64, Position)> {
        self.underway.as_ref().map(|it| (it.taking.head.barrier, it.cut))
    }

    /// The snapshot that is being taken.
    pub(crate) fn taking_mut(&mut self) -> Option<&mut Taking> {
        self.underway.as_mut().map(|it| &mut it.taking)
    }

    /// The snapshot that was being taken is durable. Returns its barrier, its frontier, and the position at which the
    /// log may be cut.
    pub(crate) fn on_taken(&mut self) -> (u64, Frontier, Position) {
        let Underway { taking, cut, log_bytes } = self.underway.take().expect("one is being taken");
        self.pause = Pause::default();
        self.snapshot_log_bytes = log_bytes;
        (taking.head.barrier, taking.head.frontier, cut)
    }

    /// The snapshot could not be written, so the next try comes after a pause.
    pub(crate) fn on_failed(&mut self, now: Time) {
        self.underway = None;
        self.pause.on_failure(now);
    }

    /// A peer's snapshot replaces the one that was being taken.
    pub(crate) fn on_installed(&mut self) {
        self.underway = None;
        (self.snapshot_log_bytes, self.at_barrier) = (self.log_bytes, self.log_bytes);
    }

    /// The state was loaded from a snapshot.
    pub(crate) fn on_loaded(&mut self, state: StateAt) {
        self.snapshot = state.barrier;
        self.rest_floor(state.barrier);
        self.on_begun(state);
    }

    /// Section 9: the epoch begins with a state, at a barrier of its own.
    pub(crate) fn on_begun(&mut self, state: StateAt) {
        self.barriers = state.barrier;
        self.remember(state);
    }

    /// The newest durable snapshot is that of a barrier; records before `cut` may go once the floor's record is
    /// durable.
    pub(crate) fn on_snapshot(&mut self, barrier: u64, floor: Position, before: Position) {
        self.snapshot = barrier;
        self.rest_floor(barrier);
        self.cut = Some(Cut { floor, before });
    }

    /// G1: records before this position are no longer needed, if the log is durable so far.
    pub(crate) fn poll_cut(&mut self, durable: Position) -> Option<Position> {
        self.cut.take_if(|cut| cut.floor <= durable).map(|cut| cut.before)
    }

    /// Verifies what must hold between any two inputs.
    pub(crate) fn check(&self) {
        assert!(self.snapshot <= self.barriers, "a snapshot is of a barrier that has executed");
        assert!(self.snapshot <= self.floor_barrier, "a floor rests on the own snapshot, at least");
        assert!(self.taking().is_none_or(|(barrier, _)| barrier > self.snapshot && barrier <= self.barriers));
        assert!(self.at_barrier <= self.log_bytes && self.snapshot_log_bytes <= self.log_bytes);
        assert!(
            self.hashes.iter().is_sorted_by_key(|known| known.barrier)
                && self.last_barrier().is_none_or(|last| last.barrier <= self.barriers)
        );
        assert!(self.hashes.len() <= BARRIERS_REMEMBERED);
    }
}
