//! Clients of Kafka, and what they remember of their troubles.

use crate::error::Error;
use crate::settings::Settings;
use isonomy_wire::id::ShardId;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, DeliveryResult, ProducerContext};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// How long one question may take before the answer counts as missing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// The room for records that Kafka has not taken yet, in bytes and in records. Beyond either, taking more waits.
const QUEUE_BYTES_MAX: usize = 64 << 20;
const QUEUE_RECORDS_MAX: usize = 200_000;
/// Whether a record is a decision or the cursor, as its delivery report repeats.
pub(crate) const DECISION: usize = 1;
pub(crate) const CURSOR: usize = 2;

/// What a client of Kafka remembers: its newest trouble, and where its records went.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    trouble: Mutex<Option<String>>,
    first: AtomicI64,
    end: AtomicI64,
}

impl Memory {
    /// A transaction begins.
    pub(crate) fn begin(&self) {
        self.first.store(i64::MAX, Ordering::Relaxed);
    }

    /// The lowest offset of a decision that Kafka took in this transaction; the largest number if it took none.
    pub(crate) fn first(&self) -> u64 {
        self.first.load(Ordering::Relaxed).unsigned_abs()
    }

    /// The offset behind the last decision that Kafka took; 0 if it took none.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed).unsigned_abs()
    }

    fn set_trouble(&self, text: String) {
        *self.trouble.lock().expect("nobody panics with this lock") = Some(text);
    }
}

impl ClientContext for Memory {
    fn error(&self, error: KafkaError, reason: &str) {
        log::debug!("Kafka: {error}: {reason}");
        self.set_trouble(reason.to_owned());
    }
}

impl ConsumerContext for Memory {}

impl ProducerContext for Memory {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, kind: usize) {
        match result {
            Ok(message) if kind == DECISION => {
                self.first.fetch_min(message.offset(), Ordering::Relaxed);
                self.end.fetch_max(message.offset() + 1, Ordering::Relaxed);
            }
            Ok(_) => {}
            Err((error, _)) => self.set_trouble(error.to_string()),
        }
    }
}

/// The producer of a shard.
pub(crate) type Producer = BaseProducer<Memory>;
/// A consumer that is given its partition by hand.
pub(crate) type Reader = BaseConsumer<Memory>;

/// Who asks Kafka, for the errors that come of it.
#[derive(Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) shard: ShardId,
}

impl Asking<'_> {
    /// The error of a client, whose newest trouble says more than the error does.
    pub(crate) fn failed<'e>(
        &self,
        asked: &'static str,
        memory: Option<&'e Memory>,
    ) -> impl FnOnce(KafkaError) -> Error + use<'e, '_> {
        move |error| {
            let trouble = memory.and_then(|memory| memory.trouble.lock().expect("nobody panics").clone());
            let why = trouble.map_or_else(|| error.to_string(), |trouble| format!("{error} ({trouble})"));
            Error::of_kafka(&self.settings.brokers, self.shard, asked, &error, why)
        }
    }

    /// The producer, which has not begun yet.
    pub(crate) fn producer(
        &self,
        transactional_id: &str,
        record_bytes_max: usize,
    ) -> Result<Producer, Error> {
        let mut config = self.settings.client();
        config
            .set("transactional.id", transactional_id)
            .set("message.max.bytes", record_bytes_max.to_string())
            .set("queue.buffering.max.kbytes", (QUEUE_BYTES_MAX >> 10).to_string())
            .set("queue.buffering.max.messages", QUEUE_RECORDS_MAX.to_string());
        Producer::from_config_and_context(&config, Memory::default())
            .map_err(self.failed("made a producer", None))
    }

    /// A reader of what is committed, or of everything.
    pub(crate) fn reader(&self, isolation: &str) -> Result<Reader, Error> {
        let mut config = self.settings.client();
        config
            .set("group.id", "isonomy")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "100")
            .set("isolation.level", isolation);
        Reader::from_config_and_context(&config, Memory::default())
            .map_err(self.failed("made a reader", None))
    }
}
