//! A client's conversation with a cluster as a state machine: no sockets, no clock.
//!
//! A [`Session`] owns *lanes*: one per shard and home replica, each with a stream of its own
//! (law, section 6b). Commands gather in their lane and leave as one request frame when the
//! frame is full or nothing of the lane is under way. Whatever is not answered is sent again
//! under the same numbers, so that it happens once.
//!
//! Inputs: [`Session::submit`], [`Session::on_connected`], [`Session::on_disconnected`], [`Session::on_yielded`],
//! [`Session::on_heard`], [`Session::on_response`], [`Session::on_failure`], [`Session::on_timeout`].
//! Outputs, polled after each batch of inputs: [`Session::poll_reset`], [`Session::poll_transmit`],
//! [`Session::poll_outcome`] (until neither of them gives anything: each can give the other something to do),
//! [`Session::poll_wake`], [`Session::next_deadline`]. Times are microseconds since an origin that the caller
//! chooses.

mod compare;
mod config;
mod lane;
mod link;
mod links;
#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod order_tests;
mod outcome;
#[cfg(test)]
mod rig;
mod settle;
#[cfg(test)]
mod source_tests;
#[cfg(test)]
mod tests;

pub use config::{Config, FRAME_COMMANDS_MAX, NO_DEADLINE_US, Routing, UNANSWERED_MAX};
pub use link::{Link, LinkError, Received};
pub use outcome::{Error, NO_TOKEN, NotTaken, Outcome, SubmitError};

use crate::command::{Invalid, NUMBER_MAX, RequestBuilder};
use crate::failure::Failure;
use crate::id::{ReplicaId, ShardId};
use crate::route::{hash_key, hash_stream, home_of, shard_of};
use crate::source::{Owner, SourceName};
use bytes::Bytes;
use config::{LANE_BITS, SPARE_TOKENS_MAX};
use lane::{Kind, Lane, Pending, Place, Stream};
use links::Links;
use outcome::Charge;
use std::collections::VecDeque;

/// A command to submit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action<'a> {
    /// The value becomes the key's latest decision.
    Decide {
        /// 1 to 1024 bytes.
        key: &'a [u8],
        /// At most 1 MiB.
        value: &'a [u8],
    },
    /// The same if the key has this key_seq; 0 for a key without decisions.
    DecideIf {
        /// 1 to 1024 bytes.
        key: &'a [u8],
        /// At most 1 MiB.
        value: &'a [u8],
        /// Counted within the key's present life: a Delete starts another.
        expected: u64,
    },
    /// The key's latest decision.
    Read {
        /// 1 to 1024 bytes.
        key: &'a [u8],
    },
    /// Ends the key's life.
    Delete {
        /// 1 to 1024 bytes.
        key: &'a [u8],
    },
}

impl Action<'_> {
    fn key(&self) -> &[u8] {
        match self {
            Action::Decide { key, .. }
            | Action::DecideIf { key, .. }
            | Action::Read { key }
            | Action::Delete { key } => key,
        }
    }

    /// Its size in the request's blob, at most.
    fn bytes(&self) -> usize {
        match self {
            Action::Decide { key, value } | Action::DecideIf { key, value, .. } => {
                key.len() + value.len() + 8
            }
            Action::Read { key } | Action::Delete { key } => key.len(),
        }
    }

    fn kind(&self) -> Kind {
        if matches!(self, Action::Read { .. }) { Kind::Reads } else { Kind::Writes }
    }

    fn push_to(&self, builder: &mut RequestBuilder) -> Result<(), Invalid> {
        match self {
            Action::Decide { key, value } => builder.decide(key, value),
            Action::DecideIf { key, value, expected } => builder.decide_if(key, value, *expected),
            Action::Read { key } => builder.read(key),
            Action::Delete { key } => builder.delete(key),
        }
    }
}

/// A request frame to send.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// To this replica ...
    pub replica: ReplicaId,
    /// ... on the connection for this shard.
    pub shard: ShardId,
    /// The answer repeats it.
    pub tag: u64,
    /// The request.
    pub payload: Bytes,
}

