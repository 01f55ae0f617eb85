//! One replica's part in one shard: its inputs and outputs. The rules are in `phase`, and their state is in
//! the modules that the fields name.

use crate::attempt::Attempts;
use crate::conflict::{Index, Learnt};
use crate::contract::{Config, Executed, Output, Position, Room, Time};
use crate::epoch::EpochStage;
use crate::execute::Executor;
use crate::forgetting::Forgetting;
use crate::guardrail::Guardrail;
use crate::limits::{HELD_MAX, TICK_US};
use crate::machine::Machine;
use crate::marks::Marks;
use crate::numbers::Numbers;
use crate::outbox::Outbox;
use crate::payload::Payload;
use crate::peers::Peers;
use crate::phase::gossip::Said;
use crate::phase::learn::may_learner_say;
use crate::phase::pull::Pulls;
use crate::phase::tuning::tuning_of;
use crate::quorum::Quorum;
use crate::requests::Requests;
use crate::sessions::idle::Idle;
use crate::space::Space;
use crate::transfer::{Holds, OwnFile, Sources};
use isonomy_wire::deps::Frontier;
use isonomy_wire::failure::Reason;
use isonomy_wire::id::{InstanceId, PLACES_MAX, ReplicaId};
use isonomy_wire::message::{MessagesDropped, PeerMessage};
use isonomy_wire::tuning::Tuning;
use std::collections::BTreeMap;

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) fast: u64,
    pub(crate) slow: u64,
    pub(crate) waited_in_vain: u64,
    pub(crate) recoveries: u64,
    pub(crate) snapshots_damaged: u64,
    pub(crate) replayed_commands: u64,
    /// Messages that were sent again, by receiver.
    pub(crate) resent: [u64; PLACES_MAX],
    pub(crate) dropped: MessagesDropped,
}

