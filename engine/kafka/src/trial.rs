//! The pipeline on trial: events go to the topic of the proposals, and a plain consumer reads the decisions and checks each.

use crate::check::make_topics;
use crate::decision::{Decision, decode};
use rdkafka::admin::{AdminClient, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The keys that events have, in turn.
const KEYS: u64 = 10_000;
/// How long nothing may come before a reader gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// The wait when the producer has no room.
const ROOM_PAUSE: Duration = Duration::from_millis(1);
/// How long a consumer waits before it looks at the clock.
const STEP: Duration = Duration::from_millis(100);

/// Why a trial has no result, or a bad one.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// Kafka does not do as it is asked.
    #[error("Kafka at {brokers}: {error}; check that it runs and is reached from here")]
    Kafka {
        /// The brokers.
        brokers: String,
        /// What librdkafka says.
        error: KafkaError,
    },
    /// Events are missing.
    #[error(
        "{read} of {wanted} decisions came, and none for {PATIENCE:?}; see the status and the logs of the replicas"
    )]
    Missing {
        /// How many have come.
        read: u64,
        /// How many should have.
        wanted: u64,
    },
    /// A decision is not the next one of its key.
    #[error(
        "decision {key_seq} of key {key} is event {event}, but it must be decision {next} and event {expected}"
    )]
    Wrong {
        /// The number of the key.
        key: u64,
        /// The number of the decision that came.
        key_seq: u64,
        /// The event that was decided.
        event: u64,
        /// The number of the decision that had to come.
        next: u64,
        /// The event that had to be decided.
        expected: u64,
    },
    /// A record is no decision of an event.
    #[error("a record of topic {0} is no decision of an event; use a topic of the trial's own")]
    Stray(String),
}

/// Where a trial is made.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Some brokers, as `HOST:PORT,HOST:PORT`.
    pub brokers: String,
}

impl Trial {
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn failed(&self, error: KafkaError) -> TrialError {
        TrialError::Kafka { brokers: self.brokers.clone(), error }
    }

    /// Makes a topic with one copy of each record, unless it is there.
    ///
    /// # Errors
    ///
    /// [`TrialError::Kafka`].
    pub fn create(&self, topic: &str, partitions: usize) -> Result<(), TrialError> {
        let admin: AdminClient<DefaultClientContext> =
            self.client().create().map_err(|error| self.failed(error))?;
        let new = NewTopic::new(topic, partitions as i32, TopicReplication::Fixed(1));
        make_topics(&admin, &[new]).map_err(|error| self.failed(error))
    }

    /// Sends the events of these numbers to a topic. All of an event's key go to one partition, in their order.
    ///
    /// # Errors
    ///
    /// [`TrialError::Kafka`].
    pub fn produce(&self, topic: &str, events: Range<u64>) -> Result<(), TrialError> {
        let mut config = self.client();
        config.set("enable.idempotence", "true").set("linger.ms", "5");
        let producer: ThreadedProducer<DefaultProducerContext> =
            config.create().map_err(|error| self.failed(error))?;
        for event in events {
            let (key, value) = (format!("event-{}", event % KEYS), format!("{{\"event\":{event}}}"));
            let mut record = BaseRecord::to(topic).key(&key).payload(&value);
            while let Err((error, back)) = producer.send(record) {
                if error.rdkafka_error_code() != Some(Code::QueueFull) {
                    return Err(self.failed(error));
                }
                record = back;
                sleep(ROOM_PAUSE);
            }
        }
        producer.flush(PATIENCE).map_err(|error| self.failed(error))
    }

    /// A plain consumer of all partitions of a topic, from the beginning.
    ///
    /// # Errors
    ///
    /// [`TrialError::Kafka`].
    pub fn reader(&self, topic: &str, partitions: usize) -> Result<TrialReader, TrialError> {
        let mut config = self.client();
        config.set("group.id", "isonomy-trial").set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().map_err(|error| self.failed(error))?;
        let mut list = TopicPartitionList::new();
        let added = (0..partitions as i32)
            .try_for_each(|partition| list.add_partition_offset(topic, partition, Offset::Beginning));
        added.and_then(|()| consumer.assign(&list)).map_err(|error| self.failed(error))?;
        let decided = vec![0; KEYS as usize];
        Ok(TrialReader { trial: self.clone(), topic: topic.into(), consumer, read: 0, decided })
    }
}