/// A process of a source.
#[derive(Clone, Debug)]
struct Process {
    name: SourceName,
    owner: Owner,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Session {
    config: Config,
    /// Whom it speaks for if its commands are numbered by a source.
    source: Option<Process>,
    lanes: Vec<Lane>,
    links: Links,
    /// Connections that are to be made anew; none is named again before it is connected.
    resets: VecDeque<(ReplicaId, ShardId)>,
    /// Connections that rest and are wanted; none is named again before it rests again.
    wakes: VecDeque<(ReplicaId, ShardId)>,
    /// Lanes that may have something to send.
    ready: VecDeque<usize>,
    outcomes: VecDeque<Outcome>,
    outstanding: Charge,
    sent: u64,
    /// How many requests have begun to gather: the number of the last.
    gathered: u64,
    /// The replica whose turn it is, of [`Routing::Any`].
    turn: u8,
    scratch: RequestBuilder,
    spare_tokens: Vec<Vec<u64>>,
    next_tick: u64,
    closing: bool,
    /// Why a replica last took nothing.
    last_refusal: Option<(ReplicaId, Failure)>,
}

impl Session {
    /// A session that numbers its commands by itself, on streams that it opens when needed.
    /// Panics when the configuration makes no sense.
    pub fn new(config: Config) -> Session {
        let homes = |shard| (0..config.replicas).map(move |home| (ShardId(shard), ReplicaId(home)));
        let all = (0..config.shards).flat_map(homes);
        let lanes = all.map(|(shard, home)| Lane::new(shard, home, Stream::Closed, 1)).collect();
        Session::with_lanes(config, None, lanes)
    }

    /// A session of a process of a source that numbers its commands by itself (S5). `owner` names the process:
    /// random, another one each time, not 0. Numbers below `next` are done or mean nothing.
    ///
    /// Per shard the source has a stream, on which numbers left out or of other shards are
    /// skipped. Before the first command the session attaches to it: that takes the source over from whatever
    /// process it belonged to, and tells where it stands. A command whose number is done is not sent: it is
    /// answered `Duplicate`, or [`Error::OtherCommand`] once it is known that the number said something else.
    /// That shows at the next [mark](crate::source::Mark) at the latest, and in any case before a new number is
    /// sent. A number without an answer stops its lane: start the source again from there.
    pub fn named(config: Config, source: &SourceName, owner: Owner, next: u64) -> Session {
        assert!((1..=NUMBER_MAX).contains(&next), "numbers go from 1 to {NUMBER_MAX}");
        assert!(owner != Owner::NOBODY, "a process has a name");
        let lane = |shard| {
            let stream = source.stream(ShardId(shard));
            let home = home_of(hash_stream(stream), config.replicas);
            Lane::new(ShardId(shard), home, Stream::Detached(stream), next)
        };
        let lanes = (0..config.shards).map(lane).collect();
        Session::with_lanes(config, Some(Process { name: source.clone(), owner }), lanes)
    }

    fn with_lanes(config: Config, source: Option<Process>, lanes: Vec<Lane>) -> Session {
        config.check();
        Session {
            links: Links::new(config.replicas, config.shards),
            resets: VecDeque::new(),
            wakes: VecDeque::new(),
            config,
            source,
            lanes,
            ready: VecDeque::new(),
            outcomes: VecDeque::new(),
            outstanding: Charge::default(),
            sent: 0,
            gathered: 0,
            turn: 0,
            scratch: RequestBuilder::default(),
            spare_tokens: Vec::new(),
            next_tick: 0,
            closing: false,
            last_refusal: None,
        }
    }

    /// How many commands were submitted and have no polled outcome.
    pub fn outstanding(&self) -> usize {
        self.outstanding.commands
    }

    /// Submits a command. Its token comes back with its outcome; any value but [`NO_TOKEN`].
    /// Not for named sources.
    pub fn submit(&mut self, now: u64, action: &Action<'_>, token: u64) -> Result<(), SubmitError> {
        assert!(self.source.is_none(), "a named source numbers its commands");
        self.admit(action)?;
        let hash = hash_key(action.key());
        let shard = shard_of(hash, self.config.shards);
        let home = match self.config.routing {
            Routing::Home => home_of(hash, self.config.replicas),
            Routing::Any => self.next_turn(),
        };
        let lane = usize::from(shard.0) * usize::from(self.config.replicas) + home.index();
        Ok(self.push(now, lane, action, token)?)
    }

