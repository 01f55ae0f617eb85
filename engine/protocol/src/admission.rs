//! G6: members that have met a replica before judge whether its data directory is in its newest state. The replica
//! takes no part until enough of them have.
//!
//! A directory that was set back (a copy that was put back, the snapshot of a virtual machine) has
//! forgotten the promises that it made since. The replica cannot know that by itself, but its peers can.

use crate::mutant::{self, Mutant};
use crate::quorum::{Quorum, ReplicaSet};
use isonomy_wire::id::ReplicaId;
use isonomy_wire::message::{SetBack, Start};

/// A member's durable knowledge of another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Met {
    /// The newest process of the other member that sent something, if any did.
    pub start: Option<Start>,
    /// The number of durable records that its log had at least.
    pub heard: u64,
}

/// Judges whether a process with a log of `position` records may be the newest state of the replica that was met.
pub fn judge(met: Met, here: Start, position: Option<u64>) -> Result<(), SetBack> {
    if mutant::is(Mutant::SetBackUnnoticed) {
        return Ok(());
    }
    if let Some(known) = met.start {
        if here.number < known.number {
            return Err(SetBack::Starts { here: here.number, known: known.number });
        }
        if here.number == known.number && here.nonce != known.nonce {
            return Err(SetBack::SameStart { here: here.number });
        }
    }
    match position {
        Some(position) if position < met.heard => Err(SetBack::Log { here: position, heard: met.heard }),
        _ => Ok(()),
    }
}

/// The judgements of the others about this replica since its start.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    quorum: Quorum,
    me: ReplicaId,
    welcomed: ReplicaSet,
    /// The members that were asked after a quorum had welcomed this replica, and did not answer.
    silent: ReplicaSet,
    /// The members that are linked with another process of this replica.
    object: ReplicaSet,
}

impl Admission {
    /// An admission before any member was asked.
    pub fn new(quorum: Quorum, me: ReplicaId) -> Admission {
        let nobody = ReplicaSet::default();
        Admission { quorum, me, welcomed: nobody, silent: nobody, object: nobody }
    }

    /// A member knows nothing that contradicts this replica. The word of a learner does not count (section 9).
    pub fn on_welcome(&mut self, peer: ReplicaId) {
        self.welcomed.insert(peer);
        self.object.remove(peer);
    }

    /// A member reports that another process of this replica lives.
    pub fn on_objection(&mut self, peer: ReplicaId) {
        self.object.insert(peer);
        self.silent.remove(peer);
    }

    /// A member was asked and did not judge.
    pub fn on_silence(&mut self, peer: ReplicaId) {
        self.object.remove(peer);
        if self.has_quorum() {
            self.silent.insert(peer);
        }
    }

    /// A quorum has welcomed this replica, and the wait for members that have neither judged nor objected since is
    /// over.
    pub fn on_patience_over(&mut self) {
        let object = self.object;
        for peer in self.others().filter(|peer| !object.contains(*peer)) {
            self.on_silence(peer);
        }
    }

    fn others(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        let me = self.me;
        (0..self.quorum.n as u8).map(ReplicaId).filter(move |peer| *peer != me)
    }

    /// Whether a member has welcomed this process.
    pub fn is_welcomed_by(&self, peer: ReplicaId) -> bool {
        self.welcomed.contains(peer)
    }

    /// Whether the members that have welcomed this replica form a slow quorum, with it if it is a member.
    pub fn has_quorum(&self) -> bool {
        let welcomed = self.others().filter(|peer| self.welcomed.contains(*peer)).count();
        welcomed + usize::from(self.me.index() < self.quorum.n) >= self.quorum.slow()
    }

    /// Whether this replica may take part: a quorum has welcomed it, and all other members that can be reached have
    /// judged. One member that knows better is enough to stop the replica, and a member that is down does not keep it
    /// waiting.
    pub fn is_open(&self) -> bool {
        let is_judged = |peer| self.welcomed.contains(peer) || self.silent.contains(peer);
        self.has_quorum() && self.object.is_empty() && self.others().all(is_judged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(number: u64, nonce: u64) -> Start {
        Start { number, nonce }
    }

    #[test]
    fn g6_who_was_met_later_or_with_more_is_not_met_earlier_or_with_less() {
        let met = Met { start: Some(start(3, 7)), heard: 10 };
        assert_eq!(judge(Met::default(), start(1, 1), Some(0)), Ok(()), "a stranger");
        assert_eq!(judge(met, start(3, 7), Some(10)), Ok(()), "the same process");
        assert_eq!(judge(met, start(4, 8), Some(10)), Ok(()), "the next");
        assert_eq!(judge(met, start(9, 8), Some(12)), Ok(()), "some starts were not heard of");
        assert_eq!(judge(met, start(2, 7), Some(12)), Err(SetBack::Starts { here: 2, known: 3 }));
        assert_eq!(judge(met, start(3, 8), Some(12)), Err(SetBack::SameStart { here: 3 }));
        assert_eq!(judge(met, start(4, 8), Some(9)), Err(SetBack::Log { here: 9, heard: 10 }));
        assert_eq!(judge(met, start(3, 7), Some(9)), Err(SetBack::Log { here: 9, heard: 10 }));
        assert_eq!(judge(met, start(4, 8), None), Ok(()), "it may have lost its tail lawfully");
    }

    #[test]
    fn g6_all_that_can_be_reached_judge_before_a_replica_takes_part() {
        let peer = ReplicaId;
        let mut five = Admission::new(Quorum::new(5), peer(0));
        five.on_silence(peer(4));
        five.on_welcome(peer(1));
        assert!(!five.is_open(), "two are no quorum");
        five.on_welcome(peer(2));
        assert!(!five.is_open(), "3 and 4 may know better");
        five.on_silence(peer(3));
        assert!(!five.is_open(), "4 was silent before there was a quorum: it may be back");
        five.on_objection(peer(4));
        five.on_patience_over();
        assert!(!five.is_open(), "another process lives");
        five.on_silence(peer(4));
        assert!(five.is_open());
        assert!(Admission::new(Quorum::new(1), peer(0)).is_open(), "nobody else could know");
        let mut three = Admission::new(Quorum::new(3), peer(0));
        three.on_patience_over();
        three.on_welcome(peer(2));
        assert!(!three.is_open(), "1 was not asked since");
        three.on_patience_over();
        assert!(three.is_open());
    }
}
