//! What can go wrong while a topic is consumed. All of it is tried again, since somebody may put it right.

use crate::settings::BadSettings;
use isonomy_wire::client::{CallError, ConnectError};
use isonomy_wire::conversation::Error as Failed;
use isonomy_wire::source::SourceName;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// Why nothing is consumed here.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The settings cannot be used.
    #[error("{0}")]
    Settings(#[from] BadSettings),
    /// Kafka does not answer.
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
        "Kafka forbids this user to have {asked}: {why}; grant it read and describe on the topic of the proposals and on \
         the consumer group, and write on the topic of the dead letters"
    )]
    Forbidden {
        /// What it was asked for.
        asked: &'static str,
        /// What librdkafka says.
        why: String,
    },
    /// There is no such topic.
    #[error("there is no topic {0}; create it")]
    NoTopic(String),
    /// The cluster of this replica is not reached.
    #[error("the cluster is not reached to propose to: {0}")]
    NoCluster(#[from] ConnectError),
    /// The place in a partition is not there any more.
    #[error("the place in a partition is not there any more; the partitions are looked at anew")]
    PlaceGone,
    /// The topic was deleted and created again.
    #[error("topic {0} was deleted and created again; its partitions are consumed from the beginning")]
    Replaced(String),
}

impl ConsumeError {
    /// What librdkafka's error means.
    pub(super) fn of_kafka(
        brokers: &str,
        asked: &'static str,
        error: &KafkaError,
        trouble: &str,
    ) -> ConsumeError {
        let why = if trouble.is_empty() { error.to_string() } else { format!("{error} ({trouble})") };
        if let Some(bad) = BadSettings::of_kafka(error) {
            return ConsumeError::Settings(bad);
        }
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => ConsumeError::PlaceGone,
            Some(
                Code::TopicAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::GroupAuthorizationFailed,
            ) => ConsumeError::Forbidden { asked, why },
            _ => ConsumeError::Unanswered { brokers: brokers.to_owned(), asked, why },
        }
    }
}

/// Why a partition is not consumed for now.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LaneError {
    /// Another process has taken the partition over.
    #[error(
        "another process consumes the partition for this cluster; if it is of another consumer group, stop one of them"
    )]
    Fenced,
    /// The partition had other records at these offsets.
    #[error(
        "the records of offsets {from} to {to} are not those that were decided: Kafka has lost or replaced records; find \
         out why, then end the source {source_name} (isonomy source end) to decide what is there now"
    )]
    OtherRecords {
        /// The lowest offset that may be another record.
        from: u64,
        /// The highest such offset.
        to: u64,
        /// The source that the partition is.
        source_name: SourceName,
    },
    /// Kafka has fewer records than were decided.
    #[error(
        "the partition ends at {end}, but records up to {reached} were decided: Kafka has lost some; find out why, then \
         end the source {source_name} (isonomy source end) and reset the offsets of the consumer group"
    )]
    Truncated {
        /// Where the partition ends.
        end: i64,
        /// Where the group is.
        reached: i64,
        /// The source that the partition is.
        source_name: SourceName,
    },
    /// The cluster does not take a record.
    #[error("{0}")]
    Call(CallError),
}

impl LaneError {
    pub(super) fn of(error: CallError, source_name: SourceName) -> LaneError {
        match error {
            CallError::Failed(Failed::Fenced) => LaneError::Fenced,
            CallError::Failed(Failed::OtherCommand { from, to }) => LaneError::OtherRecords {
                from: from.saturating_sub(1),
                to: to.saturating_sub(1),
                source_name,
            },
            error => LaneError::Call(error),
        }
    }
}
