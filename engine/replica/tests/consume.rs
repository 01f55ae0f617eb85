//! Proposals that come from a real Kafka, whatever happens to those who consume them.

#[allow(dead_code)] // Each test binary uses its own part.
#[path = "../../kafka/tests/support/broker.rs"]
mod broker;
mod support;

use futures_lite::future::block_on;
use isonomy_wire::command::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use isonomy_wire::message::{ConsumeStatus, PartitionStatus};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use support::{Cluster, PATIENCE, eventually, program, stderr};

/// The partitions of the topic of proposals.
const PARTITIONS: i32 = 4;
/// How long a producer waits for Kafka.
const STEP: Duration = Duration::from_secs(30);

type Sender = ThreadedProducer<DefaultProducerContext>;

/// A cluster that consumes and publishes topics of its own.
struct World {
    cluster: Cluster,
    brokers: String,
    proposals: String,
    letters: String,
    decisions: String,
}

impl World {
    fn started() -> World {
        let name = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let brokers = broker::shared();
        let (proposals, decisions) = (format!("proposal-{name}"), format!("committed-{name}"));
        let lines = format!(
            "log_budget_mib = 64\n\
             [publish]\nto = \"kafka\"\nbrokers = [\"{brokers}\"]\ntopic = \"{decisions}\"\n\
             cursor_topic = \"cursor-{name}\"\nreplicas_min = 1\ninsync_min = 1\n\
             [consume]\nbrokers = [\"{brokers}\"]\ntopic = \"{proposals}\"\n\
             rdkafka.\"session.timeout.ms\" = 6000\n"
        );
        let cluster = Cluster::prepare_with(3, 2, &lines);
        let letters = format!("{proposals}-dlq");
        let mut world = World { cluster, brokers: brokers.into(), proposals, letters, decisions };
        let mut command = program();
        command.args(["publish", "init", "--copies", "1", "--config"]).arg(world.cluster.config_path(0));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        world.create(&world.proposals, PARTITIONS);
        (0..3).for_each(|index| world.cluster.spawn(index));
        world.cluster.wait_linked();
        world
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap()
    }

    fn create(&self, topic: &str, partitions: i32) {
        // Larger than a proposal may be, so that records that are too large can come.
        let topic =
            NewTopic::new(topic, partitions, TopicReplication::Fixed(1)).set("max.message.bytes", "4000000");
        let made = block_on(self.admin().create_topics([&topic], &AdminOptions::new())).unwrap();
        made[0].as_ref().unwrap();
    }

    /// How a partition stands at the replica that consumes it.
    fn stand(&self, partition: i32) -> Option<PartitionStatus> {
        let consuming = |index| self.cluster.status(index, 0).and_then(|status| status.consuming);
        let stands = (0..3).filter_map(consuming).flat_map(|it: ConsumeStatus| it.partitions);
        stands.into_iter().find(|it| it.partition == partition.unsigned_abs())
    }

    /// The replica that consumes a partition, of those that are not left out.
    fn consumer(&self, partition: i32, left_out: Option<usize>) -> Option<usize> {
        let others = self.cluster.running().into_iter().filter(|index| Some(*index) != left_out);
        others.into_iter().find(|index| {
            let consuming = self.cluster.status(*index, 0).and_then(|status| status.consuming);
            let partitions = consuming.map(|it| it.partitions).unwrap_or_default();
            partitions.iter().any(|it| it.partition == partition.unsigned_abs() && it.position > 0)
        })
    }

    fn wait_consumed(&self) {
        eventually("the end of all partitions", || {
            (0..PARTITIONS).all(|partition| self.stand(partition).is_some_and(|it| it.lag == Some(0)))
        });
    }

    fn producer(&self, properties: &[(&str, &str)]) -> Sender {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("message.max.bytes", "4000000");
        for (name, value) in properties {
            config.set(*name, *value);
        }
        config.create().unwrap()
    }

    /// Sends values to a key of a partition.
    fn send(&self, producer: &Sender, partition: i32, key: &str, value: &str) {
        let record = BaseRecord::to(&self.proposals).partition(partition).key(key).payload(value);
        producer.send(record).unwrap();
    }

