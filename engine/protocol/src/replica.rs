//! One replica's part in one shard: inputs in, outputs out. The rules are in [`crate::phase`].

use crate::attempt::Attempts;
use crate::conflict::{Index, Learnt};
use crate::contract::{Append, Busy, ClientRef, Config, Position, Reply, Room, Send, Time};
use crate::execute::{Executor, Step, Vertex};
use crate::instance::{Choice, Space};
use crate::limits::*;
use crate::log::record::Record;
use crate::machine::Machine;
use crate::marks::Marks;
use crate::mutant::{self, Mutant};
use crate::outbox::Outbox;
use crate::payload::Payload;
use crate::phase::gossip::WHO_IS_WRONG;
use crate::quorum::{Quorum, ReplicaSet};
use crate::snapshot::{Snapshot, Taking};
use crate::transfer::{Holds, OwnFile, Pause, Sources};
use isonomy_wire::command::{Op, Part};
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{InstanceId, REPLICAS_MAX, ReplicaId, StreamId};
use isonomy_wire::message::{Failure, PeerMessage, Phase, Value};
use std::collections::{BTreeMap, VecDeque};

/// Requests on their way into an instance, and who waits for them: one client per part.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) payload: Payload,
    pub(crate) clients: Vec<ClientRef>,
}

/// What is known of another replica, and what it has been told of this one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peer {
    pub(crate) linked: bool,
    /// Until then its disk hangs, as it says (D9).
    pub(crate) stalled_until: Option<Time>,
    pub(crate) committed: Deps,
    pub(crate) executed: Deps,
    pub(crate) state_hash: u64,
    /// What it has forgotten, which rests on its snapshot or on what everybody has executed.
    pub(crate) floor: Deps,
    pub(crate) snapshot: u64,
    pub(crate) unindexed: Deps,
    /// The last fence that it executed, and its state hash there.
    pub(crate) fence: (u64, u64),
    /// G6: its log has had so many durable records.
    pub(crate) heard: u64,
}

/// A range of a row that was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pulled {
    /// Its last number; 0 if there is none.
    pub(crate) to: u64,
    /// The bytes of its batches that have come.
    pub(crate) bytes: usize,
    /// When it was asked for, or something of it came last.
    pub(crate) heard: Time,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) fast: u64,
    pub(crate) slow: u64,
    pub(crate) recoveries: u64,
    pub(crate) snapshots_damaged: u64,
    pub(crate) replayed_commands: u64,
    /// Messages that were sent again, by receiver.
    pub(crate) resent: [u64; REPLICAS_MAX],
}

