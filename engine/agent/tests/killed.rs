//! Agents are killed around each step of a batch, as processes; then the table is compared with the history.
//!
//! This test starts itself as the agent, which kills itself. So it has no harness, and says by itself what came of it.

mod support;

use isonomy_agent::{Agent, Batch, Failure, Look, Projection, Settings, Start, Table};
use isonomy_kafka::settings::Format;
use rustix::process::{Signal, getpid, kill_process};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::{Topic, read_all};

/// Where the agents die, each counted from its start. The last ones die in the middle of SQLite's transaction, or close to it.
const DEATHS: [Death; 9] = [
    Death::Before(1),
    Death::After(1),
    Death::Before(2),
    Death::After(3),
    Death::After(2),
    Death::During(2, Duration::from_micros(100)),
    Death::During(3, Duration::from_micros(300)),
    Death::During(2, Duration::from_micros(600)),
    Death::During(2, Duration::from_micros(1000)),
];

#[derive(Clone, Copy, Debug)]
enum Death {
    /// Before the batch of this number is applied.
    Before(u64),
    /// After it, before anything else.
    After(u64),
    /// So long after its transaction was begun, or right after it.
    During(u64, Duration),
}

/// A table whose process dies.
struct Deadly {
    table: Table,
    death: Death,
    batches: u64,
}

/// Nobody survives this.
fn die() -> ! {
    kill_process(getpid(), Signal::KILL).unwrap();
    unreachable!("nobody survives SIGKILL")
}

impl Projection for Deadly {
    fn start(&mut self) -> Result<Start, Failure> {
        self.table.start()
    }

    fn key_seq(&mut self, key: &[u8]) -> Result<Option<u64>, Failure> {
        self.table.key_seq(key)
    }

    fn apply(&mut self, batch: &Batch<'_>) -> Result<(), Failure> {
        self.batches += u64::from(!batch.decisions.is_empty());
        match self.death {
            Death::Before(number) if number == self.batches => die(),
            Death::During(number, after) if number == self.batches => {
                std::thread::spawn(move || {
                    std::thread::sleep(after);
                    die();
                });
            }
            _ => {}
        }
        self.table.apply(batch)?;
        match self.death {
            Death::After(number) | Death::During(number, _) if number == self.batches => die(),
            _ => Ok(()),
        }
    }

    fn on_look(&mut self, look: &Look<'_>) -> Result<(), Failure> {
        self.table.on_look(look)
    }
}

/// The agent of a process: the arguments are the broker, the topic, the file, and which death it dies.
fn read_and_die(arguments: &[String]) {
    let settings = Settings {
        brokers: arguments[0].clone(),
        topic: arguments[1].clone(),
        batch_decisions: 20,
        ..Settings::default()
    };
    let table = Table::open(Path::new(&arguments[2])).unwrap();
    let death = DEATHS[arguments[3].parse::<usize>().unwrap()];
    Agent::start(settings, Deadly { table, death, batches: 0 }).unwrap().join().unwrap();
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == "--read") {
        return read_and_die(&arguments[2..]);
    }
    for format in [Format::Record, Format::Batch] {
        let topic = Topic::full(format, 8, 200);
        for (which, death) in DEATHS.iter().enumerate() {
            let mut agent = Command::new(&arguments[0]);
            agent.args(["--read", &topic.publishing.brokers, &topic.publishing.topic]);
            agent.arg(topic.file()).arg(which.to_string());
            assert_eq!(agent.status().unwrap().signal(), Some(9), "{format} {death:?}");
        }
        let half = topic.rows();
        assert!(!half.is_empty() && half != topic.expected(), "{format}: all have died on the way");
        read_all(topic.agent());
        assert!(topic.rows() == topic.expected(), "{format}");
    }
    println!("test result: ok. 1 passed; 0 failed");
}
