//! D9: a disk that hangs. The replica begins nothing and sends clients elsewhere; the others go on as if
//! it could not be reached, until its disk answers again.

use crate::contract::{Room, Time};
use crate::limits::STALLED_PERIODS;
use crate::marks::Mark;
use crate::mutant::{self, Mutant};
use crate::replica::{Pending, Replica};
use isonomy_wire::id::ReplicaId;
use isonomy_wire::message::{Failure, PeerMessage};

impl Replica {
    /// D9: the own disk hangs.
    pub(crate) fn is_hung(&self) -> bool {
        matches!(self.room, Room::Hung(_))
    }

    /// What was not proposed is not, while the log cannot take it.
    pub(crate) fn give_back_for_room(&mut self) {
        let reason = match &self.room {
            Room::Hung(_) if mutant::is(Mutant::HungProposes) => return,
            Room::Gone(reason) | Room::Hung(reason) if !self.pending.is_empty() => reason.clone(),
            _ => return,
        };
        self.give_back_pending(&reason);
    }

    /// Nothing was proposed for those who wait to be.
    pub(crate) fn give_back_pending(&mut self, reason: &str) {
        for Pending { clients, .. } in std::mem::take(&mut self.pending) {
            for client in clients {
                let reason = reason.to_owned();
                self.outbox.reply(client, Err(Failure::Unavailable { reason }));
            }
        }
        self.pending_bytes = 0;
    }

    /// D9: what was proposed may be decided, by others or when the disk answers again, and may have been,
    /// without an answer that could leave. Whoever waits for it asks elsewhere under the same number, so that
    /// it takes effect once.
    pub(crate) fn give_up_waiters(&mut self) {
        let Room::Hung(reason) = &self.room else { return };
        let answered = self.outbox.take_held_answers();
        if self.waiters.is_empty() && answered.is_empty() {
            return;
        }
        let reason = format!("{reason}; what was proposed here may still be decided");
        let waiters = std::mem::take(&mut self.waiters).into_values().flatten();
        for client in waiters.chain(answered) {
            let reason = reason.clone();
            self.outbox.reply(client, Err(Failure::Unavailable { reason }));
        }
    }

    /// D9: says to all others that the own disk hangs, as often as it would gossip. That rests on no record.
    pub(crate) fn say_stalled(&mut self, now: Time) {
        if self.said_stalled.is_some_and(|said| now.since(said) < self.config.timing.gossip_us) {
            return;
        }
        self.marks.set(Mark::Stalled);
        self.said_stalled = Some(now);
        for to in self.others() {
            self.outbox.send_at_once(to, PeerMessage::Stalled);
        }
    }

    /// D9: the own disk answers again. Others were at work meanwhile on what is undecided here, so all of
    /// it gets its time anew, as after a restart.
    pub(crate) fn end_own_stall(&mut self, now: Time) {
        if self.said_stalled.take().is_some() {
            self.space.restart_patience(now);
            self.gossiped = None;
        }
    }

    /// D9: another replica's disk hangs.
    pub(crate) fn on_stalled(&mut self, now: Time, from: ReplicaId) {
        if mutant::is(Mutant::StalledIsReached) {
            return;
        }
        let until = now.after(STALLED_PERIODS * self.config.timing.gossip_us);
        if self.peers[from.index()].stalled_until.replace(until).is_none() {
            self.look_for_quorum(now);
        }
    }

    /// D9: who no longer says that its disk hangs is reached again.
    pub(crate) fn end_stalls(&mut self, now: Time) {
        let mut ended = false;
        for peer in &mut self.peers {
            ended |= peer.stalled_until.take_if(|until| *until <= now).is_some();
        }
        if ended {
            self.look_for_quorum(now);
        }
    }
}
