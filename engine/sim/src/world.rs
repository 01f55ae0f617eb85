//! The run of a seed: events in the order of their time, faults first, then healing, then proof.

use crate::check;
use crate::client::Client;
use crate::coverage::{self, Coverage};
use crate::ghost::Ghost;
use crate::history::{self, Op, Told};
use crate::network::Network;
use crate::node::Node;
use crate::plan::{Bias, Plan};
use crate::queue::Queue;
use bytes::Bytes;
use isonomy_protocol::contract::{Busy, ClientRef, Reply, Send};
use isonomy_protocol::payload::Payload;
use isonomy_wire::answer::Answers;
use isonomy_wire::id::{ReplicaId, ShardId};
use isonomy_wire::message::{Failure, PeerMessage};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How long everything may take to be decided and executed, once the network is fair.
const PATIENCE_US: u64 = 120_000_000;
/// How often it is looked whether that is so.
const LOOK_EVERY_US: u64 = 50_000;
/// Every how many turns a core is asked to check all that it has.
const CHECK_EVERY: u64 = 64;
/// A full replica is asked again after this.
const BUSY_PAUSE_US: u64 = 1_000;
const SHARD: ShardId = ShardId(0);

/// What happens.
enum Event {
    Deliver {
        from: u8,
        life: u32,
        again: bool,
        send: Box<Send>,
    },
    Tick {
        node: u8,
        life: u32,
    },
    Synced {
        node: u8,
        life: u32,
    },
    /// All replicas notice who can be reached.
    Links,
    Request {
        client: usize,
        replica: u8,
        connection: u64,
        tag: u64,
        payload: Bytes,
    },
    Answer {
        client: usize,
        replica: u8,
        connection: u64,
        tag: u64,
        outcome: Result<Bytes, Failure>,
    },
    Connect {
        client: usize,
        replica: u8,
    },
    /// A client has something to ask.
    Act {
        client: usize,
    },
    /// A client looks at the clock.
    Wake {
        client: usize,
    },
    Partition,
    Mend,
    Reset,
    Pause,
    CrashSome,
    Crash {
        node: u8,
    },
    Start {
        node: u8,
    },
    Heal,
    Look,
}

/// How far the proof has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Faults,
    /// A legal minority is still down.
    Minority,
    /// All are up.
    All,
    /// Every key is read.
    Reading,
    Done,
}

/// What a run came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Of all that happened.
    pub hash: u64,
    /// How much did.
    pub events: u64,
    /// Simulated microseconds.
    pub micros: u64,
    /// Commands that were told committed.
    pub decisions: u64,
    /// Corners that were reached.
    pub coverage: Coverage,
}

/// Runs a seed to its end. Panics with the assertion that fails.
pub fn run(seed: u64) -> Summary {
    run_plan(Plan::of(seed))
}

/// Runs what was planned to its end.
pub fn run_plan(plan: Plan) -> Summary {
    let mut world = World::new(plan);
    while world.stage != Stage::Done {
        let (now, event) = world.queue.pop().expect("there is always a next look");
        world.now = now;
        world.handle(event);
    }
    world.finish()
}

struct World {
    plan: Plan,
    now: u64,
    queue: Queue<Event>,
    nodes: Vec<Node>,
    network: Network,
    clients: Vec<Client>,
    ops: Vec<Op>,
    ghost: Ghost,
    faults: SmallRng,
    disks: SmallRng,
    connections: u64,
    stage: Stage,
    stage_since: u64,
    turns: u64,
    summary: Summary,
}

