//! A client's conversation with a cluster as a state machine: no sockets, no clock.
//!
//! A [`Conversation`] owns *lanes*: one per shard and home replica, each with a session of its own
//! (law, section 6b). Commands gather in their lane and leave as one request frame when the
//! frame is full or nothing of the lane is under way. A request that is not answered is sent again
//! under the same numbers, so that it is executed once.
//!
//! The inputs are [`Conversation::submit`], [`Conversation::on_connected`], [`Conversation::on_disconnected`],
//! [`Conversation::on_yielded`], [`Conversation::on_heard`], [`Conversation::on_response`], [`Conversation::on_failure`],
//! [`Conversation::on_members_changed`], [`Conversation::on_late_response`] and [`Conversation::on_timeout`]. The caller polls the outputs after each batch of inputs: [`Conversation::poll_reset`], then
//! [`Conversation::poll_transmit`] and [`Conversation::poll_outcome`] until neither gives anything (each can give the other
//! something to do), then [`Conversation::poll_wake`] and [`Conversation::next_deadline`]. Times are microseconds since an
//! origin that the caller chooses.

mod change;
#[cfg(test)]
mod change_tests;
mod compare;
mod config;
#[cfg(test)]
mod keyed_tests;
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

use crate::command::{Invalid, KEYED_NUMBER_MAX, NUMBER_MAX, RequestBuilder};
use crate::failure::Failure;
use crate::id::{ReplicaId, SessionId, ShardId};
use crate::route::{hash_key, hash_session, home_of, shard_of};
use crate::source::{Owner, SourceName};
use bytes::Bytes;
use config::{LANE_BITS, SPARE_TOKENS_MAX};
use lane::{Lane, LaneSession, Pending, Place, RequestKind};
use links::LinkTable;
use outcome::Charge;
use std::collections::VecDeque;
use xxhash_rust::xxh3::Xxh3;

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
    /// The value becomes the key's latest decision if the key's key_seq is `expected`.
    DecideIf {
        /// 1 to 1024 bytes.
        key: &'a [u8],
        /// At most 1 MiB.
        value: &'a [u8],
        /// The key_seq that the key must have, counted within the key's present life, which a Delete ends; 0 for a
        /// key without decisions.
        expected: u64,
    },
    /// Reads the key's latest decision.
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

    /// The most bytes that the action takes in the request's blob.
    fn bytes(&self) -> usize {
        match self {
            Action::Decide { key, value } | Action::DecideIf { key, value, .. } => {
                key.len() + value.len() + 8
            }
            Action::Read { key } | Action::Delete { key } => key.len(),
        }
    }

    /// The number of the action under an idempotency key (S6): its digest, which tells it from another action.
    fn keyed_number(&self) -> u64 {
        let (op, value, expected) = match self {
            Action::Decide { value, .. } => (0, *value, 0),
            Action::DecideIf { value, expected, .. } => (1, *value, *expected),
            Action::Delete { .. } => (2, &[][..], 0),
            Action::Read { .. } => unreachable!("a read changes nothing, so it has no idempotency key"),
        };
        let mut digest = Xxh3::new();
        for part in
            [&[op][..], &expected.to_le_bytes(), &(self.key().len() as u64).to_le_bytes(), self.key(), value]
        {
            digest.update(part);
        }
        1 + digest.digest() % KEYED_NUMBER_MAX
    }

    fn kind(&self) -> RequestKind {
        if matches!(self, Action::Read { .. }) { RequestKind::Reads } else { RequestKind::Writes }
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
    /// The replica to which the frame goes.
    pub replica: ReplicaId,
    /// The shard whose connection carries the frame.
    pub shard: ShardId,
    /// The tag of the request, which the answer repeats.
    pub tag: u64,
    /// The encoded request.
    pub payload: Bytes,
}

/// A process of a source.
#[derive(Clone, Debug)]
struct Process {
    name: SourceName,
    owner: Owner,
}

/// A client's conversation with a cluster; see the module's documentation.
#[derive(Debug)]
pub struct Conversation {
    config: Config,
    /// The process for which the conversation submits, if a source numbers its commands.
    source: Option<Process>,
    lanes: Vec<Lane>,
    links: LinkTable,
    /// Connections to open anew; none is named again before it is connected.
    resets: VecDeque<(ReplicaId, ShardId)>,
    /// Resting connections to open; none is named again before it rests again.
    wakes: VecDeque<(ReplicaId, ShardId)>,
    /// Lanes that may have something to send.
    ready: VecDeque<usize>,
    outcomes: VecDeque<Outcome>,
    outstanding: Charge,
    sent: u64,
    /// How many requests have begun to gather, which is the serial of the last.
    gathered: u64,
    /// The last serials before changes of the number of members. Writes behind the first wait until all before it are
    /// settled.
    gates: VecDeque<u64>,
    /// The replica that [`Routing::Any`] chose last.
    turn: u8,
    scratch: RequestBuilder,
    spare_tokens: Vec<Vec<u64>>,
    next_tick: u64,
    closing: bool,
    /// The last refusal of a replica.
    last_refusal: Option<(ReplicaId, Failure)>,
}

