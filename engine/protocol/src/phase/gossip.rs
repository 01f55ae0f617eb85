//! How replicas learn how far the others are: what was missed is pulled, and what all have is
//! forgotten.

use crate::contract::Time;
use crate::limits::{GOSSIP_REPEAT, HEARD_EVERY_US, PULL_BYTES_MAX, PULL_COMMITS_MAX};
use crate::log::record::Record;
use crate::marks::Mark;
use crate::replica::{Peer, Pulled, Replica};
use isonomy_wire::id::{InstanceId, REPLICAS_MAX, ReplicaId};
use isonomy_wire::message::{Gossip, PeerMessage};

/// What a broken invariant that shows that two replicas differ says to the operator: never that the one
/// that noticed is the one that is wrong.
pub(crate) const WHO_IS_WRONG: &str = "One replica has a damaged disk or memory or was set back, and this does \
    not show which: run `isonomy status` on all replicas and compare the state hashes at equal fences, and run \
    `isonomy snapshot verify` on each data directory. Where a majority of the members is equal, the others are \
    suspect; where there is none, stop all and decide before any is replaced: docs/OPERATIONS.md, \"When \
    replicas differ\"";

impl Replica {
    /// Says how far this replica is, if that changed, and every now and then if it did not: the
    /// message may have been lost, and who missed the very last commit hears of it nowhere else.
    /// It is said to itself as well, since its own progress counts for the others' sake only when
    /// it is durable.
    pub(crate) fn maybe_gossip(&mut self, now: Time) {
        let progress = (*self.executor.committed(), *self.executor.executed());
        let period = self.config.timing.gossip_us;
        let patience = if self.gossiped == Some(progress) { GOSSIP_REPEAT * period } else { period };
        if now.since(self.last_gossip) < patience {
            return;
        }
        (self.gossiped, self.last_gossip) = (Some(progress), now);
        let (fence, fence_hash) = self.fence_hashes.back().copied().unwrap_or_default();
        let message = PeerMessage::Gossip(Box::new(Gossip {
            committed: progress.0,
            executed: progress.1,
            state_hash: self.machine.hash(),
            floor: self.floor,
            restart_mark: self.restart_marks.of(self.me),
            unindexed: self.unindexed,
            fence,
            fence_hash,
            snapshot: self.snapshot,
            position: if self.config.outlives_power { self.outbox.spoken().0 } else { 0 },
        }));
        self.broadcast(&message, None);
        self.outbox.send_own(self.me, message, None);
    }

    /// Another replica, or this one, is so far.
    pub(crate) fn on_gossip(&mut self, now: Time, from: ReplicaId, gossip: &Gossip) {
        // What others have decided is seen, but no further than one can pull: a replica that was
        // away for long catches up step by step.
        let mut ahead = *self.executor.committed();
        for (mine, theirs) in ahead.0.iter_mut().zip(&gossip.committed.0) {
            *mine = (*mine + PULL_COMMITS_MAX).min(*theirs);
        }
        self.see_all(&ahead, now);
        let peer = &mut self.peers[from.index()];
        peer.committed.merge(&gossip.committed);
        if gossip.executed.covers(&peer.executed) {
            (peer.executed, peer.state_hash) = (gossip.executed, gossip.state_hash);
        }
        if gossip.fence >= peer.fence.0 {
            peer.fence = (gossip.fence, gossip.fence_hash);
        }
        peer.floor.merge(&gossip.floor);
        peer.snapshot = peer.snapshot.max(gossip.snapshot);
        peer.unindexed.merge(&gossip.unindexed);
        if from != self.me {
            self.heard_more |= gossip.position > peer.heard;
            peer.heard = peer.heard.max(gossip.position);
            // D8: what the others may have forgotten goes into the deps at once, so that their
            // answers can equal them.
            self.restart_marks.set(from, gossip.restart_mark);
            self.compare_state();
        }
        self.maybe_settle();
        self.maybe_pull(now);
    }

    /// G6: writes down how far the peers' logs reach, if that is more than was written before. Nobody
    /// waits for it.
    pub(crate) fn note_heard(&mut self, now: Time) {
        if std::mem::take(&mut self.heard_more) {
            self.heard_at = now;
            self.append_heard();
        }
    }

    /// The same every now and then.
    pub(crate) fn maybe_note_heard(&mut self, now: Time) {
        if now.since(self.heard_at) >= HEARD_EVERY_US {
            self.note_heard(now);
        }
    }

    pub(crate) fn append_heard(&mut self) {
        let mut positions = [0; REPLICAS_MAX];
        for (position, peer) in positions.iter_mut().zip(&self.peers) {
            *position = peer.heard;
        }
        self.outbox.append(Record::Heard { positions }, None);
    }

