//! D9: a disk that hangs. The replica begins nothing and sends clients elsewhere. The others go on as if the replica
//! could not be reached, until its disk answers again.

use crate::contract::{Room, Time};
use crate::limits::STALLED_PERIODS;
use crate::marks::Mark;
use crate::mutant::{self, Mutant};
use crate::replica::Replica;
use isonomy_wire::failure::{Failure, Reason};
use isonomy_wire::id::ReplicaId;
use isonomy_wire::message::PeerMessage;

impl Replica {
    /// Gives back the requests that were not proposed, while the log cannot take them.
    pub(crate) fn give_back_for_room(&mut self) {
        match self.requests.room() {
            Room::Hung(_) if mutant::is(Mutant::HungProposes) => {}
            Room::Gone(reason) | Room::Hung(reason) => self.give_back_pending(reason),
            Room::Enough | Room::Short(_) => {}
        }
    }

    /// Gives back the requests that wait for an instance. Nothing was proposed for them.
    pub(crate) fn give_back_pending(&mut self, reason: Reason) {
        for client in self.requests.give_back() {
            self.outbox.reply(client, Err(Failure::Unavailable(reason)));
        }
    }

    /// D9: while the disk hangs, gives up the clients of instances that were proposed. Such an instance may be
    /// decided, by others or when the disk answers again, and may have been already, with an answer that could not
    /// leave. So each client asks another replica under the same number, and its command takes effect once.
    pub(crate) fn give_up_if_hung(&mut self) {
        let Room::Hung(reason) = self.requests.room() else { return };
        if mutant::is(Mutant::HungKeepsWaiters) {
            return;
        }
        let answered = self.outbox.take_held_answers();
        for client in self.requests.take_all_waiters().chain(answered) {
            self.outbox.reply(client, Err(Failure::Unknown(reason)));
        }
    }

    /// D9: tells all others that the own disk hangs, as often as this replica would gossip. The message rests on no
    /// record.
    pub(crate) fn say_stalled(&mut self, now: Time) {
        if !self.said.is_stall_due(now, self.config.timing.gossip_us) {
            return;
        }
        self.marks.set(Mark::Stalled);
        for to in self.peers.others() {
            self.outbox.send_at_once(to, PeerMessage::Stalled);
        }
    }

    /// D9: the own disk answers again. Meanwhile others were at work on instances that are undecided here, so the
    /// timeouts of all instances begin anew, as after a restart.
    pub(crate) fn end_own_stall(&mut self, now: Time) {
        if self.said.end_stall() {
            self.space.restart_patience(now);
            self.guardrail.start(now);
            self.said.forget();
        }
    }

    /// D9: another replica has reported that its disk hangs.
    pub(crate) fn on_stalled(&mut self, now: Time, from: ReplicaId) {
        if mutant::is(Mutant::StalledIsReached) {
            return;
        }
        let until = now.after(STALLED_PERIODS * self.config.timing.gossip_us);
        if self.peers.on_stalled(from, until) {
            self.look_for_quorum(now);
        }
    }

    /// D9: a replica that no longer reports a hanging disk is reached again.
    pub(crate) fn end_stalls(&mut self, now: Time) {
        if self.peers.end_stalls(now) {
            self.look_for_quorum(now);
        }
    }
}
