//! One lane: the commands of a shard that go to one home, on a session of their own.

use super::Process;
use super::config::{Config, EARLY_SENDS_MAX, KEYED_IN_FLIGHT_MAX, SPARE_BUILDERS_MAX, UNANSWERED_MAX};
use super::links::{Class, Targets};
use super::outcome::{Charge, NO_TOKEN};
use crate::answer::{Answer, Answers};
use crate::command::{Batch, Command, Invalid, Numbering, Op, RequestBuilder};
use crate::id::{ReplicaId, SessionId, ShardId};
use crate::source::{Comparison, Owner};
use bytes::Bytes;
use std::collections::VecDeque;

/// Commands that gather for one frame.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) builder: RequestBuilder,
    pub(super) tokens: Vec<u64>,
    pub(super) charge: Charge,
    /// When the first command was submitted.
    pub(super) since: u64,
    /// The place of this request in the order in which the conversation's requests began to gather.
    pub(super) serial: u64,
    /// The number of the first command, if a named source left out many numbers before it.
    pub(super) begins_at: Option<u64>,
    /// The session and the number of a command with an idempotency key (S6).
    pub(super) keyed: Option<(SessionId, u64)>,
}

impl Pending {
    /// The commands of a request that certainly had no effect, to be numbered afresh.
    pub(super) fn again(flight: Flight, mut builder: RequestBuilder) -> Pending {
        let batch = Batch::parse(flight.payload, 0, |_| ()).expect("the conversation encoded it");
        for command in batch.commands_of(&batch.parts()[0]) {
            add_again(&mut builder, &command).expect("it fitted before");
        }
        let Flight { tokens, charge, since, serial, .. } = flight;
        Pending { builder, tokens, charge, since, serial, ..Pending::default() }
    }
}

/// Adds a command of an earlier request to another one.
pub(super) fn add_again(builder: &mut RequestBuilder, command: &Command<'_>) -> Result<(), Invalid> {
    match command.op {
        Op::Decide => builder.decide(command.key, command.value),
        Op::DecideIf => builder.decide_if(command.key, command.value, command.expected),
        Op::Delete => builder.delete(command.key),
        other => unreachable!("{other:?} is not moved to another request"),
    }
}

impl Flight {
    /// Takes out the reads whose values did not fit the response, with their tokens and their charge, to ask them
    /// again.
    pub(super) fn take_omitted(&mut self, answers: &Answers, mut builder: RequestBuilder) -> Pending {
        let batch = Batch::parse(self.payload.clone(), 0, |_| ()).expect("the conversation encoded it");
        let (mut tokens, mut charge) = (Vec::new(), Charge::default());
        let commands = batch.commands_of(&batch.parts()[0]).zip(answers.to_vec());
        for (token, (command, _)) in
            self.tokens.iter_mut().zip(commands).filter(|(_, (_, answer))| *answer == Answer::Omitted)
        {
            builder.read(command.key).expect("it fitted before");
            tokens.push(std::mem::replace(token, NO_TOKEN));
            charge.add(Charge::of(command.key.len()));
        }
        self.charge.take(charge);
        Pending { builder, tokens, charge, since: self.since, serial: self.serial, ..Pending::default() }
    }
}

/// The requests of one kind that wait to be sent, and the number of those under way.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Requests that lost their session, in the order of their serials; they go first.
    again: VecDeque<Pending>,
    pub(super) full: VecDeque<Pending>,
    pub(super) gathering: Option<Pending>,
    pub(super) in_flight: usize,
    /// Empty builders, so that their space is used again.
    spare: Vec<RequestBuilder>,
}

impl Queue {
    pub(super) fn builder(&mut self) -> RequestBuilder {
        self.spare.pop().unwrap_or_default()
    }

    fn recycle(&mut self, builder: RequestBuilder) {
        if self.spare.len() < SPARE_BUILDERS_MAX {
            self.spare.push(builder);
        }
    }

