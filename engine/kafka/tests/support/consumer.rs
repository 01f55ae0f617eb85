//! A plain consumer.

use super::history::{Decisions, Expected};
use super::{PATIENCE, PUBLICATION};
use isonomy_kafka::settings::{Format, Settings};
use isonomy_wire::published::{Effect, PublishedBatch};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::time::Instant;

/// The records of the published partition that a read-committed consumer sees, up to its end.
pub(crate) fn committed(settings: &Settings) -> Vec<OwnedMessage> {
    records(settings, &settings.topic, "read_committed")
}

/// All records of the published partition, whatever comes of them.
pub(crate) fn produced(settings: &Settings) -> Vec<OwnedMessage> {
    records(settings, &settings.topic, "read_uncommitted")
}

fn records(settings: &Settings, topic: &str, isolation: &str) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &settings.brokers)
        .set("group.id", "test")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation)
        .set("fetch.wait.max.ms", "50")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, i32::from(PUBLICATION.shard.0), Offset::Beginning).unwrap();
    consumer.assign(&assignment).unwrap();
    let mut records = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match consumer.poll(PATIENCE) {
            Some(Ok(record)) => records.push(record.detach()),
            Some(Err(KafkaError::PartitionEOF(_))) => return records,
            // Brokers may be gone for a while.
            trouble => assert!(Instant::now() < deadline, "the consumer got {trouble:?}"),
        }
    }
}

/// The decisions of these records: of each key, in the order in which they came.
pub(crate) fn decisions(format: Format, records: &[OwnedMessage]) -> Decisions {
    let mut decisions = Decisions::new();
    let mut add = |key: &[u8], decision: Expected| decisions.entry(key.to_vec()).or_default().push(decision);
    for record in records {
        match format {
            Format::Record => add(record.key().unwrap(), of_record(record)),
            Format::Batch => of_batch(record.payload().unwrap(), &mut add),
        }
    }
    decisions
}

fn of_record(record: &OwnedMessage) -> Expected {
    let headers = record.headers().unwrap();
    let text = |name: &str| {
        let header = headers.iter().find(|header| header.key == name).unwrap();
        String::from_utf8(header.value.unwrap().to_vec()).unwrap()
    };
    assert!(text("id").starts_with(&format!("{}.", text("epoch"))));
    (text("id"), text("key_seq").parse().unwrap(), record.payload().map(<[u8]>::to_vec))
}

fn of_batch(bytes: &[u8], add: &mut impl FnMut(&[u8], Expected)) {
    let batch = PublishedBatch::parse(bytes).unwrap();
    assert_eq!(batch.bytes(), bytes);
    for decision in batch.decisions() {
        let id = batch.origin().command(u32::from(decision.index)).to_string();
        let (key_seq, value) = match decision.effect {
            Effect::Decided { key_seq } => (key_seq, Some(decision.value.to_vec())),
            Effect::Deleted { key_seq } => (key_seq, None),
        };
        add(decision.key, (id, key_seq, value));
    }
}
