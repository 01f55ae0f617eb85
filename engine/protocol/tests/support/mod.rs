//! A small cluster of cores in one thread: logs and links are vectors, time is a number. Tests
//! decide what is delivered, synced, lost and crashed.
#![allow(dead_code, unreachable_pub)] // Each test file uses its own part.

pub mod solo;

use bytes::Bytes;
use isonomy_protocol::conflict::Touched;
use isonomy_protocol::contract::{
    ClientRef, Config, Executed, Output, Position, Reply, Sealed, Send, StateAt, Time, Timing,
};
use isonomy_protocol::limits::RESERVE_BLOCK;
use isonomy_protocol::log::record::Record;
use isonomy_protocol::payload::Payload;
use isonomy_protocol::replica::Replica;
use isonomy_protocol::snapshot::{Reader, Snapshot, SnapshotId};
use isonomy_protocol::transfer::Fetch;
use isonomy_wire::answer::{Answer, Answers};
use isonomy_wire::command::{Numbering, RequestBuilder};
use isonomy_wire::deps::{Deps, Frontier};
use isonomy_wire::id::{Ballot, ClusterId, Epoch, InstanceId, RecordId, ReplicaId, SessionId, ShardId};
use isonomy_wire::message::{PeerMessage, Value};
use std::collections::{BTreeMap, VecDeque};

pub type Entry = (Record, Option<Payload>);

pub struct Node {
    pub core: Option<Replica>,
    /// Everything appended; a crash keeps the durable prefix.
    pub log: Vec<Entry>,
    /// How many records were cut from its front.
    pub cut: usize,
    /// The newest durable snapshot.
    pub snapshot: Option<(u64, Vec<u8>)>,
    pub durable: usize,
    pub replies: Vec<Reply>,
    /// How often, and how, its processes have said that the epoch has ended.
    pub sealed: Vec<Sealed>,
    pub executed: Vec<Executed>,
}

pub struct World {
    /// How many nodes there are: the members, and behind them the learners.
    pub n: u8,
    members: u8,
    pub epoch: Epoch,
    /// Gossip is lost: nobody hears how far the others are.
    pub mute: bool,
    pub now: Time,
    pub nodes: Vec<Node>,
    pub links: BTreeMap<(u8, u8), VecDeque<Send>>,
    /// What was said and decided, ever.
    pub ghost: Ghost,
    /// Nodes whose links are cut.
    pub isolated: Vec<u8>,
    /// What was said, as text, if `tracing`.
    pub transcript: Vec<String>,
    pub tracing: bool,
    /// Every how many turns a core is asked to check itself; it looks at everything it has.
    pub check_every: usize,
    turns: usize,
}

pub fn timing() -> Timing {
    Timing { gossip_us: 20_000, resend_us: 50_000, recover_us: 200_000, ..Timing::default() }
}

/// Of replica `id` of `n`.
pub fn config(n: u8, id: u8) -> Config {
    Config {
        cluster: ClusterId::of_name("test"),
        replica: ReplicaId(id),
        replicas: n,
        epoch: Epoch(1),
        shard: ShardId(0),
        timing: timing(),
        reserve_block: RESERVE_BLOCK,
        barrier_bytes: u64::MAX,
        outlives_power: true,
        rescue: false,
        publishes: true,
    }
}

impl World {
    pub fn new(n: u8) -> World {
        let mut world = World::of(n, Epoch(1));
        (0..n).for_each(|id| world.start(id));
        world
    }

    /// An epoch of which no member runs.
    fn of(n: u8, epoch: Epoch) -> World {
        let mut world = World {
            n: 0,
            members: n,
            epoch,
            mute: false,
            now: Time(1_000_000),
            nodes: Vec::new(),
            links: BTreeMap::new(),
            ghost: Ghost::default(),
            isolated: Vec::new(),
            transcript: Vec::new(),
            tracing: false,
            check_every: 1,
            turns: 0,
        };
        (0..n).for_each(|_| world.make_room());
        world
    }