    /// The request that may be sent now. Commands are sent when their frame is full or nothing of the lane is under
    /// way, so an idle lane answers at once and a busy lane gathers.
    fn next(&self, in_flight_max: usize) -> Option<&Pending> {
        if self.in_flight >= in_flight_max {
            return None;
        }
        if let Some(pending) = self.again.front().or(self.full.front()) {
            return Some(pending);
        }
        self.gathering.as_ref().filter(|pending| self.in_flight == 0 && !pending.tokens.is_empty())
    }

    /// Puts a request back to be sent once more, in its place among the other requests.
    pub(super) fn put_back(&mut self, pending: Pending) {
        let place = self.again.partition_point(|other| other.serial < pending.serial);
        self.again.insert(place, pending);
    }

    pub(super) fn take(&mut self) -> Option<Pending> {
        self.again.pop_front().or_else(|| self.full.pop_front()).or_else(|| self.gathering.take())
    }

    /// Begins another request with the next command.
    pub(super) fn cut(&mut self) {
        self.full.extend(self.gathering.take_if(|pending| !pending.tokens.is_empty()));
    }

    /// Whether a request up to this serial waits to be sent.
    fn waits(&self, serial: u64) -> bool {
        let gathering = self.gathering.as_ref().filter(|pending| !pending.tokens.is_empty());
        let firsts = [self.again.front(), self.full.front(), gathering];
        firsts.into_iter().flatten().any(|first| first.serial <= serial)
    }

    pub(super) fn is_empty(&self) -> bool {
        let gathers = self.gathering.as_ref().is_some_and(|pending| !pending.tokens.is_empty());
        self.again.is_empty() && self.full.is_empty() && !gathers
    }

    /// Takes a request whose first command was submitted at or before `limit`.
    pub(super) fn take_older(&mut self, limit: u64) -> Option<Pending> {
        let is_old = |pending: &Pending| !pending.tokens.is_empty() && pending.since <= limit;
        if self.again.front().is_some_and(is_old) {
            return self.again.pop_front();
        }
        if self.full.front().is_some_and(is_old) {
            return self.full.pop_front();
        }
        self.gathering.take_if(|pending| is_old(pending))
    }
}

/// The kind of a request frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RequestKind {
    Open,
    Attach,
    Writes,
    Reads,
    Keyed,
    End,
}

impl RequestKind {
    pub(super) fn class(self) -> Class {
        match self {
            // Each makes a session, whose number is limited.
            RequestKind::Open | RequestKind::Attach | RequestKind::Keyed => Class::Opens,
            RequestKind::Writes | RequestKind::End => Class::Writes,
            RequestKind::Reads => Class::Reads,
        }
    }
}

/// The place of a request frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// In the conversation, to be sent when a replica takes it.
    Waiting,
    /// In the conversation, because a copy arrived before an earlier request of the session. The frame is sent once
    /// that request is answered.
    Held,
    /// At a replica.
    Sent { replica: ReplicaId, at: u64 },
}

/// A request frame without an answer. Its bytes and numbers never change.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) tag: u64,
    pub(super) kind: RequestKind,
    pub(super) session: SessionId,
    pub(super) first: u64,
    pub(super) commands: usize,
    pub(super) payload: Bytes,
    pub(super) tokens: Vec<u64>,
    pub(super) charge: Charge,
    pub(super) since: u64,
    pub(super) serial: u64,
    pub(super) place: Place,
    pub(super) sends: u32,
    /// How many copies may have had an effect, because no answer said "nothing proposed".
    pub(super) unsettled: u32,
}

/// The session that new commands go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LaneSession {
    Closed,
    Opening,
    Open(SessionId),
    /// The session of a source whose position is not known.
    Detached(SessionId),
    /// The session of a source that is being taken over.
    Attaching(SessionId),
    /// The session of a source that belongs to this process.
    Attached(SessionId),
    /// The session gets no further commands and must end before another is opened. Otherwise commands under way on it
    /// could take effect behind later commands.
    Ending(SessionId),
    /// The cluster has ended the session; requests that were sent on it still need their outcome.
    Gone(SessionId),
}

