//! One lane: the commands of a shard that go to one home, on a stream of their own.

use super::config::{Config, RETIRING_MAX, SPARE_BUILDERS_MAX, UNANSWERED_MAX};
use super::links::{Class, Targets};
use super::outcome::{Charge, NO_TOKEN};
use crate::answer::{Answer, Answers};
use crate::command::{Batch, Op, RequestBuilder};
use crate::id::{ReplicaId, ShardId, StreamId};
use bytes::Bytes;
use std::collections::VecDeque;

/// Commands that gather for one frame.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) builder: RequestBuilder,
    pub(super) tokens: Vec<u64>,
    pub(super) charge: Charge,
    /// When the first of them was submitted.
    pub(super) since: u64,
}

impl Pending {
    /// The commands of a request that certainly had no effect, to be numbered afresh.
    pub(super) fn again(flight: Flight, mut builder: RequestBuilder) -> Pending {
        let batch = Batch::parse(flight.payload, 0, |_| ()).expect("the session encoded it");
        for command in batch.commands_of(&batch.parts()[0]) {
            let fits = match command.op {
                Op::Decide => builder.decide(command.key, command.value),
                Op::DecideIf => builder.decide_if(command.key, command.value, command.expected),
                Op::Retire => builder.retire(command.key),
                other => unreachable!("{other:?} is not sent again on another stream"),
            };
            fits.expect("it fitted before");
        }
        Pending { builder, tokens: flight.tokens, charge: flight.charge, since: flight.since }
    }
}

impl Flight {
    /// The reads whose values did not fit the response, to be asked again; their tokens and their
    /// charge go with them.
    pub(super) fn take_omitted(&mut self, answers: &Answers, mut builder: RequestBuilder) -> Pending {
        let batch = Batch::parse(self.payload.clone(), 0, |_| ()).expect("the session encoded it");
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
        Pending { builder, tokens, charge, since: self.since }
    }
}

/// What waits to be sent, and how much of its kind is under way.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Requests that lost their stream; they go first.
    pub(super) again: VecDeque<Pending>,
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

    /// The request that may leave now. Commands leave when their frame is full or nothing of
    /// the lane is under way: an idle lane answers at once, a busy one gathers.
    fn next(&self, config: &Config) -> Option<&Pending> {
        if self.in_flight >= config.frames_in_flight {
            return None;
        }
        if let Some(pending) = self.again.front().or(self.full.front()) {
            return Some(pending);
        }
        self.gathering.as_ref().filter(|pending| self.in_flight == 0 && !pending.tokens.is_empty())
    }

    fn take(&mut self) -> Option<Pending> {
        self.again.pop_front().or_else(|| self.full.pop_front()).or_else(|| self.gathering.take())
    }

    pub(super) fn is_empty(&self) -> bool {
        let gathers = self.gathering.as_ref().is_some_and(|pending| !pending.tokens.is_empty());
        self.again.is_empty() && self.full.is_empty() && !gathers
    }

    /// A request whose first command was submitted at or before `limit`.
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

/// What a request frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Open,
    Writes,
    Reads,
    End,
}

impl Kind {
    pub(super) fn class(self) -> Class {
        match self {
            Kind::Open => Class::Opens,
            Kind::Writes | Kind::End => Class::Writes,
            Kind::Reads => Class::Reads,
        }
    }
}

/// Where a request frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Here, to be sent when a replica takes it.
    Waiting,
    /// At a replica.
    Sent { replica: ReplicaId, at: u64 },
}

/// A request frame without an answer. Its bytes and numbers never change.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) tag: u64,
    pub(super) kind: Kind,
    pub(super) stream: StreamId,
    pub(super) first: u64,
    pub(super) commands: usize,
    pub(super) payload: Bytes,
    pub(super) tokens: Vec<u64>,
    pub(super) charge: Charge,
    pub(super) since: u64,
    pub(super) place: Place,
    pub(super) sends: u32,
    /// How many of them may have had an effect: those that were not answered "nothing proposed".
    pub(super) unsettled: u32,
}

/// The stream that new commands go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stream {
    Closed,
    Opening,
    Open(StreamId),
    Named(StreamId),
}

/// A stream that gets no further commands and is to be ended.
#[derive(Debug)]
pub(super) struct Retiring {
    pub(super) stream: StreamId,
    next: u64,
    pub(super) until: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) shard: ShardId,
    pub(super) home: ReplicaId,
    pub(super) stream: Stream,
    /// The number of the next command that is sent.
    pub(super) next: u64,
    /// The number behind the last that was submitted, of a named source.
    pub(super) tail: u64,
    pub(super) writes: Queue,
    pub(super) reads: Queue,
    /// In the order of their first sending.
    pub(super) flights: VecDeque<Flight>,
    pub(super) retiring: Vec<Retiring>,
    /// Whether it is among the lanes that may have something to send.
    pub(super) ready: bool,
    /// The number of a named source that failed.
    pub(super) stopped: Option<u64>,
}

impl Lane {
    pub(super) fn new(shard: ShardId, home: ReplicaId, stream: Stream, next: u64) -> Lane {
        Lane {
            shard,
            home,
            stream,
            next,
            tail: next,
            writes: Queue::default(),
            reads: Queue::default(),
            flights: VecDeque::new(),
            retiring: Vec::new(),
            ready: false,
            stopped: None,
        }
    }

    pub(super) fn queue(&mut self, kind: Kind) -> &mut Queue {
        if kind == Kind::Reads { &mut self.reads } else { &mut self.writes }
    }