    /// A node that has never run.
    fn make_room(&mut self) {
        self.n += 1;
        self.nodes.push(Node {
            core: None,
            log: Vec::new(),
            cut: 0,
            snapshot: None,
            durable: 0,
            replies: Vec::new(),
            sealed: Vec::new(),
            executed: Vec::new(),
        });
    }

    /// A learner with an empty directory comes.
    pub fn join(&mut self) -> u8 {
        self.make_room();
        self.start(self.n - 1);
        self.n - 1
    }

    /// The record announces a change, or none any more, and all that run have read that.
    pub fn announce(&mut self, is_announced: bool) {
        for core in self.nodes.iter_mut().filter_map(|node| node.core.as_mut()) {
            core.on_change(is_announced);
        }
    }

    /// The epoch behind this one, whose members all have ended it. Each place of the next is that of a member of this
    /// one, or of somebody with an empty directory.
    pub fn succeed(&mut self, places: &[Option<u8>]) -> World {
        let mut next = World::of(places.len() as u8, Epoch(self.epoch.0 + 1));
        next.now = self.now;
        for (id, old) in (0..).zip(places) {
            let core = old.map(|old| self.core(old).succeed(next.config(id), u64::from(id) + 7));
            next.start_with(id, core);
        }
        next
    }

    fn config(&self, id: u8) -> Config {
        Config { epoch: self.epoch, ..config(self.members, id) }
    }

    /// Starts a node from what its log holds.
    pub fn start(&mut self, id: u8) {
        self.start_with(id, None);
    }

    /// The same, with the core that the one of the epoch before has made.
    pub fn start_with(&mut self, id: u8, core: Option<Replica>) {
        let mut core = core.unwrap_or_else(|| Replica::new(self.config(id), u64::from(id) + 7));
        let node = &mut self.nodes[id as usize];
        assert!(node.core.is_none(), "it runs already");
        if let Some((barrier, bytes)) = &node.snapshot {
            core.restore(read_snapshot(*barrier, bytes));
        }
        let first = node.log.get(node.cut);
        let begins = |(record, _): &Entry| matches!(record, Record::Begin { .. });
        assert!(node.cut == 0 || first.is_some_and(begins), "G1: what is left stands for all before");
        for (record, payload) in &node.log[node.cut..] {
            core.replay(record.clone(), payload.clone());
        }
        core.start(self.now, Position(node.log.len() as u64));
        core.admit(self.now);
        core.check();
        node.core = Some(core);
        self.relink();
        self.pump(id);
    }

    /// Stops a node at once: what was not synced is gone, and all that is on its links.
    pub fn crash(&mut self, id: u8) {
        let node = &mut self.nodes[id as usize];
        node.core = None;
        node.log.truncate(node.durable);
        self.links.retain(|(from, to), _| *from != id && *to != id);
        self.relink();
    }

    pub fn isolate(&mut self, id: u8) {
        self.isolated.push(id);
        self.links.retain(|(from, to), _| *from != id && *to != id);
        self.relink();
    }

    pub fn rejoin(&mut self) {
        self.isolated.clear();
        self.relink();
    }

    fn relink(&mut self) {
        let up: Vec<ReplicaId> = (0..self.n)
            .filter(|id| self.nodes[*id as usize].core.is_some() && !self.isolated.contains(id))
            .map(ReplicaId)
            .collect();
        for id in 0..self.n {
            let linked: Vec<ReplicaId> = if self.isolated.contains(&id) {
                Vec::new()
            } else {
                up.iter().copied().filter(|other| other.0 != id).collect()
            };
            let now = self.now;
            if let Some(core) = &mut self.nodes[id as usize].core {
                core.on_links(now, &linked);
            }
        }
    }

    pub fn is_up(&self, id: u8) -> bool {
        self.nodes[id as usize].core.is_some()
    }

    pub fn core(&mut self, id: u8) -> &mut Replica {
        self.nodes[id as usize].core.as_mut().expect("the node is up")
    }

