//! Replicas tell each other their progress, so that missed commits are pulled, and instances that all have executed
//! are forgotten.

use crate::contract::Time;
use crate::epoch::FIRST;
use crate::limits::{GOSSIP_REPEAT, HEARD_EVERY_US, PULL_COMMITS_MAX};
use crate::log::record::Record;
use crate::marks::Mark;
use crate::peers::Peer;
use crate::replica::Replica;
use isonomy_wire::deps::Frontier;
use isonomy_wire::id::ReplicaId;
use isonomy_wire::message::{Gossip, PeerMessage};

/// The text for the operator in a broken invariant that shows that two replicas differ. The text never claims that
/// the replica that noticed is the one that is wrong.
pub(crate) const WHO_IS_WRONG: &str = "One replica has a damaged disk or memory or was set back, and this does \
    not show which: run `isonomy status` on all replicas and compare the state hashes at equal barriers, and run \
    `isonomy snapshot verify` on each data directory. Where a majority of the members is equal, the others are \
    suspect; where there is none, stop all and decide before any is replaced: docs/OPERATIONS.md, \"When \
    replicas differ\"";

/// The last reports of a replica to the others about itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said {
    /// When the replica gossiped last, and what it had committed and executed then.
    last: Time,
    progress: Option<(Frontier, Frontier)>,
    /// When the replica last reported that its disk hangs (D9), if it hangs.
    stalled: Option<Time>,
}

impl Said {
    /// Whether the others were told this progress.
    pub(crate) fn is_told(&self, progress: (Frontier, Frontier)) -> bool {
        self.progress == Some(progress)
    }

    /// Whether this progress must be told now, if the replica gossips once in a period. If so, it counts as told.
    fn is_due(&mut self, now: Time, period: u64, progress: (Frontier, Frontier)) -> bool {
        let patience = if self.is_told(progress) { GOSSIP_REPEAT * period } else { period };
        let is_due = now.since(self.last) >= patience;
        if is_due {
            (self.progress, self.last) = (Some(progress), now);
        }
        is_due
    }

    /// The progress must be told again.
    pub(crate) fn forget(&mut self) {
        self.progress = None;
    }

    /// D9: whether the replica must report now that its disk hangs, once in a period. If so, that counts as reported.
    pub(crate) fn is_stall_due(&mut self, now: Time, period: u64) -> bool {
        let is_due = self.stalled.is_none_or(|said| now.since(said) >= period);
        if is_due {
            self.stalled = Some(now);
        }
        is_due
    }

    /// D9: the disk answers. Returns whether the replica had reported that the disk hangs.
    pub(crate) fn end_stall(&mut self) -> bool {
        self.stalled.take().is_some()
    }
}

impl Replica {
    /// Tells the progress of this replica if it has changed, and every now and then if it has not: a message may have
    /// been lost, and a replica that missed the very last commit hears of it nowhere else. The replica tells itself
    /// as well, since its own progress counts for the others' sake only when it is durable.
    pub(crate) fn maybe_gossip(&mut self, now: Time) {
        let progress = self.progress();
        if !self.said.is_due(now, self.config.timing.gossip_us, progress) {
            return;
        }
        let last = self.forgetting.last_barrier().unwrap_or_default();
        let message = PeerMessage::Gossip(Box::new(Gossip {
            committed: progress.0,
            executed: progress.1,
            state_hash: self.state_hash(),
            floor: *self.forgetting.floor(),
            floor_barrier: self.forgetting.floor_barrier(),
            restart_mark: self.numbers.restart_mark(self.me),
            unindexed: *self.forgetting.unindexed(),
            barrier: last.barrier,
            barrier_hash: last.hash,
            snapshot: self.forgetting.snapshot(),
            position: if self.config.outlives_power { self.outbox.spoken().0 } else { 0 },
        }));
        self.broadcast(&message, None);
        for to in self.peers.learners() {
            self.outbox.send(to, message.clone(), None);
        }
        self.outbox.send_own(self.me, message, None);
    }