/// One replica of one shard.
///
/// # Contract
///
/// After a restart the caller gives the newest snapshot to [`restore`](Replica::restore) and each record of the log,
/// in order, to [`replay`](Replica::replay), and calls [`start`](Replica::start). The replica takes part once the
/// others have confirmed its state and the caller has called [`admit`](Replica::admit).
///
/// From then on the caller brings inputs in any order: messages, requests, links, durable positions, room on the
/// disk, and the time, at the latest at [`next_deadline`](Replica::next_deadline). After each batch of inputs the
/// caller calls [`end_turn`](Replica::end_turn) and polls until nothing comes. [`poll`](Replica::poll) gives records
/// for the log first, then messages, then replies, then what has executed, then a cut. A message or reply is held until
/// the records that it rests on are durable, so the caller may send whatever comes at once. Positions are consecutive
/// and become durable in order.
///
/// Snapshots are asked for besides: while [`taking`](Replica::taking) names one, its bytes come from
/// [`snapshot_bytes`](Replica::snapshot_bytes), and [`on_snapshot`](Replica::on_snapshot) says that its file is
/// durable. [`wants_snapshot`](Replica::wants_snapshot) names the peer whose snapshot is to be fetched for
/// [`install_snapshot`](Replica::install_snapshot).
///
/// # Panics
///
/// A broken invariant panics, in release builds too: the process must stop before it answers anything more.
///
/// # Example
///
/// A cluster of one, whose log is durable at once:
///
/// ```
/// use isonomy_protocol::contract::{ClientRef, Config, Output, Position, Time, Timing};
/// use isonomy_protocol::{limits, payload::Payload, replica::Replica};
/// use isonomy_wire::command::{Numbering, RequestBuilder};
/// use isonomy_wire::id::{ClusterId, Epoch, ReplicaId, ShardId, SessionId};
///
/// let config = Config {
///     cluster: ClusterId(7),
///     replica: ReplicaId(0),
///     replicas: 1,
///     epoch: Epoch(1),
///     shard: ShardId(0),
///     timing: Timing::default(),
///     reserve_block: limits::RESERVE_BLOCK,
///     barrier_bytes: limits::BARRIER_BYTES,
///     outlives_power: true,
///     rescue: false,
///     publishes: false,
/// };
/// let mut core = Replica::new(config, 1);
/// core.start(Time(0), Position(0));
/// core.admit(Time(0));
///
/// let mut request = RequestBuilder::default();
/// request.decide(b"key", b"value").unwrap();
/// let bytes = request.encode(SessionId::named("example"), Numbering::at(1));
/// let crc = crc32c::crc32c(&bytes);
/// let client = ClientRef { connection: 1, tag: 1 };
/// core.on_request(Time(0), client, Payload::parse(bytes, crc).unwrap()).unwrap();
///
/// let mut answered = Vec::new();
/// loop {
///     core.end_turn(Time(0));
///     let mut durable = None;
///     while let Some(output) = core.poll() {
///         match output {
///             Output::Append(append) => durable = Some(append.position),
///             Output::Send(_) | Output::Executed(_) | Output::Sealed(_) | Output::Cut(_) => {}
///             Output::Reply(reply) => answered.push((reply.client, reply.outcome.is_ok())),
///         }
///     }
///     let Some(position) = durable else { break };
///     core.on_durable(Time(0), position);
/// }
/// assert_eq!(answered, [(client, true)]);
/// ```
#[derive(Clone, Debug)]
pub struct Replica {
    pub(crate) config: Config,
    pub(crate) quorum: Quorum,
    pub(crate) me: ReplicaId,
    pub(crate) seed: u64,
    /// The settings in force, which change while the replica runs.
    pub(crate) tuning: Tuning,
    pub(crate) guardrail: Guardrail,
    pub(crate) stage: EpochStage,
    /// Section 9: whether the record announces a change.
    pub(crate) is_changing: bool,
    pub(crate) space: Space,
    pub(crate) index: Index,
    pub(crate) executor: Executor,
    pub(crate) machine: Machine,
    pub(crate) idle: Idle,
    pub(crate) outbox: Outbox,
    pub(crate) attempts: Attempts,
    /// The highest k of each Waiting(id, k) that was received, per undecided id (R6c).
    pub(crate) waiting: BTreeMap<InstanceId, u8>,
    pub(crate) numbers: Numbers,
    pub(crate) requests: Requests,
    pub(crate) forgetting: Forgetting,
    /// The peers that fetch the newest snapshot.
    pub(crate) holds: Holds,
    /// The state of that snapshot's file.
    pub(crate) own_file: OwnFile,
    /// The peers whose snapshot this replica needs.
    pub(crate) sources: Sources,
    pub(crate) peers: Peers,
    pub(crate) said: Said,
    pub(crate) pulls: Pulls,
    pub(crate) counters: Counters,
    pub(crate) marks: Marks,
    pub(crate) last_tick: Time,
}

impl Replica {
    /// A replica with an empty log. The caller must `replay` each record of the log, in order, and then call `start`.
    /// The seed only spreads timeouts.
    pub fn new(config: Config, seed: u64) -> Replica {
        let quorum = Quorum::new(config.replicas);
        let me = config.replica;
        assert!(me.index() < PLACES_MAX, "the replica has no place in its epoch");
        let is_member = me.index() < quorum.n;
        let block = if is_member { config.reserve_block } else { 0 };
        Replica {
            quorum,
            me,
            seed,
            tuning: tuning_of(&config),
            guardrail: Guardrail::new(quorum),
            stage: EpochStage::of(config.epoch),
            is_changing: false,
            space: Space::new(quorum.n),
            index: Index::default(),
            executor: Executor::new(quorum.n),
            machine: Machine::new(config.epoch, config.shard),
            idle: Idle::default(),
            outbox: Outbox::default(),
            attempts: Attempts::new(),
            waiting: BTreeMap::new(),
            numbers: Numbers::new(me, block),
            requests: Requests::default(),
            forgetting: Forgetting::default(),
            holds: Holds::new(),
            own_file: OwnFile::default(),
            sources: Sources::new(),
            peers: Peers::new(me, quorum.n),
            said: Said::default(),
            pulls: Pulls::new(quorum.n),
            counters: Counters::default(),
            marks: Marks::default(),
            last_tick: Time(0),
            config,
        }
    }