impl World {
    fn new(plan: Plan) -> World {
        let mut faults = SmallRng::seed_from_u64(plan.seed ^ 0x6661_756c);
        let nodes = (0..plan.n).map(|id| Node::new(&plan, id, &mut faults)).collect();
        let clients = (0..plan.clients).map(|index| Client::new(&plan, index, plan.commands)).collect();
        let mut world = World {
            now: 0,
            queue: Queue::default(),
            nodes,
            network: Network::new(&plan),
            clients,
            ops: Vec::new(),
            ghost: Ghost::new(plan.n),
            faults,
            disks: SmallRng::seed_from_u64(plan.seed ^ 0x6469_736b),
            connections: 0,
            stage: Stage::Faults,
            stage_since: 0,
            turns: 0,
            summary: Summary::default(),
            plan,
        };
        (0..world.plan.n).for_each(|id| world.start(id));
        for client in 0..world.clients.len() {
            world.after(1_000, 20_000, Event::Act { client });
        }
        let plan = world.plan.clone();
        world.every(plan.partition_every_us, Event::Partition);
        world.every(plan.reset_every_us, Event::Reset);
        world.every(plan.pause_every_us, Event::Pause);
        world.every(plan.crash_every_us, Event::CrashSome);
        world.queue.push(plan.faults_us, Event::Heal);
        world
    }

    fn after(&mut self, least: u64, most: u64, event: Event) {
        let pause = self.faults.random_range(least..=most);
        self.queue.push(self.now + pause, event);
    }

    /// A fault comes back after about so long.
    fn every(&mut self, period: u64, event: Event) {
        if period > 0 {
            self.after(period / 2, period * 2, event);
        }
    }

    fn is_calm(&self) -> bool {
        self.stage != Stage::Faults
    }

