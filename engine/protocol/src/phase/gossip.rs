//! How replicas learn how far the others are: what was missed is pulled, and what all have is
//! forgotten.

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

/// What a broken invariant that shows that two replicas differ says to the operator: never that the one
/// that noticed is the one that is wrong.
pub(crate) const WHO_IS_WRONG: &str = "One replica has a damaged disk or memory or was set back, and this does \
    not show which: run `isonomy status` on all replicas and compare the state hashes at equal barriers, and run \
    `isonomy snapshot verify` on each data directory. Where a majority of the members is equal, the others are \
    suspect; where there is none, stop all and decide before any is replaced: docs/OPERATIONS.md, \"When \
    replicas differ\"";

/// What a replica has told the others of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said {
    /// When it gossiped last, and what it had committed and executed then.
    last: Time,
    progress: Option<(Frontier, Frontier)>,
    /// When it last said that its disk hangs (D9), if it does.
    stalled: Option<Time>,
}

impl Said {
    /// Whether it has told that it is so far.
    pub(crate) fn is_told(&self, progress: (Frontier, Frontier)) -> bool {
        self.progress == Some(progress)
    }

    /// Whether it is to tell that it is so far, if it gossips once in a period. It does.
    fn is_due(&mut self, now: Time, period: u64, progress: (Frontier, Frontier)) -> bool {
        let patience = if self.is_told(progress) { GOSSIP_REPEAT * period } else { period };
        let is_due = now.since(self.last) >= patience;
        if is_due {
            (self.progress, self.last) = (Some(progress), now);
        }
        is_due
    }

    /// It is to tell again how far it is.
    pub(crate) fn forget(&mut self) {
        self.progress = None;
    }

    /// D9: whether it is to say that its disk hangs, once in a period. It does.
    pub(crate) fn is_stall_due(&mut self, now: Time, period: u64) -> bool {
        let is_due = self.stalled.is_none_or(|said| now.since(said) >= period);
        if is_due {
            self.stalled = Some(now);
        }
        is_due
    }

    /// D9: its disk answers. Whether it has said that it does not.
    pub(crate) fn end_stall(&mut self) -> bool {
        self.stalled.take().is_some()
    }
}

impl Replica {
    /// Says how far this replica is, if that changed, and every now and then if it did not: the
    /// message may have been lost, and who missed the very last commit hears of it nowhere else.
    /// It is said to itself as well, since its own progress counts for the others' sake only when
    /// it is durable.
    pub(crate) fn maybe_gossip(&mut self, now: Time) {
        let progress = self.progress();
        if !self.said.is_due(now, self.config.timing.gossip_us, progress) {
            return;
        }
        let (barrier, barrier_hash) = self.forgetting.last_barrier().unwrap_or_default();
        let message = PeerMessage::Gossip(Box::new(Gossip {
            committed: progress.0,
            executed: progress.1,
            state_hash: self.state_hash(),
            floor: *self.forgetting.floor(),
            restart_mark: self.numbers.restart_mark(self.me),
            unindexed: *self.forgetting.unindexed(),
            barrier,
            barrier_hash,
            snapshot: self.forgetting.snapshot(),
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
        self.space.see_all(&ahead.to_deps(), now);
        self.peers.on_gossip(from, gossip);
        if from != self.me {
            // D8: what the others may have forgotten goes into the deps at once, so that their
            // answers can equal them.
            self.numbers.on_restart_mark(from, gossip.restart_mark);
            self.compare_state();
        }
        self.maybe_settle();
        self.maybe_pull(now);
    }

    /// G6: writes down how far the peers' logs reach, if that is more than was written before. Nobody
    /// waits for it.
    pub(crate) fn note_heard(&mut self, now: Time) {
        if self.peers.take_heard_more(now) {
            self.append_heard();
        }
    }

    /// The same every now and then.
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

    /// Executed at every member, durably: nobody will ask for it again.
    fn maybe_settle(&mut self) {
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
        let has_begun = |peer: &Peer| self.config.epoch == FIRST || peer.barrier().0 > 0;
        let compare = |peer: &Peer| {
            let ((barrier, barrier_hash), (frontier, frontier_hash)) = (peer.barrier(), peer.state());
            let at_barrier = self.forgetting.hash_at(barrier).map(|hash| hash == barrier_hash);
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

    /// What V13 says to the operator: who stands against whom, and how to find out who is wrong.
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
