//! What the topics must be like, before anything is published to them.

use crate::client::{Asking, Memory, PATIENCE, Reader};
use crate::cursor::TopicId;
use crate::error::Error;
use crate::settings::{Format, Settings};
use crate::standing::TopicStanding;
use crate::topic_id::topic_id;
use futures_lite::future::block_on;
use isonomy_wire::command::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use isonomy_wire::published::PUBLISHED_BYTES_MAX;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

/// What Kafka adds to a record at most: the frame, the topic's key of a cursor, and the three headers.
const OVERHEAD_BYTES_MAX: usize = 2048;

/// What a topic is like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Its id.
    pub id: TopicId,
    /// The number of partitions.
    pub partitions: usize,
    /// The copies of the partition that has the fewest.
    pub replicas: usize,
    /// `min.insync.replicas`.
    pub insync: usize,
    /// `max.message.bytes`.
    pub record_bytes: usize,
    /// `cleanup.policy`.
    pub cleanup: String,
    /// `unclean.leader.election.enable`.
    pub is_unclean: bool,
}

/// Why decisions cannot be published to a topic.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfit {
    /// There is no such topic.
    #[error("there is no topic {topic}; create it with {partitions} partitions")]
    Missing {
        /// The topic.
        topic: String,
        /// How many partitions it needs.
        partitions: usize,
    },
    /// The brokers are too old to tell the ids of topics.
    #[error("the brokers do not tell the id of topic {0}; use Kafka 3.0 or newer")]
    NoId(String),
    /// The topic has another number of partitions.
    #[error(
        "topic {topic} has {there} partitions, but it needs {needed}, one for each shard; name a topic that has so many"
    )]
    Partitions {
        /// The topic.
        topic: String,
        /// How many it has.
        there: usize,
        /// How many it needs.
        needed: usize,
    },
    /// The topic has too few copies.
    #[error(
        "a partition of topic {topic} has {there} copies; reassign it to {needed} brokers, or lower publish.replicas_min"
    )]
    Replicas {
        /// The topic.
        topic: String,
        /// How many there are.
        there: usize,
        /// How many the settings ask for.
        needed: usize,
    },
    /// A record counts before it has enough copies.
    #[error(
        "topic {topic} has min.insync.replicas = {there}; set it to {needed}, or lower publish.insync_min"
    )]
    InSync {
        /// The topic.
        topic: String,
        /// How many copies it waits for.
        there: usize,
        /// How many the settings ask for.
        needed: usize,
    },
    /// A large record would be refused.
    #[error("topic {topic} takes records of {there} bytes; set its max.message.bytes to {needed} or more")]
    RecordBytes {
        /// The topic.
        topic: String,
        /// What it takes.
        there: usize,
        /// What the largest record needs.
        needed: usize,
    },
    /// The topic may lose records that counted.
    #[error(
        "topic {0} has unclean.leader.election.enable = true and may lose what is published; set it to false"
    )]
    Unclean(String),
    /// The cursor may be deleted by age or size.
    #[error("topic {topic} has cleanup.policy = {there}, which would delete cursors; set it to compact")]
    Cleanup {
        /// The topic.
        topic: String,
        /// What it is.
        there: String,
    },
}

impl Settings {
    /// The size of the largest record, with what Kafka adds.
    pub fn record_bytes_max(&self) -> usize {
        OVERHEAD_BYTES_MAX
            + match self.format {
                Format::Batch => PUBLISHED_BYTES_MAX,
                Format::Record => KEY_BYTES_MAX + VALUE_BYTES_MAX,
            }
    }

    /// Judges the topic of the decisions.
    pub(crate) fn judge_topic(&self, shards: usize, facts: &Facts) -> Result<(), Unfit> {
        let topic = self.topic.clone();
        if facts.partitions != shards {
            return Err(Unfit::Partitions { topic, there: facts.partitions, needed: shards });
        }
        if facts.record_bytes < self.record_bytes_max() {
            let (there, needed) = (facts.record_bytes, self.record_bytes_max());
            return Err(Unfit::RecordBytes { topic, there, needed });
        }
        self.judge_safety(topic, facts)
    }

    /// Judges the topic of the cursors.
    pub(crate) fn judge_cursor_topic(&self, shards: usize, facts: &Facts) -> Result<(), Unfit> {
        let topic = self.cursor_topic.clone();
        if facts.partitions < shards {
            return Err(Unfit::Partitions { topic, there: facts.partitions, needed: shards });
        }
        if facts.cleanup != "compact" {
            return Err(Unfit::Cleanup { topic, there: facts.cleanup.clone() });
        }
        self.judge_safety(topic, facts)
    }

    fn judge_safety(&self, topic: String, facts: &Facts) -> Result<(), Unfit> {
        if facts.id == TopicId::default() {
            return Err(Unfit::NoId(topic));
        }
        if facts.replicas < self.replicas_min {
            return Err(Unfit::Replicas { topic, there: facts.replicas, needed: self.replicas_min });
        }
        if facts.insync < self.insync_min {
            return Err(Unfit::InSync { topic, there: facts.insync, needed: self.insync_min });
        }
        if facts.is_unclean { Err(Unfit::Unclean(topic)) } else { Ok(()) }
    }
}

