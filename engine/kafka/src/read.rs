//! Reading the cursor.

use crate::client::{Asking, Memory, PATIENCE, Reader};
use crate::cursor::Cursor;
use crate::error::Error;
use crate::settings::Settings;
use isonomy_wire::id::ShardId;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

/// How far before the end the newest cursor is looked for first, in records; then so many times as far each time.
const WINDOW: i64 = 64;
const WINDOW_GROWTH: i64 = 16;
/// How long a reader waits for records before it looks again where it stands.
const STEP: Duration = Duration::from_millis(100);

/// The published cursor of a shard, as everyone sees it who reads what is committed; `None` if nothing was published.
///
/// # Errors
///
/// [`Error`] if Kafka does not answer, or if the topic has something else than a cursor.
pub fn published(settings: &Settings, shard: ShardId) -> Result<Option<Cursor>, Error> {
    settings.check()?;
    let asking = Asking { settings, shard };
    newest_cursor(asking, &asking.reader("read_committed")?)
}

/// The newest committed cursor of the shard. All that was written before this call and is committed is seen if `all` reads
/// everything; if it reads what is committed, all before the first open transaction.
pub(crate) fn newest_cursor(asking: Asking<'_>, all: &Reader) -> Result<Option<Cursor>, Error> {
    let (settings, partition) = (asking.settings, i32::from(asking.shard.0));
    let topic = &settings.cursor_topic;
    let (first, end) = bounds(asking, topic, partition, all)?;
    let key = Cursor::key(&settings.topic, partition);
    let mut window = WINDOW;
    let mut until = end;
    while until > first {
        let from = (end - window).max(first);
        let mut newest = None;
        read_committed(asking, topic, partition, from..until, |message| {
            if message.key() == Some(key.as_bytes()) {
                newest = message.payload().map(<[u8]>::to_vec);
            }
            ControlFlow::Continue(())
        })?;
        if let Some(bytes) = newest {
            let cursor = Cursor::decode(&bytes);
            return cursor.map(Some).map_err(|bad| Error::BadCursor { topic: topic.clone(), bad });
        }
        until = from;
        window = window.saturating_mul(WINDOW_GROWTH);
    }
    Ok(None)
}

/// Whether a partition has any committed record.
pub(crate) fn has_records(
    asking: Asking<'_>,
    topic: &str,
    partition: i32,
    all: &Reader,
) -> Result<bool, Error> {
    let (first, end) = bounds(asking, topic, partition, all)?;
    let mut is_found = first > 0;
    if end > first {
        read_committed(asking, topic, partition, first..end, |_| {
            is_found = true;
            ControlFlow::Break(())
        })?;
    }
    Ok(is_found)
}

/// The first offset of a partition and the one behind the last that the reader may see.
pub(crate) fn bounds(
    asking: Asking<'_>,
    topic: &str,
    partition: i32,
    all: &Reader,
) -> Result<(i64, i64), Error> {
    let failed = asking.failed("told where the topics end", Some(all.client().context().as_ref()));
    all.fetch_watermarks(topic, partition, PATIENCE).map_err(failed)
}

/// Gives each committed record of a range until there is a break. Waits until no transaction is open in it, since Kafka
/// shows nothing behind the first open one.
fn read_committed(
    asking: Asking<'_>,
    topic: &str,
    partition: i32,
    range: Range<i64>,
    mut each: impl FnMut(&BorrowedMessage<'_>) -> ControlFlow<()>,
) -> Result<(), Error> {
    let asked = "given the cursors";
    let reader = asking.reader("read_committed")?;
    let memory: &Memory = reader.client().context();
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(topic, partition, Offset::Offset(range.start))
        .and_then(|()| reader.assign(&assignment))
        .map_err(asking.failed(asked, Some(memory)))?;
    let mut deadline = Instant::now() + PATIENCE;
    while position(&reader, topic, partition).map_err(asking.failed(asked, Some(memory)))? < range.end {
        match reader.poll(STEP) {
            Some(Ok(message)) if message.offset() < range.end => {
                deadline = Instant::now() + PATIENCE;
                if each(&message).is_break() {
                    break;
                }
            }
            // A record behind the range, or a look at the end of the partition.
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) if is_lost_connection(&error) => {}
            Some(Err(error)) => return Err(asking.failed(asked, Some(memory))(error)),
        }
        if Instant::now() > deadline {
            return Err(Error::Unanswered {
                brokers: asking.settings.brokers.clone(),
                asked,
                why: format!("partition {partition} of topic {topic} has an open transaction, or no leader"),
            });
        }
    }
    Ok(())
}

/// Whether a broker or the leader of a partition is gone. librdkafka looks for another one by itself.
pub fn is_lost_connection(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::BrokerTransportFailure | Code::AllBrokersDown | Code::NotLeaderForPartition | Code::Resolve
        )
    )
}

/// The offset behind everything that the reader has passed, also markers of transactions; -1 before that.
fn position(reader: &Reader, topic: &str, partition: i32) -> Result<i64, KafkaError> {
    let positions = reader.position()?;
    let found = positions.find_partition(topic, partition).map(|it| it.offset());
    Ok(if let Some(Offset::Offset(offset)) = found { offset } else { -1 })
}