    /// Submits the command with this number of a named source. Numbers ascend; those left out
    /// are skipped. Reads have no number; submit them to a session of their own.
    pub fn submit_numbered(
        &mut self,
        now: u64,
        number: u64,
        action: &Action<'_>,
        token: u64,
    ) -> Result<(), SubmitError> {
        assert!(
            self.source.is_some() && action.kind() == Kind::Writes,
            "only writes of a named source have numbers"
        );
        self.admit(action)?;
        if number > NUMBER_MAX {
            return Err(Invalid::Numbers.into());
        }
        let index = usize::from(shard_of(hash_key(action.key()), self.config.shards).0);
        let lane = &mut self.lanes[index];
        let next = lane.tail;
        if let Some(stopped) = lane.stopped {
            return Err(SubmitError::Stopped(stopped));
        }
        if number < next {
            return Err(SubmitError::Order { number, next });
        }
        self.skip(now, index, number);
        self.push(now, index, action, token)?;
        self.lanes[index].tail = number + 1;
        Ok(())
    }

    fn next_turn(&mut self) -> ReplicaId {
        self.turn = (self.turn + 1) % self.config.replicas;
        ReplicaId(self.turn)
    }

    #[inline]
    fn admit(&self, action: &Action<'_>) -> Result<(), SubmitError> {
        if self.closing {
            return Err(SubmitError::Closed);
        }
        let Charge { commands, bytes } = self.outstanding;
        let full = commands >= self.config.commands_max || bytes + action.bytes() > self.config.bytes_max;
        // A single command of any legal size is always taken.
        if full && commands > 0 { Err(SubmitError::Full) } else { Ok(()) }
    }

    /// Skips the numbers of a named lane up to `number`. A gap that a frame can hold is filled there; a
    /// longer one is passed over between two frames, once all before it are answered.
    fn skip(&mut self, now: u64, index: usize, number: u64) {
        let lane = &mut self.lanes[index];
        let run = number - lane.tail;
        if run == 0 {
            return;
        }
        lane.tail = number;
        if run > FRAME_COMMANDS_MAX as u64 {
            lane.writes.full.extend(lane.writes.gathering.take_if(|pending| !pending.tokens.is_empty()));
            self.gathering(now, index, Kind::Writes, 0, 0).begins_at = Some(number);
            return;
        }
        let pending = self.gathering(now, index, Kind::Writes, 0, run);
        pending.builder.skip(run).expect("a frame has room for a run");
        pending.tokens.push(NO_TOKEN);
    }

    #[inline]
    fn push(&mut self, now: u64, index: usize, action: &Action<'_>, token: u64) -> Result<(), Invalid> {
        assert!(token != NO_TOKEN, "this token is taken");
        let kind = action.kind();
        let pending = self.gathering(now, index, kind, action.bytes(), 1);
        action.push_to(&mut pending.builder)?;
        let charge = Charge::of(action.bytes());
        pending.tokens.push(token);
        pending.charge.add(charge);
        let (commands, bytes) = (pending.builder.commands(), pending.builder.bytes());
        self.outstanding.add(charge);
        if commands >= self.config.frame_commands || bytes >= self.config.frame_bytes {
            let queue = self.lanes[index].queue(kind);
            queue.full.extend(queue.gathering.take());
        }
        self.mark_ready(index);
        Ok(())
    }