    /// Whether anything is to be sent or answered.
    pub(super) fn is_busy(&self) -> bool {
        let queued = !self.writes.is_empty() || !self.reads.is_empty();
        queued || !self.flights.is_empty() || !self.retiring.is_empty()
    }

    /// Whether nothing is left to do for a session that closes.
    pub(super) fn is_done(&self) -> bool {
        !self.is_busy() && !matches!(self.stream, Stream::Open(_))
    }

    /// All lower numbers of the stream are answered (S3).
    fn answered_below(&self, stream: StreamId) -> u64 {
        let oldest =
            self.flights.iter().find(|flight| flight.kind == Kind::Writes && flight.stream == stream);
        oldest.map_or(self.next, |flight| flight.first)
    }

    /// New commands go on a fresh stream; the present one is ended once nothing of it is under
    /// way. Numbers that are given up would stand in its window for ever (S2).
    pub(super) fn rotate(&mut self, until: u64) {
        let Stream::Open(stream) = self.stream else { return };
        if self.retiring.len() < RETIRING_MAX {
            self.retiring.push(Retiring { stream, next: self.next, until });
        }
        self.forget_stream();
    }

    fn forget_stream(&mut self) {
        (self.stream, self.next) = (Stream::Closed, 1);
    }

    /// The cluster has ended a stream.
    pub(super) fn on_stream_gone(&mut self, stream: StreamId) {
        self.retiring.retain(|retiring| retiring.stream != stream);
        if self.stream == Stream::Open(stream) {
            self.forget_stream();
        }
    }

    /// A closing session ends the streams that it has no more commands for.
    pub(super) fn maybe_retire(&mut self, until: u64) {
        if self.writes.is_empty() && self.writes.in_flight == 0 {
            self.rotate(until);
        }
    }

    /// The next new request that may leave, if any: one that a replica takes.
    pub(super) fn launch(
        &mut self,
        config: &Config,
        scratch: &mut RequestBuilder,
        now: u64,
        targets: &Targets,
    ) -> Option<Flight> {
        let opens = self.stream == Stream::Closed;
        let takes = |class: Class| targets.of(class).is_some();
        let ended = if takes(Class::Writes) { self.launch_end(scratch, now) } else { None };
        if ended.is_some() {
            return ended;
        }
        if takes(if opens { Class::Opens } else { Class::Writes })
            && let Some(flight) = self.launch_writes(config, scratch, now)
        {
            return Some(flight);
        }
        if takes(Class::Reads) { self.launch_reads(config) } else { None }
    }

    /// Ends a stream of which nothing is under way.
    fn launch_end(&mut self, scratch: &mut RequestBuilder, now: u64) -> Option<Flight> {
        let in_use = |stream: StreamId| self.flights.iter().any(|flight| flight.stream == stream);
        let place = self.retiring.iter().position(|retiring| !in_use(retiring.stream))?;
        let Retiring { stream, next, .. } = self.retiring.remove(place);
        scratch.end();
        let payload = scratch.encode(stream, next, next);
        Some(Flight::new(Kind::End, stream, next, payload, Pending { since: now, ..Pending::default() }, 1))
    }

    fn launch_writes(&mut self, config: &Config, scratch: &mut RequestBuilder, now: u64) -> Option<Flight> {
        if self.stopped.is_some() {
            return None;
        }
        let numbers = self.writes.next(config)?.builder.numbers();
        let stream = match self.stream {
            Stream::Open(stream) | Stream::Named(stream) => stream,
            Stream::Opening => return None,
            Stream::Closed => {
                self.stream = Stream::Opening;
                scratch.open();
                let payload = scratch.encode(StreamId::NONE, 0, 0);
                let pending = Pending { since: now, ..Pending::default() };
                return Some(Flight::new(Kind::Open, StreamId::NONE, 0, payload, pending, 1));
            }
        };
        let below = self.answered_below(stream);
        if self.next + numbers - below > UNANSWERED_MAX {
            return None;
        }
        let mut pending = self.writes.take()?;
        let (first, commands) = (self.next, pending.builder.commands());
        let payload = pending.builder.encode(stream, first, below);
        self.next += numbers;
        self.writes.in_flight += 1;
        self.writes.recycle(std::mem::take(&mut pending.builder));
        Some(Flight::new(Kind::Writes, stream, first, payload, pending, commands))
    }

    fn launch_reads(&mut self, config: &Config) -> Option<Flight> {
        self.reads.next(config)?;
        let mut pending = self.reads.take()?;
        let commands = pending.builder.commands();
        let payload = pending.builder.encode(StreamId::NONE, 0, 0);
        self.reads.in_flight += 1;
        self.reads.recycle(std::mem::take(&mut pending.builder));
        Some(Flight::new(Kind::Reads, StreamId::NONE, 0, payload, pending, commands))
    }

    /// Takes a request out: it was answered or given up.
    pub(super) fn land(&mut self, place: usize) -> Flight {
        let flight = self.flights.remove(place).expect("the caller found it there");
        if matches!(flight.kind, Kind::Writes | Kind::Reads) {
            self.queue(flight.kind).in_flight -= 1;
        }
        flight
    }
}

impl Flight {
    fn new(
        kind: Kind,
        stream: StreamId,
        first: u64,
        payload: Bytes,
        pending: Pending,
        commands: usize,
    ) -> Flight {
        let Pending { tokens, charge, since, .. } = pending;
        Flight {
            tag: 0,
            kind,
            stream,
            first,
            commands,
            payload,
            tokens,
            charge,
            since,
            place: Place::Waiting,
            sends: 0,
            unsettled: 0,
        }
    }
}