impl Conversation {
    /// A conversation that numbers its commands by itself, on sessions that it opens when needed.
    ///
    /// # Panics
    ///
    /// When a setting of `config` is out of range.
    pub fn new(config: Config) -> Conversation {
        let lanes = (0..config.replicas).flat_map(|home| Lane::of_home(ReplicaId(home), config.shards));
        let lanes = lanes.collect();
        Conversation::with_lanes(config, None, lanes)
    }

    /// A conversation for one process of a source that numbers its commands by itself (S5). `owner` names the process; it
    /// is random, different for each process, and not 0. Numbers below `next` are done or left out.
    ///
    /// The source has a session in each shard, which skips numbers that are left out or belong to other shards. Before
    /// the first command the conversation attaches to the session. The Attach takes the source over from its last process,
    /// and its answer says which numbers are done. The conversation does not send a command whose number is done. The
    /// command's answer is `Duplicate`, or [`Error::OtherCommand`] once the conversation knows that the number was another
    /// command. The conversation knows that at the next [mark](crate::source::Mark) at the latest, and in any case before
    /// it sends a new number. A number without an answer stops its lane; start the source again from that number.
    ///
    /// # Panics
    ///
    /// When a setting of `config` is out of range, when `next` is not from 1 to [`NUMBER_MAX`], or when `owner` is
    /// [`Owner::NOBODY`].
    pub fn named(config: Config, source: &SourceName, owner: Owner, next: u64) -> Conversation {
        assert!((1..=NUMBER_MAX).contains(&next), "numbers go from 1 to {NUMBER_MAX}");
        assert!(owner != Owner::NOBODY, "a process has a name");
        let lane = |shard| {
            let session = source.session(ShardId(shard));
            let home = home_of(hash_session(session), config.replicas);
            Lane::new(ShardId(shard), home, LaneSession::Detached(session), next)
        };
        let lanes = (0..config.shards).map(lane).collect();
        Conversation::with_lanes(config, Some(Process { name: source.clone(), owner }), lanes)
    }

    fn with_lanes(config: Config, source: Option<Process>, lanes: Vec<Lane>) -> Conversation {
        config.check();
        Conversation {
            links: LinkTable::new(config.replicas, config.shards),
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
            gates: VecDeque::new(),
            turn: 0,
            scratch: RequestBuilder::default(),
            spare_tokens: Vec::new(),
            next_tick: 0,
            closing: false,
            last_refusal: None,
        }
    }

    /// How many commands were submitted and have no outcome that was polled.
    pub fn outstanding(&self) -> usize {
        self.outstanding.commands
    }

    /// Submits a command at time `now`. The outcome has the command's token, which can be any value but [`NO_TOKEN`].
    ///
    /// # Errors
    ///
    /// [`SubmitError::Invalid`] if key or value break a limit, [`SubmitError::Full`] if too much is outstanding, and
    /// [`SubmitError::Closed`] after [`Conversation::close`].
    ///
    /// # Panics
    ///
    /// When the conversation is one of a named source, or when `token` is [`NO_TOKEN`].
    pub fn submit(&mut self, now: u64, action: &Action<'_>, token: u64) -> Result<(), SubmitError> {
        assert!(self.source.is_none(), "a named source numbers its commands");
        self.admit(action)?;
        let hash = hash_key(action.key());
        let shard = shard_of(hash, self.config.shards);
        let home = match self.config.routing {
            Routing::Home => home_of(hash, self.config.replicas),
            Routing::Any => self.next_turn(),
        };
        let lane = home.index() * usize::from(self.config.shards) + usize::from(shard.0);
        Ok(self.push(now, lane, action, token)?)
    }

