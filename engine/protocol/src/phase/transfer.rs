//! G5: a replica catches up although its peers have forgotten the instances that it lacks: the snapshot that it
//! needs, transfers that fail, and the part of the source.

use crate::contract::Time;
use crate::epoch::FIRST;
use crate::log::record::Record;
use crate::marks::Mark;
use crate::mutant::{self, Mutant};
use crate::replica::Replica;
use crate::snapshot::Snapshot;
use crate::transfer::{Fetch, FetchFailure};
use isonomy_wire::id::ReplicaId;
use isonomy_wire::message::PeerMessage;

impl Replica {
    /// A peer asks for a part of the newest snapshot. While the peer makes progress no other snapshot is
    /// taken, so that the instances that the peer lacks besides are kept here (G5). Returns whether this replica has
    /// such a snapshot.
    pub fn on_fetch(&mut self, now: Time, peer: ReplicaId, fetch: Fetch) -> bool {
        let newest = self.forgetting.snapshot();
        let is_newest = fetch.barrier == newest && newest > 0 && !self.own_file.is_damaged();
        if is_newest {
            self.holds.on_fetch(now, peer, fetch);
        }
        is_newest
    }

    /// Whether a peer fetches the newest snapshot and makes progress, and the log has room to wait for it.
    pub(crate) fn is_held(&self, now: Time) -> bool {
        !self.own_file.is_damaged()
            && !self.must_cover_floor()
            && self.forgetting.may_hold(self.config.barrier_bytes)
            && self.holds.holds(now, self.forgetting.snapshot())
    }

    /// The own newest snapshot does not read, the state in which the epoch began is on no disk yet, or the floor rests on
    /// a later barrier than the newest snapshot (G5), so that nobody could catch up from here; another snapshot is not
    /// under way, and may be tried.
    pub(crate) fn must_renew_snapshot(&self, now: Time) -> bool {
        let lacks_first = self.config.epoch > FIRST && self.forgetting.snapshot() == 0;
        let is_behind = self.forgetting.floor_barrier() > self.forgetting.snapshot();
        (lacks_first || is_behind || self.own_file.is_damaged()) && self.forgetting.may_take(now)
    }

    /// A peer, or this replica itself, could not read the snapshot of this barrier. The file is verified, but not all
    /// the time.
    pub fn doubt_snapshot(&mut self, now: Time, barrier: u64) {
        if barrier == self.forgetting.snapshot() && barrier > 0 {
            self.own_file.doubt(now);
        }
    }

    /// The barrier of the own snapshot whose file must be verified.
    pub fn doubted_snapshot(&self) -> Option<u64> {
        self.own_file.is_doubted().then_some(self.forgetting.snapshot())
    }

    /// The file of the own snapshot at this barrier was verified. A damaged file is given to no peer, and another
    /// snapshot is taken, since the content of the file is in memory and in no log any more.
    pub fn on_snapshot_verified(&mut self, now: Time, barrier: u64, is_whole: bool) {
        if barrier == self.forgetting.snapshot() && self.own_file.on_verified(now, is_whole) {
            self.marks.set(Mark::SnapshotDamaged);
            self.counters.snapshots_damaged += 1;
        }
    }

    /// Whether the own newest snapshot's file is known to be damaged.
    pub fn is_snapshot_damaged(&self) -> bool {
        self.own_file.is_damaged()
    }

    /// G5: the snapshot that this replica needs, because no peer has kept the instances that it lacks: its source and
    /// its barrier.
    pub fn wants_snapshot(&self) -> Option<(ReplicaId, u64)> {
        let source = self.sources.chosen()?;
        let barrier = self.peers.get(source).snapshot();
        (barrier > self.forgetting.barriers()).then_some((source, barrier))
    }

    /// G5: the snapshot could not be fetched from this source. Another source is asked, or this one again after a
    /// while. A source that sent unreadable bytes is told.
    pub fn on_fetch_failed(&mut self, now: Time, source: ReplicaId, barrier: u64, why: FetchFailure) {
        if mutant::is(Mutant::SameSourceForever) {
            return;
        }
        self.marks.set(Mark::FetchFailed);
        self.sources.on_failure(now, source, barrier, why);
        if why == FetchFailure::Damaged {
            self.outbox.send(source, PeerMessage::Unreadable { barrier }, None);
        }
        self.choose_source(now);
    }

    pub(crate) fn choose_source(&mut self, now: Time) {
        let (barriers, peers) = (self.forgetting.barriers(), &self.peers);
        let reached = peers.others().filter(|id| peers.is_reached(*id));
        let offers =
            reached.map(|id| (id, peers.get(id).snapshot())).filter(|(_, barrier)| *barrier > barriers);
        self.sources.choose(now, offers);
    }

    /// G5: no peer has kept the next instance of a row. If the barrier on which the source's floor rests has executed here,
    /// all instances that are missing below the floor are Nops; otherwise a snapshot is needed.
    pub(crate) fn on_forgotten(&mut self, now: Time, source: ReplicaId) {
        let peer = *self.peers.get(source);
        // What all members have executed is forgotten, too, and need not be Nops where a learner lacks it.
        if peer.floor_barrier() > self.forgetting.barriers() || self.is_learner() {
            return self.choose_source(now);
        }
        self.marks.set(Mark::FloorAdopted);
        self.give_back_below(peer.floor());
        let batches = self.executor.skip_to(peer.floor());
        assert_eq!(batches, 0, "G5: what a floor covers behind an executed barrier are Nops");
        self.forgetting.on_unindexed(peer.floor());
        self.raise_floor(peer.floor());
        self.forgetting.rest_floor(peer.floor_barrier());
        self.outbox.append(Record::Floor { upto: *self.forgetting.floor() }, None);
    }

    /// G5: installs a snapshot that came from a peer and is durable here. Returns false if its barrier has executed
    /// here meanwhile, since the snapshot is then not needed.
    pub fn install_snapshot(&mut self, now: Time, snapshot: Snapshot) -> bool {
        self.sources.on_installed();
        if snapshot.head.barrier <= self.forgetting.barriers() {
            return false;
        }
        self.marks.set(Mark::SnapshotInstalled);
        let (barrier, frontier) = (snapshot.head.barrier, snapshot.head.frontier);
        self.give_back_below(&frontier.to_floor());
        self.forgetting.on_installed();
        self.load(snapshot);
        self.raise_floor(&frontier.to_floor());
        let cut = self.carry_forward(barrier, &self.forgetting.floor().clone());
        self.take_floor(barrier, &frontier, cut);
        self.execute(now);
        self.on_progress(now);
        self.deliver_to_self(now);
        true
    }
}