/// The state of one lane: the commands of a shard that go to one home, on a session of their own.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) shard: ShardId,
    pub(super) home: ReplicaId,
    pub(super) session: LaneSession,
    /// The number of the next command that is sent.
    pub(super) next: u64,
    /// The number behind the last one that a named source submitted.
    pub(super) tail: u64,
    pub(super) writes: Queue,
    pub(super) reads: Queue,
    /// Commands with idempotency keys, each a request of its own.
    pub(super) keyed: Queue,
    /// The requests under way, in the order of their first sending.
    pub(super) flights: VecDeque<Flight>,
    /// When a closing conversation gives up to end the session.
    until: u64,
    /// Whether the lane is listed among those that may have something to send.
    pub(super) ready: bool,
    /// The number of a named source that failed.
    pub(super) stopped: Option<u64>,
    /// The last known owner of a source's session.
    pub(super) owner: Owner,
    /// The numbers of a source that are done, and the digests of their commands.
    pub(super) done: Comparison,
}

impl Lane {
    pub(super) fn new(shard: ShardId, home: ReplicaId, session: LaneSession, next: u64) -> Lane {
        Lane {
            shard,
            home,
            session,
            next,
            tail: next,
            writes: Queue::default(),
            reads: Queue::default(),
            keyed: Queue::default(),
            flights: VecDeque::new(),
            until: u64::MAX,
            ready: false,
            stopped: None,
            owner: Owner::NOBODY,
            done: Comparison::default(),
        }
    }

    /// The lanes of a home, by shard, without sessions.
    pub(super) fn of_home(home: ReplicaId, shards: u16) -> impl Iterator<Item = Lane> {
        (0..shards).map(move |shard| Lane::new(ShardId(shard), home, LaneSession::Closed, 1))
    }

    pub(super) fn queue(&mut self, kind: RequestKind) -> &mut Queue {
        match kind {
            RequestKind::Reads => &mut self.reads,
            RequestKind::Keyed => &mut self.keyed,
            _ => &mut self.writes,
        }
    }

    /// Whether a request of the lane waits to be sent or answered.
    pub(super) fn is_busy(&self) -> bool {
        let queued = [&self.writes, &self.reads, &self.keyed].iter().any(|queue| !queue.is_empty());
        queued || !self.flights.is_empty() || matches!(self.session, LaneSession::Ending(_))
    }

    /// Whether no write up to a serial can take effect any more.
    pub(super) fn is_settled(&self, serial: u64) -> bool {
        let flies = self.flights_of(RequestKind::Writes).any(|(_, flight)| flight.serial <= serial);
        // A command that was given up may be executed until its session has ended.
        !flies && !self.writes.waits(serial) && !matches!(self.session, LaneSession::Ending(_))
    }

    /// Whether a closing conversation has nothing left to do in this lane.
    pub(super) fn is_done(&self) -> bool {
        !self.is_busy() && !matches!(self.session, LaneSession::Open(_))
    }

    /// The requests of a kind that are under way, and their places.
    fn flights_of(&self, kind: RequestKind) -> impl Iterator<Item = (usize, &Flight)> {
        self.flights.iter().enumerate().filter(move |(_, flight)| flight.kind == kind)
    }

    /// All lower numbers of the session are answered (S3).
    fn answered_below(&self) -> u64 {
        self.flights_of(RequestKind::Writes).next().map_or(self.next, |(_, flight)| flight.first)
    }