    /// Another replica, or this one, has told its progress.
    pub(crate) fn on_gossip(&mut self, now: Time, from: ReplicaId, gossip: &Gossip) {
        // Instances that others have decided count as seen, but no further than one pull reaches, so that a replica
        // that was away for long catches up step by step.
        let mut ahead = *self.executor.committed();
        for (mine, theirs) in ahead.0.iter_mut().zip(&gossip.committed.0) {
            *mine = (*mine + PULL_COMMITS_MAX).min(*theirs);
        }
        self.space.see_all(&ahead.to_deps(), now);
        self.peers.on_gossip(from, gossip);
        if from != self.me && from.index() < self.quorum.n {
            // D8: the instances that a peer may have forgotten go into the deps at once, so that its answers can
            // equal them.
            self.numbers.on_restart_mark(from, gossip.restart_mark);
            self.compare_state();
        }
        self.maybe_settle();
        self.maybe_pull(now);
    }

    /// G6: records how far the peers' logs reach, if that is more than was recorded before. Nobody waits for the
    /// record.
    pub(crate) fn note_heard(&mut self, now: Time) {
        if self.peers.take_heard_more(now) {
            self.append_heard();
        }
    }

    /// Records how far the peers' logs reach, every now and then (G6).
    pub(crate) fn maybe_note_heard(&mut self, now: Time) {
        if now.since(self.peers.heard_at()) >= HEARD_EVERY_US {
            self.note_heard(now);
        }
    }

    pub(crate) fn append_heard(&mut self) {
        if let Some(positions) = self.peers.heard_positions() {
            self.outbox.append(Record::Heard { positions }, None);
        }
    }

    /// G2: forgets the instances that every member has executed, durably, since nobody will ask for them again, unless
    /// there are learners.
    fn maybe_settle(&mut self) {
        if self.keeps_for_learners() {
            return;
        }
        let everywhere = self.peers.executed_everywhere().to_floor();
        if self.forgetting.floor().covers(&everywhere) {
            return;
        }
        self.marks.set(Mark::Settled);
        self.raise_floor(&everywhere);
        self.outbox.append(Record::Floor { upto: *self.forgetting.floor() }, None);
    }

    /// V13: at equal frontiers and at every barrier the state is equal. A replica that stands against
    /// two others stops before it answers anything more. Replicas without the state in which their epoch began
    /// are not compared (section 9).
    pub(crate) fn compare_state(&self) {
        if self.lacks_state() {
            return;
        }
        let (executed, hash) = (*self.executor.executed(), self.state_hash());
        let has_begun = |peer: &Peer| self.config.epoch == FIRST || peer.barrier().barrier > 0;
        let compare = |peer: &Peer| {
            let (last, (frontier, frontier_hash)) = (peer.barrier(), peer.state());
            let at_barrier = self.forgetting.hash_at(last.barrier).map(|hash| hash == last.hash);
            let is_there = *frontier == executed && has_begun(peer);
            let at_frontier = is_there.then_some(frontier_hash == hash);
            match (at_barrier, at_frontier) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (one, other) => one.or(other),
            }
        };
        let told = |equal: bool| {
            let is = move |id: &ReplicaId| compare(self.peers.get(*id)) == Some(equal);
            self.peers.others().filter(is).collect::<Vec<ReplicaId>>()
        };
        let against = told(false);
        assert!(against.len() < 2, "{}", self.told_apart(&against, &told(true)));
    }

    /// The text of V13 for the operator: the replicas that differ, and how to find out which of them is wrong.
    fn told_apart(&self, against: &[ReplicaId], with: &[ReplicaId]) -> String {
        let names = |ids: &[ReplicaId]| {
            let names: Vec<String> = ids.iter().map(|id| id.0.to_string()).collect();
            if names.is_empty() { "none".to_string() } else { names.join(", ") }
        };
        let (me, barrier, executed) = (self.me.0, self.forgetting.barriers(), self.executor.executed());
        format!(
            "V13: at the same barrier or frontier the state of replica {me} differs from that of replicas {}, and \
             equals that of replicas: {} (barrier {barrier}, frontier {executed:?}). {WHO_IS_WRONG}",
            names(against),
            names(with),
        )
    }
}
