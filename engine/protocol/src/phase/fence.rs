//! G1 to G5: floors, fences and snapshots. How those travel is in [`super::transfer`].

use crate::contract::{Position, Time};
use crate::execute::Fence;
use crate::instance::{Choice, Instance};
use crate::limits::{FENCE_BEHIND_MAX, FENCE_PATIENCE_US, FENCES_REMEMBERED};
use crate::log::record::Record;
use crate::marks::Mark;
use crate::mutant::{self, Mutant};
use crate::payload::Payload;
use crate::phase::accept::value_of;
use crate::replica::Replica;
use crate::snapshot::{Snapshot, SnapshotHead, SnapshotId, Taking};
use crate::transfer::{OwnFile, Pause};
use isonomy_wire::command::RequestBuilder;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{InstanceId, ReplicaId, StreamId};
use isonomy_wire::message::{Failure, PeerMessage, Phase};

impl Replica {
    /// G3: whoever asks about what is forgotten here is told so.
    pub(crate) fn say_gone(&mut self, to: ReplicaId) {
        self.marks.set(Mark::Gone);
        let message = PeerMessage::Gone { floor: self.floor, snapshot: self.snapshot };
        self.outbox.send(to, message, None);
    }

    /// A fault for tests, see [`Mutant::ForgottenAccepts`].
    pub(crate) fn accept_forgotten(&mut self, to: ReplicaId, question: &PeerMessage) {
        if let PeerMessage::Accept { id, ballot, .. } = *question
            && mutant::is(Mutant::ForgottenAccepts)
        {
            self.outbox.send(to, PeerMessage::AcceptOk { id, ballot }, None);
        }
    }

    /// G5: another replica has forgotten everything up to its floor, which rests on a snapshot.
    pub(crate) fn on_gone(&mut self, now: Time, from: ReplicaId, floor: &Deps, snapshot: u64) {
        let peer = &mut self.peers[from.index()];
        peer.floor.merge(floor);
        peer.snapshot = peer.snapshot.max(snapshot);
        self.maybe_pull(now);
    }

    /// G1: everything up to here is executed and can be rebuilt; from here on it is forgotten.
    pub(crate) fn raise_floor(&mut self, upto: &Deps) {
        self.floor.merge(upto);
        self.space.forget(&self.floor);
        let floor = self.floor;
        self.attempts.retain(|id, _| !floor.contains(*id));
        self.waiting.retain(|id, _| !floor.contains(*id));
    }

    /// G4: proposes a fence when the log has grown enough or the newest snapshot is damaged, and not
    /// while something is undecided for longer than a moment: a fence waits for all, and all wait for it.
    pub(crate) fn maybe_fence(&mut self, now: Time) {
        // One replica after the other, so that not all of them propose the same one.
        let live = self.live();
        let place =
            self.rows().filter(|id| live.contains(*id)).position(|id| id == self.me).unwrap_or(0) as u64;
        let budget = self.config.fence_bytes.saturating_mul(4 + place) / 4;
        let has_grown = self.log_bytes - self.fenced_at >= budget;
        if !(has_grown || self.must_renew_snapshot(now)) || self.is_fencing() {
            return;
        }
        // All would wait until it has caught up far enough to see to its fence.
        if self.lacks_more_than(FENCE_BEHIND_MAX) {
            return;
        }
        let is_old = |row| {
            let head = InstanceId::new(row, self.executor.committed().of(row) + 1);
            self.space.get(head).is_some_and(|instance| now.since(instance.since) >= FENCE_PATIENCE_US)
        };
        if !self.rows().any(is_old) {
            self.propose_fence(now);
        }
    }

    /// A fence is known that has not executed here.
    fn is_fencing(&self) -> bool {
        !self.executor.executed().covers(self.index.fences())
    }

    /// G4: a fence, at once, however full the window is (section 6), unless one is under way or this replica
    /// stops, its disk hangs (D9), or it was not admitted (G6).
    pub fn propose_fence(&mut self, now: Time) {
        if !self.is_fencing() && !self.stopping && self.admitted && !self.is_hung() {
            self.marks.set(Mark::FenceProposed);
            let mut request = RequestBuilder::default();
            request.fence();
            let payload = Payload::of_request(&mut request, StreamId::NONE);
            self.submit(now, payload, Vec::new());
        }
    }

    /// G4: a fence has executed. The state is the same at every replica now; if no snapshot is under
    /// way, nobody fetches the last one, and none has just failed, this one is taken.
    pub(crate) fn on_fence(&mut self, now: Time, fence: &Fence) {
        self.count_fence();
        self.fenced_at = self.log_bytes;
        if self.taking.is_some() || self.is_held(now) || !self.take_pause.is_over(now) {
            return;
        }
        self.marks.set(Mark::SnapshotTaken);
        self.taking_log_bytes = self.log_bytes;
        let frontier = if mutant::is(Mutant::CutAtE) { *self.executor.executed() } else { fence.frontier };
        let head = SnapshotHead {
            epoch: self.config.epoch,
            replicas: self.config.replicas,
            fence: self.fences,
            frontier,
            hash: self.machine.hash(),
            keys: self.machine.state.keys(),
            streams: self.machine.streams.len() as u64,
            commands: self.machine.commands(),
        };
        let id = self.snapshot_id(self.fences);
        let cut = self.carry_forward(self.fences, &frontier);
        self.taking = Some((cut, Taking::begin(id, head, &mut self.machine)));
    }

    /// One more fence has executed; what the state was is remembered to be compared (V13).
    pub(crate) fn count_fence(&mut self) {
        self.fences += 1;
        self.sources.on_fence(self.fences);
        self.fence_hashes.push_back((self.fences, self.machine.hash()));
        if self.fence_hashes.len() > FENCES_REMEMBERED {
            self.fence_hashes.pop_front();
        }
    }

