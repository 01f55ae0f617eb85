//! Section 9: a learner copies the state of an epoch of which it is no member, to be a member of the next one.

use crate::contract::{Position, Time};
use crate::limits::CLOSE_MAX;
use crate::log::record::Record;
use crate::mutant::{self, Mutant};
use crate::replica::Replica;
use isonomy_wire::id::{PLACES_MAX, ReplicaId};
use isonomy_wire::message::PeerMessage;

impl Replica {
    /// Whether this replica is a learner: its place lies behind those of the members of its epoch.
    pub fn is_learner(&self) -> bool {
        self.me.index() >= self.quorum.n
    }

    /// Whether this replica is close to the members: it has the state in which the epoch began, and needs no snapshot,
    /// and what it lacks can be pulled and is little (G5). It rests on what it has durably, and on what a slow quorum
    /// of the members has told since they were linked, a member itself among them. A member is judged in the same way.
    pub fn is_close(&self) -> bool {
        let here = self.peers.get(self.me);
        self.peers.told().count() >= self.quorum.slow()
            && !self.lacks_state()
            && self.wants_snapshot().is_none()
            && self.peers.told().all(|member| here.committed().is_above(member.floor()))
            && !self.peers.is_ahead_of(here.executed(), CLOSE_MAX)
    }

    /// Tells the replica whether the record announces a change. While it does the floor rises with snapshots only
    /// (G2), so that a learner finds all that it lacks in a snapshot and in the logs behind it. To be called at the
    /// start and whenever the record has changed.
    pub fn on_change(&mut self, is_announced: bool) {
        self.is_changing = is_announced;
    }

    /// G2: whether a learner may still need what all members have executed.
    pub(crate) fn keeps_for_learners(&self) -> bool {
        self.is_changing || self.peers.has_learners()
    }

    /// G2: whether what was forgotten since the newest snapshot keeps learners from catching up, so that another one is
    /// needed.
    pub(crate) fn must_cover_floor(&self) -> bool {
        self.keeps_for_learners() && !self.forgetting.is_floor_covered()
    }

    /// What a learner does as time passes: it lets the members know how far it is, and pulls.
    pub(crate) fn tick_as_learner(&mut self, now: Time) {
        self.maybe_pull(now);
        self.maybe_gossip(now);
        self.maybe_note_heard(now);
    }

    /// D6: a snapshot counts only once the log has begun. The log of a learner begins with a block of no numbers.
    pub(crate) fn begin_log_of_learner(&mut self, position: Position) {
        if self.is_learner() && position == Position(0) {
            self.outbox.append(Record::Reserve { end: 0 }, None);
        }
    }
}

/// Whether a message asks for a vote or answers with one, which is not for learners.
pub(crate) fn is_about_votes(message: &PeerMessage) -> bool {
    match message {
        PeerMessage::PreAccept { .. }
        | PeerMessage::PreAcceptOk { .. }
        | PeerMessage::Accept { .. }
        | PeerMessage::AcceptOk { .. }
        | PeerMessage::Nack { .. }
        | PeerMessage::Recover { .. }
        | PeerMessage::RecoverOk { .. }
        | PeerMessage::Validate { .. }
        | PeerMessage::ValidateOk { .. }
        | PeerMessage::Waiting { .. } => !mutant::is(Mutant::LearnerVotes),
        PeerMessage::Commit { .. }
        | PeerMessage::Lacking { .. }
        | PeerMessage::Pull { .. }
        | PeerMessage::Gone { .. }
        | PeerMessage::Stalled
        | PeerMessage::Gossip(_)
        | PeerMessage::Unreadable { .. }
        | PeerMessage::Fetch { .. }
        | PeerMessage::Piece { .. } => false,
    }
}

/// Whether a message can come from a replica behind the last member.
pub(crate) fn may_learner_say(from: ReplicaId, message: &PeerMessage) -> bool {
    from.index() < PLACES_MAX && !is_about_votes(message)
}