    /// Ends the turn of a node: takes its appends, messages and replies.
    pub fn pump(&mut self, id: u8) {
        let now = self.now;
        let node = &mut self.nodes[id as usize];
        let Some(core) = node.core.as_mut() else { return };
        core.end_turn(now);
        while let Some(output) = core.poll() {
            match output {
                Output::Append(append) => {
                    assert_eq!(append.position.0, node.log.len() as u64 + 1, "positions are consecutive");
                    node.log.push((append.record, append.payload));
                }
                Output::Send(send) => {
                    self.ghost.on_send(&send);
                    let is_muted = self.mute && !is_protocol(&send.message);
                    let is_cut_off = self.isolated.contains(&id) || self.isolated.contains(&send.to.0);
                    if !is_muted && !is_cut_off {
                        self.links.entry((id, send.to.0)).or_default().push_back(send);
                    }
                }
                Output::Reply(reply) => node.replies.push(reply),
                Output::Executed(executed) => node.executed.push(executed),
                Output::Sealed(sealed) => node.sealed.push(sealed),
                Output::Cut(position) => {
                    let begin = position.0 as usize;
                    assert!(begin <= node.durable, "G1: what stands for the log before is not durable");
                    node.cut = begin - 1;
                }
            }
        }
        if let Some(last) = core.last_barrier() {
            self.ghost.on_barrier(last);
        }
        self.turns += 1;
        if self.turns.is_multiple_of(self.check_every) {
            core.check();
        }
    }

    /// A barrier through one node executes everywhere; who takes its snapshot, the test decides.
    pub fn barrier(&mut self, id: u8) {
        self.propose_barrier(id);
        self.settle();
    }

    /// The same, and only these nodes hear of it.
    pub fn barrier_among(&mut self, id: u8, nodes: &[u8]) {
        self.propose_barrier(id);
        self.settle_among(nodes);
    }

    pub fn propose_barrier(&mut self, id: u8) {
        let now = self.now;
        self.core(id).propose_barrier(now);
        self.pump(id);
    }

    /// A Seal through one node.
    pub fn propose_seal(&mut self, id: u8, record: RecordId) {
        let now = self.now;
        self.core(id).propose_seal(now, record);
        self.pump(id);
    }

    /// The snapshot of the last barrier becomes durable at each of these, and they forget.
    pub fn forget(&mut self, nodes: &[u8]) {
        nodes.iter().for_each(|id| self.take_snapshot(*id));
    }

    /// One node crashes and starts again at once.
    pub fn restart(&mut self, id: u8) {
        self.crash(id);
        self.start(id);
    }

    /// The snapshot that a node is taking becomes durable, and what it covers is forgotten.
    pub fn take_snapshot(&mut self, id: u8) {
        // Its file counts only once what was carried forward is durable.
        self.sync(id);
        let now = self.now;
        let core = self.core(id);
        let (barrier, _) = core.taking().expect("a barrier has executed");
        let bytes = std::iter::from_fn(|| core.snapshot_bytes()).flatten().collect();
        core.on_snapshot(now);
        self.nodes[id as usize].snapshot = Some((barrier, bytes));
        self.pump(id);
        self.sync(id);
        self.pump(id);
    }

    /// A node gets the snapshot that it needs; whether it needs one.
    pub fn fetch_snapshot(&mut self, id: u8) -> bool {
        let now = self.now;
        let Some((source, barrier)) = self.core(id).wants_snapshot() else { return false };
        assert!(self.core(source.0).on_fetch(now, ReplicaId(id), Fetch { barrier, from: 0 }));
        let (kept, bytes) = self.nodes[source.index()].snapshot.clone().expect("it has the one it announced");
        assert_eq!(kept, barrier);
        self.nodes[id as usize].snapshot = Some((barrier, bytes.clone()));
        self.core(id).install_snapshot(now, read_snapshot(barrier, &bytes));
        self.pump(id);
        true
    }

