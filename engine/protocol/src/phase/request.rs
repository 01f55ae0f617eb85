//! Requests of clients at the door: taken, or refused with a reason (sections 6 and 8); and how those that wait
//! become instances.

use crate::contract::{Busy, ClientRef, Room, Time};
use crate::limits::{
    ADMISSION_WINDOW, BEHIND_MAX, ROOM_RETRY_MS, SOURCES_MAX, STREAMS_MAX, UNAVAILABLE_AFTER_US,
};
use crate::mutant::{self, Mutant};
use crate::payload::Payload;
use crate::replica::Replica;
use isonomy_wire::command::{Op, Part};
use isonomy_wire::id::InstanceId;
use isonomy_wire::message::Failure;

impl Replica {
    /// A request. `Busy` gives it back untouched: try again after the next reply.
    pub fn on_request(&mut self, now: Time, client: ClientRef, payload: Payload) -> Result<(), Busy> {
        if let Some(failure) = self.refusal(now, &payload) {
            self.outbox.reply(client, Err(failure));
            return Ok(());
        }
        self.requests.offer(client, payload)
    }

    /// Why a request cannot be taken at all.
    fn refusal(&self, now: Time, payload: &Payload) -> Option<Failure> {
        let [part] = payload.batch().parts() else {
            let why = "a request frame holds exactly one request; send each in its own".into();
            return Some(Failure::Invalid { why });
        };
        if self.requests.is_stopping() {
            let reason = "this replica is shutting down and proposed nothing; ask another".into();
            return Some(Failure::Unavailable { reason });
        }
        if !self.is_admitted() {
            let reason = "this replica has just started, and too few others have confirmed yet that its state \
                          is the newest; ask another, or try again later";
            return Some(Failure::Unavailable { reason: reason.into() });
        }
        if self.requests.without_quorum_us(now) > UNAVAILABLE_AFTER_US {
            let (linked, needed) = (self.peers.live().len(), self.quorum.slow());
            let reason = format!(
                "{linked} of {} replicas reach each other here, {needed} are needed; \
                 nothing was proposed, try another replica or later",
                self.quorum.n
            );
            return Some(Failure::Unavailable { reason });
        }
        if self.lacks_more_than(BEHIND_MAX) {
            let reason = "this replica was away and is catching up; ask another".into();
            return Some(Failure::Unavailable { reason });
        }
        let unknown =
            |open: &InstanceId| open.row.index() >= self.quorum.n || open.seq > self.space.last(open.row);
        if part.stream.opened_in().is_some_and(|open| unknown(&open)) {
            let reason = "this replica has not heard of the stream yet; ask another, or open a stream".into();
            return Some(Failure::Unavailable { reason });
        }
        if payload.is_fence() {
            let why = "only replicas propose fences; `isonomy snapshot take` asks them to".into();
            return Some(Failure::Invalid { why });
        }
        let mut commands = payload.batch().commands_of(part);
        match self.requests.room() {
            Room::Hung(_) if mutant::is(Mutant::HungProposes) => {}
            Room::Gone(reason) | Room::Hung(reason) => {
                return Some(Failure::Unavailable { reason: reason.clone() });
            }
            Room::Short(why) if commands.any(|command| command.op != Op::Read) => {
                return Some(Failure::Overloaded { retry_after_ms: ROOM_RETRY_MS, why: why.clone() });
            }
            Room::Short(_) | Room::Enough => {}
        }
        self.why_no_stream(payload, part)
    }

    /// S4, S5: why no further stream may come into being here, if the request makes one.
    fn why_no_stream(&self, payload: &Payload, part: &Part) -> Option<Failure> {
        let streams = &self.machine.streams;
        let opens = payload.batch().commands_of(part).any(|command| command.op == Op::Open);
        if opens && streams.opened() >= STREAMS_MAX {
            let why = format!("{STREAMS_MAX} streams are open; idle ones end by themselves");
            return Some(Failure::Overloaded { retry_after_ms: 1000, why });
        }
        let is_fresh = part.stream.is_named() && streams.get(part.stream).is_none();
        if is_fresh && streams.sources() >= SOURCES_MAX {
            let why = format!(
                "{SOURCES_MAX} sources are known here; end those that are done with: isonomy source list, \
                 isonomy source end NAME"
            );
            return Some(Failure::Overloaded { retry_after_ms: 1000, why });
        }
        None
    }

    /// Whether a peer has executed more than so many instances that have not executed here.
    pub(crate) fn lacks_more_than(&self, instances: u64) -> bool {
        self.peers.is_ahead_of(self.executor.executed(), instances)
    }

    /// After a batch of inputs: what requests have gathered becomes instances. Then poll.
    pub fn end_turn(&mut self, now: Time) {
        self.give_back_for_room();
        while self.unexecuted_own() < ADMISSION_WINDOW as u64
            && let Some((payload, clients)) = self.requests.gather()
        {
            self.submit(now, payload, clients);
        }
        self.reserve_unless_stopping();
        self.deliver_to_self(now);
    }

    fn reserve_unless_stopping(&mut self) {
        if !self.requests.is_stopping() {
            self.numbers.reserve(&mut self.outbox);
        } else if !self.requests.is_stopped() && self.requests.is_empty() && self.unexecuted_own() == 0 {
            self.requests.on_stopped();
            self.outbox.append(self.numbers.stop(), None);
        }
    }

    /// How many own instances wait for their execution (W of section 6).
    fn unexecuted_own(&self) -> u64 {
        self.numbers.unexecuted(self.executor.executed().of(self.me))
    }
}
