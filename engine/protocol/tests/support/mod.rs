//! A small cluster of cores in one thread: logs and links are vectors, time is a number. Tests
//! decide what is delivered, synced, lost and crashed.
#![allow(dead_code, unreachable_pub)] // Each test file uses its own part.

use bytes::Bytes;
use isonomy_protocol::contract::{ClientRef, Config, Position, Reply, Send, Time, Timing};
use isonomy_protocol::log::record::Record;
use isonomy_protocol::payload::Payload;
use isonomy_protocol::replica::Replica;
use isonomy_wire::answer::{Answer, Answers};
use isonomy_wire::command::RequestBuilder;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{Epoch, InstanceId, ReplicaId, ShardId, StreamId};
use isonomy_wire::message::{PeerMessage, Value};
use std::collections::{BTreeMap, VecDeque};

pub type Entry = (Record, Option<Payload>);

pub struct Node {
    pub core: Option<Replica>,
    /// Everything appended; a crash keeps the durable prefix.
    pub log: Vec<Entry>,
    pub durable: usize,
    pub replies: Vec<Reply>,
}

pub struct World {
    pub n: u8,
    pub now: Time,
    pub nodes: Vec<Node>,
    pub links: BTreeMap<(u8, u8), VecDeque<Send>>,
    /// What was committed anywhere, ever: V1.
    pub committed: BTreeMap<InstanceId, (bool, Deps)>,
    /// Nodes whose links are cut.
    pub isolated: Vec<u8>,
    /// What was said, as text, for traces.
    pub transcript: Vec<String>,
    pub check: bool,
}

pub fn timing() -> Timing {
    Timing { gossip_us: 20_000, resend_us: 50_000, recover_us: 200_000, ..Timing::default() }
}

impl World {
    pub fn new(n: u8) -> World {
        let mut world = World {
            n,
            now: Time(1_000_000),
            nodes: Vec::new(),
            links: BTreeMap::new(),
            committed: BTreeMap::new(),
            isolated: Vec::new(),
            transcript: Vec::new(),
            check: true,
        };
        for _ in 0..n {
            world.nodes.push(Node { core: None, log: Vec::new(), durable: 0, replies: Vec::new() });
        }
        for id in 0..n {
            world.start(id);
        }
        world
    }

    fn config(&self, id: u8) -> Config {
        Config {
            replica: ReplicaId(id),
            replicas: self.n,
            epoch: Epoch(1),
            shard: ShardId(0),
            timing: timing(),
        }
    }

    /// Starts a node from what its log holds.
    pub fn start(&mut self, id: u8) {
        let mut core = Replica::new(self.config(id), u64::from(id) + 7);
        let node = &mut self.nodes[id as usize];
        assert!(node.core.is_none(), "it runs already");
        for (record, payload) in &node.log {
            core.replay(record.clone(), payload.clone());
        }
        core.start(self.now, Position(node.log.len() as u64));
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
        while let Some(append) = core.poll_append() {
            assert_eq!(append.position.0, node.log.len() as u64 + 1, "positions are consecutive");
            node.log.push((append.record, append.payload));
        }
        while let Some(send) = core.poll_send() {
            let link = (id, send.to.0);
            if !self.isolated.contains(&id) && !self.isolated.contains(&send.to.0) {
                self.links.entry(link).or_default().push_back(send);
            }
        }
        while let Some(reply) = core.poll_reply() {
            node.replies.push(reply);
        }
        if self.check {
            core.check();
        }
    }

    /// Makes everything appended durable.
    pub fn sync(&mut self, id: u8) {
        let now = self.now;
        let node = &mut self.nodes[id as usize];
        let Some(core) = node.core.as_mut() else { return };
        if node.durable < node.log.len() {
            // A commit counts when it is durable: before, nobody was told.
            for (record, _) in &node.log[node.durable..] {
                note_commit(&mut self.committed, record);
            }
            node.durable = node.log.len();
            core.on_durable(now, Position(node.durable as u64));
            self.pump(id);
        }
    }

    /// Hands over one message.
    pub fn deliver(&mut self, from: u8, send: Send) {
        let (to, now) = (send.to.0, self.now);
        self.transcript.push(format!("{from} -> {to}  {:?}", send.message));
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
        for id in 0..self.n {
            let now = self.now;
            if let Some(core) = self.nodes[id as usize].core.as_mut() {
                core.on_timeout(now);
                self.pump(id);
            }
        }
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

    /// One Decide on a named stream of its own.
    pub fn decide(&mut self, id: u8, stream: &str, number: u64, key: &str) {
        let client = ClientRef { connection: 1, tag: number };
        self.request(id, client, decide(stream, number, 0, key));
    }

    /// Takes the answers that a node gave so far.
    pub fn answers(&mut self, id: u8) -> Vec<(ClientRef, Answer)> {
        let replies = std::mem::take(&mut self.nodes[id as usize].replies);
        replies.into_iter().flat_map(answers_of).collect()
    }

    pub fn hashes(&mut self) -> Vec<(Deps, u64)> {
        let up: Vec<u8> = (0..self.n).filter(|id| self.is_up(*id)).collect();
        up.into_iter().map(|id| self.core(id).status()).map(|s| (s.frontier, s.state_hash)).collect()
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

/// V1: whatever is committed anywhere, ever, is the same.
fn note_commit(committed: &mut BTreeMap<InstanceId, (bool, Deps)>, record: &Record) {
    if let Record::Committed { id, value, deps, .. } = record {
        let nop = *value == Value::Nop;
        let deps = if nop { Deps::NONE } else { *deps };
        let known = committed.entry(*id).or_insert((nop, deps));
        assert_eq!(*known, (nop, deps), "V1: {id:?} was committed with two values");
    }
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

pub fn decide(stream: &str, number: u64, answered_below: u64, key: &str) -> Payload {
    let mut builder = RequestBuilder::default();
    builder.decide(key.as_bytes(), format!("{stream}/{number}").as_bytes()).expect("it fits");
    parse(builder.encode(StreamId::named(stream), number, answered_below))
}

pub fn read(key: &str) -> Payload {
    let mut builder = RequestBuilder::default();
    builder.read(key.as_bytes()).expect("it fits");
    parse(builder.encode(StreamId::NONE, 0, 0))
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