    /// The request that gathers, with room for so many bytes and numbers more.
    #[inline]
    fn gathering(&mut self, now: u64, index: usize, kind: Kind, bytes: usize, numbers: u64) -> &mut Pending {
        let queue = self.lanes[index].queue(kind);
        let fits = |pending: &Pending| {
            pending.builder.numbers() + numbers <= FRAME_COMMANDS_MAX as u64
                && pending.builder.has_room(bytes)
        };
        if queue.gathering.as_ref().is_some_and(|pending| !pending.tokens.is_empty() && !fits(pending)) {
            queue.full.extend(queue.gathering.take());
        }
        if queue.gathering.is_none() {
            let (builder, tokens) = (queue.builder(), self.spare_tokens.pop().unwrap_or_default());
            self.gathered += 1;
            let serial = self.gathered;
            queue.gathering = Some(Pending { builder, tokens, serial, ..Pending::default() });
        }
        let pending = queue.gathering.as_mut().expect("it was just made");
        if pending.tokens.is_empty() {
            pending.since = now;
        }
        pending
    }

    fn mark_ready(&mut self, index: usize) {
        if !self.lanes[index].ready {
            self.lanes[index].ready = true;
            self.ready.push_back(index);
        }
    }

    fn mark_shard_ready(&mut self, shard: ShardId) {
        for index in 0..self.lanes.len() {
            if self.lanes[index].shard == shard && self.lanes[index].is_busy() {
                self.mark_ready(index);
            }
        }
    }

    /// The next request frame to send, if any.
    pub fn poll_transmit(&mut self, now: u64) -> Option<Transmit> {
        while let Some(index) = self.ready.front().copied() {
            let transmit = self.transmit(now, index);
            if transmit.is_some() {
                return transmit;
            }
            self.ready.pop_front();
            self.lanes[index].ready = false;
        }
        None
    }

    fn transmit(&mut self, now: u64, index: usize) -> Option<Transmit> {
        self.compare(index);
        let lane = &mut self.lanes[index];
        if self.closing {
            lane.maybe_end(now.saturating_add(self.config.deadline_us));
        }
        if lane.is_busy() {
            let (shard, wakes) = (lane.shard, &mut self.wakes);
            self.links.wake(lane.home, shard, now, |replica| wakes.push_back((replica, shard)));
        }
        let targets = self.links.targets(lane.home, lane.shard, now);
        let place = match lane.due(&targets) {
            Some(place) => place,
            None => {
                let source = self.source.as_ref();
                let mut flight = lane.launch(&self.config, source, &mut self.scratch, now, &targets)?;
                self.sent += 1;
                flight.tag = self.sent << LANE_BITS | index as u64;
                lane.flights.push_back(flight);
                lane.flights.len() - 1
            }
        };
        let flight = &mut lane.flights[place];
        let target = targets.of(flight.kind.class()).expect("only what a replica takes leaves");
        self.links.on_sent(target, lane.shard, flight.kind.class(), now, self.config.retry_us);
        flight.place = Place::Sent { replica: target, at: now };
        flight.sends += 1;
        flight.unsettled += 1;
        Some(Transmit {
            replica: target,
            shard: lane.shard,
            tag: flight.tag,
            payload: flight.payload.clone(),
        })
    }

    /// The next outcome, of all commands of a frame.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        let outcome = self.outcomes.pop_front()?;
        self.outstanding.take(outcome.charge);
        Some(outcome)
    }

    /// Gives an outcome's tokens back, so that their space is used again.
    pub fn recycle(&mut self, outcome: Outcome) {
        let mut tokens = outcome.tokens;
        if self.spare_tokens.len() < SPARE_TOKENS_MAX {
            tokens.clear();
            self.spare_tokens.push(tokens);
        }
    }

    /// When [`Session::on_timeout`] is to be called, if anything is under way.
    pub fn next_deadline(&self) -> Option<u64> {
        let busy = self.outstanding.commands > 0 || self.closing || self.lanes.iter().any(Lane::is_busy);
        (busy || self.links.is_asking()).then_some(self.next_tick)
    }

    /// No further commands. Those outstanding are seen through, then the streams are ended, so
    /// that the cluster need not keep them.
    pub fn close(&mut self) {
        self.closing = true;
        (0..self.lanes.len()).for_each(|index| self.mark_ready(index));
    }

    /// Whether a session that was told to close has nothing left to do.
    pub fn is_closed(&self) -> bool {
        self.closing && self.outstanding.commands == 0 && self.lanes.iter().all(Lane::is_done)
    }
}