    /// The log was replayed up to its last record, which has this position. The replica sends nothing and takes
    /// nothing until it is admitted.
    pub fn start(&mut self, now: Time, position: Position) {
        self.outbox.start(position);
        // The unused numbers of the block become Nops.
        if let Some(last) = self.numbers.start(self.forgetting.floor().of(self.me)) {
            self.space.see(InstanceId::new(self.me, last), now).expect("a block is not far ahead");
        }
        // Timeouts of the others' instances begin here. A replica that recovered them at once would turn
        // proposals of living coordinators into Nops (R3.3).
        self.space.restart_patience(now);
        self.counters.replayed_commands = self.machine.commands();
        self.last_tick = now;
        self.numbers.reserve(&mut self.outbox);
        self.begin_log_of_learner(position);
        self.idle.start(now, &self.machine.sessions);
        self.look_for_quorum(now);
    }

    /// G6: the others have confirmed that the replayed state is this replica's newest (see [`crate::admission`]).
    pub fn admit(&mut self, now: Time) {
        self.requests.admit();
        self.last_tick = now;
        self.peers.start(now);
        self.guardrail.start(now);
        // Timeouts of the others' instances begin here.
        self.space.restart_patience(now);
        self.deliver_to_self(now);
    }

    /// G6: whether the replica was admitted.
    pub fn is_admitted(&self) -> bool {
        self.requests.is_admitted()
    }

    /// G6: how many durable records the log has under the messages that were sent; `None` if a power failure could
    /// take some of them.
    pub fn position(&self) -> Option<u64> {
        self.config.outlives_power.then(|| self.outbox.spoken().min(self.outbox.durable()).0)
    }

    /// G6: the number of durable records that a peer has reported for its log.
    pub fn heard(&self, peer: ReplicaId) -> u64 {
        self.peers.heard(peer)
    }

    /// A message has come from another replica, with the batch behind it. The replica drops messages that no member
    /// that follows the law would send.
    pub fn on_message(&mut self, now: Time, from: ReplicaId, message: PeerMessage, payload: Option<Payload>) {
        if !self.is_admitted() {
            self.counters.dropped.not_admitted += 1;
            return;
        }
        if from == self.me || (from.index() >= self.quorum.n && !may_learner_say(from, &message)) {
            self.counters.dropped.impossible += 1;
            return;
        }
        self.handle(now, from, message, payload);
        self.deliver_to_self(now);
    }

    /// Tells the replica whether the log may grow from now on, and whether the disk answers.
    pub fn on_room(&mut self, room: Room) {
        self.requests.on_room(room);
        self.give_back_for_room();
        self.give_up_if_hung();
    }

    /// Tells the replica how many bytes the log held on its disk when the process started, plus the bytes that it has
    /// taken since. The bytes at the start count as growth since the last barrier. Otherwise a log that is never cut,
    /// because its process is always killed first, would fill its budget.
    pub fn on_log_bytes(&mut self, bytes: u64) {
        self.forgetting.on_log_bytes(bytes);
    }

    /// Tells the replica which peers have links that work in both directions.
    pub fn on_links(&mut self, now: Time, linked: &[ReplicaId]) {
        if self.peers.on_links(linked) {
            self.note_heard(now);
        }
        // A peer that came back must receive the progress of this replica.
        self.said.forget();
        self.look_for_quorum(now);
    }

    pub(crate) fn look_for_quorum(&mut self, now: Time) {
        let is_reached = self.peers.live().len() >= self.quorum.slow();
        self.requests.on_quorum(now, is_reached);
    }

