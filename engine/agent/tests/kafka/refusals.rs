use crate::support::{PATIENCE, PUBLICATION, Topic, await_that, end_of, read_all};
use futures_lite::future::block_on;
use isonomy_agent::{Agent, Error, Expect, Settings, Table};
use isonomy_kafka::create_topics;
use isonomy_kafka::settings::Format;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const PARTITION: i32 = PUBLICATION.shard.0 as i32;

fn admin(topic: &Topic) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", &topic.publishing.brokers).create().unwrap()
}

/// Deletes the records before this offset.
fn delete_before(topic: &Topic, offset: i64) {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&topic.publishing.topic, PARTITION, Offset::Offset(offset)).unwrap();
    block_on(admin(topic).delete_records(&offsets, &AdminOptions::new())).unwrap();
}

/// Deletes the topic, and creates another one of its name.
fn replace(topic: &Topic) {
    let options = AdminOptions::new();
    let deleted = block_on(admin(topic).delete_topics(&[&topic.publishing.topic], &options)).unwrap();
    deleted.into_iter().for_each(|topic| drop(topic.unwrap()));
    let exists = || {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", &topic.publishing.brokers).create().unwrap();
        let metadata = producer.client().fetch_metadata(None, PATIENCE).unwrap();
        metadata.topics().iter().any(|there| there.name() == topic.publishing.topic)
    };
    await_that("the end of the topic", || !exists());
    create_topics(&topic.publishing, PUBLICATION.shards, 1).unwrap();
}

fn produce(topic: &Topic, key: Option<&str>, value: &str) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &topic.publishing.brokers).create().unwrap();
    let mut record = BaseRecord::to(&topic.publishing.topic).partition(PARTITION).payload(value);
    record.key = key;
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(PATIENCE).unwrap();
}

/// While the agent runs, and at its next start.
#[test]
fn a_topic_that_was_deleted_and_created_again_is_another_one() {
    let topic = Topic::full(Format::Record, 11, 30);
    let agent = topic.agent();
    await_that("everything to be read", || agent.status().known_at.is_some());
    replace(&topic);
    for end in [end_of(agent), end_of(topic.agent())] {
        assert!(matches!(&end, Error::Replaced { there, known, .. } if there != known), "{end}");
        assert!(end.to_string().contains("make the projection anew"), "{end}");
    }
    assert!(topic.rows() == topic.expected(), "the file is as it was");
}

#[test]
fn decisions_that_were_deleted_before_they_were_read_are_missed() {
    let topic = Topic::full(Format::Record, 12, 60);
    delete_before(&topic, 5);
    let end = end_of(topic.agent());
    assert!(matches!(end, Error::Expired { partition: PARTITION, position: 0, first: 5, .. }), "{end}");
    let latest = || Settings { expect: Expect::Latest, ..topic.settings() };
    read_all(Agent::start(latest(), Table::open(&topic.file()).unwrap()).unwrap());
    assert!(topic.rows() == topic.expected(), "all keys were decided later");
    // Deleted after the agent has read up to there, which loses nothing, and then further.
    let next = rusqlite::Connection::open(topic.file()).unwrap();
    let next: i64 = next
        .query_row("SELECT next_offset FROM positions WHERE partition = ?1", [PARTITION], |row| row.get(0))
        .unwrap();
    delete_before(&topic, next);
    read_all(topic.agent());
    produce(&topic, Some("k"), "x");
    delete_before(&topic, next + 1);
    let end = end_of(Agent::start(latest(), Table::open(&topic.file()).unwrap()).unwrap());
    assert!(
        matches!(end, Error::Expired { position, first, .. } if position == next && first == next + 1),
        "{end}"
    );
}

/// As after an unclean election: the file has seen more than Kafka has.
#[test]
fn a_partition_that_is_shorter_than_it_was_has_lost_records() {
    let topic = Topic::full(Format::Batch, 13, 30);
    read_all(topic.agent());
    let db = rusqlite::Connection::open(topic.file()).unwrap();
    db.execute("UPDATE positions SET next_offset = next_offset + 1000", []).unwrap();
    let end = end_of(topic.agent());
    assert!(matches!(end, Error::Truncated { .. }) && end.to_string().contains("lost records"), "{end}");
}

#[test]
fn a_gap_in_a_key_is_an_error_unless_only_the_latest_is_expected() {
    let topic = Topic::full(Format::Record, 14, 60);
    read_all(topic.agent());
    let key = topic.expected().into_iter().find(|(_, (_, key_seq, _))| *key_seq > 1).unwrap().0;
    let db = rusqlite::Connection::open(topic.file()).unwrap();
    let begin_again = |key_seq: u64| {
        db.execute("UPDATE positions SET next_offset = 0", []).unwrap();
        db.execute("DELETE FROM latest", []).unwrap();
        let text = String::from_utf8(key.clone()).unwrap();
        let row = rusqlite::params![text, key_seq as i64];
        db.execute("INSERT INTO latest VALUES (?1, '', ?2, '', 1, 1, 0)", row).unwrap();
    };
    // Its first decision comes again, or one is missing before it.
    for key_seq in [1, 7] {
        begin_again(key_seq);
        let end = end_of(topic.agent());
        let is_expected =
            matches!(&end, Error::OutOfSequence(gap) if gap.latest == key_seq && gap.found == 1);
        assert!(is_expected && end.to_string().contains("missing or come twice"), "{end}");
    }
    let latest = Settings { expect: Expect::Latest, ..topic.settings() };
    read_all(Agent::start(latest, Table::open(&topic.file()).unwrap()).unwrap());
    assert!(topic.rows() == topic.expected());
}

#[test]
fn a_record_that_is_no_decision_is_named() {
    let topic = Topic::full(Format::Record, 15, 30);
    produce(&topic, Some("k"), "x");
    let end = end_of(topic.agent());
    assert!(matches!(end, Error::BadRecord { partition: PARTITION, .. }), "{end}");
    assert!(end.to_string().contains("and nobody else"), "{end}");
}

#[test]
fn a_partition_that_the_topic_lacks_is_named() {
    let topic = Topic::full(Format::Record, 16, 5);
    let settings = Settings { partitions: Some([0, 7].into()), ..topic.settings() };
    let end = end_of(Agent::start(settings, Table::open(&topic.file()).unwrap()).unwrap());
    assert!(matches!(end, Error::NoPartition { partition: 7, partitions: 2, .. }), "{end}");
}
