//! Publishers are killed at each step of a transaction, as processes; then a consumer checks what it sees.
//!
//! This test starts itself as the publisher, which kills itself. So it has no harness, and says by itself what came of it.

#[path = "support/mod.rs"]
mod support;

use isonomy_kafka::cursor::Cursor;
use isonomy_kafka::publisher::{Publisher, Source};
use isonomy_kafka::settings::{Format, Settings};
use rustix::process::{Signal, getpid, kill_process};
use std::error::Error;
use std::process::Command;
use std::time::Duration;
use support::history::History;
use support::outbox::Outbox;
use support::{PUBLICATION, await_that, broker, consumer, publish_all};

const SEED: u64 = 8;
const UNITS: usize = 200;
/// Where the publishers die, each counted from where it has begun: so many batches after the first one that is not
/// published, or after so many commits.
const DEATHS: [Death; 5] =
    [Death::Batch(0), Death::Commit(1), Death::Batch(40), Death::Commit(3), Death::Batch(7)];

#[derive(Clone, Copy, Debug)]
enum Death {
    Batch(usize),
    Commit(usize),
}

/// An outbox whose process dies at a step.
struct Deadly {
    outbox: Outbox,
    settings: Settings,
    death: Death,
    cursor: Option<Cursor>,
    /// The records at Kafka before the first transaction.
    produced: usize,
    batches: usize,
    commits: usize,
}

type Failure = Box<dyn Error + Send + Sync>;

/// Nobody survives this.
fn die() -> ! {
    kill_process(getpid(), Signal::KILL).unwrap();
    unreachable!("nobody survives SIGKILL")
}

impl Source for Deadly {
    fn rewind(&mut self, cursor: &Cursor) -> Result<(), Failure> {
        self.cursor = Some(*cursor);
        self.produced = consumer::produced(&self.settings).len();
        self.outbox.rewind(cursor)
    }

    fn next(&mut self) -> Result<Option<&[u8]>, Failure> {
        if matches!(self.death, Death::Batch(count) if self.batches > count) {
            await_that("a record at Kafka", || consumer::produced(&self.settings).len() > self.produced);
            die();
        }
        let batch = self.outbox.next()?;
        if let Some(bytes) = batch {
            let batch = isonomy_wire::published::PublishedBatch::parse(bytes)?;
            self.batches += usize::from(!self.cursor.unwrap().covers(batch.origin()));
        }
        Ok(batch)
    }

    fn wait(&mut self, at_most: Duration) {
        self.outbox.wait(at_most);
    }

    fn may_lack(&self) -> bool {
        self.outbox.may_lack()
    }

    fn on_published(&mut self, _: &Cursor) {
        self.commits += 1;
        if matches!(self.death, Death::Commit(count) if self.commits == count) {
            die();
        }
    }
}

/// The publisher of a process: the arguments are the broker, both topics, and which death it dies.
fn publish_and_die(arguments: &[String]) {
    let settings = Settings {
        brokers: arguments[0].clone(),
        topic: arguments[1].clone(),
        cursor_topic: arguments[2].clone(),
        batch_bytes: 2000,
        replicas_min: 1,
        insync_min: 1,
        ..Settings::default()
    };
    let which: usize = arguments[3].parse().unwrap();
    let outbox = Outbox::open(History::new(SEED, UNITS).reordered(which as u64).batches());
    let (death, cursor, settings_too) = (DEATHS[which], None, settings.clone());
    let deadly =
        Deadly { outbox, settings: settings_too, death, cursor, produced: 0, batches: 0, commits: 0 };
    Publisher::start(settings, PUBLICATION, deadly).unwrap().join().unwrap();
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == "--publish") {
        return publish_and_die(&arguments[2..]);
    }
    let settings = support::settings(broker::shared(), Format::Record);
    let history = History::new(SEED, UNITS);
    for (which, death) in DEATHS.iter().enumerate() {
        let mut publisher = Command::new(&arguments[0]);
        publisher.args([
            "--publish",
            &settings.brokers,
            &settings.topic,
            &settings.cursor_topic,
            &which.to_string(),
        ]);
        let status = publisher.status().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{death:?}");
    }
    let produced = consumer::produced(&settings).len();
    let seen = consumer::decisions(Format::Record, &consumer::committed(&settings));
    let seen = seen.values().map(|decisions| decisions.len() as u64).sum::<u64>();
    assert!(seen > 0 && seen < history.len(), "{seen} of {}", history.len());
    assert!(produced as u64 > seen, "none has died in the middle of a transaction");
    let outbox = Outbox::open(history.batches());
    publish_all(Publisher::start(settings.clone(), PUBLICATION, outbox).unwrap(), history.len() - seen);
    assert!(consumer::decisions(Format::Record, &consumer::committed(&settings)) == history.decisions);
    println!("test result: ok. 1 passed; 0 failed");
}
