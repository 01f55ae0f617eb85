//! What an agent reads, and how.

use isonomy_kafka::settings::{BadSettings as BadKafka, Settings as KafkaSettings};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Which decisions of a key the topic is expected to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Expect {
    /// Every decision, from the first on. A gap or a repetition is an error.
    #[default]
    Every,
    /// At least the latest one, as in a compacted topic or one that forgets what is old. A projection without positions
    /// begins at the first record that is there, and nobody checks `key_seq`.
    Latest,
}

impl FromStr for Expect {
    type Err = BadSettings;

    fn from_str(text: &str) -> Result<Expect, BadSettings> {
        match text {
            "every" => Ok(Expect::Every),
            "latest" => Ok(Expect::Latest),
            other => Err(BadSettings::Expect(other.to_owned())),
        }
    }
}

/// What an agent reads, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// Some brokers of Kafka, as `HOST:PORT,HOST:PORT`. The others are learnt from them.
    pub brokers: String,
    /// The topic to which a cluster publishes, in either format.
    pub topic: String,
    /// The partitions to read, which are the shards of the cluster; `None` for all that the topic has at the start.
    pub partitions: Option<BTreeSet<i32>>,
    /// Which decisions of a key the topic is expected to have.
    pub expect: Expect,
    /// A batch is applied when it has so many decisions. A record of format `batch` is never split.
    pub batch_decisions: usize,
    /// A batch is applied when its keys and values have so many bytes.
    pub batch_bytes: usize,
    /// A batch is applied so long after its first decision, even if it is small.
    pub batch_time: Duration,
    /// Other properties of librdkafka by name, for TLS, passwords and all else. They are passed through.
    pub properties: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Settings {
        let KafkaSettings { topic, .. } = KafkaSettings::default();
        Settings {
            brokers: String::new(),
            topic,
            partitions: None,
            expect: Expect::default(),
            batch_decisions: 4096,
            batch_bytes: 4 << 20,
            batch_time: Duration::from_millis(20),
            properties: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for Settings {
    /// Without the values of the properties, which may be passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.properties.keys().collect();
        f.debug_struct("Settings")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("partitions", &self.partitions)
            .field("properties", &names)
            .finish_non_exhaustive()
    }
}

/// Why settings cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadSettings {
    /// Kafka's part of them.
    #[error("{0}")]
    Kafka(#[from] BadKafka),
    /// No partition.
    #[error("no partition is named; name some, or leave the choice out to read all")]
    NoPartition,
    /// A batch without room.
    #[error("a batch of 0 decisions or 0 bytes holds nothing; give it some room")]
    NoRoom,
    /// An unknown expectation.
    #[error("'{0}' cannot be expected of a topic; expect \"every\" decision, or the \"latest\" of each key")]
    Expect(String),
}

impl Settings {
    /// Whether the settings can be used, as far as this can be told without Kafka.
    ///
    /// # Errors
    ///
    /// [`BadSettings`] with what is wrong.
    pub fn check(&self) -> Result<(), BadSettings> {
        self.kafka().check()?;
        if self.partitions.as_ref().is_some_and(BTreeSet::is_empty) {
            return Err(BadSettings::NoPartition);
        }
        if self.batch_decisions == 0 || self.batch_bytes == 0 {
            return Err(BadSettings::NoRoom);
        }
        Ok(())
    }

    /// The part that is about the connection, with the same rules as for those who publish.
    pub(crate) fn kafka(&self) -> KafkaSettings {
        KafkaSettings {
            brokers: self.brokers.clone(),
            topic: self.topic.clone(),
            properties: self.properties.clone(),
            ..KafkaSettings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings { brokers: "127.0.0.1:9092".into(), ..Settings::default() }
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        assert_eq!(settings().check(), Ok(()));
        assert_eq!(Settings::default().check(), Err(BadKafka::NoBroker.into()));
        let none = Settings { partitions: Some(BTreeSet::new()), ..settings() };
        assert_eq!(none.check(), Err(BadSettings::NoPartition));
        for full in [Settings { batch_decisions: 0, ..settings() }, Settings { batch_bytes: 0, ..settings() }]
        {
            assert_eq!(full.check(), Err(BadSettings::NoRoom));
        }
        assert_eq!("all".parse::<Expect>(), Err(BadSettings::Expect("all".into())));
    }

    #[test]
    fn what_the_reading_rests_on_is_not_the_users() {
        let uncommitted = [("isolation.level".into(), "read_uncommitted".into())].into();
        let bad = Settings { properties: uncommitted, ..settings() };
        assert_eq!(bad.check(), Err(BadKafka::Reserved("isolation.level".into()).into()));
        let secret =
            Settings { properties: [("sasl.password".into(), "hidden".into())].into(), ..settings() };
        assert!(!format!("{secret:?}").contains("hidden"));
    }
}