    /// The place of the request to send again, if there is one that a replica takes. Writes keep their order: no
    /// write passes one that waits before it.
    pub(super) fn due(&self, targets: &Targets) -> Option<usize> {
        let write = self.flights_of(RequestKind::Writes).find(|(_, flight)| !flight.is_sent());
        let may_leave = |flight: &Flight, target| flight.place == Place::Waiting && self.may_write_to(target);
        let write = write
            .filter(|(_, flight)| targets.of(Class::Writes).is_some_and(|target| may_leave(flight, target)));
        let is_due = |flight: &Flight| {
            let is_taken = targets.of(flight.kind.class()).is_some();
            flight.kind != RequestKind::Writes && flight.place == Place::Waiting && is_taken
        };
        let mut others = self.flights.iter().enumerate().filter(|(_, flight)| is_due(flight));
        write.or_else(|| others.next()).map(|(place, _)| place)
    }

    /// Whether writes may go to a replica: the writes under way are at that replica, too, and the session lives.
    fn may_write_to(&self, target: ReplicaId) -> bool {
        let goes_on = matches!(self.session, LaneSession::Open(_) | LaneSession::Attached(_));
        let elsewhere =
            |flight: &Flight| matches!(flight.place, Place::Sent { replica, .. } if replica != target);
        goes_on && !self.flights_of(RequestKind::Writes).any(|(_, flight)| elsewhere(flight))
    }

    /// Takes requests back from a silent replica, to send them to another. All writes are sent once more, since they
    /// must arrive in their order.
    pub(super) fn on_silence(&mut self, mut is_silent: impl FnMut(ReplicaId, &Flight) -> bool) {
        let mut writes = false;
        for flight in &mut self.flights {
            if let Place::Sent { replica, .. } = flight.place
                && is_silent(replica, flight)
            {
                flight.place = Place::Waiting;
                writes |= flight.kind == RequestKind::Writes;
            }
        }
        if writes {
            self.take_back(0);
        }
    }

    /// Takes everything back, to send it to other members, none of which was asked before.
    pub(super) fn on_members_changed(&mut self) {
        self.on_silence(|_, _| true);
        self.flights.iter_mut().for_each(|flight| flight.sends = 0);
    }

    /// A replica refused a request. The request is sent again, and if it is a write, so are the writes behind it.
    pub(super) fn send_again(&mut self, place: usize) {
        self.flights[place].place = Place::Waiting;
        if self.flights[place].kind == RequestKind::Writes {
            self.take_back(place);
        }
    }

    /// A copy of a write came before an earlier write was executed, and had no effect (S2). If all earlier writes are
    /// answered by now, the write is sent again: at once, or at the next tick if it came early often.
    pub(super) fn on_early(&mut self, place: usize) {
        let is_first = self.flights_of(RequestKind::Writes).next().is_some_and(|(first, _)| first == place);
        let flight = &mut self.flights[place];
        flight.unsettled = flight.unsettled.saturating_sub(1);
        if is_first && flight.sends <= EARLY_SENDS_MAX {
            self.take_back(place);
        } else if flight.is_sent() {
            flight.place = Place::Held;
        }
    }

    /// Takes back the writes from this place on, to send them once more in their order.
    fn take_back(&mut self, place: usize) {
        for flight in self.flights.range_mut(place..).filter(|flight| flight.kind == RequestKind::Writes) {
            flight.place = Place::Waiting;
        }
    }

    /// No write precedes the first one any more. If it came early, it is sent again with all writes behind it.
    pub(super) fn release(&mut self) {
        let first = self.flights_of(RequestKind::Writes).next();
        if let Some((place, _)) = first.filter(|(_, flight)| flight.place == Place::Held) {
            self.take_back(place);
        }
    }

    /// Ends the session; new commands then go on a fresh one. A number that is given up would hold up the numbers
    /// behind it for ever (S2).
    pub(super) fn end_session(&mut self, until: u64) {
        if let LaneSession::Open(session) = self.session {
            (self.session, self.until) = (LaneSession::Ending(session), until);
        }
    }

