//! Agents, what their tables hold and what they should hold, and a service that they call.

#![allow(dead_code, unused_imports)] // Each test binary uses its own part.

pub(crate) mod hook;
#[path = "../../../kafka/tests/support/mod.rs"]
mod kafka;

pub(crate) use kafka::history::History;
pub(crate) use kafka::outbox::{Gate, Outbox};
pub(crate) use kafka::{PATIENCE, PUBLICATION, await_that, broker, publish_all};

use isonomy_agent::{Agent, Error, Settings, Table};
use isonomy_kafka::publisher::Publisher;
use isonomy_kafka::settings::{Format, Settings as Publishing};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The latest decision of each key: value, `key_seq` and id.
pub(crate) type Rows = BTreeMap<Vec<u8>, (Vec<u8>, u64, String)>;

/// A topic with a history, or a part of one.
pub(crate) struct Topic {
    pub(crate) publishing: Publishing,
    pub(crate) history: History,
    dir: TempDir,
}

impl Topic {
    /// An empty topic at a broker.
    pub(crate) fn empty(brokers: &str, format: Format, history: History) -> Topic {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Topic { publishing: kafka::settings(brokers, format), history, dir }
    }

    /// A topic with the whole history of a seed.
    pub(crate) fn full(format: Format, seed: u64, units: usize) -> Topic {
        Topic::of(format, History::new(seed, units))
    }

    /// A topic with a whole history.
    pub(crate) fn of(format: Format, history: History) -> Topic {
        let topic = Topic::empty(broker::shared(), format, history);
        topic.publish();
        topic
    }

    /// Publishes all that is not published yet.
    pub(crate) fn publish(&self) {
        let seen = self.published();
        let outbox = Outbox::open(self.history.batches());
        let publisher = Publisher::start(self.publishing.clone(), PUBLICATION, outbox).unwrap();
        publish_all(publisher, self.history.len() - seen);
    }

    /// Publishes about so many batches, and leaves the transaction after them unfinished.
    pub(crate) fn publish_some(&self, batches: usize) {
        let gate = Gate::of(batches);
        let publisher = Publisher::start(
            self.publishing.clone(),
            PUBLICATION,
            Outbox::new(self.history.batches(), &gate),
        );
        let publisher = publisher.unwrap();
        await_that("the publication of a part", || {
            gate.passed() == batches && publisher.status().transactions > 2
        });
        publisher.stop();
        publisher.join().unwrap();
    }

    /// How many decisions are committed.
    pub(crate) fn published(&self) -> u64 {
        let committed = kafka::consumer::committed(&self.publishing);
        let decisions = kafka::consumer::decisions(self.publishing.format, &committed);
        decisions.values().map(|all| all.len() as u64).sum()
    }

    /// What an agent of this topic reads, in small batches.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            brokers: self.publishing.brokers.clone(),
            topic: self.publishing.topic.clone(),
            batch_decisions: 20,
            ..Settings::default()
        }
    }

    /// The file of the table.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("table.db")
    }

    /// Starts an agent with the table.
    pub(crate) fn agent(&self) -> Agent {
        Agent::start(self.settings(), Table::open(&self.file()).unwrap()).unwrap()
    }

    /// What the table holds once everything is read.
    pub(crate) fn expected(&self) -> Rows {
        latest(&self.history)
    }

    /// What the table holds.
    pub(crate) fn rows(&self) -> Rows {
        rows(&self.file())
    }
}

/// The latest decision of each key of a history that is alive at its end.
pub(crate) fn latest(history: &History) -> Rows {
    let latest = history.decisions.iter().filter_map(|(key, decisions)| {
        let (id, key_seq, value) = decisions.last().cloned()?;
        Some((key.clone(), (value?, key_seq, id)))
    });
    latest.collect()
}

/// What a table holds.
pub(crate) fn rows(file: &Path) -> Rows {
    let db = rusqlite::Connection::open(file).unwrap();
    let mut statement = db.prepare("SELECT key, value, key_seq, id FROM latest").unwrap();
    let bytes = |row: &rusqlite::Row<'_>, at| row.get_ref(at).unwrap().as_bytes().unwrap().to_vec();
    let rows = statement.query_map([], |row| {
        Ok((bytes(row, 0), (bytes(row, 1), row.get::<_, i64>(2)?.unsigned_abs(), row.get(3)?)))
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

/// Waits until a new agent has everything that is committed, and stops it.
pub(crate) fn read_all(agent: Agent) {
    await_that("everything to be read", || agent.status().known_at.is_some() || agent.has_ended());
    agent.stop();
    agent.join().unwrap();
}

/// Waits until an agent has ended by itself, and returns why.
pub(crate) fn end_of(agent: Agent) -> Error {
    await_that("the agent's end", || agent.has_ended());
    agent.join().expect_err("nobody has stopped the agent")
}
