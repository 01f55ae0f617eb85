//! A cluster that publishes to topics of its own, and a plain consumer that checks what comes.

use crate::broker;
use crate::support::{CLUSTER, Cluster, eventually, program, stderr, stdout, write_lines};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, SystemTime};

/// How many keys a load decides in turn.
const KEYS: usize = 97;
/// The fewest copies of the topics, and of those the fewest that must have a record.
const ONE_BROKER: (u8, u8) = (1, 1);
const THREE_BROKERS: (u8, u8) = (3, 2);

/// A cluster, and the topics that it publishes to.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    brokers: String,
    pub(crate) topic: String,
    copies: u8,
    /// The lines of the configuration that let a replica publish.
    pub(crate) lines: String,
}

/// A name that no other topics have.
pub(crate) fn new_name() -> String {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos().to_string()
}

/// The lines of a configuration that publishes to the topics of this name.
pub(crate) fn lines(brokers: &str, name: &str) -> String {
    let (copies, insync) = if brokers.contains(',') { THREE_BROKERS } else { ONE_BROKER };
    format!(
        "log_budget_mib = 64\n[publish]\nto = \"kafka\"\nbrokers = [\"{}\"]\ntopic = \"committed-{name}\"\n\
         cursor_topic = \"cursor-{name}\"\nreplicas_min = {copies}\ninsync_min = {insync}\n",
        brokers.replace(',', "\", \"")
    )
}

/// A decision, as the consumer gets it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) key_seq: u64,
    pub(crate) value: Value,
}

impl World {
    /// A cluster that publishes, and has not begun.
    pub(crate) fn prepare(brokers: &str, shards: u16) -> World {
        let world = World::prepare_silent(brokers, shards);
        world.let_publish();
        world
    }

    /// A cluster that does not publish yet.
    pub(crate) fn prepare_silent(brokers: &str, shards: u16) -> World {
        World::prepare_for(Cluster::prepare(3, shards), brokers, &new_name())
    }

    /// A cluster that publishes to the topics of another one.
    pub(crate) fn beside(other: &World) -> World {
        let cluster = Cluster::prepare(3, other.cluster.shards);
        let world = World::prepare_for(cluster, &other.brokers, other.topic.trim_start_matches("committed-"));
        world.let_publish();
        world
    }

    /// This cluster with these topics.
    pub(crate) fn prepare_for(cluster: Cluster, brokers: &str, name: &str) -> World {
        let copies = if brokers.contains(',') { THREE_BROKERS.0 } else { ONE_BROKER.0 };
        let (topic, lines) = (format!("committed-{name}"), lines(brokers, name));
        World { cluster, brokers: brokers.into(), topic, copies, lines }
    }

    /// Writes configurations that publish.
    pub(crate) fn let_publish(&self) {
        for index in 0..3 {
            fs::write(self.cluster.config_path(index), self.cluster.config(index) + &self.lines).unwrap();
        }
    }

    pub(crate) fn create_topics(&self) {
        let output = self.publish(&["init", "--copies", &self.copies.to_string()]);
        assert!(output.status.success(), "{}", stderr(&output));
    }