    fn note(&mut self, kind: u8, a: u64, b: u64) {
        let mut bytes = [kind; 25];
        bytes[1..9].copy_from_slice(&self.now.to_le_bytes());
        bytes[9..17].copy_from_slice(&a.to_le_bytes());
        bytes[17..].copy_from_slice(&b.to_le_bytes());
        self.summary.hash = xxh3_64_with_seed(&bytes, self.summary.hash);
        self.summary.events += 1;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { from, life, again, send } => self.deliver(from, life, again, send),
            Event::Tick { node, life } => self.tick(node, life),
            Event::Synced { node, life } => self.synced(node, life),
            Event::Links => self.relink(),
            Event::Request { client, replica, connection, tag, payload } => {
                self.request(client, replica, connection, tag, payload);
            }
            Event::Answer { client, replica, connection, tag, outcome } => {
                self.answer(client, replica, connection, tag, outcome);
            }
            Event::Connect { client, replica } => self.connect(client, replica),
            Event::Act { client } => self.act(client),
            Event::Wake { client } => {
                self.clients[client].wake_at = None;
                self.clients[client].session.on_timeout(self.now);
                self.attend(client);
            }
            Event::Crash { node } if !self.is_calm() => self.crash(node),
            Event::Start { node } if self.nodes[usize::from(node)].core.is_none() => self.start(node),
            Event::Mend => {
                self.network.heal();
                self.after(5_000, 50_000, Event::Links);
            }
            Event::Heal => self.heal(),
            Event::Look => self.look(),
            Event::Partition | Event::Reset | Event::Pause | Event::CrashSome if !self.is_calm() => {
                self.fail(event)
            }
            _ => {}
        }
    }

    // The replicas.

    fn start(&mut self, id: u8) {
        let World { plan, now, nodes, ghost, faults, .. } = self;
        let node = &mut nodes[usize::from(id)];
        node.start(plan, *now, ghost, faults);
        let life = node.life;
        if plan.trace {
            eprintln!("{:>9} {id} starts", self.now);
        }
        self.note(1, id.into(), life.into());
        self.queue.push(self.now, Event::Tick { node: id, life });
        self.after(1_000, 30_000, Event::Links);
        for client in 0..self.clients.len() {
            self.after(1_000, 30_000, Event::Connect { client, replica: id });
        }
        self.turn(id);
    }

    fn crash(&mut self, id: u8) {
        let node = &mut self.nodes[usize::from(id)];
        let Some(core) = &node.core else { return };
        self.summary.coverage.marks.merge(core.marks());
        self.summary.coverage.torn |= node.crash(&mut self.disks);
        if self.plan.trace {
            eprintln!("{:>9} {id} crashes", self.now);
        }
        self.note(2, id.into(), 0);
        if self.faults.random_bool(0.5) {
            self.network.reset_from(id);
        }
        for client in 0..self.clients.len() {
            self.disconnect(client, id);
        }
        self.after(5_000, 50_000, Event::Links);
        // An orphan's coordinator stays away until its proposal has been recovered.
        let most = if self.plan.bias == Bias::Orphans { 3_000_000 } else { 600_000 };
        if !self.is_calm() {
            self.after(1_000, most, Event::Start { node: id });
        }
    }

    /// What reaches a paused process reaches it later.
    fn is_paused(&self, id: u8) -> Option<u64> {
        let until = self.nodes[usize::from(id)].paused_until;
        (until > self.now).then_some(until)
    }

    fn deliver(&mut self, from: u8, life: u32, again: bool, send: Box<Send>) {
        let to = send.to.0;
        if !self.network.is_current(from, to, life) {
            return;
        }
        if let Some(until) = self.is_paused(to) {
            return self.queue.push(until, Event::Deliver { from, life, again, send });
        }
        let time = self.nodes[usize::from(to)].time(self.now);
        let Some(core) = &mut self.nodes[usize::from(to)].core else { return };
        if again {
            self.summary.coverage.duplicated(&send.message);
        }
        let written = &self.ghost.books[usize::from(to)].written;
        let is_committed = |id| written.of(id).phase == isonomy_wire::message::Phase::Committed;
        if coverage::id_of(&send.message).is_some_and(is_committed) {
            self.summary.coverage.late(&send.message);
        }
        let dies = self.plan.bias == Bias::CoordinatorsDie
            && self.now < self.plan.bias_us
            && matches!(send.message, PeerMessage::PreAcceptOk { .. })
            && self.faults.random_bool(0.1);
        if self.plan.trace {
            eprintln!("{:>9} {from} -> {to}  {:?}", self.now, send.message);
        }
        core.on_message(time, ReplicaId(from), send.message, send.payload);
        self.note(3, from.into(), to.into());
        self.turn(to);
        if dies {
            self.after(0, 3_000, Event::Crash { node: to });
        }
    }

    fn tick(&mut self, id: u8, life: u32) {
        if self.nodes[usize::from(id)].life != life {
            return;
        }
        if let Some(until) = self.is_paused(id) {
            return self.queue.push(until, Event::Tick { node: id, life });
        }
        let node = &mut self.nodes[usize::from(id)];
        let time = node.time(self.now);
        let Some(core) = &mut node.core else { return };
        core.on_timeout(time);
        let next = core.next_deadline().unwrap_or(time.after(5_000));
        let at = self.nodes[usize::from(id)].real(self.now, next).max(self.now + 1);
        self.queue.push(at, Event::Tick { node: id, life });
        self.note(4, id.into(), 0);
        self.turn(id);
    }

    fn synced(&mut self, id: u8, life: u32) {
        let node = &mut self.nodes[usize::from(id)];
        if node.life != life || node.core.is_none() {
            return;
        }
        if let Some(until) = self.is_paused(id) {
            return self.queue.push(until, Event::Synced { node: id, life });
        }
        self.nodes[usize::from(id)].synced(self.now, &mut self.ghost);
        self.note(5, id.into(), 0);
        self.turn(id);
    }

    fn relink(&mut self) {
        let up: Vec<bool> = self.nodes.iter().map(|node| node.core.is_some()).collect();
        for id in 0..self.plan.n {
            let linked = self.network.linked(id, &up);
            let time = self.nodes[usize::from(id)].time(self.now);
            if let Some(core) = &mut self.nodes[usize::from(id)].core {
                core.on_links(time, &linked);
                self.turn(id);
            }
        }
    }

    /// Ends the turn of a replica: what it says goes on its way.
    fn turn(&mut self, id: u8) {
        let turn = self.nodes[usize::from(id)].turn(self.now, self.plan.trace, &mut self.ghost);
        let life = self.nodes[usize::from(id)].life;
        if turn.writes {
            let slow = self.plan.bias == Bias::OwnRecordsLost && self.now < self.plan.bias_us;
            let tail = !self.is_calm() && self.disks.random_bool(self.plan.sync_tail);
            let factor = if tail {
                100
            } else if slow {
                10
            } else {
                1
            };
            let pause = self.disks.random_range(1..=self.plan.sync_us) * factor;
            self.queue.push(self.now + pause, Event::Synced { node: id, life });
        }
        for send in turn.sends {
            self.send(id, send);
        }
        for reply in turn.replies {
            self.reply(id, reply);
        }
        self.turns += 1;
        if self.turns.is_multiple_of(CHECK_EVERY)
            && let Some(core) = &self.nodes[usize::from(id)].core
        {
            core.check();
        }
    }

    fn send(&mut self, from: u8, send: Send) {
        let calm = self.is_calm();
        let fate = self.network.send(&self.plan, self.now, from, send.to.0, &send.message, calm);
        let dies = self.now < self.plan.bias_us
            && matches!(send.message, PeerMessage::PreAccept { .. })
            && match self.plan.bias {
                Bias::OwnRecordsLost => self.faults.random_bool(0.05),
                Bias::Orphans => self.faults.random_bool(0.1),
                _ => false,
            };
        for (copy, at) in fate.arrivals.into_iter().enumerate() {
            let event =
                Event::Deliver { from, life: fate.life, again: copy > 0, send: Box::new(send.clone()) };
            self.queue.push(at, event);
        }
        // An orphan's coordinator may also be there and silent for a while.
        if dies && self.plan.bias == Bias::Orphans && self.faults.random_bool(0.5) {
            self.nodes[usize::from(from)].paused_until = self.now + self.faults.random_range(20_000..800_000);
        } else if dies {
            self.after(0, 500, Event::Crash { node: from });
        }
    }

    // The clients.

    fn connect(&mut self, client: usize, replica: u8) {
        let connection = &mut self.clients[client].connections[usize::from(replica)];
        if connection.is_none() && self.nodes[usize::from(replica)].core.is_some() {
            self.connections += 1;
            *connection = Some(self.connections);
            self.clients[client].session.on_connected(ReplicaId(replica), SHARD);
            self.attend(client);
        }
    }

    fn disconnect(&mut self, client: usize, replica: u8) {
        if self.clients[client].connections[usize::from(replica)].take().is_some() {
            self.clients[client].session.on_disconnected(ReplicaId(replica), SHARD);
            self.attend(client);
        }
    }

    fn act(&mut self, client: usize) {
        if let Some(at) = self.clients[client].act(&self.plan, self.now, &mut self.ops) {
            self.queue.push(at, Event::Act { client });
        }
        self.note(6, client as u64, self.ops.len() as u64);
        self.attend(client);
    }

    /// Sends what a session has to send, notes what it has learnt, and wakes it in time.
    fn attend(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.collect(self.now, &mut self.ops);
        while let Some(transmit) = client.session.poll_transmit(self.now) {
            let replica = transmit.replica.0;
            let connection =
                client.connections[usize::from(replica)].expect("it sends to whom it is connected");
            let (tag, payload) = (transmit.tag, transmit.payload);
            let at = self.now + self.faults.random_range(20..500);
            self.queue.push(at, Event::Request { client: index, replica, connection, tag, payload });
        }
        if client.wake_at.is_none()
            && let Some(at) = client.session.next_deadline()
        {
            client.wake_at = Some(at.max(self.now + 1));
            self.queue.push(at.max(self.now + 1), Event::Wake { client: index });
        }
    }

    fn is_connected(&self, client: usize, replica: u8, connection: u64) -> bool {
        self.clients[client].connections[usize::from(replica)] == Some(connection)
    }

    fn request(&mut self, client: usize, replica: u8, connection: u64, tag: u64, payload: Bytes) {
        // What was sent on a connection that broke may still arrive.
        if !self.is_connected(client, replica, connection) && self.faults.random_bool(0.5) {
            return;
        }
        if let Some(until) = self.is_paused(replica) {
            return self.queue.push(until, Event::Request { client, replica, connection, tag, payload });
        }
        let time = self.nodes[usize::from(replica)].time(self.now);
        let Some(core) = &mut self.nodes[usize::from(replica)].core else { return };
        let crc = crc32c::crc32c(&payload);
        let parsed = Payload::parse(payload.clone(), crc).expect("sessions send valid requests");
        if let Err(Busy) =
            core.on_request(time, ClientRef { connection: (client as u64) << 32 | connection, tag }, parsed)
        {
            let again = Event::Request { client, replica, connection, tag, payload };
            return self.queue.push(self.now + BUSY_PAUSE_US, again);
        }
        self.note(7, client as u64, replica.into());
        self.turn(replica);
    }

    fn reply(&mut self, replica: u8, reply: Reply) {
        let ClientRef { connection, tag } = reply.client;
        let (client, connection) = ((connection >> 32) as usize, connection & u64::from(u32::MAX));
        // A replica proposes the end of idle streams itself, and nobody waits for the answer.
        if connection == 0 {
            return;
        }
        let at = self.now + self.faults.random_range(20..500);
        self.queue.push(at, Event::Answer { client, replica, connection, tag, outcome: reply.outcome });
    }

    fn answer(
        &mut self,
        client: usize,
        replica: u8,
        connection: u64,
        tag: u64,
        outcome: Result<Bytes, Failure>,
    ) {
        if !self.is_connected(client, replica, connection) {
            return;
        }
        self.note(8, client as u64, outcome.is_ok().into());
        let session = &mut self.clients[client].session;
        match outcome {
            Ok(response) => {
                let answers = Answers::parse(response).expect("responses decode");
                session.on_response(ReplicaId(replica), tag, answers).expect("responses fit their requests");
            }
            Err(failure) => session.on_failure(self.now, ReplicaId(replica), tag, failure),
        }
        self.attend(client);
    }

    // The faults.

    fn fail(&mut self, event: Event) {
        let n = self.plan.n;
        let node = self.faults.random_range(0..n);
        match event {
            Event::Partition => {
                self.partition(node);
                self.after(5_000, 1_000_000, Event::Mend);
                self.after(5_000, 50_000, Event::Links);
                self.every(self.plan.partition_every_us, Event::Partition);
            }
            Event::Reset => {
                let to = self.faults.random_range(0..n);
                self.network.reset(node, to);
                if self.faults.random_bool(0.3) && !self.clients.is_empty() {
                    let client = self.faults.random_range(0..self.clients.len());
                    self.disconnect(client, node);
                    self.after(1_000, 30_000, Event::Connect { client, replica: node });
                }
                self.every(self.plan.reset_every_us, Event::Reset);
            }
            Event::Pause => {
                let until = self.now + self.faults.random_range(1_000..800_000);
                self.nodes[usize::from(node)].paused_until = until;
                self.every(self.plan.pause_every_us, Event::Pause);
            }
            Event::CrashSome => {
                let all = self.faults.random_bool(self.plan.all_crash);
                (0..n).filter(|id| all || *id == node).for_each(|id| self.crash(id));
                self.every(self.plan.crash_every_us, Event::CrashSome);
            }
            _ => unreachable!("the caller has checked"),
        }
    }

    /// Some are cut off from the others, one from all, or one link fails in one direction.
    fn partition(&mut self, node: u8) {
        let n = self.plan.n;
        let kind = self.faults.random_range(0..3);
        if kind == 0 {
            let to = self.faults.random_range(0..n);
            return self.network.cut(node, to, true);
        }
        let inside: Vec<bool> =
            (0..n).map(|id| id == node || (kind == 1 && self.faults.random_bool(0.5))).collect();
        let one_way = self.faults.random_bool(0.3);
        for from in 0..n {
            for to in 0..n {
                let crosses = inside[usize::from(from)] != inside[usize::from(to)];
                if crosses && (!one_way || inside[usize::from(from)]) {
                    self.network.cut(from, to, true);
                }
            }
        }
    }

    // The proof.

    fn enter(&mut self, stage: Stage) {
        (self.stage, self.stage_since) = (stage, self.now);
        self.note(9, stage as u64, 0);
    }

    /// From here on the network is fair. In half of the runs a legal minority stays down.
    fn heal(&mut self) {
        self.enter(Stage::Minority);
        self.network.heal();
        self.nodes.iter_mut().for_each(|node| node.paused_until = 0);
        let most = self.ghost.quorum.f;
        let dead = if self.faults.random_bool(0.5) { self.faults.random_range(0..=most) } else { 0 };
        let all: Vec<u8> = (0..self.plan.n).collect();
        let dead: Vec<u8> = all.choose_multiple(&mut self.faults, dead).copied().collect();
        dead.iter().for_each(|id| self.crash(*id));
        self.start_all_but(&dead);
        self.queue.push(self.now + LOOK_EVERY_US, Event::Look);
    }

    fn start_all_but(&mut self, dead: &[u8]) {
        for id in (0..self.plan.n).filter(|id| !dead.contains(id)) {
            if self.nodes[usize::from(id)].core.is_none() {
                self.start(id);
            }
            for client in 0..self.clients.len() {
                self.after(1_000, 30_000, Event::Connect { client, replica: id });
            }
        }
        self.after(1_000, 30_000, Event::Links);
    }

    fn is_settled(&self) -> bool {
        let mut live = self.nodes.iter().filter_map(|node| node.core.as_ref()).map(|core| core.status());
        let Some(first) = live.next() else { return false };
        first.unexecuted == 0
            && live.all(|status| status.unexecuted == 0 && status.frontier == first.frontier)
    }

    fn look(&mut self) {
        let done = self.clients.iter().all(Client::is_done) && self.is_settled();
        if !done {
            if self.now - self.stage_since > PATIENCE_US {
                check::assert_all_executed(self.nodes.iter().filter_map(|node| node.core.as_ref()));
                panic!("V16: clients wait: {:?}", self.ops.iter().find(|op| op.told.is_none()));
            }
            return self.queue.push(self.now + LOOK_EVERY_US, Event::Look);
        }
        match self.stage {
            Stage::Minority => {
                self.enter(Stage::All);
                self.start_all_but(&[]);
            }
            Stage::All => {
                self.enter(Stage::Reading);
                self.read_all();
            }
            Stage::Reading => return self.enter(Stage::Done),
            Stage::Faults | Stage::Done => unreachable!("nobody looks then"),
        }
        self.queue.push(self.now + LOOK_EVERY_US, Event::Look);
    }

    /// A client of its own reads every key.
    fn read_all(&mut self) {
        let mut plan = self.plan.clone();
        plan.deadline_us = PATIENCE_US;
        let mut reader = Client::new(&plan, self.clients.len(), 0);
        for key in 0..plan.keys {
            reader.ask(self.now, &mut self.ops, key, true, None);
        }
        self.clients.push(reader);
        for replica in 0..plan.n {
            self.connect(self.clients.len() - 1, replica);
        }
    }

    fn finish(mut self) -> Summary {
        let live = || self.nodes.iter().filter_map(|node| node.core.as_ref());
        live().for_each(|core| core.check());
        check::assert_all_executed(live());
        check::rows_have_no_gaps(&self.ghost);
        let marks: Vec<_> = live().map(|core| core.marks()).collect();
        marks.into_iter().for_each(|marks| self.summary.coverage.marks.merge(marks));
        let reads = &self.ops[self.ops.len() - self.plan.keys..];
        let last: BTreeMap<usize, u64> = reads.iter().map(|op| (op.key, seen(op))).collect();
        history::judge(&self.ops, &last);
        self.summary.decisions =
            self.ops.iter().filter(|op| matches!(op.told, Some((_, Told::Wrote(_))))).count() as u64;
        self.summary.micros = self.now;
        self.summary
    }
}

fn seen(op: &Op) -> u64 {
    match op.told {
        Some((_, Told::Saw(seq, _))) => seq,
        other => panic!("V16: the last read of key {} was told {other:?}", op.key),
    }
}
