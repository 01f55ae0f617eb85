use crate::support::broker::{self, Broker};
use crate::support::{History, PATIENCE, PUBLICATION, Topic, await_that, latest, read_all};
use isonomy_agent::{Agent, Settings, Table};
use isonomy_kafka::settings::Format;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::collections::BTreeSet;

#[test]
fn the_table_has_the_latest_decision_of_each_key_in_both_formats() {
    for format in [Format::Record, Format::Batch] {
        let topic = Topic::full(format, 1, 300);
        let agent = topic.agent();
        await_that("everything to be read", || agent.status().known_at.is_some());
        let status = agent.status();
        agent.stop();
        agent.join().unwrap();
        assert!(topic.rows() == topic.expected(), "{format}");
        assert_eq!((status.decisions, status.sessions, status.trouble), (topic.history.len(), 1, None));
        assert!(status.batches > 10, "the bound of a batch holds: {}", status.batches);
        assert!(status.partitions.values().all(|standing| standing.lag() == 0), "{:?}", status.partitions);
    }
}

/// A history at whose end some keys are deleted, and some have begun again.
#[test]
fn a_delete_removes_the_row() {
    let has_both = |history: &History| {
        let latest = latest(history);
        let has_begun_again = |key: &Vec<u8>| latest[key].1 < history.decisions[key].len() as u64;
        latest.len() < history.decisions.len() && latest.keys().any(has_begun_again)
    };
    let history = (0..).map(|seed| History::new(seed, 100)).find(has_both).unwrap();
    let topic = Topic::of(Format::Record, history);
    read_all(topic.agent());
    assert!(topic.rows() == topic.expected());
}

/// A transaction of records that are no decisions, which an agent refuses where it sees them.
fn give_up_a_transaction(topic: &Topic) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &topic.publishing.brokers)
        .set("transactional.id", format!("gives-up-{}", topic.publishing.topic))
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    for partition in 0..PUBLICATION.shards as i32 {
        let record = BaseRecord::to(&topic.publishing.topic).partition(partition).key("k").payload("x");
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    producer.abort_transaction(PATIENCE).unwrap();
}

#[test]
fn what_its_publisher_has_given_up_is_not_read() {
    for format in [Format::Record, Format::Batch] {
        let topic = Topic::empty(broker::shared(), format, History::new(4, 150));
        give_up_a_transaction(&topic);
        topic.publish_some(60);
        give_up_a_transaction(&topic);
        let agent = topic.agent();
        await_that("the first part to be read", || agent.status().known_at.is_some());
        topic.publish();
        give_up_a_transaction(&topic);
        await_that("everything to be read", || agent.status().decisions == topic.history.len());
        await_that("the end of all partitions", || {
            agent.status().partitions.values().all(|standing| standing.lag() == 0)
        });
        agent.stop();
        agent.join().unwrap();
        assert!(topic.rows() == topic.expected(), "{format}");
    }
}

#[test]
fn only_the_named_partitions_are_read() {
    let topic = Topic::full(Format::Batch, 5, 50);
    let named = |partition| {
        let settings = Settings { partitions: Some(BTreeSet::from([partition])), ..topic.settings() };
        Agent::start(settings, Table::open(&topic.file()).unwrap()).unwrap()
    };
    read_all(named(0));
    assert!(topic.rows().is_empty());
    read_all(named(1));
    assert!(topic.rows() == topic.expected());
}

#[test]
fn what_is_shown_ages_while_kafka_is_down_and_is_fresh_again_later() {
    let broker = Broker::start();
    let topic = Topic::empty(&broker.address, Format::Record, History::new(6, 100));
    topic.publish_some(40);
    let agent = topic.agent();
    await_that("everything to be read", || agent.status().known_at.is_some());
    broker.kill();
    await_that("the trouble to be told", || agent.status().trouble.is_some());
    let (trouble, known_at) = (agent.status().trouble.unwrap(), agent.status().known_at);
    assert!(trouble.contains(&broker.address) && trouble.contains("check that it runs"), "{trouble}");
    let age = || agent.status().staleness().unwrap();
    let before = age();
    await_that("it to be older", || age() > before + std::time::Duration::from_secs(3));
    assert_eq!(agent.status().known_at, known_at);
    broker.restart();
    topic.publish();
    await_that("everything to be read", || agent.status().decisions == topic.history.len());
    await_that("it to be fresh", || agent.status().known_at > known_at && agent.status().trouble.is_none());
    agent.stop();
    agent.join().unwrap();
    assert!(topic.rows() == topic.expected());
}
