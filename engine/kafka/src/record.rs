//! Batches as records of Kafka.

use crate::client::{CURSOR, DECISION};
use crate::cursor::Cursor;
use crate::settings::{Format, Settings};
use isonomy_wire::published::{Decision, Effect, Origin, PublishedBatch};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

/// A record without its kind.
pub(crate) type Record<'a> = BaseRecord<'a, [u8], [u8], usize>;

/// Gives the records of a batch, in the order of execution.
pub(crate) fn each<E>(
    settings: &Settings,
    batch: &PublishedBatch<'_>,
    mut send: impl FnMut(Record<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let origin = batch.origin();
    let empty = || Record::with_opaque_to(&settings.topic, DECISION).partition(i32::from(origin.shard.0));
    match settings.format {
        Format::Batch => send(empty().payload(batch.bytes())),
        Format::Record => batch.decisions().try_for_each(|decision| {
            let record = empty().key(decision.key).headers(headers(origin, &decision));
            send(match decision.effect {
                Effect::Decided { .. } => record.payload(decision.value),
                Effect::Deleted { .. } => record,
            })
        }),
    }
}

fn headers(origin: &Origin, decision: &Decision<'_>) -> OwnedHeaders {
    let id = origin.command(u32::from(decision.index)).to_string();
    let (Effect::Decided { key_seq } | Effect::Deleted { key_seq }) = decision.effect;
    OwnedHeaders::new_with_capacity(3)
        .insert(Header { key: "id", value: Some(&id) })
        .insert(Header { key: "key_seq", value: Some(&key_seq.to_string()) })
        .insert(Header { key: "epoch", value: Some(&origin.epoch.0.to_string()) })
}

/// The record of a cursor: key and value are given, since it borrows them.
pub(crate) fn of_cursor<'a>(
    settings: &'a Settings,
    cursor: &Cursor,
    key: &'a str,
    value: &'a [u8],
) -> Record<'a> {
    let partition = i32::from(cursor.shard.0);
    Record::with_opaque_to(&settings.cursor_topic, CURSOR)
        .partition(partition)
        .key(key.as_bytes())
        .payload(value)
}