    /// All decisions of each key, in the order in which they were published: their `key_seq` and value.
    fn decisions(&self) -> BTreeMap<String, Vec<(u64, Option<String>)>> {
        let mut decisions = BTreeMap::<String, Vec<(u64, Option<String>)>>::new();
        for record in (0..2).flat_map(|shard| self.read(&self.decisions, shard)) {
            let key = String::from_utf8(record.key().unwrap().to_vec()).unwrap();
            let value = record.payload().map(|value| String::from_utf8(value.to_vec()).unwrap());
            decisions.entry(key).or_default().push((header(&record, "key_seq").parse().unwrap(), value));
        }
        decisions
    }

    /// Waits for so many published decisions.
    fn wait_decisions(&self, count: usize) -> BTreeMap<String, Vec<(u64, Option<String>)>> {
        let mut decisions = BTreeMap::new();
        eventually("the publication of everything", || {
            decisions = self.decisions();
            decisions.values().map(Vec::len).sum::<usize>() >= count
        });
        decisions
    }

    /// All committed records of a partition.
    fn read(&self, topic: &str, partition: i32) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", "test")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        consumer.assign(&assignment).unwrap();
        let mut records = Vec::new();
        loop {
            match consumer.poll(PATIENCE) {
                Some(Ok(record)) => records.push(record.detach()),
                Some(Err(KafkaError::PartitionEOF(_))) => return records,
                Some(Err(KafkaError::Global(_))) => {}
                other => panic!("the consumer got {other:?}"),
            }
        }
    }
}

fn header(record: &OwnedMessage, name: &str) -> String {
    let headers = record.headers().unwrap();
    let header = headers.iter().find(|header| header.key == name).unwrap();
    String::from_utf8(header.value.unwrap().to_vec()).unwrap()
}

/// What each key must have decided.
type Expected = BTreeMap<String, Vec<(u64, Option<String>)>>;

fn expect(expected: &mut Expected, key: &str, value: &str) {
    let values = expected.entry(key.to_owned()).or_default();
    values.push((values.len() as u64 + 1, Some(value.to_owned())));
}

#[test]
fn each_record_is_decided_once_and_in_order_whatever_dies() {
    const ROUNDS: usize = 3;
    const RECORDS: usize = 4000;
    let mut world = World::started();
    let plain = world.producer(&[("compression.type", "zstd"), ("enable.idempotence", "true")]);
    let transactional =
        world.producer(&[("transactional.id", &world.proposals), ("compression.type", "lz4")]);
    transactional.init_transactions(STEP).unwrap();
    let mut expected = Expected::new();
    for round in 0..ROUNDS {
        for number in 0..RECORDS {
            let (partition, key, value) =
                (number as i32 % PARTITIONS, format!("p{}", number % 53), format!("{round}-{number}"));
            let key = format!("{key}-{partition}");
            world.send(&plain, partition, &key, &value);
            expect(&mut expected, &key, &value);
        }
        // What is given up is never decided; what is committed is.
        for is_committed in [false, true] {
            transactional.begin_transaction().unwrap();
            for number in 0..100 {
                let key = format!("t{number}");
                world.send(&transactional, number % PARTITIONS, &key, &format!("{round}-{is_committed}"));
                if is_committed {
                    expect(&mut expected, &key, &format!("{round}-true"));
                }
            }
            match is_committed {
                true => transactional.commit_transaction(STEP).unwrap(),
                false => transactional.abort_transaction(STEP).unwrap(),
            }
        }
        eventually("a consumer", || world.consumer(0, None).is_some());
        let consumer = world.consumer(0, None).unwrap_or(0);
        match round {
            0 => world.cluster.kill(consumer),
            // It wakes with commands under way, and another one has its partitions.
            _ => world.cluster.signal(consumer, Signal::STOP),
        }
        eventually("another consumer", || world.consumer(0, Some(consumer)).is_some());
        match round {
            0 => world.cluster.spawn(consumer),
            _ => world.cluster.signal(consumer, Signal::CONT),
        }
        plain.flush(STEP).unwrap();
        world.cluster.wait_linked();
    }
    world.wait_consumed();
    let count = expected.values().map(Vec::len).sum();
    let decisions = world.wait_decisions(count);
    for (key, expected) in &expected {
        assert_eq!(decisions.get(key), Some(expected), "the decisions of {key}");
    }
    assert_eq!(decisions, expected);
}

