//! G1 to G5: floors, barriers and snapshots. The transfer of snapshots is in [`super::transfer`].

use crate::contract::{Executed, Position, StateAt, Time};
use crate::epoch::EpochStage;
use crate::execute::Barrier;
use crate::limits::{BARRIER_BEHIND_MAX, BARRIER_PATIENCE_US, HELP_PATIENCE_US};
use crate::log::record::Record;
use crate::marks::Mark;
use crate::mutant::{self, Mutant};
use crate::payload::Payload;
use crate::peers::Gone;
use crate::replica::Replica;
use crate::snapshot::{Snapshot, SnapshotHead, SnapshotId, Taking};
use crate::transfer::OwnFile;
use isonomy_wire::command::RequestBuilder;
use isonomy_wire::deps::{Floor, Frontier};
use isonomy_wire::failure::{Failure, Reason};
use isonomy_wire::id::{InstanceId, ReplicaId, SessionId};
use isonomy_wire::message::PeerMessage;

impl Replica {
    /// G3: tells a replica that its question is about a forgotten instance.
    pub(crate) fn say_gone(&mut self, to: ReplicaId) {
        self.marks.set(Mark::Gone);
        let (floor, floor_barrier) = (*self.forgetting.floor(), self.forgetting.floor_barrier());
        let message = PeerMessage::Gone { floor, floor_barrier, snapshot: self.forgetting.snapshot() };
        self.outbox.send(to, message, None);
    }

    /// G5: another replica has forgotten everything up to its floor, which rests on a snapshot.
    pub(crate) fn on_gone(&mut self, now: Time, from: ReplicaId, gone: &Gone) {
        self.peers.on_gone(from, gone);
        self.maybe_pull(now);
    }

    /// G1: forgets all instances up to `upto`. They are executed and can be rebuilt.
    pub(crate) fn raise_floor(&mut self, upto: &Floor) {
        self.forgetting.raise_floor(upto);
        let floor = *self.forgetting.floor();
        self.space.forget(&floor);
        self.attempts.retain(|id, _| !floor.contains(*id));
        self.waiting.retain(|id, _| !floor.contains(*id));
    }

    /// G4: proposes a barrier when the log has grown enough or the newest snapshot is damaged, but not while an
    /// instance is undecided for longer than a moment, since a barrier waits for all instances, and all later ones
    /// wait for the barrier.
    pub(crate) fn maybe_barrier(&mut self, now: Time) {
        // Each live replica waits for more growth than the one before it, so that not all of them propose a barrier
        // at once.
        let live = self.peers.live();
        let place =
            self.peers.rows().filter(|id| live.contains(*id)).position(|id| id == self.me).unwrap_or(0)
                as u64;
        let budget = self.config.barrier_bytes.saturating_mul(4 + place) / 4;
        let has_grown = self.forgetting.grown() >= budget;
        // The first one may know neither the change nor the learner, if it does not reach etcd.
        let short_us = self.forgetting.short_us(now, self.must_cover_floor());
        let helps =
            short_us.is_some_and(|us| us >= place * HELP_PATIENCE_US) && self.forgetting.may_take(now);
        if !(has_grown || helps || self.must_renew_snapshot(now)) || self.is_barrier_under_way() {
            return;
        }
        // All replicas would wait until this one has caught up far enough to get its barrier decided.
        if self.lacks_more_than(BARRIER_BEHIND_MAX) {
            return;
        }
        let is_old = |row| {
            let head = InstanceId::new(row, self.executor.committed().of(row) + 1);
            self.space.get(head).is_some_and(|instance| instance.waits(now) >= BARRIER_PATIENCE_US)
        };
        if !self.peers.rows().any(is_old) {
            if helps {
                self.marks.set(Mark::LearnerHelped);
            }
            self.propose_barrier(now);
        }
    }

    /// Whether a barrier is known that has not executed here.
    fn is_barrier_under_way(&self) -> bool {
        !self.executor.executed().has_passed(self.index.barriers())
    }

