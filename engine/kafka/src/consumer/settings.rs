//! Which topic is consumed, and how.

use crate::settings::{BadSettings, check_names, check_properties, client};
use isonomy_wire::id::ClusterId;
use rdkafka::ClientConfig;
use std::collections::BTreeMap;
use std::fmt;

/// How many records librdkafka fetches ahead of the consumer. Those of a partition that is paused are fetched again.
const AHEAD_RECORDS: &str = "10000";
const AHEAD_KIB: &str = "16384";
/// How long a member of the group that is silent keeps its partitions; librdkafka's own 45 s would delay what waits there.
const SESSION_TIMEOUT: &str = "session.timeout.ms";
const SESSION_TIMEOUT_MS: &str = "10000";
/// How often librdkafka tells where the partitions end.
const STATISTICS_MS: &str = "1000";

/// Which topic is consumed, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct ConsumerSettings {
    /// Some brokers, as `HOST:PORT,HOST:PORT`. The others are learnt from them.
    pub brokers: String,
    /// The topic of the proposals.
    pub topic: String,
    /// The topic that takes the records which cannot be proposed.
    pub dead_letter_topic: String,
    /// The consumer group, in which the replicas share the partitions. Otherwise its name has the cluster's id, since a
    /// cluster that was restored from a backup has other decisions, and so consumes from the beginning.
    pub group: Option<String>,
    /// Other properties of librdkafka by name, for TLS, passwords and all else. They are passed through.
    pub properties: BTreeMap<String, String>,
}

impl Default for ConsumerSettings {
    fn default() -> ConsumerSettings {
        ConsumerSettings {
            brokers: String::new(),
            topic: "proposal".into(),
            dead_letter_topic: "proposal-dlq".into(),
            group: None,
            properties: BTreeMap::new(),
        }
    }
}

impl ConsumerSettings {
    /// Whether the settings can be used, as far as this can be told without Kafka.
    ///
    /// # Errors
    ///
    /// [`BadSettings`] with what is wrong.
    pub fn check(&self) -> Result<(), BadSettings> {
        check_names(&self.brokers, [&self.topic, &self.dead_letter_topic])?;
        if self.group.as_ref().is_some_and(|group| group.trim().is_empty()) {
            return Err(BadSettings::NoGroup);
        }
        check_properties(&self.properties)
    }

    /// The member of the group, for this cluster.
    pub(super) fn consumer(&self, cluster: ClusterId) -> ClientConfig {
        let group = self.group.clone().unwrap_or_else(|| format!("isonomy-{cluster}"));
        let mut config = client(&self.brokers, &self.properties);
        if !self.properties.contains_key(SESSION_TIMEOUT) {
            config.set(SESSION_TIMEOUT, SESSION_TIMEOUT_MS);
        }
        config
            .set("group.id", group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Where to begin is judged here, so that no record is left out in silence.
            .set("auto.offset.reset", "error")
            .set("queued.min.messages", AHEAD_RECORDS)
            .set("queued.max.messages.kbytes", AHEAD_KIB)
            .set("statistics.interval.ms", STATISTICS_MS);
        config
    }

    /// The producer of dead letters.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = client(&self.brokers, &self.properties);
        config.set("enable.idempotence", "true").set("message.timeout.ms", "0");
        config
    }
}

impl fmt::Debug for ConsumerSettings {
    /// Without the values of the properties, which may be passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.properties.keys().collect();
        f.debug_struct("ConsumerSettings")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("group", &self.group)
            .field("properties", &names)
            .finish_non_exhaustive()
    }
}