    /// The cluster has ended this session.
    pub(super) fn on_session_gone(&mut self, session: SessionId) {
        if matches!(self.session, LaneSession::Open(it) | LaneSession::Ending(it) if it == session) {
            self.session = LaneSession::Gone(session);
        }
        self.maybe_begin_afresh();
    }

    /// Opens another session when it is needed, once all requests on the ended session have their outcome.
    pub(super) fn maybe_begin_afresh(&mut self) {
        if matches!(self.session, LaneSession::Gone(_)) && self.writes.in_flight == 0 {
            (self.session, self.next) = (LaneSession::Closed, 1);
        }
    }

    /// Ends the session of a closing conversation when no more commands are left for it.
    pub(super) fn maybe_end(&mut self, until: u64) {
        if self.writes.is_empty() && self.writes.in_flight == 0 {
            self.end_session(until);
        }
    }

    /// Leaves the session of a closing conversation to the cluster if no replica has taken its End in time.
    pub(super) fn maybe_leave_session(&mut self, now: u64) {
        if let LaneSession::Ending(session) = self.session
            && now >= self.until
        {
            self.flights.retain(|flight| flight.kind != RequestKind::End);
            self.on_session_gone(session);
        }
    }

    /// The next new request that may be sent and that a replica takes, if any.
    pub(super) fn launch(
        &mut self,
        config: &Config,
        source: Option<&Process>,
        scratch: &mut RequestBuilder,
        now: u64,
        targets: &Targets,
        gate: u64,
    ) -> Option<Flight> {
        let takes = |class: Class| targets.of(class).is_some();
        let ended = if takes(Class::Writes) { self.launch_end(scratch, now) } else { None };
        let opened = ended.or_else(|| match source {
            _ if !takes(Class::Opens) => None,
            None => self.launch_open(config, scratch, now),
            Some(process) => self.launch_attach(config, process, scratch, now),
        });
        let keyed = opened.or_else(|| if takes(Class::Opens) { self.launch_keyed() } else { None });
        let wrote = keyed.or_else(|| self.launch_writes(config, source, targets.of(Class::Writes)?, gate));
        wrote.or_else(|| if takes(Class::Reads) { self.launch_reads(config) } else { None })
    }

    /// Sends the End of a session, whatever of it is under way.
    fn launch_end(&mut self, scratch: &mut RequestBuilder, now: u64) -> Option<Flight> {
        let LaneSession::Ending(session) = self.session else { return None };
        if self.flights_of(RequestKind::End).next().is_some() {
            return None;
        }
        scratch.end();
        let payload = scratch.encode(session, Numbering::at(self.next));
        Some(Flight::without_tokens(RequestKind::End, session, self.next, payload, now))
    }

    fn launch_open(&mut self, config: &Config, scratch: &mut RequestBuilder, now: u64) -> Option<Flight> {
        if self.session != LaneSession::Closed {
            return None;
        }
        self.writes.next(config.frames_in_flight)?;
        self.session = LaneSession::Opening;
        scratch.open();
        let payload = scratch.encode(SessionId::NONE, Numbering::NONE);
        Some(Flight::without_tokens(RequestKind::Open, SessionId::NONE, 0, payload, now))
    }

    /// Sends the Attach that takes over the session of a source.
    fn launch_attach(
        &mut self,
        config: &Config,
        process: &Process,
        scratch: &mut RequestBuilder,
        now: u64,
    ) -> Option<Flight> {
        let LaneSession::Detached(session) = self.session else { return None };
        self.writes.next(config.frames_in_flight)?;
        self.session = LaneSession::Attaching(session);
        scratch.attach(self.owner, process.owner, &process.name);
        let payload = scratch.encode(session, Numbering::NONE);
        Some(Flight::without_tokens(RequestKind::Attach, session, 0, payload, now))
    }