    fn snapshot_id(&self, fence: u64) -> SnapshotId {
        SnapshotId { cluster: self.config.cluster, shard: self.config.shard, fence }
    }

    /// The fence of the snapshot that is being taken. Its file may count once the log is durable up
    /// to the position.
    pub fn taking(&self) -> Option<(u64, Position)> {
        self.taking.as_ref().map(|(cut, taking)| (taking.head.fence, *cut))
    }

    /// The last fence that has executed, and the state hash at it.
    pub fn last_fence(&self) -> Option<(u64, u64)> {
        self.fence_hashes.back().copied()
    }

    /// The next bytes of that snapshot's file; `None` when all have been given.
    pub fn snapshot_bytes(&mut self) -> Option<Vec<u8>> {
        let (_, taking) = self.taking.as_mut()?;
        taking.next_bytes(&mut self.machine)
    }

    /// G1: the snapshot that was being taken is durable, so that everything that it covers may be
    /// forgotten.
    pub fn on_snapshot(&mut self, now: Time) {
        let (cut, taking) = self.taking.take().expect("one is being taken");
        self.take_pause = Pause::default();
        self.snapshot_log_bytes = self.taking_log_bytes;
        self.take_floor(taking.head.fence, &taking.head.frontier, cut);
        self.deliver_to_self(now);
    }

    /// The snapshot could not be written: the log is kept, and the next is not tried at once.
    pub fn on_snapshot_failed(&mut self, now: Time) {
        self.taking = None;
        self.take_pause.on_failure(now);
        self.machine.state.end_copy();
    }

    pub(crate) fn take_floor(&mut self, fence: u64, frontier: &Deps, cut: Position) {
        (self.snapshot, self.own_file) = (fence, OwnFile::default());
        // Nops that it covers can still be on their way to execution here.
        let mut upto = *frontier;
        for (mine, executed) in upto.0.iter_mut().zip(&self.executor.executed().0) {
            *mine = if mutant::is(Mutant::CutBetweenFences) { *executed } else { (*mine).min(*executed) };
        }
        self.raise_floor(&upto);
        let durable = self.outbox.append(Record::Floor { upto: self.floor }, None);
        self.cut = Some((durable, cut));
    }

    /// G1: records before this position are no longer needed, because the floor is durable.
    pub fn poll_cut(&mut self) -> Option<Position> {
        let early = mutant::is(Mutant::CutBeforeFloor);
        let (_, cut) = self.cut.take_if(|(floor, _)| *floor <= self.outbox.durable() || early)?;
        Some(cut)
    }

    /// G1: writes down again what is above the frontier of a fence, so that the log before can be cut
    /// once its snapshot is durable. The position of the first of these records.
    pub(crate) fn carry_forward(&mut self, fence: u64, frontier: &Deps) -> Position {
        let begin = Record::Begin { reserved: self.reserved, floor: self.floor, fence };
        let first = self.outbox.append(begin, None);
        if self.peers.iter().any(|peer| peer.heard > 0) {
            self.append_heard();
        }
        let above = self.space.iter().filter(|(id, it)| !frontier.contains(*id) && has_records(it));
        let above: Vec<InstanceId> = above.map(|(id, _)| id).collect();
        for id in above {
            let instance = self.space.get_mut(id).expect("it was just seen");
            instance.logged |= instance.payload.is_some();
            let (record, payload) = carried(id, instance);
            self.outbox.append(record, payload);
        }
        first
    }

    /// What the log says of every instance that is not forgotten, as it would be carried forward. For tests:
    /// after a replay it is what the records say.
    pub fn records(&self) -> impl Iterator<Item = (Record, Option<Payload>)> {
        self.space.iter().filter(|(_, it)| has_records(it)).map(|(id, it)| carried(id, it))
    }

    /// The state is that of a snapshot. Whatever has executed here beyond it are Nops.
    pub(crate) fn load(&mut self, snapshot: Snapshot) {
        let Snapshot { head, machine } = snapshot;
        (self.machine, self.fences, self.snapshot) = (machine, head.fence, head.fence);
        self.fence_hashes.push_back((head.fence, head.hash));
        self.executor.skip_to_fence(&head.frontier);
        // The index lacks what was not seen here (trap B16).
        if !mutant::is(Mutant::FrontierUnnamed) {
            self.unindexed.merge(&head.frontier);
        }
    }

    /// Own instances at or below a floor were decided elsewhere, and what became of them is not known
    /// here any more: whoever waits asks again, and its stream knows whether they have executed.
    pub(crate) fn give_back_below(&mut self, floor: &Deps) {
        let above = self.waiters.split_off(&(floor.of(self.me) + 1));
        let below = std::mem::replace(&mut self.waiters, above);
        for client in below.into_values().flatten() {
            let reason = "this replica was behind and has taken over the state of others; ask again".into();
            self.outbox.reply(client, Err(Failure::Unavailable { reason }));
        }
    }
}

/// All of an instance's state.
fn carried(id: InstanceId, instance: &Instance) -> (Record, Option<Payload>) {
    let record = Record::Carried {
        id,
        phase: instance.phase,
        bal: instance.bal,
        abal: instance.abal,
        value: value_of(instance.cmd, true),
        deps: instance.dep,
        after: instance.after,
        init_deps: instance.init_dep,
        validated: instance.validated,
    };
    (record, instance.payload.clone())
}

/// Whether the log has records of it that still say something.
fn has_records(instance: &Instance) -> bool {
    instance.phase != Phase::Init || instance.bal.round > 0 || instance.cmd != Choice::None
}
