//! What may happen to a replica that publishes, at each step of a transaction.
//!
//! `ISONOMY_PUBLISH_SECONDS` lets the replicas be attacked for so long.

use crate::broker;
use crate::support::{Fate, eventually, program, stdout};
use crate::world::{World, check_all, ended};
use rand::seq::SliceRandom;
use rustix::process::Signal;
use serde_json::Value;
use std::process::Child;
use std::time::{Duration, Instant};

/// How many lines one load has. Another one follows until the attack is over, so long after the one before.
const PART: usize = 500;
const PACE: Duration = Duration::from_secs(1);
/// So much log is kept that no replica takes over a snapshot: it would lack decisions, and could not publish.
const LOG_BUDGET: &str = "log_budget_mib = 4096";

/// Where a publisher ends or stops, in an order in which each kind comes soon.
const ATTACKS: [Attack; 20] = [
    Attack { step: "Commit", signal: "kill" },
    Attack { step: "Moved", signal: "stop" },
    Attack { step: "Committed", signal: "kill" },
    Attack { step: "Produced", signal: "stop" },
    Attack { step: "Init", signal: "stop" },
    Attack { step: "Read", signal: "kill" },
    Attack { step: "Commit", signal: "stop" },
    Attack { step: "Moved", signal: "kill" },
    Attack { step: "Committed", signal: "stop" },
    Attack { step: "Produced", signal: "kill" },
    Attack { step: "Init", signal: "kill" },
    Attack { step: "Read", signal: "stop" },
    Attack { step: "Opened", signal: "kill" },
    Attack { step: "Opened", signal: "stop" },
    Attack { step: "Begin", signal: "kill" },
    Attack { step: "Begin", signal: "stop" },
    Attack { step: "Begun", signal: "kill" },
    Attack { step: "Begun", signal: "stop" },
    Attack { step: "Cursor", signal: "kill" },
    Attack { step: "Cursor", signal: "stop" },
];
/// How many come in a short run.
const SHORT: usize = 5;

#[derive(Clone, Copy, Debug)]
struct Attack {
    step: &'static str,
    signal: &'static str,
}

/// Replicas that are attacked one after the other under load.
struct Attacked {
    world: World,
    /// What will happen to each replica when it publishes.
    armed: [Option<Attack>; 3],
    loads: Vec<String>,
    load: Child,
    load_began: Instant,
}

impl Attacked {
    fn begin() -> Attacked {
        let mut world = World::prepare_silent(broker::shared(), 1);
        world.lines = world.lines.replace("log_budget_mib = 64", LOG_BUDGET);
        world.let_publish();
        world.create_topics();
        world.start();
        let load = world.propose("l0", PART);
        Attacked { world, armed: [None; 3], loads: vec!["l0".into()], load, load_began: Instant::now() }
    }

    /// Starts a replica, to which this happens when it publishes.
    fn spawn(&mut self, index: usize, attack: Option<Attack>) {
        let mut command = program();
        if let Some(Attack { step, signal }) = attack {
            let count = if ["Init", "Read", "Opened"].contains(&step) { 1 } else { 2 };
            command.env("ISONOMY_FAILPOINT", format!("{step}:{count}:{signal}"));
        }
        self.armed[index] = attack;
        self.world.cluster.spawn_by(index, command);
    }

    /// Goes on with the load, whatever happens.
    fn tend(&mut self) {
        if self.load_began.elapsed() >= PACE && self.load.try_wait().unwrap().is_some() {
            self.load_began = Instant::now();
            let name = format!("l{}", self.loads.len());
            let next = self.world.propose(&name, PART);
            ended(std::mem::replace(&mut self.load, next));
            self.loads.push(name);
        }
    }

    /// Waits until something has happened to a replica.
    fn victim(&mut self) -> (usize, Fate) {
        let mut found = None;
        eventually("an attack", || {
            self.tend();
            let mut fates = (0..3).map(|index| (index, self.world.cluster.fate(index)));
            found = fates.find(|(_, fate)| *fate != Fate::Runs);
            found.is_some()
        });
        found.unwrap()
    }

    /// Whether a replica publishes, which may stop while it is asked.
    fn publishes(&self, index: usize) -> bool {
        let address = &self.world.cluster.addresses()[index];
        let output = program().args(["status", "--output", "json", "--connect", address]).output().unwrap();
        let status: Value = serde_json::from_str(&stdout(&output)).unwrap();
        status["shards"][0]["publishing"]["publisher"] == true
    }

    /// Wakes a replica that stands still, when another one publishes or has come to its end at that.
    fn wake(&mut self, index: usize) {
        let fenced = |world: &World| world.cluster.log(index).matches("has taken over").count();
        let before = fenced(&self.world);
        let others: Vec<usize> = (0..3).filter(|other| *other != index).collect();
        let mut is_attacked = false;
        eventually("another publisher", || {
            self.tend();
            is_attacked = others.iter().any(|other| self.world.cluster.fate(*other) != Fate::Runs);
            is_attacked || others.iter().any(|other| self.publishes(*other))
        });
        self.world.cluster.signal(index, Signal::CONT);
        let has_fenced_nobody = self.armed[index].is_some_and(|attack| attack.step == "Init");
        eventually("its end as a publisher", || {
            self.tend();
            is_attacked || fenced(&self.world) > before || (has_fenced_nobody && self.publishes(index))
        });
    }

    /// One replica after the other is attacked and started again for the next attack.
    fn round(&mut self, next: Attack) {
        let (index, fate) = self.victim();
        if fate == Fate::Stopped {
            self.wake(index);
            self.world.cluster.kill(index);
        }
        self.spawn(index, Some(next));
    }

    /// Lets everything run again, and checks what was published.
    fn finish(mut self) -> usize {
        for index in 0..3 {
            self.world.cluster.kill(index);
            self.spawn(index, None);
        }
        self.world.cluster.wait_linked();
        ended(self.load);
        let count = self.loads.len() * PART;
        let loads: Vec<(&str, usize)> = self.loads.iter().map(|name| (&name[..], PART)).collect();
        check_all(&self.world.published(count), &loads);
        count
    }
}

#[test]
fn whatever_ends_or_stops_a_publisher_at_any_step_nothing_is_lost_or_doubled() {
    let seconds = std::env::var("ISONOMY_PUBLISH_SECONDS").ok().map(|text| text.parse().expect("a number"));
    let (mut attacked, mut attacks) = (Attacked::begin(), ATTACKS.to_vec());
    let (began, mut rounds) = (Instant::now(), 0);
    for (index, attack) in attacks.iter().enumerate().take(3) {
        attacked.world.cluster.kill(index);
        attacked.spawn(index, Some(*attack));
    }
    loop {
        let is_over = match seconds {
            None => rounds == SHORT,
            Some(seconds) => began.elapsed() >= Duration::from_secs(seconds),
        };
        if is_over {
            break;
        }
        attacked.round(attacks[(rounds + 3) % attacks.len()]);
        rounds += 1;
        if rounds % attacks.len() == 0 {
            attacks.shuffle(&mut rand::rng());
        }
    }
    let records = attacked.finish();
    println!("{rounds} replicas killed or paused as they published, {records} decisions checked");
}
