//! The reports of a replica about itself, for operators and tests.

use crate::contract::Time;
use crate::limits::WAITING_ON_SHOWN;
use crate::marks::{Mark, Marks};
use crate::replica::Replica;
use crate::sessions::Session;
use isonomy_wire::deps::Frontier;
use isonomy_wire::id::{ReplicaId, SessionId};
use isonomy_wire::message::{PeerStatus, SOURCES_TOLD_MAX, ShardStatus, SourceStatus};

impl Replica {
    /// The frontier E: the executed instances, per row.
    pub fn executed(&self) -> &Frontier {
        self.executor.executed()
    }

    /// The hash of the state, which is equal at equal frontiers (V13).
    pub fn state_hash(&self) -> u64 {
        self.sealed().map_or_else(|| self.machine.hash(), |sealed| sealed.hash)
    }

    /// The most instances that executed as one component since the start.
    pub fn largest_component(&self) -> usize {
        self.executor.largest_component()
    }

    /// The branches of the law that were taken since the start.
    pub fn marks(&self) -> Marks {
        let mut marks = self.marks;
        match self.largest_component() {
            0 | 1 => {}
            2 => marks.set(Mark::Cycle),
            _ => marks.set(Mark::LongCycle),
        }
        marks
    }

    /// The status of the shard. Fields that only the caller knows are left 0 or empty.
    pub fn status(&self) -> ShardStatus {
        let executed = *self.executor.executed();
        let rows = self.peers.rows();
        ShardStatus {
            replica: self.me,
            epoch: self.config.epoch,
            shard: self.config.shard,
            is_learner: self.is_learner(),
            sealed: self.sealed().map(|sealed| sealed.record),
            messages_dropped: self.counters.dropped,
            frontier: executed,
            committed: *self.executor.committed(),
            unexecuted: rows.map(|row| self.unexecuted(row)).sum(),
            waiting_on: self.executor.waiting_on().take(WAITING_ON_SHOWN).collect(),
            state_hash: self.state_hash(),
            floor: *self.forgetting.floor(),
            barrier: self.forgetting.barriers(),
            barrier_hash: self.forgetting.last_barrier().map_or(0, |last| last.hash),
            snapshot: self.forgetting.snapshot(),
            keys: self.machine.state.keys(),
            sessions: self.machine.sessions.opened() as u64,
            sources: self.machine.sessions.sources() as u64,
            decisions: self.machine.commands() - self.counters.replayed_commands,
            fast: self.counters.fast,
            slow: self.counters.slow,
            waited_in_vain: self.counters.waited_in_vain,
            path: self.path_status(),
            tuning: self.tuning,
            recoveries: self.counters.recoveries,
            queued: self.requests.queued(),
            snapshots_damaged: self.counters.snapshots_damaged,
            peers: self
                .peers
                .others()
                .chain(self.peers.learners())
                .map(|peer| self.peer_status(peer))
                .collect(),
            ..ShardStatus::default()
        }
    }

    /// How many instances of a row were seen, have not executed, and are not void (section 9).
    fn unexecuted(&self, row: ReplicaId) -> u64 {
        if self.is_sealed() { 0 } else { self.space.last(row) - self.executor.executed().of(row) }
    }

    fn peer_status(&self, replica: ReplicaId) -> PeerStatus {
        let (resent, behind) = (self.counters.resent[replica.index()], self.behind(replica));
        PeerStatus { replica, resent, behind, ..PeerStatus::default() }
    }

    /// How many instances this replica has executed and a peer has not, as far as the peer has told.
    fn behind(&self, replica: ReplicaId) -> Option<u64> {
        let theirs = self.peers.told_executed(replica)?;
        let missing = |row| self.executed().of(row).saturating_sub(theirs.of(row));
        Some(self.peers.rows().map(missing).sum())
    }

    /// The known sources behind this session, in the order of their sessions, as many as one answer takes.
    pub fn sources(&self, now: Time, after: SessionId) -> Vec<SourceStatus> {
        let status = |(id, session): (&SessionId, &Session)| SourceStatus {
            session: *id,
            name: session.name().map(|name| name.as_str().to_owned()).unwrap_or_default(),
            owner: session.owner(),
            low: session.low(),
            commands: session.commands(),
            idle_us: self.idle.idle_us(now, *id),
        };
        self.machine.sessions.sources_after(after).take(SOURCES_TOLD_MAX).map(status).collect()
    }
}
