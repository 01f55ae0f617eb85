//! The known state of the other replicas, and of this one as the others see it.

use crate::contract::{StateAt, Time};
use crate::mutant;
use crate::quorum::ReplicaSet;
use isonomy_wire::deps::{Floor, Frontier};
use isonomy_wire::id::{InstanceId, PLACES_MAX, REPLICAS_MAX, ReplicaId};
use isonomy_wire::message::Gossip;

/// What a replica has forgotten, as it says when it is asked (G3).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone {
    pub(crate) floor: Floor,
    /// The last barrier on which the floor rests.
    pub(crate) floor_barrier: u64,
    /// The barrier of its newest durable snapshot.
    pub(crate) snapshot: u64,
}

/// The reports of one replica, and whether it is reached.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peer {
    is_linked: bool,
    /// Whether it has told its progress since it was linked.
    has_told: bool,
    /// The time until which its disk counts as hanging, after its report (D9).
    stalled_until: Option<Time>,
    committed: Frontier,
    executed: Frontier,
    state_hash: u64,
    /// The instances that it has forgotten; the floor rests on its snapshot or on the instances that all have
    /// executed.
    floor: Floor,
    floor_barrier: u64,
    snapshot: u64,
    unindexed: Floor,
    /// The last barrier that it executed, and its state hash at that barrier.
    barrier: StateAt,
    /// G6: the number of durable records that its log has had.
    heard: u64,
}

impl Peer {
    /// The instances that it has forgotten.
    pub(crate) fn floor(&self) -> &Floor {
        &self.floor
    }

    /// The last barrier on which its floor rests.
    pub(crate) fn floor_barrier(&self) -> u64 {
        self.floor_barrier
    }

    /// The barrier of its newest snapshot.
    pub(crate) fn snapshot(&self) -> u64 {
        self.snapshot
    }

    /// The instances that it has executed, durably.
    pub(crate) fn executed(&self) -> &Frontier {
        &self.executed
    }

    /// The instances that it has committed without a gap.
    pub(crate) fn committed(&self) -> &Frontier {
        &self.committed
    }

    /// V13: its frontier, and its state hash at the frontier.
    pub(crate) fn state(&self) -> (&Frontier, u64) {
        (&self.executed, self.state_hash)
    }

    /// V13: the last barrier that it executed, and its state hash at that barrier.
    pub(crate) fn barrier(&self) -> StateAt {
        self.barrier
    }

    /// D9: whether it is linked, and its disk takes writes.
    fn is_reached(&self) -> bool {
        self.is_linked && self.stalled_until.is_none()
    }
}

/// All replicas, this one among them: the members, and behind them the learners (section 9).
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    me: ReplicaId,
    /// The number of members.
    n: usize,
    all: Vec<Peer>,
    /// The learners that are linked.
    learners: ReplicaSet,
    /// Whether a peer has reported more records of its log than this replica has recorded.
    heard_more: bool,
    /// When this replica recorded such reports last.
    heard_at: Time,
}

impl Peers {
    /// Replicas of which nothing is known, `n` of them members.
    pub(crate) fn new(me: ReplicaId, n: usize) -> Peers {
        let (all, learners) = (vec![Peer::default(); PLACES_MAX], ReplicaSet::default());
        Peers { me, n, all, learners, heard_more: false, heard_at: Time(0) }
    }

    /// All members, each of which has a row.
    pub(crate) fn rows(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        (0..self.n as u8).map(ReplicaId)
    }

    /// All other members.
    pub(crate) fn others(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        let me = self.me;
        (0..mutant::voters(self.n, self.learners)).map(ReplicaId).filter(move |id| *id != me)
    }

    /// Section 9: the learners that are linked.
    pub(crate) fn learners(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        let learners = self.learners;
        (self.n as u8..PLACES_MAX as u8).map(ReplicaId).filter(move |id| learners.contains(*id))
    }

    /// Section 9: whether a learner is linked.
    pub(crate) fn has_learners(&self) -> bool {
        !self.learners.is_empty()
    }

    /// One replica.
    pub(crate) fn get(&self, id: ReplicaId) -> &Peer {
        &self.all[id.index()]
    }

    /// This replica, if it is a member, and all members that it can reach.
    pub(crate) fn live(&self) -> ReplicaSet {
        self.rows().filter(|id| *id == self.me || self.is_reached(*id)).collect()
    }

    /// Whether another replica is linked and its disk takes writes (D9).
    pub(crate) fn is_reached(&self, id: ReplicaId) -> bool {
        self.get(id).is_reached()
    }

    /// Notes the peers that are linked in both directions. Returns whether a link was lost.
    pub(crate) fn on_links(&mut self, linked: &[ReplicaId]) -> bool {
        let mut is_lost = false;
        for (index, peer) in self.all.iter_mut().enumerate() {
            let before = std::mem::replace(&mut peer.is_linked, linked.contains(&ReplicaId(index as u8)));
            is_lost |= before && !peer.is_linked;
            peer.has_told &= peer.is_linked || index == self.me.index();
        }
        self.learners = linked.iter().copied().filter(|id| id.index() >= self.n).collect();
        is_lost
    }

    /// D9: notes a replica's report that its disk hangs. Returns whether the replica was reached before.
    pub(crate) fn on_stalled(&mut self, from: ReplicaId, until: Time) -> bool {
        self.all[from.index()].stalled_until.replace(until).is_none()
    }