    /// Submits a command that takes effect once, however often, by whomever and to whichever replica it is submitted with
    /// this idempotency key (S6), as long as the cluster keeps the key's answer. Each submission has the first one's
    /// answer, or [`Error::KeyReused`] if the key stands for another command. The command keeps no order with others.
    ///
    /// # Errors
    ///
    /// The errors of [`Conversation::submit`].
    ///
    /// # Panics
    ///
    /// When the conversation is one of a named source, when `action` is a read, or when `token` is [`NO_TOKEN`].
    pub fn submit_keyed(
        &mut self,
        now: u64,
        idempotency_key: &[u8],
        action: &Action<'_>,
        token: u64,
    ) -> Result<(), SubmitError> {
        assert!(
            self.source.is_none() && token != NO_TOKEN,
            "a named source numbers its commands, and tokens differ"
        );
        self.admit(action)?;
        let hash = hash_key(action.key());
        let shard = shard_of(hash, self.config.shards);
        let index = home_of(hash, self.config.replicas).index() * usize::from(self.config.shards)
            + usize::from(shard.0);
        let keyed = Some((SessionId::keyed(idempotency_key), action.keyed_number()));
        let queue = &mut self.lanes[index].keyed;
        let mut builder = queue.builder();
        action.push_to(&mut builder)?;
        let charge = Charge::of(action.bytes());
        queue.full.push_back(Pending {
            builder,
            tokens: vec![token],
            charge,
            since: now,
            keyed,
            ..Pending::default()
        });
        self.outstanding.add(charge);
        self.mark_ready(index);
        Ok(())
    }

    /// Submits the command with this number of a named source at time `now`. Numbers must ascend; numbers that are
    /// left out are skipped. Reads have no number; submit them to a conversation of their own.
    ///
    /// # Errors
    ///
    /// The errors of [`Conversation::submit`], [`SubmitError::Order`] if the number does not ascend, and
    /// [`SubmitError::Stopped`] if an earlier number of the shard failed.
    ///
    /// # Panics
    ///
    /// When the conversation is not one of a named source, when `action` is a read, or when `token` is [`NO_TOKEN`].
    pub fn submit_numbered(
        &mut self,
        now: u64,
        number: u64,
        action: &Action<'_>,
        token: u64,
    ) -> Result<(), SubmitError> {
        assert!(
            self.source.is_some() && action.kind() == RequestKind::Writes,
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

    /// Skips the numbers of a named lane up to `number`. A frame fills a gap that it can hold. A longer gap lies
    /// between two frames, of which the second waits until all numbers before the gap are answered.
    fn skip(&mut self, now: u64, index: usize, number: u64) {
        let lane = &mut self.lanes[index];
        let run = number - lane.tail;
        if run == 0 {
            return;
        }
        lane.tail = number;
        if run > FRAME_COMMANDS_MAX as u64 {
            lane.writes.cut();
            self.gathering(now, index, RequestKind::Writes, 0, 0).begins_at = Some(number);
            return;
        }
        let pending = self.gathering(now, index, RequestKind::Writes, 0, run);
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

    /// The request that gathers, with room for `bytes` and `numbers` more.
    #[inline]
    fn gathering(
        &mut self,
        now: u64,
        index: usize,
        kind: RequestKind,
        bytes: usize,
        numbers: u64,
    ) -> &mut Pending {
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
        self.maybe_open_gate();
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
        let (is_leaving, gate) = (self.is_leaving(index), self.gate());
        let lane = &mut self.lanes[index];
        if is_leaving {
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
                let mut flight = lane.launch(&self.config, source, &mut self.scratch, now, &targets, gate)?;
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

    /// The next outcome, which has the answers to all commands of a frame.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        let outcome = self.outcomes.pop_front()?;
        self.outstanding.take(outcome.charge);
        Some(outcome)
    }

    /// Takes an outcome back to use the space of its tokens again.
    pub fn recycle(&mut self, outcome: Outcome) {
        let mut tokens = outcome.tokens;
        if self.spare_tokens.len() < SPARE_TOKENS_MAX {
            tokens.clear();
            self.spare_tokens.push(tokens);
        }
    }

    /// When the caller must call [`Conversation::on_timeout`] next; `None` if nothing is under way.
    pub fn next_deadline(&self) -> Option<u64> {
        let busy = self.outstanding.commands > 0 || self.closing || self.lanes.iter().any(Lane::is_busy);
        (busy || self.links.is_asking()).then_some(self.next_tick)
    }

    /// Closes the conversation to further commands. The conversation waits for the outcomes of outstanding commands and then
    /// ends its sessions, so that the cluster need not keep them.
    pub fn close(&mut self) {
        self.closing = true;
        self.mark_all_ready();
    }

    /// Whether a conversation that was told to close has nothing left to do.
    pub fn is_closed(&self) -> bool {
        self.closing && self.outstanding.commands == 0 && self.lanes.iter().all(Lane::is_done)
    }
}