    /// G4: a barrier, at once, however full the window is (section 6), unless one is under way or this replica
    /// stops, its disk hangs (D9), it was not admitted (G6), it does not execute, or it is a learner (section 9).
    pub fn propose_barrier(&mut self, now: Time) {
        let mut request = RequestBuilder::default();
        request.barrier();
        self.submit_barrier(now, request);
    }

    /// The same for a barrier or a Seal.
    pub(crate) fn submit_barrier(&mut self, now: Time, mut request: RequestBuilder) {
        let requests = &self.requests;
        let is_open = matches!(self.stage, EpochStage::Open) && !self.is_learner() && !requests.is_stopping();
        let may_propose = is_open && requests.is_admitted() && !requests.is_hung();
        if may_propose && !self.is_barrier_under_way() {
            self.marks.set(Mark::BarrierProposed);
            let payload = Payload::of_request(&mut request, SessionId::NONE);
            self.submit(now, payload, Vec::new());
        }
    }

    /// G4: a barrier has executed, so the state is now equal at every replica. A snapshot of it is taken unless one
    /// is under way, a peer fetches the last one, or one has just failed.
    pub(crate) fn on_barrier(&mut self, now: Time, barrier: &Barrier) {
        self.count_barrier();
        self.tell_barrier(barrier);
        self.forgetting.on_barrier();
        if let Some(record) = barrier.seal {
            return self.end_epoch(record);
        }
        if !self.forgetting.may_take(now) || self.is_held(now) {
            return;
        }
        self.marks.set(Mark::SnapshotTaken);
        let frontier = if mutant::is(Mutant::CutAtE) { *self.executor.executed() } else { barrier.frontier };
        let cut = self.carry_forward(self.forgetting.barriers(), &frontier.to_floor());
        self.begin_snapshot(frontier, cut);
    }

    /// Begins to take a snapshot of the state, which is that of the last barrier. Records before the position may go
    /// when it counts.
    pub(crate) fn begin_snapshot(&mut self, frontier: Frontier, cut: Position) {
        let barriers = self.forgetting.barriers();
        let head = SnapshotHead {
            epoch: self.config.epoch,
            replicas: self.config.replicas,
            barrier: barriers,
            frontier,
            hash: self.machine.hash(),
            keys: self.machine.state.keys(),
            sessions: self.machine.sessions.len() as u64,
            commands: self.machine.commands(),
        };
        let id = self.snapshot_id(barriers);
        self.forgetting.begin(Taking::begin(id, head, &mut self.machine), cut);
    }

    /// Counts one more executed barrier, and remembers the state hash for comparison (V13).
    pub(crate) fn count_barrier(&mut self) {
        let barriers = self.forgetting.count_barrier(self.machine.hash());
        self.sources.on_barrier(barriers);
    }

    /// Tells who publishes that a barrier has executed.
    pub(crate) fn tell_barrier(&mut self, barrier: &Barrier) {
        if self.config.publishes {
            let Barrier { frontier, seal, .. } = *barrier;
            let barrier = self.forgetting.barriers();
            self.outbox.tell(Executed::Barrier { barrier, frontier, is_seal: seal.is_some() });
        }
    }

    fn snapshot_id(&self, barrier: u64) -> SnapshotId {
        SnapshotId { cluster: self.config.cluster, shard: self.config.shard, barrier }
    }

    /// The barrier of the snapshot that is being taken. Its file may count once the log is durable up
    /// to the position.
    pub fn taking(&self) -> Option<(u64, Position)> {
        self.forgetting.taking()
    }

    /// The last barrier that has executed, and the state hash at it.
    pub fn last_barrier(&self) -> Option<StateAt> {
        self.forgetting.last_barrier()
    }

    /// The next bytes of the file of the snapshot that is being taken; `None` when all have been given.
    pub fn snapshot_bytes(&mut self) -> Option<Vec<u8>> {
        self.forgetting.taking_mut()?.next_bytes(&mut self.machine)
    }

