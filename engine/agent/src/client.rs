//! The consumer, which is given its partitions by hand.

use crate::error::Error;
use crate::projection::Positions;
use crate::settings::Settings;
use isonomy_kafka::cursor::TopicId;
use isonomy_kafka::{is_lost_connection, topic_id};
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};
use std::sync::Mutex;
use std::time::Duration;

/// How long one question may take before the answer counts as missing.
const PATIENCE: Duration = Duration::from_secs(2);
/// The room for records that Kafka has sent ahead, in KiB.
const QUEUE_KIB_MAX: usize = 16 << 10;

/// What a client of Kafka remembers: its newest trouble.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Mutex<Option<String>>);

impl ClientContext for Trouble {
    fn error(&self, error: KafkaError, reason: &str) {
        log::debug!("Kafka: {error}: {reason}");
        *self.0.lock().expect("nobody panics with this lock") = Some(reason.to_owned());
    }

    /// librdkafka's own lines repeat themselves while Kafka is down. What the agent says of a trouble has the reason.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        log::debug!("librdkafka: {facility}: {text}");
    }
}

impl ConsumerContext for Trouble {}

/// A reader of what is committed.
pub(crate) struct Reader<'a> {
    settings: &'a Settings,
    consumer: BaseConsumer<Trouble>,
}

/// What is there to read.
pub(crate) enum Polled<'a> {
    Record(BorrowedMessage<'a>),
    /// Nothing for now.
    Nothing,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(settings: &'a Settings) -> Result<Reader<'a>, Error> {
        let mut config = settings.kafka().client();
        config
            // librdkafka wants a name, though nobody joins a group.
            .set("group.id", "isonomy-agent")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "100")
            .set("queued.max.messages.kbytes", QUEUE_KIB_MAX.to_string());
        let made = BaseConsumer::from_config_and_context(&config, Trouble::default());
        let failed =
            |error| Error::of_kafka(&settings.brokers, &settings.topic, "made a reader", &error, None);
        Ok(Reader { settings, consumer: made.map_err(failed)? })
    }

    fn failed(&self, asked: &'static str) -> impl Fn(KafkaError) -> Error {
        move |error| {
            let trouble = self.consumer.context().0.lock().expect("nobody panics with this lock").clone();
            Error::of_kafka(&self.settings.brokers, &self.settings.topic, asked, &error, trouble)
        }
    }

    /// The id that the topic has now.
    pub(crate) fn topic_id(&self) -> Result<TopicId, Error> {
        let topic = &self.settings.topic;
        let asked = topic_id(self.consumer.client(), topic, PATIENCE);
        let id = asked.map_err(|code| self.failed("told the topic's id")(KafkaError::MetadataFetch(code)))?;
        if id == TopicId::default() { Err(Error::NoId(topic.clone())) } else { Ok(id) }
    }

    /// The partitions to read.
    pub(crate) fn partitions(&self) -> Result<Vec<i32>, Error> {
        let topic = &self.settings.topic;
        let metadata = self.consumer.fetch_metadata(Some(topic), PATIENCE);
        let metadata = metadata.map_err(self.failed("told the topic's partitions"))?;
        let there = metadata.topics().first().map(|topic| topic.partitions().len()).unwrap_or_default();
        if there == 0 {
            return Err(Error::Missing { brokers: self.settings.brokers.clone(), topic: topic.clone() });
        }
        let Some(named) = &self.settings.partitions else { return Ok((0..there as i32).collect()) };
        match named.iter().find(|partition| !(0..there as i32).contains(*partition)) {
            Some(&partition) => {
                Err(Error::NoPartition { topic: topic.clone(), partition, partitions: there })
            }
            None => Ok(named.iter().copied().collect()),
        }
    }

    /// The first offsets of these partitions.
    pub(crate) fn firsts(&self, partitions: &[i32]) -> Result<Positions, Error> {
        self.offsets(partitions, Offset::Beginning)
    }

    /// The offsets behind the last committed records of these partitions.
    pub(crate) fn ends(&self, partitions: &[i32]) -> Result<Positions, Error> {
        self.offsets(partitions, Offset::End)
    }

    /// Asks all brokers at once. librdkafka takes a place of this kind for a time.
    fn offsets(&self, partitions: &[i32], place: Offset) -> Result<Positions, Error> {
        let failed = self.failed("told where the partitions begin and end");
        let places = partitions.iter().map(|partition| (*partition, place));
        let asked = self.consumer.offsets_for_times(self.list(places)?, PATIENCE).map_err(&failed)?;
        let offset = |at: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match at.offset() {
            Offset::Offset(offset) => at.error().map(|()| (at.partition(), offset)),
            _ => Err(at.error().err().unwrap_or(KafkaError::OffsetFetch(Code::Unknown))),
        };
        asked.elements().iter().map(offset).collect::<Result<_, _>>().map_err(failed)
    }

    fn list(&self, places: impl Iterator<Item = (i32, Offset)>) -> Result<TopicPartitionList, Error> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in places {
            let added = list.add_partition_offset(&self.settings.topic, partition, offset);
            added.map_err(self.failed("given the partitions"))?;
        }
        Ok(list)
    }

    /// Begins to read at these positions.
    pub(crate) fn assign(&self, positions: &Positions) -> Result<(), Error> {
        let places = positions.iter().map(|(partition, offset)| (*partition, Offset::Offset(*offset)));
        self.consumer.assign(&self.list(places)?).map_err(self.failed("given the partitions"))
    }

    /// The offsets behind everything that was polled, also behind marks of transactions and what was given up. A partition
    /// of which nothing was polled is missing.
    pub(crate) fn positions(&self) -> Result<Positions, Error> {
        let positions = self.consumer.position().map_err(self.failed("told the positions"))?;
        let known = positions.elements().into_iter().filter_map(|at| match at.offset() {
            Offset::Offset(offset) => Some((at.partition(), offset)),
            _ => None,
        });
        Ok(known.collect())
    }

    /// The next record, or nothing after so long.
    pub(crate) fn poll(&self, at_most: Duration) -> Result<Polled<'_>, Error> {
        match self.consumer.poll(at_most) {
            Some(Ok(message)) => Ok(Polled::Record(message)),
            Some(Err(error)) if !is_lost_connection(&error) => Err(self.failed("given records")(error)),
            _ => Ok(Polled::Nothing),
        }
    }
}
