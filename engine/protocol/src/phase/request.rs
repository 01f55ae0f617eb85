//! Requests of clients are taken, or refused with a reason (sections 6 and 8). Requests that wait become instances.

use crate::contract::{Busy, ClientRef, Room, Time};
use crate::limits::{
    BEHIND_MAX, KEYED_BYTES_MAX, KEYED_MAX, ROOM_RETRY_MS, SESSIONS_MAX, SESSIONS_RETRY_MS, SOURCES_MAX,
    UNAVAILABLE_AFTER_US,
};
use crate::mutant::{self, Mutant};
use crate::payload::Payload;
use crate::replica::Replica;
use isonomy_wire::command::{Op, Part};
use isonomy_wire::failure::{Failure, Reason};
use isonomy_wire::id::{Epoch, InstanceId};

impl Replica {
    /// Takes or refuses a request. `Busy` means that nothing was taken, and that the caller must try again after the
    /// next reply.
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
        if payload.is_barrier() {
            let why =
                "only replicas propose barriers and Seals; `isonomy snapshot take` asks them for a barrier"
                    .into();
            return Some(Failure::Invalid { why });
        }
        if let Some(reason) = self.why_unavailable(now, part) {
            return Some(Failure::Unavailable(reason));
        }
        self.why_overloaded(payload, part)
            .map(|(retry_after_ms, reason)| Failure::Overloaded { retry_after_ms, reason })
    }

    /// Why this replica takes no requests of this session.
    fn why_unavailable(&self, now: Time, part: &Part) -> Option<Reason> {
        let unknown = |(epoch, open): (Epoch, InstanceId)| {
            let is_later = open.row.index() >= self.quorum.n || open.seq > self.space.last(open.row);
            epoch > self.config.epoch || (epoch == self.config.epoch && is_later)
        };
        if self.is_sealed() {
            Some(self.epoch_ended())
        } else if self.is_learner() {
            Some(Reason::NotAMember)
        } else if self.requests.is_stopping() {
            Some(Reason::Stopping)
        } else if !self.is_admitted() {
            Some(Reason::NotConfirmed)
        } else if self.requests.without_quorum_us(now) > UNAVAILABLE_AFTER_US {
            let (linked, needed) = (self.peers.live().len() as u8, self.quorum.slow() as u8);
            Some(Reason::NoQuorum { linked, replicas: self.quorum.n as u8, needed })
        } else if self.lacks_state() || self.lacks_more_than(BEHIND_MAX) {
            Some(Reason::CatchingUp)
        } else if part.session.opened_in().is_some_and(unknown) {
            Some(Reason::SessionUnknown)
        } else {
            self.why_no_room()
        }
    }

    /// Why the log takes no record, if it does not.
    fn why_no_room(&self) -> Option<Reason> {
        match self.requests.room() {
            Room::Hung(_) if mutant::is(Mutant::HungProposes) => None,
            Room::Gone(reason) | Room::Hung(reason) => Some(reason),
            Room::Short(_) | Room::Enough => None,
        }
    }

    /// The limit that a request meets, and the milliseconds after which to try again. The limits are the log's budget
    /// and the numbers of sessions, sources and idempotency keys (S4, S5, S6).
    fn why_overloaded(&self, payload: &Payload, part: &Part) -> Option<(u32, Reason)> {
        let has = |is: fn(Op) -> bool| payload.batch().commands_of(part).any(|command| is(command.op));
        if let Room::Short(reason) = self.requests.room()
            && has(|op| op != Op::Read)
        {
            return Some((ROOM_RETRY_MS, reason));
        }
        let sessions = &self.machine.sessions;
        if sessions.opened() >= SESSIONS_MAX && has(|op| op == Op::Open) {
            return Some((SESSIONS_RETRY_MS, Reason::SessionsFull { max: SESSIONS_MAX as u32 }));
        }
        let is_fresh = part.session.is_named() && sessions.get(part.session).is_none();
        if is_fresh && sessions.sources() >= SOURCES_MAX {
            return Some((SESSIONS_RETRY_MS, Reason::SourcesFull { max: SOURCES_MAX as u32 }));
        }
        let (keys, bytes) = sessions.keyed();
        if part.session.is_keyed()
            && sessions.get(part.session).is_none()
            && (keys >= KEYED_MAX || bytes >= KEYED_BYTES_MAX)
        {
            let reason = Reason::IdempotencyKeysFull { keys: keys as u32, bytes: bytes as u32 };
            return Some((SESSIONS_RETRY_MS, reason));
        }
        None
    }

    /// Whether a peer has executed more than so many instances that have not executed here.
    pub(crate) fn lacks_more_than(&self, instances: u64) -> bool {
        self.peers.is_ahead_of(self.executor.executed(), instances)
    }

    /// Ends a batch of inputs: requests that were gathered become instances. The caller must poll next.
    pub fn end_turn(&mut self, now: Time) {
        self.give_back_for_room();
        while self.unexecuted_own() < u64::from(self.tuning.window)
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

    /// How many own instances wait for their execution (W of section 6). Void instances do not.
    fn unexecuted_own(&self) -> u64 {
        if self.is_sealed() {
            return 0;
        }
        self.numbers.unexecuted(self.executor.executed().of(self.me))
    }
}
