//! G5: commits that a replica has missed are pulled from the logs of the others, by ranges.

use crate::contract::Time;
use crate::instance::Choice;
use crate::limits::{PULL_BYTES_MAX, PULL_COMMITS_MAX};
use crate::marks::Mark;
use crate::replica::Replica;
use isonomy_wire::id::{InstanceId, ReplicaId};
use isonomy_wire::message::PeerMessage;

/// The numbers of a row that a replica asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) row: ReplicaId,
    pub(crate) first: u64,
    pub(crate) to: u64,
}

/// A range of a row that was asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Pulled {
    /// The last number of the range; 0 if there is none.
    to: u64,
    /// The bytes of the range's batches that have come.
    bytes: usize,
    /// When the range was asked for, or a Commit of it came last.
    heard: Time,
}

/// The last range that was asked for, by row.
#[derive(Clone, Debug)]
pub(crate) struct Pulls(Vec<Pulled>);

impl Pulls {
    /// No range was asked for.
    pub(crate) fn new(replicas: usize) -> Pulls {
        Pulls(vec![Pulled::default(); replicas])
    }
}

impl Replica {
    /// Asks for commits that another replica has and this one still lacks after a while.
    pub(crate) fn maybe_pull(&mut self, now: Time) {
        let resend = self.tuning.resend_us;
        // To a learner nobody sends Commits by himself.
        let patience = if self.is_learner() { 0 } else { resend };
        for row in self.peers.rows() {
            let next = InstanceId::new(row, self.executor.committed().of(row) + 1);
            let is_old = self.space.get(next).is_some_and(|instance| instance.waits(now) >= patience);
            // Commits that come slowly do not come faster when they are asked for twice.
            if is_old && now.since(self.pulls.0[row.index()].heard) >= resend {
                self.pull(now, row);
            }
        }
    }

    /// Pulls the next range of a row from a replica that has it.
    pub(crate) fn pull(&mut self, now: Time, row: ReplicaId) {
        let next = InstanceId::new(row, self.executor.committed().of(row) + 1);
        self.pulls.0[row.index()] = Pulled::default();
        let has = |peer: &ReplicaId| self.peers.is_committed_at(*peer, next);
        let sources: Vec<ReplicaId> = self.peers.others().filter(has).collect();
        let of = |id: &ReplicaId| self.peers.get(*id);
        if let Some(source) = sources.iter().find(|id| !of(id).floor().contains(next)) {
            let to = of(source).committed().of(row).min(next.seq + PULL_COMMITS_MAX - 1);
            self.outbox.send(*source, PeerMessage::Pull { row, from: next.seq, to }, None);
            self.pulls.0[row.index()] = Pulled { to, bytes: 0, heard: now };
            self.marks.set(Mark::Pulled);
        } else if let Some(source) = sources.into_iter().min_by_key(|id| of(id).snapshot()) {
            self.on_forgotten(now, source);
        }
    }

    /// A Commit has come with a batch of so many bytes. A replica that catches up asks for the next range as soon as
    /// this range has come, or as much of it as one answer brings (G5).
    pub(crate) fn pull_on(&mut self, now: Time, id: InstanceId, bytes: usize) {
        let pulled = &mut self.pulls.0[id.row.index()];
        if id.seq > pulled.to {
            return;
        }
        (pulled.bytes, pulled.heard) = (pulled.bytes + bytes, now);
        if pulled.bytes > PULL_BYTES_MAX || self.executor.committed().of(id.row) >= pulled.to {
            self.pull(now, id.row);
        }
    }

    /// G5: a replica that missed commits asks for them by range.
    pub(crate) fn on_pull(&mut self, from: ReplicaId, Range { row, first, to }: Range) {
        if row.index() >= self.quorum.n {
            return;
        }
        if self.forgetting.floor().of(row) >= first {
            self.say_gone(from);
        }
        let (first, mut bytes) = (first.max(1), 0);
        for seq in first..=to.min(first.saturating_add(PULL_COMMITS_MAX)) {
            let id = InstanceId::new(row, seq);
            let Some(instance) = self.space.get(id).filter(|instance| instance.is_committed()) else {
                continue;
            };
            let attached = instance.payload().filter(|_| instance.cmd() == Choice::Initial);
            bytes += attached.map_or(0, |payload| payload.batch().payload().len());
            self.answer_with_commit(from, id);
            if bytes > PULL_BYTES_MAX {
                return;
            }
        }
    }
}
