//! One session of a publisher: it fences the one before, reads the cursor, and publishes until something fails.

use super::record::{self, Record};
use super::status::{Meters, Taken};
use super::stop::Stop;
use super::{Publication, Source};
use crate::check::check;
use crate::client::{Asking, Producer, Reader};
use crate::cursor::{Cursor, TopicId};
use crate::error::Error;
use crate::read::{bounds, has_records, newest_cursor};
use crate::settings::Settings;
use isonomy_wire::published::PublishedBatch;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a call waits for Kafka before the publisher looks whether it is to stop, and calls again.
const STEP: Duration = Duration::from_secs(1);
/// How long a publisher waits for batches before it looks whether it is to stop.
const IDLE_STEP: Duration = Duration::from_millis(100);
/// How long delivery reports are awaited at once.
const REPORT_STEP: Duration = Duration::from_millis(1);
/// How often Kafka may leave a call unanswered before the session begins anew.
const STEPS_MAX: u32 = 60;
/// How long the publisher tries to give up what is open, and how often.
const ABORT_STEP: Duration = Duration::from_millis(100);
const ABORTS_MAX: u32 = 20;

/// A publisher that Kafka knows as the newest of its shard.
pub(super) struct Session<'a, S> {
    asking: Asking<'a>,
    publication: Publication,
    source: &'a mut S,
    stop: Arc<Stop>,
    meters: Arc<Meters>,
    producer: Producer,
    cursor: Cursor,
}

impl<'a, S: Source> Session<'a, S> {
    /// P4: fences the publisher before this one, and only then asks what is published.
    pub(super) fn open(
        settings: &'a Settings,
        publication: Publication,
        source: &'a mut S,
        stop: Arc<Stop>,
        meters: Arc<Meters>,
    ) -> Result<Session<'a, S>, Error> {
        let asking = Asking { settings, shard: publication.shard };
        let reader = asking.reader("read_uncommitted")?;
        let topic = check(asking, publication.shards, &reader)?;
        // Who lacks decisions that are not published finds that out before it fences anybody. For this reader, partitions end
        // before the first open transaction: that of a publisher that has died stays open until it is fenced.
        if source.may_lack() {
            let glance = asking.reader("read_committed")?;
            source.rewind(&adopted(asking, publication, topic, &glance)?).map_err(Error::Source)?;
        }
        let id = publication.transactional_id(&settings.topic);
        let producer = asking.producer(&id, settings.record_bytes_max())?;
        again(asking, &stop, "begun transactions", &producer, || producer.init_transactions(STEP))?;
        let cursor = adopted(asking, publication, topic, &reader)?;
        source.rewind(&cursor).map_err(Error::Source)?;
        meters.opened(cursor);
        Ok(Session { asking, publication, source, stop, meters, producer, cursor })
    }

    /// Publishes what there is in one transaction. Waits until there is something.
    pub(super) fn transaction(&mut self) -> Result<(), Error> {
        let mut next = self.cursor;
        let taken = self.fill(&mut next)?;
        next.end = next.end.max(self.producer.context().end());
        let (key, value) = (Cursor::key(&self.asking.settings.topic, i32::from(next.shard.0)), next.encode());
        let record = record::of_cursor(self.asking.settings, &next, &key, &value);
        send(self.asking, &self.stop, &self.producer, record)?;
        self.drain()?;
        again(self.asking, &self.stop, "committed a transaction", &self.producer, || {
            self.producer.commit_transaction(STEP)
        })?;
        self.cursor = next;
        self.source.on_published(&next);
        self.meters.committed(&taken, next);
        Ok(())
    }

    /// P3: begins a transaction with the first batch that is not published, and takes batches until the bounds are reached. A
    /// component is taken as a whole, however large it is.
    fn fill(&mut self, next: &mut Cursor) -> Result<Taken, Error> {
        let settings = self.asking.settings;
        let mut taken = Taken::default();
        let mut until = None;
        let mut is_whole = true;
        loop {
            if self.stop.is_set() {
                return Err(Error::Stopped);
            }
            let left = until.map(|until: Instant| until.saturating_duration_since(Instant::now()));
            if is_whole && (taken.bytes >= settings.batch_bytes || left == Some(Duration::ZERO)) {
                return Ok(taken);
            }
            if let Some(milestone) = self.source.passed() {
                next.pass(&milestone);
                if until.is_none() {
                    self.cursor = *next;
                }
            }
            let Some(bytes) = self.source.next().map_err(Error::Source)? else {
                self.source.wait(left.filter(|_| is_whole).map_or(IDLE_STEP, |left| left.min(IDLE_STEP)));
                continue;
            };
            let batch = PublishedBatch::parse(bytes)?;
            let origin = *batch.origin();
            if (origin.cluster, origin.shard) != (self.publication.cluster, self.publication.shard) {
                return Err(Error::Stray { cluster: origin.cluster, shard: origin.shard });
            }
            if self.cursor.covers(&origin) {
                continue;
            }
            next.add(&origin)?;
            if until.is_none() {
                let failed = self.asking.failed("begun a transaction", Some(self.producer.context()));
                self.producer.begin_transaction().map_err(failed)?;
                until = Some(Instant::now() + settings.batch_time);
            }
            record::each(settings, &batch, |record| send(self.asking, &self.stop, &self.producer, record))?;
            self.producer.poll(Duration::ZERO);
            is_whole = !origin.has_more;
            taken.decisions += batch.len() as u64;
            taken.batches += 1;
            taken.bytes += batch.bytes().len();
        }
    }

    /// Waits until Kafka has answered for every record. librdkafka's own way to do so waits in steps of 100 ms.
    fn drain(&self) -> Result<(), Error> {
        while self.producer.in_flight_count() > 0 {
            if self.stop.is_set() {
                return Err(Error::Stopped);
            }
            self.producer.poll(REPORT_STEP);
        }
        Ok(())
    }

    /// Gives up what is open, so that readers need not wait until the next publisher does so. Nothing depends on it.
    pub(super) fn abort(&self) {
        for _ in 0..ABORTS_MAX {
            // Reports of records that were given up must be fetched before Kafka is told.
            match self.producer.abort_transaction(ABORT_STEP) {
                Err(KafkaError::Transaction(error)) if error.is_retriable() => {
                    self.producer.poll(REPORT_STEP)
                }
                _ => return,
            }
        }
    }
}

