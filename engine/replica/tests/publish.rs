//! Decisions of a real cluster in a real Kafka, whatever happens to those who publish them.

#[allow(dead_code)] // Each test binary uses its own part.
#[path = "../../kafka/tests/support/broker.rs"]
mod broker;
mod support;

use broker::Broker;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};
use support::{Cluster, eventually, program, stderr, write_lines};

/// How many lines are decided while something happens to a publisher.
const LOAD: usize = 25_000;

/// A cluster that publishes to topics of its own, which exist.
struct World {
    cluster: Cluster,
    brokers: String,
    topic: String,
}

impl World {
    fn prepare(brokers: &str, shards: u16) -> World {
        let name = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let topic = format!("committed-{name}");
        let lines = format!(
            "log_budget_mib = 64\n[publish]\nto = \"kafka\"\nbrokers = [\"{brokers}\"]\ntopic = \"{topic}\"\n\
             cursor_topic = \"cursor-{name}\"\nreplicas_min = 1\ninsync_min = 1\n"
        );
        World { cluster: Cluster::prepare_with(3, shards, &lines), brokers: brokers.into(), topic }
    }

    fn create_topics(&self) {
        let config = self.cluster.config_path(0);
        let output =
            program().args(["publish", "init", "--copies", "1", "--config"]).arg(config).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }

    fn start(&mut self) {
        (0..3).for_each(|index| self.cluster.spawn(index));
        self.cluster.wait_linked();
    }

    /// A cluster that runs, at a broker that all tests share.
    fn started(shards: u16) -> World {
        let mut world = World::prepare(broker::shared(), shards);
        world.create_topics();
        world.start();
        world
    }

    /// The replica that publishes a shard.
    fn publisher(&self, shard: u16) -> Option<usize> {
        self.cluster.running().into_iter().find(|index| {
            let status = self.cluster.status(*index, shard);
            status.and_then(|status| status.publishing).is_some_and(|publishing| publishing.is_publisher)
        })
    }

    /// Whether another replica than this one publishes shard 0.
    fn has_other(&self, than: usize) -> bool {
        (0..3).filter(|index| *index != than).any(|index| {
            let status = self.cluster.status(index, 0).and_then(|status| status.publishing);
            status.is_some_and(|publishing| publishing.is_publisher)
        })
    }

    fn wait_publisher(&self, shard: u16) -> usize {
        eventually("a publisher", || self.publisher(shard).is_some());
        self.publisher(shard).unwrap_or(0)
    }

    /// Proposes so many lines, and ends when all are decided.
    fn propose(&self, name: &str, count: usize) -> Child {
        let path = self.cluster.data_dir(0).with_file_name(format!("{name}.jsonl"));
        let pad = "x".repeat(700);
        let line = |number: usize| format!(r#"{{"k":"{name}-{}","n":{number},"pad":"{pad}"}}"#, number % 97);
        write_lines(&path, (0..count).map(line));
        let connect = self.cluster.addresses().join(",");
        let mut command = program();
        command.args(["propose", "--connect", &connect, "--key", "k", "--source", name, "--from"]).arg(path);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Waits until nothing is kept for publication any more, and returns the published decisions.
    fn published(&self, shards: u16, count: usize) -> usize {
        let mut decisions = 0;
        eventually("the publication of everything", || {
            decisions = (0..shards).map(|shard| self.read(shard)).sum();
            decisions >= count
        });
        decisions
    }

    /// Reads a partition as a plain consumer does, and checks it. Returns how many decisions it has.
    fn read(&self, shard: u16) -> usize {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", "test")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .create()
            .unwrap();
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(&self.topic, shard.into(), Offset::Beginning).unwrap();
        consumer.assign(&assignment).unwrap();
        let (mut ids, mut last) = (BTreeSet::new(), BTreeMap::new());
        loop {
            let record = match consumer.poll(Duration::from_secs(30)) {
                Some(Ok(record)) => record,
                Some(Err(KafkaError::PartitionEOF(_))) => return ids.len(),
                Some(Err(KafkaError::Global(_))) => continue,
                other => panic!("the consumer got {other:?}"),
            };
            let headers = record.headers().unwrap();
            let text = |name: &str| {
                let header = headers.iter().find(|header| header.key == name).unwrap();
                String::from_utf8(header.value.unwrap().to_vec()).unwrap()
            };
            assert!(ids.insert(text("id")), "{} is there twice", text("id"));
            let (key, key_seq) = (record.key().unwrap().to_vec(), text("key_seq").parse::<u64>().unwrap());
            let before = last.insert(key, key_seq).unwrap_or(0);
            assert_eq!(key_seq, before + 1, "the decisions of a key come in their order");
        }
    }
}

fn ended(load: Child) {
    let output = load.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn publishers_that_are_killed_and_paused_lose_and_double_nothing() {
    let mut world = World::started(2);
    for round in 0..2 {
        let publisher = world.wait_publisher(0);
        let load = world.propose(&format!("k{round}"), LOAD);
        if round % 2 == 0 {
            world.cluster.kill(publisher);
            eventually("another publisher", || world.has_other(publisher));
            world.cluster.spawn(publisher);
        } else {
            // It wakes with a transaction that is open, and another one has taken over.
            world.cluster.signal(publisher, Signal::STOP);
            eventually("another publisher", || world.has_other(publisher));
            world.cluster.signal(publisher, Signal::CONT);
        }
        world.cluster.wait_linked();
        ended(load);
    }
    assert_eq!(world.published(2, 2 * LOAD), 2 * LOAD);
    eventually("no replica keeps what is published", || {
        (0..3).all(|index| {
            let files =
                |shard| world.cluster.data_dir(index).join(format!("shard-{shard:03}/outbox")).read_dir();
            (0..2).all(|shard| files(shard).unwrap().count() <= 2)
        })
    });
}

#[test]
fn without_kafka_decisions_go_on_and_are_published_later() {
    let broker = Broker::start();
    let mut world = World::prepare(&broker.address, 1);
    world.start();
    let trouble = |world: &World, expected: &str| {
        eventually(expected, || {
            (0..3).any(|index| {
                let status = world.cluster.status(index, 0).and_then(|status| status.publishing);
                status.is_some_and(|publishing| publishing.trouble.contains(expected))
            })
        });
    };
    ended(world.propose("a", 1000));
    trouble(&world, "there is no topic");
    world.create_topics();
    assert_eq!(world.published(1, 1000), 1000);
    broker.kill();
    ended(world.propose("b", 20_000));
    trouble(&world, "check that it runs");
    broker.restart();
    assert_eq!(world.published(1, 21_000), 21_000);
}
