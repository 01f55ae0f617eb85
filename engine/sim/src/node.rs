//! One replica process: the production core, its disk and its clock.

use crate::disk::Disk;
use crate::ghost::Ghost;
use crate::plan::Plan;
use isonomy_protocol::contract::{Append, Config, Position, Reply, Send, Time};
use isonomy_protocol::log::LogId;
use isonomy_protocol::replica::Replica;
use isonomy_wire::command::Part;
use isonomy_wire::id::{ClusterId, Epoch, ReplicaId, ShardId};
use rand::Rng;
use rand::rngs::SmallRng;

/// Few, so that a crash leaves few numbers unused.
const RESERVE_BLOCK: u64 = 8;
/// Clocks start here.
const ORIGIN_US: u64 = 1_000_000;

/// See the module.
pub struct Node {
    /// Its place.
    pub id: u8,
    /// The process, if it runs.
    pub core: Option<Replica>,
    /// How often it was started.
    pub life: u32,
    /// Nothing reaches it before.
    pub paused_until: u64,
    disk: Disk,
    /// Clock speed; the real one is 1.
    speed: f64,
}

/// What a turn gave.
#[derive(Default)]
pub struct Turn {
    /// Messages that left.
    pub sends: Vec<Send>,
    /// Answers that left.
    pub replies: Vec<Reply>,
    /// A write has begun.
    pub writes: bool,
}

impl Node {
    /// A replica that never ran.
    pub fn new(plan: &Plan, id: u8, random: &mut SmallRng) -> Node {
        let log = LogId {
            cluster: ClusterId::of_name("simulated"),
            incarnation: 1,
            replica: ReplicaId(id),
            shard: ShardId(0),
        };
        let speed = if plan.drift > 0.0 { 1.0 + random.random_range(-plan.drift..plan.drift) } else { 1.0 };
        Node { id, core: None, life: 0, paused_until: 0, disk: Disk::new(log), speed }
    }

    /// Its own clock.
    pub fn time(&self, now: u64) -> Time {
        Time(ORIGIN_US + (now as f64 * self.speed) as u64)
    }

    /// When its clock shows this time, not before `now`.
    pub fn real(&self, now: u64, time: Time) -> u64 {
        now.max(((time.0.saturating_sub(ORIGIN_US)) as f64 / self.speed) as u64 + 1)
    }

    /// Starts the process from what its disk holds.
    pub fn start(&mut self, plan: &Plan, now: u64, ghost: &mut Ghost, random: &mut SmallRng) {
        assert!(self.core.is_none(), "it runs already");
        let config = Config {
            replica: ReplicaId(self.id),
            replicas: plan.n,
            epoch: Epoch(1),
            shard: ShardId(0),
            timing: plan.timing,
            reserve_block: RESERVE_BLOCK,
            rescue: plan.rescue,
        };
        let durable_before = self.disk.durable().0 as usize;
        let entries = self.disk.recover();
        let mut core = Replica::new(config, random.random());
        for (record, payload) in &entries {
            core.replay(record.clone(), payload.clone());
        }
        ghost.on_restart(self.id, &entries, durable_before);
        core.start(self.time(now), Position(entries.len() as u64));
        core.check();
        self.core = Some(core);
        self.life += 1;
    }

    /// The process is gone. Whether a part of a group stays on disk.
    pub fn crash(&mut self, random: &mut SmallRng) -> bool {
        self.core = None;
        self.paused_until = 0;
        self.disk.crash(random)
    }

    /// Ends the turn: takes what the core has to say.
    pub fn turn(&mut self, now: u64, trace: bool, ghost: &mut Ghost) -> Turn {
        let time = self.time(now);
        let mut turn = Turn::default();
        let Some(core) = &mut self.core else { return turn };
        core.end_turn(time);
        while let Some(append) = core.poll_append() {
            if trace {
                eprintln!("{now:>9} {} writes {:?}{}", self.id, append.record, batch_of(&append));
            }
            ghost.on_append(self.id, &append);
            self.disk.append(append);
        }
        while let Some(send) = core.poll_send() {
            ghost.on_send(self.id, &send);
            turn.sends.push(send);
        }
        while let Some(reply) = core.poll_reply() {
            turn.replies.push(reply);
        }
        let frontier = *core.executed();
        if frontier != ghost.frontiers[usize::from(self.id)] {
            if trace {
                eprintln!("{now:>9} {} executed {frontier:?} {:016x}", self.id, core.state_hash());
            }
            ghost.on_executed(self.id, frontier, core.state_hash());
        }
        turn.writes = self.disk.begin_write();
        turn
    }

    /// The write that was under way is done.
    pub fn synced(&mut self, now: u64, ghost: &mut Ghost) {
        let before = self.disk.durable().0;
        let position = self.disk.end_write();
        ghost.on_durable(self.id, (position.0 - before) as usize);
        let time = self.time(now);
        if let Some(core) = &mut self.core {
            core.on_durable(time, position);
        }
    }
}

/// The commands that a record carries, as text.
fn batch_of(append: &Append) -> String {
    let Some(payload) = &append.payload else { return String::new() };
    let batch = payload.batch();
    let part = |part: &Part| {
        let commands = batch.commands_of(part);
        let commands = commands.map(|it| format!("{}:{:?}({})", it.number, it.op, it.key.escape_ascii()));
        format!(" {:?} {}", part.stream, commands.collect::<Vec<_>>().join(" "))
    };
    batch.parts().iter().map(part).collect()
}
