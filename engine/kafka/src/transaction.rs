//! The words of a transactional producer, each asked until Kafka has answered.

use crate::client::{Asking, Memory, Producer};
use crate::cursor::Cursor;
use crate::error::Error;
use crate::failpoint::{Step, pass};
use crate::record::{self, Record};
use crate::stop::Stop;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

/// How long a call waits for Kafka before it is looked whether all is to stop, and called again.
const STEP: Duration = Duration::from_secs(1);
/// The pause between two looks for delivery reports. rdkafka's own wait for so short a time would keep a core busy.
const REPORT_PAUSE: Duration = Duration::from_millis(1);
/// How often Kafka may leave a call unanswered.
const STEPS_MAX: u32 = 60;
/// How long it is tried to give up what is open, and how often.
const ABORT_STEP: Duration = Duration::from_millis(100);
const ABORTS_MAX: u32 = 20;

/// A producer that Kafka knows as the newest with its transactional id.
pub(crate) struct Transactions<'a> {
    asking: Asking<'a>,
    producer: Producer,
    stop: Arc<Stop>,
}

impl<'a> Transactions<'a> {
    /// Makes Kafka give up what the producer before has left open, and refuse everything that it sends from now on.
    pub(crate) fn fence(asking: Asking<'a>, id: &str, stop: Arc<Stop>) -> Result<Transactions<'a>, Error> {
        let producer = asking.producer(id, asking.settings.record_bytes_max())?;
        let transactions = Transactions { asking, producer, stop };
        pass(Step::Init);
        transactions.again("begun transactions", || transactions.producer.init_transactions(STEP))?;
        pass(Step::Read);
        Ok(transactions)
    }

    /// What became of the records.
    pub(crate) fn memory(&self) -> &Memory {
        self.producer.context()
    }

    /// Begins a transaction.
    pub(crate) fn begin(&self) -> Result<(), Error> {
        pass(Step::Begin);
        self.memory().begin();
        self.producer.begin_transaction().map_err(|error| self.failed("begun a transaction", error))?;
        pass(Step::Begun);
        Ok(())
    }

    /// Hands a record to librdkafka, which sends it. Waits while there is no room.
    pub(crate) fn send(&self, mut record: Record<'_>) -> Result<(), Error> {
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if !self.stop.is_set() =>
                {
                    self.wait();
                    record = back;
                }
                Err(_) if self.stop.is_set() => return Err(Error::Stopped),
                Err((error, _)) => {
                    return Err(self.failed("taken a record", error));
                }
            }
        }
    }

    /// Hears what has become of the records so far.
    pub(crate) fn poll(&self) {
        self.producer.poll(Duration::ZERO);
    }

    /// Waits a little, and then hears what has become of the records.
    fn wait(&self) {
        sleep(REPORT_PAUSE);
        self.poll();
    }

    /// Hands over the cursor, and waits until Kafka has answered for every record.
    pub(crate) fn send_cursor(&self, cursor: &Cursor) -> Result<(), Error> {
        pass(Step::Cursor);
        let settings = self.asking.settings;
        let (key, value) = (Cursor::key(&settings.topic, i32::from(cursor.shard.0)), cursor.encode());
        self.send(record::of_cursor(settings, cursor, &key, &value))?;
        pass(Step::Moved);
        // librdkafka's own way to wait does so in steps of 100 ms.
        while self.producer.in_flight_count() > 0 {
            if self.stop.is_set() {
                return Err(Error::Stopped);
            }
            self.wait();
        }
        Ok(())
    }

    /// Ends the transaction: all of it counts.
    pub(crate) fn commit(&self) -> Result<(), Error> {
        pass(Step::Commit);
        self.again("committed a transaction", || self.producer.commit_transaction(STEP))?;
        pass(Step::Committed);
        Ok(())
    }

    /// Gives up what is open, so that readers need not wait until the next producer does so. Nothing depends on it.
    pub(crate) fn abort(&self) {
        for _ in 0..ABORTS_MAX {
            // Reports of records that were given up must be fetched before Kafka is told.
            match self.producer.abort_transaction(ABORT_STEP) {
                Err(KafkaError::Transaction(error)) if error.is_retriable() => self.wait(),
                _ => return,
            }
        }
    }

    /// What an error means. Once librdkafka has given up, each call says only that, and the cause is to be asked for.
    fn failed(&self, asked: &'static str, error: KafkaError) -> Error {
        let cause = self.producer.client().fatal_error().map(|(code, _)| KafkaError::Global(code));
        self.asking.failed(asked, Some(self.memory()))(cause.unwrap_or(error))
    }

    /// Calls librdkafka until it has an answer from Kafka: after a time-out the same call goes on where it was.
    fn again(&self, asked: &'static str, call: impl Fn() -> Result<(), KafkaError>) -> Result<(), Error> {
        let mut steps = 0;
        loop {
            let Err(error) = call() else { return Ok(()) };
            steps += 1;
            let is_open = match &error {
                KafkaError::Transaction(error) => error.is_retriable(),
                KafkaError::Flush(_) => true,
                _ => false,
            };
            if self.stop.is_set() {
                return Err(Error::Stopped);
            }
            if !is_open || steps == STEPS_MAX {
                return Err(self.failed(asked, error));
            }
            self.wait();
        }
    }
}