    /// Makes everything appended durable.
    pub fn sync(&mut self, id: u8) {
        let now = self.now;
        let node = &mut self.nodes[id as usize];
        let Some(core) = node.core.as_mut() else { return };
        if node.durable < node.log.len() {
            // A commit counts when it is durable: before, nobody was told.
            for (record, payload) in &node.log[node.durable..] {
                self.ghost.on_record(record, payload.as_ref());
            }
            node.durable = node.log.len();
            core.on_durable(now, Position(node.durable as u64));
            self.pump(id);
        }
    }

    /// Hands over one message.
    pub fn deliver(&mut self, from: u8, send: Send) {
        let (to, now) = (send.to.0, self.now);
        if self.tracing && is_protocol(&send.message) {
            let batch = if send.payload.is_some() { " + batch" } else { "" };
            self.transcript.push(format!("{from} -> {to}  {:?}{batch}", send.message));
        }
        let Some(core) = self.nodes[to as usize].core.as_mut() else { return };
        core.on_message(now, ReplicaId(from), send.message, send.payload);
        self.pump(to);
    }

    /// Delivers the oldest message from one node to another; whether there was one.
    pub fn step(&mut self, from: u8, to: u8) -> bool {
        let Some(send) = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front) else { return false };
        self.deliver(from, send);
        true
    }

    /// A line of the transcript that says what the test does.
    pub fn note(&mut self, text: &str) {
        self.transcript.push(format!("-- {text}"));
    }

    /// Everything under way from one node to another is lost.
    pub fn lose(&mut self, from: u8, to: u8) {
        self.links.remove(&(from, to));
    }

    /// Everything under way is lost.
    pub fn lose_all(&mut self) {
        self.links.clear();
    }

    /// Syncs and delivers in order, between these nodes only, until nothing is left to do.
    pub fn settle_among(&mut self, nodes: &[u8]) {
        loop {
            nodes.iter().for_each(|id| self.sync(*id));
            let busy: Vec<(u8, u8)> =
                self.links.iter().filter(|(_, queue)| !queue.is_empty()).map(|(link, _)| *link).collect();
            let among: Vec<(u8, u8)> =
                busy.into_iter().filter(|(from, to)| nodes.contains(from) && nodes.contains(to)).collect();
            if among.is_empty() {
                return;
            }
            for (from, to) in among {
                self.step(from, to);
            }
        }
    }

    /// A node hears the answers of these nodes, one by one, to the oldest that it told them; what
    /// follows from that is durable, and on its way.
    pub fn converse(&mut self, id: u8, with: &[u8]) {
        self.sync(id);
        for other in with {
            assert!(self.step(id, *other), "there is something to hear");
            self.sync(*other);
            assert!(self.step(*other, id), "it is answered");
        }
        self.sync(id);
    }

    /// Time passes for one node only, and these hear each other.
    pub fn run_alone(&mut self, id: u8, nodes: &[u8], micros: u64) {
        for _ in 0..micros / 5_000 {
            self.now = self.now.after(5_000);
            self.tick(id);
            self.settle_among(nodes);
        }
    }

    /// Lets time pass for these nodes only, which alone hear each other.
    pub fn run_among(&mut self, nodes: &[u8], micros: u64) {
        for _ in 0..micros / 5_000 {
            self.settle_among(nodes);
            self.now = self.now.after(5_000);
            for id in nodes {
                self.tick(*id);
            }
        }
        self.settle_among(nodes);
    }

    /// One node looks at the clock.
    pub fn tick(&mut self, id: u8) {
        let now = self.now;
        if let Some(core) = self.nodes[id as usize].core.as_mut() {
            core.on_timeout(now);
            self.pump(id);
        }
    }

    /// Syncs and delivers in order until nothing is left to do.
    pub fn settle(&mut self) {
        loop {
            (0..self.n).for_each(|id| self.sync(id));
            let busy: Vec<(u8, u8)> =
                self.links.iter().filter(|(_, queue)| !queue.is_empty()).map(|(link, _)| *link).collect();
            if busy.is_empty() {
                return;
            }
            for (from, to) in busy {
                self.step(from, to);
            }
        }
    }

    /// Lets time pass for all, without delivering anything.
    pub fn pass(&mut self, micros: u64) {
        self.now = self.now.after(micros);
        (0..self.n).for_each(|id| self.tick(id));
    }

    /// Lets time pass in small steps with everything working.
    pub fn run(&mut self, micros: u64) {
        for _ in 0..micros / 5_000 {
            self.settle();
            self.pass(5_000);
        }
        self.settle();
    }

    pub fn request(&mut self, id: u8, client: ClientRef, payload: Payload) {
        let now = self.now;
        self.core(id).on_request(now, client, payload).expect("the queue is not full");
        self.pump(id);
    }

    /// One Decide on a named session of its own.
    pub fn decide(&mut self, id: u8, session: &str, number: u64, key: &str) {
        let client = ClientRef { connection: 1, tag: number };
        self.request(id, client, decide(session, number, 0, key));
    }

    /// Takes the answers that a node gave so far.
    pub fn answers(&mut self, id: u8) -> Vec<(ClientRef, Answer)> {
        let replies = std::mem::take(&mut self.nodes[id as usize].replies);
        replies.into_iter().flat_map(answers_of).collect()
    }

    pub fn hashes(&mut self) -> Vec<(Frontier, u64)> {
        let up: Vec<u8> = (0..self.n).filter(|id| self.is_up(*id)).collect();
        up.into_iter().map(|id| self.core(id).status()).map(|s| (s.frontier, s.state_hash)).collect()
    }

    /// Time passes with everything working, and whoever needs a snapshot gets it.
    pub fn catch_up(&mut self, micros: u64) {
        for _ in 0..micros / 100_000 {
            self.run(100_000);
            for id in (0..self.n).filter(|id| self.is_up(*id)).collect::<Vec<_>>() {
                self.fetch_snapshot(id);
            }
        }
        self.settle();
    }

    /// Everybody comes back, everything is delivered: there must be one end.
    pub fn ends_well(&mut self) {
        for id in 0..self.n {
            if !self.is_up(id) {
                self.start(id);
            }
        }
        self.mute = false;
        self.rejoin();
        self.catch_up(10_000_000);
        self.assert_converged();
        self.ghost.assert_visibility();
    }

    /// All that are up executed the same, and nothing is left undecided.
    pub fn assert_converged(&mut self) {
        let hashes = self.hashes();
        assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "V13: {hashes:?}");
        for id in (0..self.n).filter(|id| self.is_up(*id)).collect::<Vec<_>>() {
            let status = self.core(id).status();
            assert_eq!(status.unexecuted, 0, "V16: replica {id} waits for {:?}", status.waiting_on);
        }
    }
}