    /// Executed at every member, durably: nobody will ask for it again.
    fn maybe_settle(&mut self) {
        let mut everywhere = self.peers[0].executed;
        for peer in &self.peers[1..] {
            for (seq, theirs) in everywhere.0.iter_mut().zip(&peer.executed.0) {
                *seq = (*seq).min(*theirs);
            }
        }
        if self.floor.covers(&everywhere) {
            return;
        }
        self.marks.set(Mark::Settled);
        self.raise_floor(&everywhere);
        self.outbox.append(Record::Floor { upto: self.floor }, None);
    }

    /// V13: at equal frontiers and at every fence the state is equal. A replica that stands against
    /// two others stops before it answers anything more.
    fn compare_state(&self) {
        let (executed, hash) = (*self.executor.executed(), self.machine.hash());
        let compare = |peer: &Peer| {
            let at_fence = self.fence_hashes.iter().find(|(fence, _)| *fence == peer.fence.0 && *fence > 0);
            let at_fence = at_fence.map(|(_, hash)| *hash == peer.fence.1);
            let at_frontier = (peer.executed == executed).then_some(peer.state_hash == hash);
            match (at_fence, at_frontier) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (one, other) => one.or(other),
            }
        };
        let told = |equal: bool| {
            let is = move |id: &ReplicaId| compare(&self.peers[id.index()]) == Some(equal);
            self.others().filter(is).collect::<Vec<ReplicaId>>()
        };
        let against = told(false);
        assert!(against.len() < 2, "{}", self.told_apart(&against, &told(true)));
    }

    /// What V13 says to the operator: who stands against whom, and how to find out who is wrong.
    fn told_apart(&self, against: &[ReplicaId], with: &[ReplicaId]) -> String {
        let names = |ids: &[ReplicaId]| {
            let names: Vec<String> = ids.iter().map(|id| id.0.to_string()).collect();
            if names.is_empty() { "none".to_string() } else { names.join(", ") }
        };
        let (me, fence, executed) = (self.me.0, self.fences, self.executor.executed());
        format!(
            "V13: at the same fence or frontier the state of replica {me} differs from that of replicas {}, and \
             equals that of replicas: {} (fence {fence}, frontier {executed:?}). {WHO_IS_WRONG}",
            names(against),
            names(with),
        )
    }

    /// Asks for commits that another replica has and this one still lacks after a while.
    pub(crate) fn maybe_pull(&mut self, now: Time) {
        let patience = self.config.timing.resend_us;
        for row in self.rows() {
            let next = InstanceId::new(row, self.executor.committed().of(row) + 1);
            let is_old = self.space.get(next).is_some_and(|instance| now.since(instance.since) >= patience);
            // What comes slowly does not come faster by being asked for twice.
            if is_old && now.since(self.pulled[row.index()].heard) >= patience {
                self.pull(now, row);
            }
        }
    }

    /// Pulls the next range of a row from someone who has it.
    pub(crate) fn pull(&mut self, now: Time, row: ReplicaId) {
        let next = InstanceId::new(row, self.executor.committed().of(row) + 1);
        self.pulled[row.index()].to = 0;
        let sources: Vec<ReplicaId> =
            self.others().filter(|peer| self.is_committed_at(*peer, row, next.seq)).collect();
        let of = |id: &ReplicaId| &self.peers[id.index()];
        if let Some(source) = sources.iter().find(|id| !of(id).floor.contains(next)) {
            let to = of(source).committed.of(row).min(next.seq + PULL_COMMITS_MAX - 1);
            self.outbox.send(*source, PeerMessage::Pull { row, from: next.seq, to }, None);
            self.pulled[row.index()] = Pulled { to, bytes: 0, heard: now };
            self.marks.set(Mark::Pulled);
        } else if let Some(source) = sources.into_iter().min_by_key(|id| of(id).snapshot) {
            self.on_forgotten(now, source);
        }
    }

    /// A Commit has come with a batch of so many bytes. While catching up, the next range follows this one
    /// at once, or what one answer brings of it (G5).
    pub(crate) fn pull_on(&mut self, now: Time, id: InstanceId, bytes: usize) {
        let pulled = &mut self.pulled[id.row.index()];
        if id.seq > pulled.to {
            return;
        }
        (pulled.bytes, pulled.heard) = (pulled.bytes + bytes, now);
        if pulled.bytes > PULL_BYTES_MAX || self.executor.committed().of(id.row) >= pulled.to {
            self.pull(now, id.row);
        }
    }

    /// Whether a replica that can be reached has committed this and all before it.
    pub(crate) fn is_committed_at(&self, peer: ReplicaId, row: ReplicaId, seq: u64) -> bool {
        self.is_reached(peer) && self.peers[peer.index()].committed.of(row) >= seq
    }
}