    /// G1: the snapshot that was being taken is durable, so that everything that it covers may be
    /// forgotten.
    pub fn on_snapshot(&mut self, now: Time) {
        let (barrier, frontier, cut) = self.forgetting.on_taken();
        self.take_floor(barrier, &frontier, cut);
        self.deliver_to_self(now);
    }

    /// The snapshot could not be written, so the log is kept, and the next snapshot is not tried at once.
    pub fn on_snapshot_failed(&mut self, now: Time) {
        self.forgetting.on_failed(now);
        self.machine.state.end_copy();
    }

    pub(crate) fn take_floor(&mut self, barrier: u64, frontier: &Frontier, cut: Position) {
        self.own_file = OwnFile::default();
        // Nops that the snapshot covers can still be on their way to execution here.
        let executed = self.executor.executed();
        let upto = if mutant::is(Mutant::CutBetweenBarriers) { *executed } else { frontier.common(executed) };
        self.raise_floor(&upto.to_floor());
        self.forgetting.on_covered(&upto.to_floor());
        let floor = self.outbox.append(Record::Floor { upto: *self.forgetting.floor() }, None);
        self.forgetting.on_snapshot(barrier, floor, cut);
    }

    /// G1: records before this position are no longer needed, because the floor is durable.
    pub(crate) fn poll_cut(&mut self) -> Option<Position> {
        let is_early = mutant::is(Mutant::CutBeforeFloor);
        self.forgetting.poll_cut(if is_early { Position(u64::MAX) } else { self.outbox.durable() })
    }

    /// G1: writes again the state of all instances above the frontier of a barrier, or above a floor, so that the log
    /// before can be cut once its snapshot is durable. Returns the position of the first of these records.
    pub(crate) fn carry_forward(&mut self, barrier: u64, upto: &Floor) -> Position {
        let (reserved, floor) = (self.numbers.reserved(), *self.forgetting.floor());
        let first = self.outbox.append(Record::Begin { reserved, floor, barrier }, None);
        self.append_heard();
        let above = self.space.iter().filter(|(id, it)| !upto.contains(*id) && it.has_records());
        let above: Vec<InstanceId> = above.map(|(id, _)| id).collect();
        for id in above {
            let (record, payload) = self.space.get_mut(id).expect("it was just seen").carry_forward(id);
            self.outbox.append(record, payload);
        }
        first
    }

    /// The records of every instance that is not forgotten, as they would be carried forward. For tests: after a
    /// replay they must show what the log says.
    pub fn records(&self) -> impl Iterator<Item = (Record, Option<Payload>)> {
        self.space.iter().filter(|(_, it)| it.has_records()).map(|(id, it)| it.carried(id))
    }

    /// Takes over the state of a snapshot. All instances beyond it that have executed here are Nops.
    pub(crate) fn load(&mut self, snapshot: Snapshot) {
        let Snapshot { head, machine } = snapshot;
        assert_eq!(head.epoch, self.config.epoch, "section 9: the snapshot of another epoch");
        self.stage = EpochStage::Open;
        self.machine = machine;
        self.forgetting.on_loaded(StateAt { barrier: head.barrier, hash: head.hash });
        self.executor.skip_to_barrier(&head.frontier);
        if self.config.publishes {
            self.outbox.tell(Executed::State { barrier: head.barrier, frontier: head.frontier });
        }
        // The index lacks the conflicts of instances that were not seen here (trap B16).
        if !mutant::is(Mutant::FrontierUnnamed) {
            self.forgetting.on_unindexed(&head.frontier.to_floor());
        }
    }

    /// Own instances at or below a floor were decided elsewhere, and their outcome is not known here any more.
    /// Clients that wait for them must ask again, and their sessions know whether the commands have executed.
    pub(crate) fn give_back_below(&mut self, floor: &Floor) {
        for client in self.requests.take_waiters_upto(floor.of(self.me)) {
            self.outbox.reply(client, Err(Failure::Unknown(Reason::StateReplaced)));
        }
    }
}