#[test]
fn what_cannot_be_proposed_goes_to_the_dead_letters_and_blocks_nothing() {
    let world = World::started();
    let producer = world.producer(&[]);
    let (long_key, long_value) = ("k".repeat(KEY_BYTES_MAX + 1), "v".repeat(VALUE_BYTES_MAX + 1));
    let record = || BaseRecord::<str, str>::to(&world.proposals).partition(0);
    let headers = OwnedHeaders::new().insert(Header { key: "trace", value: Some("abc") });
    let records = [
        record().key("a").payload("1").headers(headers.clone()),
        record().payload("no key").headers(headers),
        record().key("").payload("an empty key"),
        record().key(&long_key).payload("x"),
        record().key("b").payload(&long_value),
        record().key("a").payload("2"),
        // Tombstones: one ends a key's life, the other finds no key.
        record().key("a"),
        record().key("never"),
        record().key("a").payload(""),
    ];
    for record in records {
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(STEP).unwrap();
    world.wait_consumed();
    let value = |text: &str| Some(text.to_owned());
    let expected = vec![(1, value("1")), (2, value("2")), (2, None), (1, value(""))];
    assert_eq!(world.wait_decisions(4), BTreeMap::from([("a".to_owned(), expected)]));
    let stand = world.stand(0).unwrap();
    assert_eq!((stand.decided, stand.dead_letters, stand.position, stand.lost), (5, 4, 9, 0));
    let letters = world.read(&world.letters, 0);
    let told: Vec<_> =
        letters.iter().map(|it| (header(it, "isonomy-reason"), header(it, "isonomy-offset"))).collect();
    let reasons = ["no-key", "no-key", "key-too-long", "value-too-long"];
    let offsets = ["1", "2", "3", "4"];
    let expected: Vec<_> = reasons
        .iter()
        .zip(offsets)
        .map(|(reason, offset)| (reason.to_string(), offset.to_string()))
        .collect();
    assert_eq!(told, expected);
    assert_eq!((letters[0].payload(), header(&letters[0], "trace")), (Some(&b"no key"[..]), "abc".into()));
    assert_eq!(letters[2].key(), Some(long_key.as_bytes()));
    // The topic of the dead letters takes records of the usual size only.
    assert_eq!((letters[3].key(), letters[3].payload()), (Some(&b"b"[..]), None));
    assert_eq!(header(&letters[3], "isonomy-value-left-out"), long_value.len().to_string());
}

#[test]
fn a_topic_that_is_made_again_is_another_one_and_deleted_records_are_told() {
    let mut world = World::started();
    let producer = world.producer(&[]);
    let send = |world: &World, value: &str| {
        (0..100).for_each(|number| world.send(&producer, 0, &format!("k{number}"), value));
        producer.flush(STEP).unwrap();
    };
    send(&world, "first");
    world.wait_consumed();
    world.wait_decisions(100);
    let admin = world.admin();
    block_on(admin.delete_topics(&[&world.proposals], &AdminOptions::new())).unwrap()[0].as_ref().unwrap();
    eventually("the end of the topic", || {
        let metadata = producer.client().fetch_metadata(Some(&world.proposals), STEP).unwrap();
        metadata.topics()[0].partitions().is_empty()
    });
    world.create(&world.proposals, PARTITIONS);
    send(&world, "second");
    world.wait_decisions(200);
    world.wait_consumed();
    // Kafka deletes records while nobody consumes.
    (0..3).for_each(|index| world.cluster.kill(index));
    send(&world, "lost");
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&world.proposals, 0, Offset::Offset(150)).unwrap();
    block_on(admin.delete_records(&before, &AdminOptions::new())).unwrap();
    (0..3).for_each(|index| world.cluster.spawn(index));
    world.cluster.wait_linked();
    let decisions = world.wait_decisions(250);
    world.wait_consumed();
    assert_eq!(world.stand(0).unwrap().lost, 50);
    let of = |key: &str| decisions[key].iter().map(|(_, value)| value.clone().unwrap()).collect::<Vec<_>>();
    assert_eq!(of("k0"), ["first", "second"]);
    assert_eq!(of("k99"), ["first", "second", "lost"]);
}