/// One replica of one shard. See the crate's documentation for how it is driven.
#[derive(Clone, Debug)]
pub struct Replica {
    pub(crate) config: Config,
    pub(crate) quorum: Quorum,
    pub(crate) me: ReplicaId,
    pub(crate) seed: u64,
    pub(crate) space: Space,
    pub(crate) index: Index,
    pub(crate) executor: Executor,
    pub(crate) machine: Machine,
    pub(crate) outbox: Outbox,
    pub(crate) attempts: Attempts,
    /// Waiting(id, k): the highest k heard per undecided id (R6c).
    pub(crate) waiting: BTreeMap<InstanceId, u8>,
    pub(crate) pending: VecDeque<Pending>,
    pub(crate) pending_bytes: usize,
    /// Who waits for own instances, by sequence number.
    pub(crate) waiters: BTreeMap<u64, Vec<ClientRef>>,
    /// The last own sequence number used.
    pub(crate) used: u64,
    /// The last own instance that one of another row is known to come after.
    pub(crate) named: u64,
    /// Own numbers up to here may be used, once the record at the position is durable.
    pub(crate) reserved: u64,
    pub(crate) reserved_at: Position,
    /// The same for the block before.
    pub(crate) reserved_before: (u64, Position),
    /// D8: the ends of the blocks that replicas had reserved before they were restarted.
    pub(crate) restart_marks: Deps,
    /// G1: executed, and forgotten here.
    pub(crate) floor: Deps,
    /// Conflicts at or below may be missing in the index (law, section 3): it does not come with a
    /// snapshot, nor with a floor that was taken over from a peer.
    pub(crate) unindexed: Deps,
    /// Fences executed since the shard began.
    pub(crate) fences: u64,
    /// The last of them, and the state hash at each.
    pub(crate) fence_hashes: VecDeque<(u64, u64)>,
    /// What the log held at the start and has taken since, in bytes; and at the last fence.
    pub(crate) log_bytes: u64,
    pub(crate) fenced_at: u64,
    /// The fence of the newest durable snapshot.
    pub(crate) snapshot: u64,
    /// The snapshot that is being taken, and where the log may be cut when it is durable.
    pub(crate) taking: Option<(Position, Taking)>,
    /// What the log had taken when the newest durable snapshot was begun, and the one being taken.
    pub(crate) snapshot_log_bytes: u64,
    pub(crate) taking_log_bytes: u64,
    /// After a snapshot that could not be written.
    pub(crate) take_pause: Pause,
    /// Who fetches the newest snapshot.
    pub(crate) holds: Holds,
    /// What is known of its file.
    pub(crate) own_file: OwnFile,
    /// Once the first record is durable, those before the second position may go.
    pub(crate) cut: Option<(Position, Position)>,
    /// Whose snapshot is needed.
    pub(crate) sources: Sources,
    pub(crate) peers: Vec<Peer>,
    /// Whether something was heard of how far the peers' logs reach that is not written down, and when
    /// that was written last.
    pub(crate) heard_more: bool,
    pub(crate) heard_at: Time,
    /// G6: the others have confirmed that this replica was not set back.
    pub(crate) admitted: bool,
    pub(crate) counters: Counters,
    pub(crate) marks: Marks,
    pub(crate) last_tick: Time,
    pub(crate) last_gossip: Time,
    pub(crate) gossiped: Option<(Deps, Deps)>,
    /// Per row the range that was pulled last.
    pub(crate) pulled: Vec<Pulled>,
    pub(crate) last_idle_check: Time,
    /// When streams were last used, by the local clock; only proposes their end (S4).
    pub(crate) stream_used: BTreeMap<StreamId, Time>,
    pub(crate) no_quorum_since: Option<Time>,
    /// Why requests that write are refused for want of room, if they are.
    pub(crate) room: Room,
    /// When this replica last said that its disk hangs (D9), if it does.
    pub(crate) said_stalled: Option<Time>,
    pub(crate) stopping: bool,
    pub(crate) stopped: bool,
}