    /// Time has passed. The replica resends messages, takes slow paths, starts recoveries and gossips.
    pub fn on_timeout(&mut self, now: Time) {
        if now.since(self.last_tick) >= TICK_US {
            self.last_tick = now;
            if !self.is_admitted() {
                return;
            }
            self.end_stalls(now);
            if self.requests.is_hung() {
                self.say_stalled(now);
            } else {
                self.end_own_stall(now);
                self.tick(now);
            }
            self.deliver_to_self(now);
        }
    }

    /// The latest time at which the caller must call `on_timeout`.
    pub fn next_deadline(&self) -> Option<Time> {
        Some(self.last_tick.after(if self.is_quiet() { 20 * TICK_US } else { TICK_US }))
    }

    /// Whether nothing is under way that a tick could advance.
    fn is_quiet(&self) -> bool {
        let is_told = self.said.is_told(self.progress()) && !self.requests.is_hung();
        let is_idle = self.attempts.is_empty() && self.requests.is_empty() && is_told;
        is_idle || !self.is_admitted()
    }

    /// All records up to `position` have become durable.
    pub fn on_durable(&mut self, now: Time, position: Position) {
        self.outbox.on_durable(position);
        self.deliver_to_self(now);
    }

    /// Stops taking requests, and brings everything under way to its end. The caller goes on driving the replica
    /// until `is_idle`, or gives up after a while; a stop in bad order loses nothing either.
    pub fn on_stop(&mut self, _now: Time) {
        self.requests.on_stop();
        self.give_back_pending(Reason::Stopping);
    }

    /// D2: whether a message or a reply waits for more of the log to be durable. Other records, such as a commit that
    /// came from another replica, may gather for a while.
    pub fn awaits_log(&self) -> bool {
        self.outbox.awaits_log()
    }

    /// Whether so much waits for the disk that the caller should not read from peers.
    pub fn is_behind(&self) -> bool {
        self.outbox.held() > HELD_MAX
    }

    /// Whether, after `on_stop`, all own instances are executed, answered and durable.
    pub fn is_idle(&self) -> bool {
        self.requests.is_stopped() && self.outbox.is_empty()
    }

    /// The next output, in the order of [`Output`]'s variants. After `end_turn` the caller polls until `None`, and
    /// then sleeps until the next input.
    #[inline]
    pub fn poll(&mut self) -> Option<Output> {
        self.outbox.poll().or_else(|| self.poll_cut().map(Output::Cut))
    }

    /// What has executed, alone. Between replayed records this keeps what a log holds from gathering in memory.
    pub fn poll_executed(&mut self) -> Option<Executed> {
        self.outbox.poll_executed()
    }

    /// Handles the due messages of the replica to itself, until none is left. Messages to others stay in order.
    pub(crate) fn deliver_to_self(&mut self, now: Time) {
        while let Some(message) = self.outbox.poll_own() {
            self.handle(now, self.me, message.message, message.payload);
        }
    }

    /// Sends a message to all others, which rests on all records appended so far.
    pub(crate) fn broadcast(&mut self, message: &PeerMessage, payload: Option<&Payload>) {
        for to in self.peers.others() {
            self.outbox.send(to, message.clone(), payload.cloned());
        }
    }

    /// The instances that this replica has committed without a gap, and those that it has executed.
    pub(crate) fn progress(&self) -> (Frontier, Frontier) {
        (*self.executor.committed(), *self.executor.executed())
    }

    /// Whether an instance has executed and this replica has forgotten it.
    pub(crate) fn is_forgotten(&self, id: InstanceId) -> bool {
        self.forgetting.floor().contains(id)
    }

    /// Adds the batch of an instance to the index, once.
    pub(crate) fn learn(&mut self, id: InstanceId) {
        if let Some(instance) = self.space.get_mut(id)
            && let Some(payload) = instance.unlearnt()
        {
            let Learnt { places, .. } = self.index.learn(id, payload);
            instance.learn(places);
        }
    }
}