    /// S6: sends a command on the session of its idempotency key.
    fn launch_keyed(&mut self) -> Option<Flight> {
        self.keyed.next(KEYED_IN_FLIGHT_MAX)?;
        let mut pending = self.keyed.take()?;
        let (session, first) = pending.keyed.expect("only commands with a key are queued there");
        let payload = pending.builder.encode(session, Numbering { first, answered_below: 0 });
        self.keyed.in_flight += 1;
        self.keyed.recycle(std::mem::take(&mut pending.builder));
        Some(Flight::new(RequestKind::Keyed, session, first, payload, pending, 1))
    }

    fn launch_writes(
        &mut self,
        config: &Config,
        source: Option<&Process>,
        target: ReplicaId,
        gate: u64,
    ) -> Option<Flight> {
        let (LaneSession::Open(session) | LaneSession::Attached(session)) = self.session else { return None };
        let waits = self.flights_of(RequestKind::Writes).any(|(_, flight)| !flight.is_sent());
        if self.stopped.is_some() || waits || !self.may_write_to(target) {
            return None;
        }
        let pending = self.writes.next(config.frames_in_flight).filter(|pending| pending.serial <= gate)?;
        let (numbers, begins_at) = (pending.builder.numbers(), pending.begins_at);
        // Numbers that a source leaves out need no Skip once all numbers before them are done.
        if begins_at.is_some() && self.writes.in_flight > 0 {
            return None;
        }
        self.next = begins_at.unwrap_or(self.next);
        let below = self.answered_below();
        if self.next + numbers - below > UNANSWERED_MAX {
            return None;
        }
        let mut pending = self.writes.take()?;
        let (first, commands) = (self.next, pending.builder.commands());
        pending.builder.owned_by(source.map_or(Owner::NOBODY, |process| process.owner));
        let payload = pending.builder.encode(session, Numbering { first, answered_below: below });
        self.next += numbers;
        self.writes.in_flight += 1;
        self.writes.recycle(std::mem::take(&mut pending.builder));
        Some(Flight::new(RequestKind::Writes, session, first, payload, pending, commands))
    }

    fn launch_reads(&mut self, config: &Config) -> Option<Flight> {
        self.reads.next(config.frames_in_flight)?;
        let mut pending = self.reads.take()?;
        let commands = pending.builder.commands();
        let payload = pending.builder.encode(SessionId::NONE, Numbering::NONE);
        self.reads.in_flight += 1;
        self.reads.recycle(std::mem::take(&mut pending.builder));
        Some(Flight::new(RequestKind::Reads, SessionId::NONE, 0, payload, pending, commands))
    }

    /// Takes out the first write from a number on.
    pub(super) fn land_write_from(&mut self, first: u64) -> Option<Flight> {
        let place = self.flights_of(RequestKind::Writes).find(|(_, flight)| flight.first >= first)?.0;
        Some(self.land(place))
    }

    /// Takes out a request that was answered or given up.
    pub(super) fn land(&mut self, place: usize) -> Flight {
        let flight = self.flights.remove(place).expect("the caller found it there");
        if matches!(flight.kind, RequestKind::Writes | RequestKind::Reads | RequestKind::Keyed) {
            self.queue(flight.kind).in_flight -= 1;
        }
        flight
    }
}

impl Flight {
    fn is_sent(&self) -> bool {
        matches!(self.place, Place::Sent { .. })
    }

    /// A request for which no caller waits.
    fn without_tokens(kind: RequestKind, session: SessionId, first: u64, payload: Bytes, now: u64) -> Flight {
        let pending = Pending { since: now, ..Pending::default() };
        Flight::new(kind, session, first, payload, pending, 1)
    }

    fn new(
        kind: RequestKind,
        session: SessionId,
        first: u64,
        payload: Bytes,
        pending: Pending,
        commands: usize,
    ) -> Flight {
        let Pending { tokens, charge, since, serial, .. } = pending;
        Flight {
            tag: 0,
            kind,
            session,
            first,
            commands,
            payload,
            tokens,
            charge,
            since,
            serial,
            place: Place::Waiting,
            sends: 0,
            unsettled: 0,
        }
    }
}