impl Replica {
    /// A replica with an empty log. `replay` each record of its log, in order, then `start` it.
    /// The seed only spreads timeouts.
    pub fn new(config: Config, seed: u64) -> Replica {
        let quorum = Quorum::new(config.replicas);
        assert!(config.replica.index() < quorum.n, "the replica is not one of its epoch");
        let (epoch, shard) = (config.epoch, config.shard);
        Replica {
            quorum,
            me: config.replica,
            seed,
            space: Space::new(quorum.n),
            index: Index::default(),
            executor: Executor::new(quorum.n),
            machine: Machine::new(epoch, shard),
            outbox: Outbox::default(),
            attempts: Attempts::new(),
            waiting: BTreeMap::new(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            waiters: BTreeMap::new(),
            used: 0,
            named: 0,
            reserved: 0,
            reserved_at: Position(0),
            reserved_before: (0, Position(0)),
            restart_marks: Deps::NONE,
            floor: Deps::NONE,
            unindexed: Deps::NONE,
            fences: 0,
            fence_hashes: VecDeque::new(),
            log_bytes: 0,
            fenced_at: 0,
            snapshot: 0,
            taking: None,
            snapshot_log_bytes: 0,
            taking_log_bytes: 0,
            take_pause: Pause::default(),
            holds: Holds::new(quorum.n),
            own_file: OwnFile::default(),
            cut: None,
            sources: Sources::new(quorum.n),
            peers: vec![Peer::default(); quorum.n],
            heard_more: false,
            heard_at: Time(0),
            admitted: false,
            counters: Counters::default(),
            marks: Marks::default(),
            last_tick: Time(0),
            last_gossip: Time(0),
            gossiped: None,
            pulled: vec![Pulled::default(); quorum.n],
            last_idle_check: Time(0),
            stream_used: BTreeMap::new(),
            no_quorum_since: None,
            room: Room::Enough,
            said_stalled: None,
            stopping: false,
            stopped: false,
            config,
        }
    }

    /// The newest snapshot, before the log is replayed (G5).
    pub fn restore(&mut self, snapshot: Snapshot) {
        let frontier = snapshot.head.frontier;
        self.load(snapshot);
        self.raise_floor(&frontier);
    }

    /// A record that the log had when the process started. The log was checked before; a record
    /// that contradicts those before it is a broken invariant.
    pub fn replay(&mut self, record: Record, payload: Option<Payload>) {
        if record.id().is_some_and(|id| self.floor.contains(id)) {
            return;
        }
        match record {
            Record::Reserve { end } => {
                self.reserved = end;
                self.restart_marks.set(self.me, end);
            }
            Record::Stopped { used } => {
                // Nothing that was said is unknown here, so D8 has nothing to guard.
                self.reserved = used;
                self.restart_marks.set(self.me, 0);
            }
            Record::Begin { reserved, floor, fence: _ } => {
                self.reserved = reserved;
                self.restart_marks.set(self.me, reserved);
                self.replay_floor(&floor);
            }
            Record::Floor { upto } => self.replay_floor(&upto),
            Record::Heard { positions } => {
                for (peer, position) in self.peers.iter_mut().zip(positions) {
                    peer.heard = peer.heard.max(position);
                }
            }
            Record::PreAccepted { id, deps, init_deps } => {
                self.replay_payload(id, payload);
                let instance = self.replayed(id);
                (instance.phase, instance.cmd) = (Phase::PreAccepted, Choice::Initial);
                (instance.dep, instance.init_dep) = (deps, Some(init_deps));
                self.see_all(&deps, Time(0));
            }
            Record::Promised { id, ballot } => {
                let instance = self.replayed(id);
                (instance.bal, instance.heard, instance.validated) = (ballot, ballot, false);
            }
            Record::Validated { id, value: _, init_deps } => {
                self.replay_payload(id, payload);
                let instance = self.replayed(id);
                (instance.cmd, instance.init_dep) = (Choice::Initial, Some(init_deps));
                instance.validated = true;
                self.see_all(&init_deps, Time(0));
            }
            Record::Accepted { id, ballot, value, deps, after } => {
                self.replay_payload(id, payload);
                let instance = self.replayed(id);
                (instance.bal, instance.abal, instance.phase) = (ballot, ballot, Phase::Accepted);
                instance.heard = instance.heard.max(ballot);
                (instance.cmd, instance.dep, instance.after) = (choice_of(value), deps, after);
                self.see_all(&deps, Time(0));
            }
            Record::Committed { id, ballot, value, deps, after } => {
                self.replay_payload(id, payload);
                let after = if mutant::is(Mutant::AfterLostInReplay) { Deps::NONE } else { after };
                self.take_commit(id, ballot, choice_of(value), deps, after);
                self.execute_replayed();
            }
            Record::Carried { id, phase, bal, abal, value, deps, after, init_deps, validated } => {
                self.replay_payload(id, payload);
                let instance = self.replayed(id);
                if instance.is_committed() {
                    return;
                }
                (instance.bal, instance.heard, instance.abal) = (bal, bal, abal);
                (instance.init_dep, instance.validated) = (init_deps, validated);
                if phase == Phase::Committed {
                    self.take_commit(id, abal, choice_of(value), deps, after);
                    return self.execute_replayed();
                }
                (instance.phase, instance.cmd) = (phase, choice_of(value));
                (instance.dep, instance.after) = (deps, after);
                self.see_all(&deps, Time(0));
                self.see_all(&after, Time(0));
            }
        }
    }

    /// G1, G5: what a floor covers and the replay has not executed was not seen here, or its records
    /// are gone: the index does not have it.
    fn replay_floor(&mut self, upto: &Deps) {
        if !self.executor.executed().covers(upto) && !mutant::is(Mutant::ReplayedFloorUnnamed) {
            self.unindexed.merge(upto);
        }
        let batches = self.executor.skip_to(upto);
        assert_eq!(batches, 0, "G1: what a floor covers has executed, or are Nops");
        self.raise_floor(upto);
    }

    fn replayed(&mut self, id: InstanceId) -> &mut crate::instance::Instance {
        self.space.see(id, Time(0)).expect("the log names no impossible ids")
    }

    fn replay_payload(&mut self, id: InstanceId, payload: Option<Payload>) {
        let instance = self.replayed(id);
        if payload.is_some() {
            instance.payload = payload;
            instance.logged = true;
        }
        self.learn(id);
    }

    fn execute_replayed(&mut self) {
        while let Some(step) = self.executor.poll() {
            match step {
                Step::Execute(id, Some(payload)) => {
                    let places = self.space.take_places(id);
                    let found = self.machine.execute(id, &payload, &places, false, |_, _| ());
                    self.index.note(&found);
                }
                Step::Execute(_, None) => {}
                Step::Fence(_) => self.count_fence(),
            }
        }
    }

    /// The log was replayed; `position` is that of its last record. Until it is admitted the replica says
    /// nothing and takes nothing.
    pub fn start(&mut self, now: Time, position: Position) {
        self.outbox.start(position);
        // D5: numbers go on above the reserved block, and what was not used becomes Nops.
        self.reserved = self.reserved.max(self.floor.of(self.me));
        self.used = self.reserved;
        if self.reserved > self.floor.of(self.me) {
            let last = InstanceId::new(self.me, self.reserved);
            self.space.see(last, now).expect("a block is not far ahead");
        }
        // What others have under way gets its time from here on: whoever recovers it at once
        // turns proposals of living coordinators into Nops (R3.3).
        self.space.restart_patience(now);
        self.counters.replayed_commands = self.machine.commands();
        self.last_tick = now;
        self.reserve();
        let streams: Vec<StreamId> = self.machine.streams.iter().map(|(id, _)| *id).collect();
        self.stream_used = streams.into_iter().map(|id| (id, now)).collect();
        self.look_for_quorum(now);
    }

    /// G6: the others have confirmed that the state that was replayed is the newest one (see
    /// [`crate::admission`]).
    pub fn admit(&mut self, now: Time) {
        self.admitted = true;
        (self.last_tick, self.heard_at) = (now, now);
        // What the others have under way gets its time from here on.
        self.space.restart_patience(now);
        self.deliver_to_self(now);
    }

    /// G6: whether it was admitted.
    pub fn is_admitted(&self) -> bool {
        self.admitted
    }

    /// G6: how many durable records the log has for what was said; `None` if a power failure could take
    /// some of them.
    pub fn position(&self) -> Option<u64> {
        self.config.outlives_power.then(|| self.outbox.spoken().min(self.outbox.durable()).0)
    }

    /// G6: how many durable records the log of a peer has had, as it has said.
    pub fn heard(&self, peer: ReplicaId) -> u64 {
        self.peers[peer.index()].heard
    }

    /// C1: reserves the next block of sequence numbers when few are left.
    pub(crate) fn reserve(&mut self) {
        if self.reserved - self.used < self.config.reserve_block / 2 {
            self.reserved_before = (self.reserved, self.reserved_at);
            self.reserved = self.used + self.config.reserve_block;
            self.reserved_at = self.outbox.append(Record::Reserve { end: self.reserved }, None);
        }
    }

    /// The record that the use of an own number rests on. A fresh block keeps nobody waiting who
    /// still draws on the one before.
    pub(crate) fn reserved_at(&self, seq: u64) -> Position {
        let (end, position) = self.reserved_before;
        if seq <= end { position } else { self.reserved_at }
    }

    /// A message from another replica, with the batch that came behind it. Messages that no
    /// member following the law would send are dropped.
    pub fn on_message(&mut self, now: Time, from: ReplicaId, message: PeerMessage, payload: Option<Payload>) {
        if from.index() >= self.quorum.n || from == self.me || !self.admitted {
            return;
        }
        self.handle(now, from, message, payload);
        self.deliver_to_self(now);
    }

    /// A request. `Busy` gives it back untouched: try again after the next reply.
    pub fn on_request(&mut self, now: Time, client: ClientRef, payload: Payload) -> Result<(), Busy> {
        if let Some(failure) = self.refusal(now, &payload) {
            self.outbox.reply(client, Err(failure));
            return Ok(());
        }
        let bytes = payload.batch().payload().len();
        if self.pending.len() >= PENDING_REQUESTS_MAX || self.pending_bytes + bytes > PENDING_BYTES_MAX {
            return Err(Busy);
        }
        self.pending_bytes += bytes;
        self.pending.push_back(Pending { payload, clients: vec![client] });
        Ok(())
    }

    /// Why a request cannot be taken at all.
    fn refusal(&self, now: Time, payload: &Payload) -> Option<Failure> {
        let [part] = payload.batch().parts() else {
            let why = "a request frame holds exactly one request; send each in its own".into();
            return Some(Failure::Invalid { why });
        };
        if self.stopping {
            let reason = "this replica is shutting down and proposed nothing; ask another".into();
            return Some(Failure::Unavailable { reason });
        }
        if !self.admitted {
            let reason = "this replica has just started, and too few others have confirmed yet that its state \
                          is the newest; ask another, or try again later";
            return Some(Failure::Unavailable { reason: reason.into() });
        }
        if self.no_quorum_since.is_some_and(|since| now.since(since) > UNAVAILABLE_AFTER_US) {
            let (linked, needed) = (self.live().len(), self.quorum.slow());
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
        match &self.room {
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
        let mine = self.executor.executed();
        self.others().any(|id| {
            let theirs = &self.peers[id.index()].executed;
            let lacking = theirs.0.iter().zip(&mine.0).map(|(theirs, mine)| theirs.saturating_sub(*mine));
            lacking.sum::<u64>() > instances
        })
    }

    /// Whether the log may grow from here on, and whether the disk answers.
    pub fn on_room(&mut self, room: Room) {
        self.room = room;
        self.give_back_for_room();
        if self.is_hung() && !mutant::is(Mutant::HungKeepsWaiters) {
            self.give_up_waiters();
        }
    }

    /// What the log held on its disk when the process started, and has taken since, in bytes. What it
    /// held counts as grown since the last fence: a log that is never cut because its process is
    /// always killed first would fill its budget.
    pub fn on_log_bytes(&mut self, bytes: u64) {
        self.log_bytes = bytes;
    }

    /// The replicas whose links work in both directions, this one not counted.
    pub fn on_links(&mut self, now: Time, linked: &[ReplicaId]) {
        let mut is_lost = false;
        for (index, peer) in self.peers.iter_mut().enumerate() {
            let before = std::mem::replace(&mut peer.linked, linked.contains(&ReplicaId(index as u8)));
            is_lost |= before && !peer.linked;
        }
        if is_lost {
            self.note_heard(now);
        }
        // Whoever came back has to hear how far this replica is.
        self.gossiped = None;
        self.look_for_quorum(now);
    }

    pub(crate) fn look_for_quorum(&mut self, now: Time) {
        let reachable = self.live().len() >= self.quorum.slow();
        self.no_quorum_since = if reachable { None } else { self.no_quorum_since.or(Some(now)) };
    }

    /// This replica and all that it can reach.
    pub(crate) fn live(&self) -> ReplicaSet {
        let all = (0..self.quorum.n as u8).map(ReplicaId);
        all.filter(|id| *id == self.me || self.is_reached(*id)).collect()
    }

    /// Whether another replica is linked and its disk takes what it is told (D9).
    pub(crate) fn is_reached(&self, id: ReplicaId) -> bool {
        let peer = &self.peers[id.index()];
        peer.linked && peer.stalled_until.is_none()
    }

    /// All replicas, each of which has a row.
    pub(crate) fn rows(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        (0..self.quorum.n as u8).map(ReplicaId)
    }

    /// All other replicas.
    pub(crate) fn others(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        let me = self.me;
        (0..self.quorum.n as u8).map(ReplicaId).filter(move |id| *id != me)
    }

    /// Time has passed: resends, slow paths, recoveries, gossip.
    pub fn on_timeout(&mut self, now: Time) {
        if now.since(self.last_tick) >= TICK_US {
            self.last_tick = now;
            if !self.admitted {
                return;
            }
            self.end_stalls(now);
            if self.is_hung() {
                self.say_stalled(now);
            } else {
                self.end_own_stall(now);
                self.tick(now);
            }
            self.deliver_to_self(now);
        }
    }

    /// When `on_timeout` wants to be called at the latest.
    pub fn next_deadline(&self) -> Option<Time> {
        Some(self.last_tick.after(if self.is_quiet() { 20 * TICK_US } else { TICK_US }))
    }

    /// Nothing is under way that a tick could further.
    fn is_quiet(&self) -> bool {
        let progress = (*self.executor.committed(), *self.executor.executed());
        let is_told = self.gossiped == Some(progress) && !self.is_hung();
        let is_idle = self.attempts.is_empty() && self.pending.is_empty() && is_told;
        is_idle || !self.admitted
    }

    /// All records up to `position` are durable.
    pub fn on_durable(&mut self, now: Time, position: Position) {
        self.outbox.on_durable(position);
        self.deliver_to_self(now);
    }

    /// After a batch of inputs: what requests have gathered becomes instances. Then poll.
    pub fn end_turn(&mut self, now: Time) {
        self.give_back_for_room();
        while !self.pending.is_empty() && self.unexecuted_own() < ADMISSION_WINDOW as u64 {
            let (payload, clients) = self.gather();
            self.submit(now, payload, clients);
        }
        self.reserve_unless_stopping();
        self.deliver_to_self(now);
    }

    fn reserve_unless_stopping(&mut self) {
        if !self.stopping {
            self.reserve();
        } else if !self.stopped && self.pending.is_empty() && self.unexecuted_own() == 0 {
            self.stopped = true;
            // A cut that comes after this carries it over, too.
            self.reserved = self.used;
            self.outbox.append(Record::Stopped { used: self.used }, None);
        }
    }

    /// How many own instances wait for their execution (W of section 6).
    fn unexecuted_own(&self) -> u64 {
        self.used - self.executor.executed().of(self.me).min(self.used)
    }

    /// Joins waiting requests up to a batch.
    fn gather(&mut self) -> (Payload, Vec<ClientRef>) {
        let (mut payloads, mut clients) = (Vec::new(), Vec::new());
        let (mut bytes, mut commands) = (0, 0);
        while let Some(next) = self.pending.front() {
            let batch = next.payload.batch();
            let (more_bytes, more) = (batch.payload().len(), batch.commands() as usize);
            let full = bytes + more_bytes > isonomy_wire::command::BATCH_BYTES_MAX
                || commands + more > isonomy_wire::command::BATCH_COMMANDS_MAX;
            if !payloads.is_empty() && (full || bytes + more_bytes > GATHER_BYTES) {
                break;
            }
            (bytes, commands) = (bytes + more_bytes, commands + more);
            let next = self.pending.pop_front().expect("it is there");
            payloads.push(next.payload);
            clients.extend(next.clients);
        }
        self.pending_bytes -= bytes;
        (Payload::join(&payloads), clients)
    }

    /// No more requests are taken; what is under way comes to its end. Go on driving the replica
    /// until `is_idle`, or give up after a while: a stop in bad order loses nothing either.
    pub fn on_stop(&mut self, _now: Time) {
        self.stopping = true;
        self.give_back_pending("this replica is shutting down and proposed nothing; ask another");
    }

    /// D2: whether somebody waits for more of the log to be durable. What nobody waits for, such as a
    /// commit that came from another replica, may gather for a while.
    pub fn awaits_log(&self) -> bool {
        self.outbox.awaits_log()
    }

    /// Whether so much waits for the disk that peers should not be read.
    pub fn is_behind(&self) -> bool {
        self.outbox.held() > HELD_MAX
    }

    /// After `on_stop`: everything own is executed, said and durable.
    pub fn is_idle(&self) -> bool {
        self.stopped && self.outbox.is_empty()
    }

    /// The next record to append.
    pub fn poll_append(&mut self) -> Option<Append> {
        self.outbox.poll_append()
    }

    /// The next message that may leave. Poll appends first.
    pub fn poll_send(&mut self) -> Option<Send> {
        self.outbox.poll_send()
    }

    /// The next reply that may leave. Poll appends first.
    pub fn poll_reply(&mut self) -> Option<Reply> {
        self.outbox.poll_reply()
    }

    /// Hands over the messages to oneself that are due, until none is left. What leaves for
    /// others stays in order.
    pub(crate) fn deliver_to_self(&mut self, now: Time) {
        while let Some(message) = self.outbox.poll_own() {
            self.handle(now, self.me, message.message, message.payload);
        }
    }

    /// Sends to all others what rests on everything appended so far.
    pub(crate) fn broadcast(&mut self, message: &PeerMessage, payload: Option<&Payload>) {
        for to in self.others() {
            self.outbox.send(to, message.clone(), payload.cloned());
        }
    }

    /// C6 without its answer: the value is final. Returns false if it was before.
    pub(crate) fn take_commit(
        &mut self,
        id: InstanceId,
        ballot: isonomy_wire::id::Ballot,
        cmd: Choice,
        dep: Deps,
        after: Deps,
    ) -> bool {
        let Some(instance) = self.space.get_mut(id) else { return false };
        if instance.is_committed() {
            let same = instance.cmd == cmd && (cmd == Choice::Nop || instance.dep == dep);
            assert!(same, "V1: {id:?} is committed with two values. {WHO_IS_WRONG}");
            return false;
        }
        instance.bal = instance.bal.max(ballot);
        instance.abal = ballot;
        (instance.cmd, instance.dep, instance.after) = (cmd, dep, after);
        instance.phase = Phase::Committed;
        let payload = (cmd == Choice::Initial)
            .then(|| instance.payload.clone().expect("a batch is known before it is committed"));
        self.see_all(&dep, self.last_tick);
        self.see_all(&after, self.last_tick);
        self.executor.on_commit(id, Vertex { dep, after, payload });
        true
    }

    pub(crate) fn see_all(&mut self, deps: &Deps, now: Time) -> bool {
        self.space.see_all(deps, now)
    }

    /// The index learns the batch of an instance, once.
    pub(crate) fn learn(&mut self, id: InstanceId) {
        if let Some(instance) = self.space.get_mut(id).filter(|instance| !instance.indexed)
            && let Some(payload) = &instance.payload
        {
            let Learnt { places, .. } = self.index.learn(id, payload);
            instance.learn(places);
        }
    }
}

pub(crate) fn choice_of(value: Value) -> Choice {
    match value {
        Value::None => Choice::None,
        Value::Nop => Choice::Nop,
        Value::Known | Value::Attached => Choice::Initial,
    }
}
