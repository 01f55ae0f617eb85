//! Where Kafka is, what is sent there, and how.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The longest name of a topic that Kafka takes.
const TOPIC_BYTES_MAX: usize = 249;
/// The properties of librdkafka that exactly-once rests on, or that have a setting of their own.
const RESERVED: [&str; 19] = [
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.protocol",
    "isolation.level",
    "log_level",
    "message.max.bytes",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "request.required.acks",
    "statistics.interval.ms",
    "transactional.id",
];

/// What a record of the topic holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// One published batch, as it lies in the outbox.
    Batch,
    /// One decision.
    #[default]
    Record,
}

impl FromStr for Format {
    type Err = BadSettings;

    fn from_str(text: &str) -> Result<Format, BadSettings> {
        match text {
            "batch" => Ok(Format::Batch),
            "record" => Ok(Format::Record),
            other => Err(BadSettings::Format(other.to_owned())),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Batch => "batch",
            Format::Record => "record",
        })
    }
}

/// Where Kafka is, what is sent there, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// Some brokers, as `HOST:PORT,HOST:PORT`. The others are learnt from them.
    pub brokers: String,
    /// The topic of the decisions, with one partition for each shard.
    pub topic: String,
    /// The compacted topic of the cursors, with at least as many partitions.
    pub cursor_topic: String,
    /// What a record of the topic holds.
    pub format: Format,
    /// A transaction ends when it holds so many bytes.
    pub batch_bytes: usize,
    /// A transaction ends this long after its first batch, even if it is small.
    pub batch_time: Duration,
    /// The fewest copies that each partition must have.
    pub replicas_min: usize,
    /// The fewest copies that must have a record before it counts: at least so large must `min.insync.replicas` be.
    pub insync_min: usize,
    /// Other properties of librdkafka by name, for compression, TLS, passwords and all else. They are passed through.
    pub properties: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            brokers: String::new(),
            topic: "committed".into(),
            cursor_topic: "isonomy-publish-cursor".into(),
            format: Format::default(),
            batch_bytes: 4 << 20,
            batch_time: Duration::from_millis(20),
            replicas_min: 3,
            insync_min: 2,
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
            .field("properties", &names)
            .finish_non_exhaustive()
    }
}

/// Why settings cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadSettings {
    /// No broker.
    #[error("no broker is given; name some brokers of Kafka as HOST:PORT,HOST:PORT")]
    NoBroker,
    /// A name that no topic can have.
    #[error(
        "'{0}' is no name of a topic; a name has 1 to {TOPIC_BYTES_MAX} letters, digits, dots, underscores and hyphens"
    )]
    Topic(String),
    /// One topic for two purposes.
    #[error("the topic '{0}' is named for two purposes; give each a topic of its own")]
    OneTopic(String),
    /// No consumer group.
    #[error("the consumer group has no name; name one, or leave `group` out")]
    NoGroup,
    /// An unknown format.
    #[error("'{0}' is no format; a format is \"record\" or \"batch\"")]
    Format(String),
    /// A transaction without room.
    #[error("a transaction of 0 bytes holds nothing; give it some room, such as 4 MiB")]
    NoRoom,
    /// A property that is not the user's.
    #[error("the property rdkafka.{0} is set by this program, since exactly-once rests on it; leave it out")]
    Reserved(String),
    /// librdkafka does not take a property.
    #[error(
        "librdkafka does not take the property rdkafka.{name} = '{value}': {why}; correct it or leave it out"
    )]
    Property {
        /// Its name, without `rdkafka.`.
        name: String,
        /// The value; hidden where the name tells that it is secret.
        value: String,
        /// What librdkafka says.
        why: String,
    },
    /// librdkafka cannot make a client of these settings.
    #[error("librdkafka cannot use these settings: {0}; correct the properties rdkafka.*")]
    Client(String),
}

impl BadSettings {
    /// The settings that librdkafka has refused, if that is what the error says.
    pub fn of_kafka(error: &KafkaError) -> Option<BadSettings> {
        match error {
            KafkaError::ClientConfig(_, why, name, value) => {
                let value = if is_secret(name) { "***" } else { value }.to_owned();
                Some(BadSettings::Property { name: name.clone(), value, why: why.clone() })
            }
            KafkaError::ClientCreation(why) => Some(BadSettings::Client(why.clone())),
            _ => None,
        }
    }
}

/// Whether the value of a property may be a secret.
fn is_secret(name: &str) -> bool {
    ["password", "secret", "pem", "jaas", "oauthbearer"].iter().any(|word| name.contains(word))
}

impl Settings {
    /// Whether the settings can be used, as far as this can be told without Kafka.
    ///
    /// # Errors
    ///
    /// [`BadSettings`] with what is wrong.
    pub fn check(&self) -> Result<(), BadSettings> {
        check_names(&self.brokers, [&self.topic, &self.cursor_topic])?;
        if self.batch_bytes == 0 {
            return Err(BadSettings::NoRoom);
        }
        check_properties(&self.properties)
    }

    /// What all clients have in common: the brokers, and the properties of the user.
    pub fn client(&self) -> ClientConfig {
        client(&self.brokers, &self.properties)
    }
}

/// Whether there are brokers, and two topics that can be.
pub(crate) fn check_names(brokers: &str, topics: [&String; 2]) -> Result<(), BadSettings> {
    if brokers.trim().is_empty() {
        return Err(BadSettings::NoBroker);
    }
    for topic in topics {
        let is_name = topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let is_fit = !topic.is_empty() && topic.len() <= TOPIC_BYTES_MAX;
        if !is_name || !is_fit || [".", ".."].contains(&topic.as_str()) {
            return Err(BadSettings::Topic(topic.clone()));
        }
    }
    if topics[0] == topics[1] { Err(BadSettings::OneTopic(topics[0].clone())) } else { Ok(()) }
}

/// Whether all properties are the user's to set.
pub(crate) fn check_properties(properties: &BTreeMap<String, String>) -> Result<(), BadSettings> {
    match properties.keys().find(|name| RESERVED.contains(&name.as_str())) {
        Some(name) => Err(BadSettings::Reserved(name.clone())),
        None => Ok(()),
    }
}

/// What all clients have in common.
pub(crate) fn client(brokers: &str, properties: &BTreeMap<String, String>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("client.id", "isonomy").set("bootstrap.servers", brokers);
    // A broker that comes back is noticed soon; librdkafka's own 10 s would delay what was decided long ago.
    config.set("reconnect.backoff.max.ms", "1000");
    // When enough of a partition was fetched ahead, the next look is so much later; within librdkafka's own 1 s all of it is
    // read, and nothing comes.
    config.set("fetch.queue.backoff.ms", "10");
    for (name, value) in properties {
        config.set(name, value);
    }
    // librdkafka's own reports of lost connections repeat themselves; ours say what comes of them.
    config.set_log_level(RDKafkaLogLevel::Error);
    config
}

#[cfg(test)]
mod tests;
