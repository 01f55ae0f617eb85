//! Why an agent does not go on.

use crate::projection::Failure;
use crate::settings::BadSettings;
use isonomy_kafka::cursor::TopicId;
use isonomy_kafka::decision::BadRecord;
use isonomy_kafka::settings::BadSettings as BadKafka;
use isonomy_wire::id::CommandId;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// Why an agent does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot be used.
    #[error("{0}")]
    Settings(#[from] BadSettings),
    /// Kafka does not answer. The agent goes on as soon as it answers.
    #[error("Kafka at {brokers} has not {asked}: {why}; check that it runs and is reached from here")]
    Unanswered {
        /// The brokers of the settings.
        brokers: String,
        /// What it was asked for.
        asked: &'static str,
        /// What librdkafka says.
        why: String,
    },
    /// There is no such topic. The agent goes on as soon as there is one.
    #[error("there is no topic {topic} at {brokers}; check its name, or create it (isonomy publish init)")]
    Missing {
        /// The brokers of the settings.
        brokers: String,
        /// The topic.
        topic: String,
    },
    /// This user may not do that.
    #[error("Kafka forbids this user to have {asked}: {why}; grant it read and describe on the topic")]
    Forbidden {
        /// What it was asked for.
        asked: &'static str,
        /// What librdkafka says.
        why: String,
    },
    /// The brokers are too old to tell the ids of topics.
    #[error("the brokers do not tell the id of topic {0}; use Kafka 3.0 or newer")]
    NoId(String),
    /// The topic has no such partition.
    #[error("topic {topic} has {partitions} partitions, and none has the number {partition}; name others")]
    NoPartition {
        /// The topic.
        topic: String,
        /// The partition that was named.
        partition: i32,
        /// How many it has.
        partitions: usize,
    },
    /// The topic is not the one that the projection was made of.
    #[error(
        "topic {topic} has the id {there}, and the projection was made of {known}: it was deleted and created again, or \
         is another one; name the right topic, or make the projection anew"
    )]
    Replaced {
        /// The topic.
        topic: String,
        /// The id that it has.
        there: TopicId,
        /// The id of the projection.
        known: TopicId,
    },
    /// Decisions were deleted before the projection has seen them.
    #[error(
        "partition {partition} of topic {topic} begins at offset {first}, and the projection goes on at {position}: \
         Kafka has deleted decisions in between (retention.ms, retention.bytes); make the projection anew, from a topic \
         that keeps its records or with the latest decision of each key as all that is expected"
    )]
    Expired {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where the projection goes on.
        position: i64,
        /// The first offset that is there.
        first: i64,
    },
    /// The partition is shorter than what the projection has seen of it.
    #[error(
        "partition {partition} of topic {topic} ends at offset {end}, and the projection has seen it up to {position}: \
         Kafka has lost records; find out why, then make the projection anew"
    )]
    Truncated {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where the projection goes on.
        position: i64,
        /// Where the partition ends.
        end: i64,
    },
    /// A record has no decisions.
    #[error("the record at offset {offset} of partition {partition} of topic {topic} is no decision: {why}")]
    BadRecord {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The record.
        offset: i64,
        /// What is wrong.
        why: BadRecord,
    },
    /// A decision does not follow the one before it of its key.
    #[error("{0}")]
    OutOfSequence(#[from] OutOfSequence),
    /// The projection fails.
    #[error("{0}")]
    Projection(Failure),
    /// The system gives no thread.
    #[error("no thread for the agent ({0}); raise the limit on threads")]
    NoThread(std::io::Error),
    /// The agent was asked to end.
    #[error("the agent was stopped")]
    Stopped,
}

/// A decision does not follow the one before it of its key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "decision {id} at offset {offset} of partition {partition} has key_seq {found}, and the key's latest decision has \
     {latest} (0: none): decisions are missing or come twice; if the topic is compacted or has lost its beginning, expect \
     only the latest decision of each key; otherwise keep topic and projection and report this"
)]
pub struct OutOfSequence {
    /// The partition.
    pub partition: i32,
    /// The record.
    pub offset: i64,
    /// The decision.
    pub id: CommandId,
    /// Its `key_seq`.
    pub found: u64,
    /// The `key_seq` of the decision before it, 0 if the key was not alive.
    pub latest: u64,
}

impl Error {
    /// Whether the agent tries again by itself.
    pub fn is_passing(&self) -> bool {
        matches!(self, Error::Unanswered { .. } | Error::Missing { .. })
    }

    /// What librdkafka's error means, with what a client has said last.
    pub(crate) fn of_kafka(
        brokers: &str,
        topic: &str,
        asked: &'static str,
        error: &KafkaError,
        trouble: Option<String>,
    ) -> Error {
        if let Some(bad) = BadKafka::of_kafka(error) {
            return Error::Settings(bad.into());
        }
        let why = trouble.map_or_else(|| error.to_string(), |trouble| format!("{error} ({trouble})"));
        match error.rdkafka_error_code() {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownTopicId) => {
                Error::Missing { brokers: brokers.to_owned(), topic: topic.to_owned() }
            }
            Some(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) => {
                Error::Forbidden { asked, why }
            }
            _ => Error::Unanswered { brokers: brokers.to_owned(), asked, why },
        }
    }
}