/// A plain consumer that reads what is committed.
pub struct TrialReader {
    trial: Trial,
    topic: String,
    consumer: BaseConsumer,
    read: u64,
    /// How many decisions of each key have come.
    decided: Vec<u64>,
}

impl TrialReader {
    /// Reads until so many decisions have come in all, and checks that each is the next one of its key. An event that is
    /// decided twice, left out or put before another one is found out by that.
    ///
    /// # Errors
    ///
    /// [`TrialError`].
    pub fn read_to(&mut self, wanted: u64) -> Result<(), TrialError> {
        let mut decisions = Vec::new();
        self.poll_to(wanted, |message, read, decided| {
            decode(message, &mut decisions).ok()?;
            for Decision { key, key_seq, value, .. } in decisions.drain(..) {
                if let Err(wrong) = note(read, decided, &key, value.as_deref()?, key_seq)? {
                    return Some(Err(wrong));
                }
            }
            Some(Ok(()))
        })
    }

    /// Reads until so many records have come in all, whatever they are.
    ///
    /// # Errors
    ///
    /// [`TrialError`].
    pub fn count_to(&mut self, wanted: u64) -> Result<(), TrialError> {
        self.poll_to(wanted, |_, read, _| {
            *read += 1;
            Some(Ok(()))
        })
    }

    /// Takes records in until so many events have come. `take_in` gives `None` for a record that is none of an event.
    fn poll_to(
        &mut self,
        wanted: u64,
        mut take_in: impl FnMut(&BorrowedMessage<'_>, &mut u64, &mut [u64]) -> Option<Result<(), TrialError>>,
    ) -> Result<(), TrialError> {
        let mut newest = Instant::now();
        while self.read < wanted {
            let Some(polled) = self.consumer.poll(STEP) else {
                if newest.elapsed() > PATIENCE {
                    return Err(TrialError::Missing { read: self.read, wanted });
                }
                continue;
            };
            newest = Instant::now();
            let message = polled.map_err(|error| self.trial.failed(error))?;
            take_in(&message, &mut self.read, &mut self.decided)
                .ok_or_else(|| TrialError::Stray(self.topic.clone()))??;
        }
        Ok(())
    }
}

/// Checks a decision against the one before of its key; `None` if it is no event.
fn note(
    read: &mut u64,
    decided: &mut [u64],
    key: &[u8],
    value: &[u8],
    key_seq: u64,
) -> Option<Result<(), TrialError>> {
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let key: u64 = text(key)?.strip_prefix("event-")?.parse().ok()?;
    let event: u64 = text(value)?.strip_prefix("{\"event\":")?.strip_suffix('}')?.parse().ok()?;
    let before = decided.get_mut(key as usize)?;
    let (next, expected) = (*before + 1, key + *before * KEYS);
    (*before, *read) = (next, *read + 1);
    Some(if (key_seq, event) == (next, expected) {
        Ok(())
    } else {
        Err(TrialError::Wrong { key, key_seq, event, next, expected })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_that_is_not_the_next_one_of_its_key_is_found_out() {
        let (mut read, mut decided) = (0, vec![0; KEYS as usize]);
        let mut note = |key: u64, event: u64, key_seq| {
            let (key, value) = (format!("event-{key}"), format!("{{\"event\":{event}}}"));
            note(&mut read, &mut decided, key.as_bytes(), value.as_bytes(), key_seq)
        };
        assert!(matches!(note(7, 7, 1), Some(Ok(()))));
        assert!(matches!(note(7, 7 + KEYS, 2), Some(Ok(()))));
        assert!(matches!(note(7, 7 + KEYS, 3), Some(Err(TrialError::Wrong { .. }))), "it came twice");
        assert!(matches!(note(8, 8 + KEYS, 1), Some(Err(TrialError::Wrong { .. }))), "one was left out");
        assert!(matches!(note(9, 9, 2), Some(Err(TrialError::Wrong { .. }))), "the number is wrong");
        assert!(note(KEYS, 1, 1).is_none());
    }
}
