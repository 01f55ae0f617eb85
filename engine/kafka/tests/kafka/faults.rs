use crate::support::broker::Broker;
use crate::support::consumer::{committed, decisions, produced};
use crate::support::history::History;
use crate::support::outbox::{Gate, Outbox};
use crate::support::{PATIENCE, PUBLICATION, await_that, broker, end_of, publish_all, settings};
use isonomy_kafka::Error;
use isonomy_kafka::cursor::{Cursor, TopicId};
use isonomy_kafka::publisher::Publisher;
use isonomy_kafka::settings::{Format, Settings};
use isonomy_wire::id::Epoch;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::time::Duration;

fn start(settings: &Settings, outbox: Outbox) -> Publisher {
    Publisher::start(settings.clone(), PUBLICATION, outbox).unwrap()
}

/// A publisher that pauses in the middle of a transaction, and wakes when another one has published everything.
#[test]
fn a_publisher_that_wakes_after_its_successor_has_begun_is_fenced() {
    let settings =
        Settings { batch_time: Duration::from_millis(1), ..settings(broker::shared(), Format::Record) };
    let history = History::new(2, 150);
    let middle = history.before_a_component();
    let gate = Gate::of(middle + 1);
    let zombie = start(&settings, Outbox::new(history.batches(), &gate));
    await_that("the transaction with half a component", || gate.passed() == middle + 1);
    await_that("its records at Kafka", || produced(&settings).len() > committed(&settings).len());
    let rest = history.len() - zombie.status().decisions;
    let successor = start(&settings, Outbox::open(history.reordered(3).batches()));
    publish_all(successor, rest);
    gate.open(usize::MAX);
    let end = end_of(zombie);
    assert!(matches!(end, Error::Fenced(shard) if shard == PUBLICATION.shard), "{end}");
    assert!(decisions(Format::Record, &committed(&settings)) == history.decisions);
}

/// It hears of it between two records, from a request that librdkafka made by itself.
#[test]
fn a_publisher_that_is_fenced_between_two_records_ends_and_fences_nobody() {
    let settings = settings(broker::shared(), Format::Record);
    let history = History::new(10, 400);
    let gate = Gate::default();
    let long =
        Settings { batch_bytes: usize::MAX, batch_time: Duration::from_secs(3600), ..settings.clone() };
    let zombie = start(&long, Outbox::new(history.batches(), &gate));
    await_that("its start", || zombie.status().cursor.is_some());
    let successor = start(&settings, Outbox::open(history.batches()));
    await_that("the publication of everything", || successor.status().decisions == history.len());
    let mut given = 0;
    await_that("its end", || {
        given += 1;
        gate.open(given);
        zombie.has_ended()
    });
    let end = end_of(zombie);
    assert!(matches!(end, Error::Fenced(_)), "{end}");
    assert!(!successor.has_ended());
    successor.stop();
    successor.join().unwrap();
}

/// The publisher before has sent its last cursor, and has died before it could commit.
#[test]
fn a_cursor_that_was_not_committed_does_not_count() {
    let settings = settings(broker::shared(), Format::Batch);
    let history = History::new(9, 30);
    let before: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &settings.brokers)
        .set("transactional.id", PUBLICATION.transactional_id(&settings.topic))
        .create()
        .unwrap();
    before.init_transactions(PATIENCE).unwrap();
    before.begin_transaction().unwrap();
    let mut cursor = Cursor::nothing(PUBLICATION.cluster, PUBLICATION.shard, TopicId::default());
    cursor.epoch = Epoch(u32::MAX);
    let partition = i32::from(PUBLICATION.shard.0);
    let (key, value) = (Cursor::key(&settings.topic, partition), cursor.encode());
    let record = BaseRecord::to(&settings.cursor_topic).partition(partition).key(&key).payload(&value);
    before.send(record).map_err(|(error, _)| error).unwrap();
    before.flush(PATIENCE).unwrap();
    publish_all(start(&settings, Outbox::open(history.batches())), history.len());
    assert!(decisions(Format::Batch, &committed(&settings)) == history.decisions);
    assert!(before.commit_transaction(PATIENCE).is_err());
}

#[test]
fn of_publishers_at_once_only_the_last_goes_on_and_nothing_is_doubled() {
    let settings = settings(broker::shared(), Format::Batch);
    let history = History::new(3, 400);
    let mut publishers: Vec<Publisher> =
        (0..3).map(|seed| start(&settings, Outbox::open(history.reordered(seed).batches()))).collect();
    await_that("the end of all but one", || {
        publishers.iter().filter(|publisher| publisher.has_ended()).count() == 2
    });
    let last = publishers.iter().position(|publisher| !publisher.has_ended()).unwrap();
    let last = publishers.swap_remove(last);
    await_that("the publication of everything", || {
        decisions(Format::Batch, &committed(&settings)) == history.decisions
    });
    last.stop();
    last.join().unwrap();
    for fenced in publishers {
        let end = end_of(fenced);
        assert!(matches!(end, Error::Fenced(_)), "{end}");
    }
    assert!(decisions(Format::Batch, &committed(&settings)) == history.decisions);
}

/// In the middle of a transaction, for longer than its records may wait.
#[test]
fn a_broker_that_is_killed_and_started_again_is_published_to_again() {
    let broker = Broker::start();
    let mut settings = settings(&broker.address, Format::Record);
    settings.batch_time = Duration::from_millis(1);
    settings.properties.insert("message.timeout.ms".into(), "2000".into());
    let history = History::new(4, 200);
    let middle = history.before_a_component();
    let gate = Gate::of(middle + 1);
    let publisher = start(&settings, Outbox::new(history.batches(), &gate));
    await_that("the transaction with half a component", || gate.passed() == middle + 1);
    broker.kill();
    gate.open(usize::MAX);
    await_that("the first failure", || publisher.status().error.is_some());
    let error = publisher.status().error.unwrap();
    assert!(error.contains(&broker.address) && error.contains("check that it runs"), "{error}");
    broker.restart();
    let is_done = || decisions(Format::Record, &committed(&settings)) == history.decisions;
    await_that("the publication of everything", || publisher.has_ended() || is_done());
    let sessions = publisher.status().sessions;
    publisher.stop();
    publisher.join().unwrap();
    assert!(is_done() && sessions > 1);
}