/// Looks at both topics and judges them. Returns the id of the topic of the decisions.
pub(crate) fn check(asking: Asking<'_>, shards: usize, reader: &Reader) -> Result<TopicId, Error> {
    let mut ids = Vec::new();
    for TopicStanding { facts, unfit, .. } in judged(asking, shards, reader)? {
        match unfit {
            Some(unfit) => return Err(unfit.into()),
            None => ids.extend(facts.map(|facts| facts.id)),
        }
    }
    Ok(ids[0])
}

/// Looks at the topic of the decisions and at that of the cursors, and says of each whether it can be used.
pub(crate) fn judged(
    asking: Asking<'_>,
    shards: usize,
    reader: &Reader,
) -> Result<[TopicStanding; 2], Error> {
    let (settings, admin) = (asking.settings, admin(asking)?);
    let look = |topic: &String, judge: &dyn Fn(&Facts) -> Result<(), Unfit>| {
        let (facts, unfit) = match facts(asking, topic, shards, reader, &admin) {
            Ok(facts) => (Some(facts.clone()), judge(&facts).err()),
            Err(Error::Unfit(unfit)) => (None, Some(unfit)),
            Err(error) => return Err(error),
        };
        Ok(TopicStanding { topic: topic.clone(), facts, unfit })
    };
    Ok([
        look(&settings.topic, &|facts| settings.judge_topic(shards, facts))?,
        look(&settings.cursor_topic, &|facts| settings.judge_cursor_topic(shards, facts))?,
    ])
}

/// What a topic is like.
fn facts(
    asking: Asking<'_>,
    topic: &str,
    shards: usize,
    reader: &Reader,
    admin: &AdminClient<Memory>,
) -> Result<Facts, Error> {
    let asked = "told what the topics are like";
    let memory: &Memory = reader.client().context();
    let missing = || Unfit::Missing { topic: topic.to_owned(), partitions: shards };
    let id = match topic_id(reader.client(), topic, PATIENCE) {
        Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            return Err(missing().into());
        }
        answer => answer.map_err(|code| asking.failed(asked, Some(memory))(KafkaError::AdminOp(code)))?,
    };
    let metadata =
        reader.fetch_metadata(Some(topic), PATIENCE).map_err(asking.failed(asked, Some(memory)))?;
    let partitions = metadata.topics().first().map(|topic| topic.partitions()).unwrap_or_default();
    let replicas = partitions.iter().map(|partition| partition.replicas().len()).min().ok_or_else(missing)?;
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let described = block_on(admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options));
    let configs = described
        .and_then(|mut configs| configs.pop().ok_or(KafkaError::Canceled)?.map_err(KafkaError::AdminOp))
        .map_err(asking.failed(asked, Some(memory)))?;
    let value = |name: &str| configs.get(name).and_then(|entry| entry.value.as_deref()).unwrap_or_default();
    let number = |name: &str| value(name).parse().unwrap_or(0);
    Ok(Facts {
        id,
        partitions: partitions.len(),
        replicas,
        insync: number("min.insync.replicas"),
        record_bytes: number("max.message.bytes"),
        cleanup: value("cleanup.policy").to_owned(),
        is_unclean: value("unclean.leader.election.enable") == "true",
    })
}

fn admin(asking: Asking<'_>) -> Result<AdminClient<Memory>, Error> {
    AdminClient::from_config_and_context(&asking.settings.client(), Memory::default())
        .map_err(asking.failed("made an administrator", None))
}

/// Creates both topics as they must be, each with `replicas` copies, where they do not exist yet.
///
/// # Errors
///
/// [`Error`] if Kafka has not created one.
pub fn create_topics(settings: &Settings, shards: usize, replicas: usize) -> Result<(), Error> {
    settings.check()?;
    let asking = Asking { settings, shard: Default::default() };
    let asked = "created the topics";
    let insync = replicas.saturating_sub(1).max(1).to_string();
    let record_bytes = settings.record_bytes_max().to_string();
    let topic = |name| {
        let copies = TopicReplication::Fixed(replicas as i32);
        NewTopic::new(name, shards as i32, copies).set("min.insync.replicas", &insync)
    };
    let topics = [
        topic(&settings.topic).set("max.message.bytes", &record_bytes),
        // Small segments, since only what lies in a closed one is compacted.
        topic(&settings.cursor_topic).set("cleanup.policy", "compact").set("segment.bytes", "16777216"),
    ];
    make_topics(&admin(asking)?, &topics).map_err(asking.failed(asked, None))
}

/// Makes topics, but for those that are there.
pub(crate) fn make_topics<C: ClientContext>(
    admin: &AdminClient<C>,
    topics: &[NewTopic<'_>],
) -> KafkaResult<()> {
    let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
    for result in block_on(admin.create_topics(topics, &options))? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(KafkaError::AdminOp(code)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