/// A decision as the ghost knows it.
#[derive(Clone, Debug)]
pub struct Decision {
    pub nop: bool,
    pub deps: Deps,
    /// The largest that any replica has.
    pub after: Deps,
}

impl Decision {
    /// Whether it is ordered behind `id`.
    pub fn names(&self, id: InstanceId) -> bool {
        self.deps.contains(id) || self.after.contains(id)
    }
}

/// What no replica has: everything that was ever sent and decided.
#[derive(Default)]
pub struct Ghost {
    pub decisions: BTreeMap<InstanceId, Decision>,
    pub payloads: BTreeMap<InstanceId, Payload>,
    proposed: BTreeMap<(InstanceId, Ballot), (bool, Deps, Deps)>,
    barriers: BTreeMap<u64, u64>,
}

impl Ghost {
    /// V3: at most one value per ballot is ever proposed.
    fn on_send(&mut self, send: &Send) {
        if let PeerMessage::Accept { id, ballot, value, deps, after } = &send.message {
            let value = (*value == Value::Nop, *deps, *after);
            let known = self.proposed.entry((*id, *ballot)).or_insert(value);
            assert_eq!(*known, value, "V3: {id:?} has two values at {ballot:?}");
        }
    }

    /// V13: the state is the same at a barrier, wherever it executes.
    fn on_barrier(&mut self, StateAt { barrier, hash }: StateAt) {
        let known = *self.barriers.entry(barrier).or_insert(hash);
        assert_eq!(known, hash, "V13: barrier {barrier} was reached with two states");
    }