    /// D9: counts replicas as reached again that no longer report a hanging disk. Returns whether there are any.
    pub(crate) fn end_stalls(&mut self, now: Time) -> bool {
        let is_over = |peer: &mut Peer| peer.stalled_until.take_if(|until| *until <= now).is_some();
        self.all.iter_mut().map(is_over).filter(|is_over| *is_over).count() > 0
    }

    /// Takes a replica's gossip about its progress.
    pub(crate) fn on_gossip(&mut self, from: ReplicaId, gossip: &Gossip) {
        let peer = &mut self.all[from.index()];
        peer.has_told = true;
        if from.index() >= self.n && from != self.me {
            // No rule rests on what a learner has executed, and its place may be another one's by now.
            return;
        }
        peer.committed.merge(&gossip.committed);
        // V13, section 9: gossip may be overtaken, and a peer that had no state yet has told the hash of no state at the
        // same frontier.
        if gossip.barrier >= peer.barrier.barrier {
            peer.barrier = StateAt { barrier: gossip.barrier, hash: gossip.barrier_hash };
            if gossip.executed.covers(&peer.executed) {
                (peer.executed, peer.state_hash) = (gossip.executed, gossip.state_hash);
            }
        }
        peer.floor.merge(&gossip.floor);
        peer.floor_barrier = peer.floor_barrier.max(gossip.floor_barrier).max(gossip.snapshot);
        peer.snapshot = peer.snapshot.max(gossip.snapshot);
        peer.unindexed.merge(&gossip.unindexed);
        if from != self.me {
            self.heard_more |= gossip.position > peer.heard;
            peer.heard = peer.heard.max(gossip.position);
        }
    }

    /// G5: a replica has forgotten everything up to its floor, which rests on a snapshot.
    pub(crate) fn on_gone(&mut self, from: ReplicaId, gone: &Gone) {
        let peer = &mut self.all[from.index()];
        peer.floor.merge(&gone.floor);
        peer.floor_barrier = peer.floor_barrier.max(gone.floor_barrier).max(gone.snapshot);
        peer.snapshot = peer.snapshot.max(gone.snapshot);
    }

    /// G6: the number of durable records that a replica has reported for its log.
    pub(crate) fn heard(&self, of: ReplicaId) -> u64 {
        self.get(of).heard
    }

    /// G6: the reported numbers of records of all logs, for a record; `None` if no replica has reported one.
    pub(crate) fn heard_positions(&self) -> Option<[u64; REPLICAS_MAX]> {
        let mut positions = [0; REPLICAS_MAX];
        positions.iter_mut().zip(&self.all).for_each(|(position, peer)| *position = peer.heard);
        positions.iter().any(|position| *position > 0).then_some(positions)
    }

    /// G6: replays a record of how far the logs of the replicas had come.
    pub(crate) fn replay_heard(&mut self, positions: [u64; REPLICAS_MAX]) {
        for (peer, position) in self.all.iter_mut().zip(positions) {
            peer.heard = peer.heard.max(position);
        }
    }

    /// G6: whether a peer has reported more than this replica has recorded. The caller must record it now.
    pub(crate) fn take_heard_more(&mut self, now: Time) -> bool {
        let is_more = std::mem::take(&mut self.heard_more);
        if is_more {
            self.heard_at = now;
        }
        is_more
    }

    /// G6: when such reports were recorded last, or may be next.
    pub(crate) fn heard_at(&self) -> Time {
        self.heard_at
    }

    /// G6: begins the wait before the first such record.
    pub(crate) fn start(&mut self, now: Time) {
        self.heard_at = now;
    }

    /// C1: adds the instances that the indexes of some replicas may lack.
    pub(crate) fn merge_unindexed(&self, into: &mut Floor) {
        self.all[..self.n].iter().for_each(|peer| into.merge(&peer.unindexed));
    }

    /// The instances that a replica has executed, if it is a member that has told its progress since it was linked.
    pub(crate) fn told_executed(&self, id: ReplicaId) -> Option<&Frontier> {
        let peer = self.get(id);
        (id.index() < self.n && peer.is_linked && peer.has_told).then_some(&peer.executed)
    }

    /// The instances that every member and this replica have executed, durably.
    pub(crate) fn executed_everywhere(&self) -> Frontier {
        let members = self.rows().map(|id| self.get(id).executed);
        members.fold(self.get(self.me).executed, |mine, theirs| mine.common(&theirs))
    }

    /// The members among this replica and those that it can reach that have told their progress since.
    pub(crate) fn told(&self) -> impl Iterator<Item = &Peer> {
        self.rows().map(|id| (id, self.get(id))).filter_map(|(id, peer)| {
            let is_there = id == self.me || peer.is_reached();
            (is_there && peer.has_told).then_some(peer)
        })
    }

    /// Whether one of the others has executed more than so many instances beyond a frontier.
    pub(crate) fn is_ahead_of(&self, frontier: &Frontier, instances: u64) -> bool {
        self.others().any(|id| {
            let theirs = &self.get(id).executed;
            let ahead = theirs.0.iter().zip(&frontier.0).map(|(theirs, mine)| theirs.saturating_sub(*mine));
            ahead.sum::<u64>() > instances
        })
    }

    /// Whether a replica that can be reached has committed this instance and all before it in its row.
    pub(crate) fn is_committed_at(&self, peer: ReplicaId, id: InstanceId) -> bool {
        self.is_reached(peer) && self.get(peer).committed.contains(id)
    }

    /// Verifies what must hold between any two inputs.
    pub(crate) fn check(&self) {
        assert!(!self.get(self.me).is_linked, "a replica has no link to itself");
    }
}
