//! Publishers are killed or paused at each step of a transaction, as processes of which each goes on where the one before was;
//! then a consumer checks what it sees.
//!
//! This test starts itself as the publishers. So it has no harness, and says by itself what came of it.
//! `ISONOMY_PUBLISH_SECONDS` lets it go on for so long, with other histories.

#[path = "support/mod.rs"]
mod support;

use isonomy_kafka::Error;
use isonomy_kafka::publisher::Publisher;
use isonomy_kafka::settings::{Format, Settings};
use isonomy_wire::published::PublishedBatch;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::history::History;
use support::outbox::Outbox;
use support::{PUBLICATION, await_that, broker, consumer};

/// The steps before a publisher has its cursor, which it passes once.
const FIRST_STEPS: [&str; 3] = ["Init", "Read", "Opened"];
/// The steps of each transaction.
const STEPS: [&str; 7] = ["Begin", "Begun", "Produced", "Cursor", "Moved", "Commit", "Committed"];
/// How often a step of a transaction is passed before, at most.
const PASSES_MAX: u32 = 4;
const UNITS: usize = 1500;
/// In a long run.
const MANY_UNITS: usize = 20_000;
/// The size of the last transactions, which nobody disturbs.
const LAST_BYTES: usize = 100_000;
/// The exit code of a publisher that was fenced.
const FENCED: i32 = 9;

/// A publisher that ends, or stops, at a step.
struct Victim {
    step: &'static str,
    signal: Signal,
    process: Child,
}

impl Victim {
    fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits until the step is reached.
    fn await_fate(&mut self) {
        let Victim { step, signal, .. } = *self;
        if signal == Signal::STOP {
            await_that(&format!("the pause at {step}"), || self.state() == Some('T'));
        } else {
            await_that(&format!("the death at {step}"), || self.process.try_wait().unwrap().is_some());
            assert_eq!(self.process.wait().unwrap().signal(), Some(9), "at {step}");
        }
    }
}

/// What is published, and how.
struct Campaign {
    settings: Settings,
    seed: u64,
    units: usize,
    random: SmallRng,
}

