//! A real Kafka, a history of decisions, and a consumer that checks what it gets.

#![allow(dead_code)] // Each test binary uses its own part.

pub(crate) mod broker;
pub(crate) mod consumer;
pub(crate) mod history;
pub(crate) mod outbox;

use isonomy_kafka::publisher::{Publication, Publisher};
use isonomy_kafka::settings::{Format, Settings};
use isonomy_kafka::{Error, create_topics};
use isonomy_wire::id::{ClusterId, ShardId};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// How long something may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Waits until a condition holds.
pub(crate) fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} has not come true");
        std::thread::sleep(ASK_AGAIN);
    }
}

/// Waits until a publisher has ended by itself, and returns why.
pub(crate) fn end_of(publisher: Publisher) -> Error {
    await_that("the publisher's end", || publisher.has_ended());
    publisher.join().expect_err("nobody has stopped the publisher")
}

/// Waits until so many decisions are published, and stops the publisher.
pub(crate) fn publish_all(publisher: Publisher, decisions: u64) {
    let is_done = || publisher.status().decisions >= decisions || publisher.has_ended();
    await_that("the publication of everything", is_done);
    let published = publisher.status().decisions;
    publisher.stop();
    publisher.join().unwrap();
    assert_eq!(published, decisions);
}

/// Topics of the test's own at a broker, with one partition for each shard.
pub(crate) fn settings(brokers: &str, format: Format) -> Settings {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros();
    let name = format!("{since}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let settings = Settings {
        brokers: brokers.to_owned(),
        topic: format!("committed-{name}"),
        cursor_topic: format!("cursor-{name}"),
        format,
        batch_bytes: 2000,
        replicas_min: 1,
        insync_min: 1,
        ..Settings::default()
    };
    create_topics(&settings, SHARDS, 1).unwrap();
    settings
}

/// The shards of the cluster in tests, of which one is published.
pub(crate) const SHARDS: usize = 2;
/// What is published.
pub(crate) const PUBLICATION: Publication =
    Publication { cluster: ClusterId(77), shard: ShardId(1), shards: SHARDS };