/// Hands a record to librdkafka, which sends it. Waits while there is no room.
fn send(asking: Asking<'_>, stop: &Stop, producer: &Producer, mut record: Record<'_>) -> Result<(), Error> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) if !stop.is_set() => {
                producer.poll(REPORT_STEP);
                record = back;
            }
            Err(_) if stop.is_set() => return Err(Error::Stopped),
            Err((error, _)) => return Err(asking.failed("taken a record", Some(producer.context()))(error)),
        }
    }
}

/// Calls librdkafka until it has an answer from Kafka: after a time-out the same call goes on where it was.
fn again(
    asking: Asking<'_>,
    stop: &Stop,
    asked: &'static str,
    producer: &Producer,
    call: impl Fn() -> Result<(), KafkaError>,
) -> Result<(), Error> {
    let mut steps = 0;
    loop {
        let error = match call() {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        steps += 1;
        let is_open = match &error {
            KafkaError::Transaction(error) => error.is_retriable(),
            KafkaError::Flush(_) => true,
            _ => false,
        };
        if stop.is_set() {
            return Err(Error::Stopped);
        }
        if !is_open || steps == STEPS_MAX {
            return Err(asking.failed(asked, Some(producer.context()))(error));
        }
        producer.poll(REPORT_STEP);
    }
}

/// The cursor to go on from, if the topic is this publication's.
fn adopted(asking: Asking<'_>, publication: Publication, id: TopicId, all: &Reader) -> Result<Cursor, Error> {
    let Publication { cluster, shard, .. } = publication;
    let (topic, partition) = (&asking.settings.topic, i32::from(shard.0));
    let Some(cursor) = newest_cursor(asking, all)? else {
        return match has_records(asking, topic, partition, all)? {
            true => Err(Error::NoCursor { topic: topic.clone(), partition }),
            false => Ok(Cursor::nothing(cluster, shard, id)),
        };
    };
    if (cursor.cluster, cursor.shard) != (cluster, shard) {
        return Err(Error::Owned { topic: topic.clone(), cluster, shard, there: Box::new(cursor) });
    }
    if cursor.topic != id {
        return Err(Error::Replaced { topic: topic.clone(), cursor: Box::new(cursor) });
    }
    let end = bounds(asking, topic, partition, all)?.1.unsigned_abs();
    if end < cursor.end {
        return Err(Error::Truncated { topic: topic.clone(), partition, end, reached: cursor.end });
    }
    Ok(cursor)
}