impl Campaign {
    fn new(seed: u64, units: usize) -> Campaign {
        let format = if seed.is_multiple_of(2) { Format::Record } else { Format::Batch };
        Campaign {
            settings: support::settings(broker::shared(), format),
            seed,
            units,
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// Another publisher, with another order of execution.
    fn begin(&mut self, step: &'static str, signal: Signal) -> Victim {
        let count = if FIRST_STEPS.contains(&step) { 1 } else { self.random.random_range(1..=PASSES_MAX) };
        let name = if signal == Signal::STOP { "stop" } else { "kill" };
        let Settings { brokers, topic, cursor_topic, format, .. } = &self.settings;
        let order: u64 = self.random.random();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--publish", brokers, topic, cursor_topic, &format.to_string()])
            .args([self.seed.to_string(), self.units.to_string(), order.to_string()])
            .env("ISONOMY_FAILPOINT", format!("{step}:{count}:{name}"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Victim { step, signal, process }
    }

    /// Each step once with each signal, in an order of chance. A publisher that stands still is woken when another one has
    /// begun after it. Returns how many there were, and how many records were checked.
    fn run(&mut self) -> (usize, u64) {
        let steps = FIRST_STEPS.into_iter().chain(STEPS);
        let mut rounds: Vec<_> =
            steps.flat_map(|step| [(step, Signal::KILL), (step, Signal::STOP)]).collect();
        rounds.shuffle(&mut self.random);
        // Who wakes before it has fenced the others publishes all that is left, so it is the last.
        rounds.sort_by_key(|round| *round == ("Init", Signal::STOP));
        let (mut paused, mut woken): (Vec<Victim>, Vec<Victim>) = (Vec::new(), Vec::new());
        for (step, signal) in &rounds {
            let mut victim = self.begin(step, *signal);
            victim.await_fate();
            // Only who has begun has fenced those before it.
            if *step != "Init" {
                paused.iter().for_each(|zombie| zombie.signal(Signal::CONT));
                woken.append(&mut paused);
            }
            if *signal == Signal::STOP {
                paused.push(victim);
            }
        }
        let history = History::new(self.seed, self.units);
        let seen = || consumer::decisions(self.settings.format, &consumer::committed(&self.settings));
        let before: u64 = seen().values().map(|all| all.len() as u64).sum();
        assert!(
            0 < before && before < history.len(),
            "{before} of {}: the deaths came in between",
            history.len()
        );
        paused.iter().for_each(|zombie| zombie.signal(Signal::CONT));
        woken.append(&mut paused);
        self.finish(&history);
        for mut zombie in woken {
            // Who was paused before it fenced the others is a publisher like any other.
            if zombie.step == "Init" {
                let _ = zombie.process.kill();
                zombie.process.wait().unwrap();
                continue;
            }
            await_that("the end of a zombie", || zombie.process.try_wait().unwrap().is_some());
            assert_eq!(zombie.process.wait().unwrap().code(), Some(FENCED), "woken at {}", zombie.step);
        }
        assert!(seen() == history.decisions, "seed {}", self.seed);
        (rounds.len(), history.len())
    }

    /// Publishes the rest, also if a publisher that was woken fences this one.
    fn finish(&self, history: &History) {
        let batches = history.batches();
        let origins: Vec<_> =
            batches.iter().map(|batch| *PublishedBatch::parse(batch).unwrap().origin()).collect();
        let settings = Settings { batch_bytes: LAST_BYTES, ..self.settings.clone() };
        let start =
            || Publisher::start(settings.clone(), PUBLICATION, Outbox::open(batches.clone())).unwrap();
        let mut publisher = start();
        await_that("the publication of everything", || {
            if publisher.has_ended() {
                let ended = std::mem::replace(&mut publisher, start()).join();
                assert!(matches!(ended, Err(Error::Fenced(_))), "{ended:?}");
            }
            let cursor = isonomy_kafka::published(&settings, PUBLICATION.shard).unwrap();
            cursor.is_some_and(|cursor| origins.iter().all(|origin| cursor.covers(origin)))
        });
        publisher.stop();
        let _ = publisher.join();
    }
}

/// The publisher of a process.
fn publish(arguments: &[String]) -> ! {
    let [brokers, topic, cursor_topic, format, seed, units, order] = arguments else { unreachable!() };
    let settings = Settings {
        brokers: brokers.clone(),
        topic: topic.clone(),
        cursor_topic: cursor_topic.clone(),
        format: format.parse().unwrap(),
        batch_bytes: 2000,
        replicas_min: 1,
        insync_min: 1,
        ..Settings::default()
    };
    let history = History::new(seed.parse().unwrap(), units.parse().unwrap());
    let outbox = Outbox::open(history.reordered(order.parse().unwrap()).batches());
    let ended = Publisher::start(settings, PUBLICATION, outbox).unwrap().join();
    std::process::exit(if matches!(ended, Err(Error::Fenced(_))) { FENCED } else { 1 })
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == "--publish") {
        publish(&arguments[2..]);
    }
    let seconds = std::env::var("ISONOMY_PUBLISH_SECONDS").ok().map(|text| text.parse().expect("a number"));
    let (units, first) =
        if seconds.is_some() { (MANY_UNITS, rand::random::<u32>().into()) } else { (UNITS, 8) };
    let (began, mut rounds, mut records) = (Instant::now(), 0, 0);
    for seed in first.. {
        let (more_rounds, more_records) = Campaign::new(seed, units).run();
        rounds += more_rounds;
        records += more_records;
        println!("seed {seed}: {rounds} publishers killed or paused, {records} decisions checked");
        if began.elapsed() >= Duration::from_secs(seconds.unwrap_or(0)) {
            break;
        }
    }
    println!("test result: ok. 1 passed; 0 failed");
}
