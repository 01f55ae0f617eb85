//! What can go wrong with Kafka.

use crate::check::Unfit;
use crate::cursor::{BadCursor, Cursor, OutOfOrder};
use crate::settings::BadSettings;
use isonomy_wire::id::{ClusterId, ShardId};
use isonomy_wire::published::BadBatch;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// Why a shard is not published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot be used.
    #[error("{0}")]
    Settings(#[from] BadSettings),
    /// Kafka does not answer, or it has lost its majority. Publishing goes on as soon as it answers.
    #[error("Kafka at {brokers} has not {asked}: {why}; check that it runs and is reached from here")]
    Unanswered {
        /// The brokers of the settings.
        brokers: String,
        /// What it was asked for.
        asked: &'static str,
        /// What librdkafka says.
        why: String,
    },
    /// This user may not do that.
    #[error(
        "Kafka forbids this user to have {asked}: {why}; grant it read, write and describe on both topics, and \
             the transactional ids that begin with isonomy/"
    )]
    Forbidden {
        /// What it was asked for.
        asked: &'static str,
        /// What librdkafka says.
        why: String,
    },
    /// A topic is not as it must be.
    #[error("{0}")]
    Unfit(#[from] Unfit),
    /// Another publisher of the shard has begun, or Kafka has given this one up. Nothing of it is published any more.
    #[error("another publisher of shard {} has taken over, or Kafka has not heard of this one for too long; \
             nothing more is published by this one", .0.0)]
    Fenced(ShardId),
    /// What lies in the cursor topic is no cursor.
    #[error("topic {topic}: {bad}")]
    BadCursor {
        /// The cursor topic.
        topic: String,
        /// What is wrong.
        bad: BadCursor,
    },
    /// The topic has the decisions of another cluster or shard.
    #[error("topic {topic} has the decisions of shard {} of cluster {}, not of shard {} of cluster {}; name another \
             topic, or, if this cluster was restored from a backup of that one, let it go on there: isonomy publish adopt {} \
             --shard {} --from kept", there.shard.0, there.cluster, shard.0, cluster, there.cluster, shard.0)]
    Owned {
        /// The topic.
        topic: String,
        /// This cluster.
        cluster: ClusterId,
        /// This shard.
        shard: ShardId,
        /// The cursor that was found.
        there: Box<Cursor>,
    },
    /// The topic is not the one that was published to: it was deleted and created again.
    #[error(
        "topic {topic} was deleted and created again since this shard was published: the cursor names another \
             topic id; let the publication go on with what was not published yet: isonomy publish reset --shard {} --from \
             cursor, or name another topic", cursor.shard.0
    )]
    Replaced {
        /// The topic.
        topic: String,
        /// The cursor that was found.
        cursor: Box<Cursor>,
    },
    /// The partition is shorter than it was.
    #[error(
        "partition {partition} of topic {topic} ends at {end}, but decisions were published up to {reached}: Kafka \
             has lost some; find out why, then go on without them: isonomy publish reset --shard {partition} --from cursor"
    )]
    Truncated {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where it ends.
        end: u64,
        /// Where it ended.
        reached: u64,
    },
    /// The partition has records, but there is no cursor.
    #[error(
        "partition {partition} of topic {topic} has records, but the cursor topic has no cursor for it; name an \
             empty topic, restore the cursor topic, or go on with what the replicas keep, of which some may come twice: \
             isonomy publish reset --shard {partition} --from kept"
    )]
    NoCursor {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// Somebody else has changed what a reset was to change.
    #[error("Kafka has another cursor or topic of shard {} than a moment ago; nothing was changed; look with isonomy publish \
             status, and try again", .0.0)]
    Moved(ShardId),
    /// A batch cannot be published, since it is none.
    #[error("a batch of the outbox cannot be published: {0}")]
    BadBatch(#[from] BadBatch),
    /// A batch of another cluster or shard.
    #[error("the outbox has a batch of shard {} of cluster {cluster}, and this publisher publishes another one; check \
             the directory of the outbox", shard.0)]
    Stray {
        /// The cluster of the batch.
        cluster: ClusterId,
        /// The shard of the batch.
        shard: ShardId,
    },
    /// The outbox gives batches in an order in which none executes.
    #[error("{0}; the outbox cannot be used: fill it again from the log")]
    OutOfOrder(#[from] OutOfOrder),
    /// The outbox cannot give its batches.
    #[error("the outbox cannot be read: {0}")]
    Source(Box<dyn std::error::Error + Send + Sync>),
    /// The publisher was stopped.
    #[error("the publisher was stopped")]
    Stopped,
}

impl Error {
    /// Whether the publisher tries again by itself.
    pub fn is_passing(&self) -> bool {
        matches!(self, Error::Unanswered { .. } | Error::Source(_))
    }

    /// What librdkafka's error means.
    pub(crate) fn of_kafka(
        brokers: &str,
        shard: ShardId,
        asked: &'static str,
        error: &KafkaError,
        why: String,
    ) -> Error {
        if let Some(bad) = BadSettings::of_kafka(error) {
            return Error::Settings(bad);
        }
        match error.rdkafka_error_code() {
            Some(Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch) => Error::Fenced(shard),
            Some(
                Code::TopicAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed,
            ) => Error::Forbidden { asked, why },
            _ => Error::Unanswered { brokers: brokers.to_owned(), asked, why },
        }
    }
}