    /// Deletes the topic of the decisions and creates it again.
    pub(crate) fn create_again(&self) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let deleted = runtime.block_on(admin.delete_topics(&[&self.topic], &AdminOptions::new()));
        assert!(deleted.unwrap()[0].is_ok());
        // Kafka still knows the name for a moment.
        eventually("another topic of the same name", || {
            self.create_topics();
            let (_, status) = self.publication();
            status["topics"][0]["id"].is_string()
        });
    }

    pub(crate) fn start(&mut self) {
        (0..3).for_each(|index| self.cluster.spawn(index));
        self.cluster.wait_linked();
    }

    pub(crate) fn stop(&mut self) {
        (0..3).for_each(|index| assert_eq!(self.cluster.stop(index), Some(0)));
    }

    /// A cluster that runs, at a broker that all tests share.
    pub(crate) fn started(shards: u16) -> World {
        let mut world = World::prepare(broker::shared(), shards);
        world.create_topics();
        world.start();
        world
    }

    /// `isonomy publish`, as the first replica is configured.
    pub(crate) fn publish(&self, arguments: &[&str]) -> Output {
        let mut command = program();
        command.arg("publish").args(arguments).arg("--config").arg(self.cluster.config_path(0));
        command.output().unwrap()
    }

    /// The same where it must end well; what it prints.
    pub(crate) fn publish_ok(&self, arguments: &[&str]) -> String {
        let output = self.publish(arguments);
        assert!(output.status.success(), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
        stdout(&output)
    }

    /// The same where it must be refused; what it says.
    pub(crate) fn publish_refused(&self, arguments: &[&str]) -> String {
        let output = self.publish(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
        stderr(&output)
    }

    /// What `isonomy publish status` tells, and whether all is well.
    pub(crate) fn publication(&self) -> (bool, Value) {
        let output = self.publish(&["status", "--output", "json"]);
        let status = serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{}", stderr(&output)));
        (output.status.success(), status)
    }

    /// Whether a replica publishes a shard.
    pub(crate) fn is_publisher(&self, index: usize, shard: u16) -> bool {
        let status = self.cluster.status(index, shard).and_then(|status| status.publishing);
        status.is_some_and(|publishing| publishing.is_publisher)
    }

    /// Whether another replica than this one publishes shard 0.
    pub(crate) fn has_other(&self, than: usize) -> bool {
        (0..3).filter(|index| *index != than).any(|index| self.is_publisher(index, 0))
    }

    /// The replica that publishes a shard, once there is one.
    pub(crate) fn wait_publisher(&self, shard: u16) -> usize {
        let find = || self.cluster.running().into_iter().find(|index| self.is_publisher(*index, shard));
        let mut publisher = None;
        eventually("a publisher", || {
            publisher = find();
            publisher.is_some()
        });
        publisher.unwrap_or_default()
    }

    /// Waits until a replica says this of the publication of shard 0.
    pub(crate) fn wait_trouble(&self, expected: &str) {
        eventually(expected, || {
            (0..3).any(|index| {
                let status = self.cluster.status(index, 0).and_then(|status| status.publishing);
                status.is_some_and(|publishing| publishing.trouble.contains(expected))
            })
        });
    }

    /// Proposes so many lines, and ends when all are decided. The keys are the same for all loads.
    pub(crate) fn propose(&self, name: &str, count: usize) -> Child {
        let path = self.cluster.data_dir(0).with_file_name(format!("{name}.jsonl"));
        let pad = "x".repeat(700);
        let line = |n: usize| format!(r#"{{"k":"k-{}","load":"{name}","n":{n},"pad":"{pad}"}}"#, n % KEYS);
        write_lines(&path, (0..count).map(line));
        let connect = self.cluster.addresses().join(",");
        let mut command = program();
        command.args(["propose", "--connect", &connect, "--key", "k", "--source", name, "--from"]).arg(path);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Waits until so many decisions are published, and returns them by shard.
    pub(crate) fn published(&self, count: usize) -> Vec<Vec<Record>> {
        let mut all = Vec::new();
        eventually("the publication of everything", || {
            all = (0..self.cluster.shards).map(|shard| self.read(shard)).collect();
            all.iter().map(Vec::len).sum::<usize>() >= count
        });
        all
    }

    /// Reads a partition as a plain consumer does.
    pub(crate) fn read(&self, shard: u16) -> Vec<Record> {
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
        let mut records = Vec::new();
        loop {
            match consumer.poll(Duration::from_secs(30)) {
                Some(Ok(message)) => records.push(record_of(&message)),
                Some(Err(KafkaError::PartitionEOF(_))) => return records,
                Some(Err(KafkaError::Global(_) | KafkaError::MessageConsumption(_))) => {}
                other => panic!("the consumer got {other:?}"),
            }
        }
    }
}

fn record_of(message: &impl Message) -> Record {
    let headers = message.headers().unwrap();
    let text = |name: &str| {
        let header = headers.iter().find(|header| header.key == name).unwrap();
        String::from_utf8(header.value.unwrap().to_vec()).unwrap()
    };
    Record {
        id: text("id"),
        key: String::from_utf8(message.key().unwrap().to_vec()).unwrap(),
        key_seq: text("key_seq").parse().unwrap(),
        value: serde_json::from_slice(message.payload().unwrap()).unwrap(),
    }
}

/// Checks that each decision is there once, and that those of a key come in their order without a gap. Returns the first and
/// the last `key_seq` of each key.
pub(crate) fn check(shards: &[Vec<Record>]) -> BTreeMap<String, (u64, u64)> {
    let mut ids = BTreeSet::new();
    let mut keys: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for Record { id, key, key_seq, .. } in shards.iter().flatten() {
        assert!(ids.insert(id), "{id} is there twice");
        let (_, last) = keys.entry(key.clone()).or_insert((*key_seq, key_seq - 1));
        assert_eq!(*key_seq, *last + 1, "the decisions of {key} come in their order");
        *last = *key_seq;
    }
    keys
}

/// The same, and that it is all of these loads and nothing else, from the first decision of each key on.
pub(crate) fn check_all(shards: &[Vec<Record>], loads: &[(&str, usize)]) {
    assert!(check(shards).values().all(|(first, _)| *first == 1), "a key begins at 1");
    let line = |record: &Record| {
        (record.value["load"].as_str().unwrap().to_owned(), record.value["n"].as_u64().unwrap())
    };
    let mut found: Vec<(String, u64)> = shards.iter().flatten().map(line).collect();
    found.sort_unstable();
    let mut expected: Vec<(String, u64)> =
        loads.iter().flat_map(|(name, count)| (0..*count as u64).map(|n| ((*name).to_owned(), n))).collect();
    expected.sort_unstable();
    assert!(
        found == expected,
        "{} decisions are published, {} were acknowledged",
        found.len(),
        expected.len()
    );
}

/// A load that has ended, with everything acknowledged.
pub(crate) fn ended(load: Child) {
    let output = load.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

/// The name of all clusters of this test, which a restored one has as well.
pub(crate) fn id_of_name() -> isonomy_wire::id::ClusterId {
    isonomy_wire::id::ClusterId::of_name(CLUSTER)
}