    /// V1: whatever is committed anywhere, ever, is the same.
    fn on_record(&mut self, record: &Record, payload: Option<&Payload>) {
        if let (Some(id), Some(payload)) = (record.id(), payload) {
            let known = self.payloads.entry(id).or_insert_with(|| payload.clone());
            assert_eq!(known, payload, "V12: {id:?} was used twice");
        }
        if let Record::Committed { id, value, deps, after, .. } = record {
            let nop = *value == Value::Nop;
            let deps = if nop { Deps::NONE } else { *deps };
            let fresh = Decision { nop, deps, after: *after };
            let known = self.decisions.entry(*id).or_insert(fresh);
            assert_eq!((known.nop, known.deps), (nop, deps), "V1: {id:?} was committed with two values");
            known.after.merge(after);
        }
    }

    /// V2: of two conflicting decisions one names the other.
    pub fn assert_visibility(&self) {
        let real: Vec<_> = self.decisions.iter().filter(|(_, decision)| !decision.nop).collect();
        for (at, (a, left)) in real.iter().enumerate() {
            let touched = Touched::by(&self.payloads[a]);
            for (b, right) in &real[at + 1..] {
                let ordered = left.names(**b) || right.names(**a);
                let apart = || !touched.conflicts_with(&self.payloads[b]);
                assert!(ordered || apart(), "V2: {a:?} and {b:?} do not see each other");
            }
        }
    }
}

pub fn read_snapshot(barrier: u64, bytes: &[u8]) -> Snapshot {
    let id = SnapshotId { cluster: ClusterId::of_name("test"), shard: ShardId(0), barrier };
    let mut reader = Reader::new(id);
    reader.push(bytes).expect("a snapshot reads as it was written");
    reader.finish().expect("a snapshot is whole")
}

pub fn answers_of(reply: Reply) -> Vec<(ClientRef, Answer)> {
    let bytes = reply.outcome.expect("the request was executed");
    let answers = Answers::parse(bytes).expect("own responses decode").to_vec();
    answers.into_iter().map(|answer| (reply.client, answer)).collect()
}

pub fn parse(bytes: Bytes) -> Payload {
    let crc = crc32c::crc32c(&bytes);
    Payload::parse(bytes, crc).expect("the request is valid")
}

pub fn decide(session: &str, number: u64, answered_below: u64, key: &str) -> Payload {
    let mut builder = RequestBuilder::default();
    builder.decide(key.as_bytes(), format!("{session}/{number}").as_bytes()).expect("it fits");
    parse(builder.encode(SessionId::named(session), Numbering { first: number, answered_below }))
}

pub fn read(key: &str) -> Payload {
    let mut builder = RequestBuilder::default();
    builder.read(key.as_bytes()).expect("it fits");
    parse(builder.encode(SessionId::NONE, Numbering::NONE))
}

pub fn barrier() -> Payload {
    let mut builder = RequestBuilder::default();
    builder.barrier();
    parse(builder.encode(SessionId::NONE, Numbering::NONE))
}

pub fn seal(record: RecordId) -> Payload {
    let mut builder = RequestBuilder::default();
    builder.seal(record);
    parse(builder.encode(SessionId::NONE, Numbering::NONE))
}

pub fn id(row: u8, seq: u64) -> InstanceId {
    InstanceId::new(ReplicaId(row), seq)
}

pub fn key_seq(answer: &Answer) -> u64 {
    match answer {
        Answer::Committed { key_seq, .. } => *key_seq,
        other => panic!("not committed: {other:?}"),
    }
}

/// What of a message matters in a trace.
pub fn is_protocol(message: &PeerMessage) -> bool {
    !matches!(message, PeerMessage::Gossip { .. })
}
