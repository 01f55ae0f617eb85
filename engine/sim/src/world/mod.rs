//! The run of a seed: events in the order of their time, faults first, then healing, then proof.

mod admission;
mod changes;
mod clients;
mod eras;
mod faults;
mod proof;
mod quiet;
mod replicas;
mod transfers;
mod tuning;
mod wrong;

use crate::client::{Client, Untold};
use crate::contention::Contention;
use crate::coverage::Coverage;
use crate::ghost::Ghost;
use crate::history::Op;
use crate::network::Network;
use crate::node::Node;
use crate::plan::Plan;
use crate::queue::Queue;
use crate::store::Record;
use bytes::Bytes;
use changes::Changes;
use eras::Era;
use isonomy_protocol::contract::{ClientRef, Send};
use isonomy_protocol::epoch::FIRST;
use isonomy_wire::failure::Failure;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The events of a run.
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
    /// A piece of a snapshot is on its way to the disk.
    Snapshot {
        node: u8,
        life: u32,
    },
    /// A piece of a peer's snapshot arrives, or should have.
    Fetched {
        node: u8,
        life: u32,
    },
    /// The file of a snapshot was read.
    Verified {
        node: u8,
        life: u32,
    },
    /// All replicas notice which of the others they can reach.
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
    /// A disk has no room for a while.
    Fill,
    /// No write of a disk ends for a while.
    Hang,
    /// A disk is copied.
    Copy,
    /// A clock jumps.
    Jump,
    /// A client that follows no rule asks.
    Wrong,
    /// A replica gets other settings.
    Tune,
    /// A replica that waited for room goes on.
    Room {
        node: u8,
    },
    CrashSome,
    Crash {
        node: u8,
    },
    Start {
        node: u8,
    },
    Heal,
    Look,
    /// An operator changes the members, or gives a change up.
    Change,
    /// A replica looks at the record of the members.
    Drive {
        node: u8,
    },
    /// A request has reached the store of that record.
    Swap {
        revision: usize,
        record: Box<Record>,
    },
}

/// The progress of the proof.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ProofStage {
    Faults,
    /// A legal minority is still down.
    Minority,
    /// All are up.
    All,
    /// Every key is read.
    Reading,
    Done,
}

/// The results of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// The hash of all events.
    pub hash: u64,
    /// The number of events.
    pub events: u64,
    /// Simulated microseconds.
    pub micros: u64,
    /// Commands that were told committed.
    pub decisions: u64,
    /// Commands that were asked.
    pub commands: u64,
    /// The commands whose outcome nobody could tell.
    pub untold: Untold,
    /// Corners that were reached.
    pub coverage: Coverage,
    /// The progress of conflicting commands.
    pub contention: Contention,
}

/// Runs a seed to its end. Panics with the assertion that fails.
pub fn run(seed: u64) -> Summary {
    run_plan(Plan::of(seed))
}

/// Runs a plan to its end.
pub fn run_plan(plan: Plan) -> Summary {
    let mut world = World::new(plan);
    while world.stage != ProofStage::Done {
        let (now, era, event) = world.queue.pop().expect("there is always a next look");
        world.now = now;
        world.show(era);
        world.handle(event);
    }
    world.finish()
}

struct World {
    plan: Plan,
    now: u64,
    queue: Queue<Event>,
    /// The replicas of the epoch that is shown, by place, and their processes.
    nodes: Vec<Node>,
    hosts: Vec<u8>,
    /// All epochs, and which one is shown.
    eras: Vec<Era>,
    era: usize,
    changes: Changes,
    network: Network,
    clients: Vec<Client>,
    ops: Vec<Op>,
    ghost: Ghost,
    faults: SmallRng,
    disks: SmallRng,
    connections: u64,
    stage: ProofStage,
    stage_since: u64,
    turns: u64,
    /// A disk was set back.
    was_set_back: bool,
    /// How often a request has reached a replica and has no reply.
    unanswered: HashMap<(u8, ClientRef), u32>,
    /// Commands with a key that reached a replica, each counted as often as it was asked.
    asked: u64,
    summary: Summary,
}

impl World {
    fn new(plan: Plan) -> World {
        let mut faults = SmallRng::seed_from_u64(plan.seed ^ 0x6661_756c);
        let nodes = (0..plan.n).map(|id| Node::new(&plan, plan.n, FIRST, id, &mut faults)).collect();
        let clients = (0..plan.clients).map(|index| Client::new(&plan, index, plan.commands)).collect();
        let mut world = World {
            now: 0,
            queue: Queue::default(),
            nodes,
            hosts: (0..plan.n).collect(),
            eras: vec![Era::shown()],
            era: 0,
            changes: Changes::new(plan.n, plan.pool),
            network: Network::new(&plan),
            clients,
            ops: Vec::new(),
            ghost: Ghost::new(plan.n, FIRST),
            faults,
            disks: SmallRng::seed_from_u64(plan.seed ^ 0x6469_736b),
            connections: 0,
            stage: ProofStage::Faults,
            stage_since: 0,
            turns: 0,
            was_set_back: false,
            unanswered: HashMap::new(),
            asked: 0,
            summary: Summary::default(),
            plan,
        };
        (0..world.plan.n).for_each(|id| world.start(id));
        for client in 0..world.clients.len() {
            let begun = if world.plan.quiet { quiet::BEGUN_US } else { 0 };
            world.after(begun + 1_000, begun + 20_000, Event::Act { client });
        }
        let plan = world.plan.clone();
        world.every(plan.partition_every_us, Event::Partition);
        world.every(plan.reset_every_us, Event::Reset);
        world.every(plan.pause_every_us, Event::Pause);
        world.every(plan.crash_every_us, Event::CrashSome);
        world.every(plan.full_every_us, Event::Fill);
        world.every(plan.hang_every_us, Event::Hang);
        world.every(plan.copy_every_us, Event::Copy);
        world.every(plan.jump_every_us, Event::Jump);
        world.every(plan.wrong_every_us, Event::Wrong);
        world.every(plan.tune_every_us, Event::Tune);
        world.plan_changes();
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
        self.stage != ProofStage::Faults
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
            Event::Snapshot { node, life } => self.write_snapshot(node, life),
            Event::Fetched { node, life } => self.fetched(node, life),
            Event::Verified { node, life } => self.verified(node, life),
            Event::Links => self.relink_all(),
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
                self.clients[client].conversation.on_timeout(self.now);
                self.attend(client);
            }
            Event::Crash { node } if !self.is_calm() => self.crash(node),
            Event::Start { node } => self.start_if_down(node),
            Event::Change if !self.is_calm() => self.change(),
            Event::Drive { node } => self.drive(node),
            Event::Swap { revision, record } => self.swap(revision, *record),
            Event::Mend => {
                self.network.heal();
                self.after(5_000, 50_000, Event::Links);
            }
            Event::Heal => self.heal(),
            Event::Look => self.look(),
            Event::Room { node } => self.room(node),
            Event::Tune if !self.is_calm() => self.tune(),
            Event::Partition
            | Event::Reset
            | Event::Pause
            | Event::Fill
            | Event::Hang
            | Event::Copy
            | Event::Jump
            | Event::Wrong
            | Event::CrashSome
                if !self.is_calm() =>
            {
                self.fail(event)
            }
            _ => {}
        }
    }
}
