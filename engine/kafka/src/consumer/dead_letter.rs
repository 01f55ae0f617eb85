//! Where records go that cannot be proposed.

use super::record::Poison;
use super::settings::ConsumerSettings;
use crate::check::make_topics;
use crate::cursor::TopicId;
use rdkafka::admin::{AdminClient, NewTopic, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// The pause between two tries to send a letter, if librdkafka has no room for it or Kafka refuses it.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Makes the topic of the dead letters, with so many copies of each record.
pub(super) fn create_topic(settings: &ConsumerSettings, copies: usize) -> KafkaResult<()> {
    let admin = AdminClient::from_config_and_context(&settings.producer(), Answers)?;
    let topic = NewTopic::new(&settings.dead_letter_topic, 1, TopicReplication::Fixed(copies as i32));
    // Another replica may make it at the same time.
    make_topics(&admin, &[topic])
}

/// What Kafka says of a letter.
type Delivery = Result<(), KafkaError>;

struct Answers;

impl ClientContext for Answers {
    /// Properties that are the consumer's are ignored here, and no news.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        log::debug!("librdkafka: {facility} {text}");
    }
}

impl ProducerContext for Answers {
    type DeliveryOpaque = Box<oneshot::Sender<Delivery>>;

    fn delivery(&self, result: &DeliveryResult<'_>, asking: Self::DeliveryOpaque) {
        // Nobody waits if the partition was given up meanwhile.
        let _ = asking.send(result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone()));
    }
}

/// The way to the topic of dead letters.
pub(super) struct DeadLetters {
    producer: ThreadedProducer<Answers>,
    topic: String,
    /// The topic that the records come from.
    from: String,
}

impl DeadLetters {
    pub(super) fn new(settings: &ConsumerSettings) -> Result<DeadLetters, KafkaError> {
        let producer = ThreadedProducer::from_config_and_context(&settings.producer(), Answers)?;
        Ok(DeadLetters { producer, topic: settings.dead_letter_topic.clone(), from: settings.topic.clone() })
    }

    /// Sends a record with the reason, as often as it takes. A value that the topic does not take is left out.
    pub(super) async fn send(&self, topic: TopicId, poison: Poison, record: &OwnedMessage) {
        let mut value = record.payload();
        loop {
            let headers = self.headers(topic, poison, record, value.is_none() && record.payload().is_some());
            let error = match self.try_send(record.key(), value, headers).await {
                Ok(()) => return,
                Err(error) => error,
            };
            match error.rdkafka_error_code() {
                Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) if value.is_some() => value = None,
                Some(Code::QueueFull) => sleep(RETRY_PAUSE).await,
                _ => {
                    log::warn!(
                        "A dead letter is not taken by topic {}: {error}; it is sent again",
                        self.topic
                    );
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    async fn try_send(&self, key: Option<&[u8]>, value: Option<&[u8]>, headers: OwnedHeaders) -> Delivery {
        let (asking, answer) = oneshot::channel();
        let mut letter = BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.topic, Box::new(asking));
        letter = letter.headers(headers);
        letter.key = key;
        letter.payload = value;
        self.producer.send(letter).map_err(|(error, _)| error)?;
        answer.await.unwrap_or(Err(KafkaError::Canceled))
    }

    /// The headers of the record, and behind them what became of it.
    fn headers(&self, topic: TopicId, poison: Poison, record: &OwnedMessage, is_cut: bool) -> OwnedHeaders {
        let mut headers = OwnedHeaders::new();
        for header in record.headers().into_iter().flat_map(Headers::iter) {
            headers = headers.insert(header);
        }
        let facts = [
            ("isonomy-reason", poison.name().to_owned()),
            ("isonomy-why", poison.to_string()),
            ("isonomy-topic", self.from.clone()),
            ("isonomy-topic-id", topic.to_string()),
            ("isonomy-partition", record.partition().to_string()),
            ("isonomy-offset", record.offset().to_string()),
        ];
        let cut = ("isonomy-value-left-out", record.payload().map_or(0, <[u8]>::len).to_string());
        for (key, value) in facts.iter().chain(is_cut.then_some(&cut)) {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        headers
    }
}
