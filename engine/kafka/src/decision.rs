//! A decision as it stands in the topic, in either format of docs/KAFKA.md.

use isonomy_wire::id::{CommandId, NoCommandId};
use isonomy_wire::published::{BadBatch, Effect, PublishedBatch};
use rdkafka::message::{Headers, Message};
use std::str::FromStr;

/// One decision, and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The partition of the topic, which is the shard that has decided.
    pub partition: i32,
    /// The offset of the record. A record of format `batch` holds many decisions, which then have the same offset.
    pub offset: i64,
    /// The id of the command, which says epoch, shard, instance, and place in the instance. No other decision of the
    /// cluster has it.
    pub id: CommandId,
    /// The key, from 1 byte on.
    pub key: Vec<u8>,
    /// The number of the decision in the key's life, from 1. A delete has that of the key's last decision.
    pub key_seq: u64,
    /// The value, which may be empty; `None` if the decision has ended the key's life.
    pub value: Option<Vec<u8>>,
    /// When the decision was published, in milliseconds since 1970, as the publisher's clock says.
    pub time_ms: Option<i64>,
}

/// Why a record has no decisions.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadRecord {
    /// The record has neither the headers of one format nor the magic of the other.
    #[error(
        "it has neither the header `id` nor the bytes of a batch; check that a cluster publishes to this topic, and nobody else"
    )]
    Foreign,
    /// A header of format `record` is missing, or is no text of its kind.
    #[error("its header `{0}` is missing or damaged; check that nobody else writes to this topic")]
    Header(&'static str),
    /// A record of format `record` without a key.
    #[error("it has no key; check that nobody else writes to this topic")]
    NoKey,
    /// A damaged batch, or one of another release.
    #[error("{0}")]
    Batch(#[from] BadBatch),
}

/// Adds the decisions of a record, in their order. The record itself tells which format it has.
///
/// # Errors
///
/// [`BadRecord`] if the record is none of a cluster; nothing is added.
pub fn decode<M: Message>(message: &M, into: &mut Vec<Decision>) -> Result<(), BadRecord> {
    match header(message, "id") {
        Some(id) => into.push(of_record(message, id)?),
        None => of_batch(message, into)?,
    }
    Ok(())
}

fn header<'a, M: Message>(message: &'a M, name: &str) -> Option<&'a [u8]> {
    message.headers()?.iter().find(|header| header.key == name)?.value
}

fn of_record<M: Message>(message: &M, id: &[u8]) -> Result<Decision, BadRecord> {
    fn number<T: FromStr>(text: Option<&[u8]>) -> Option<T> {
        std::str::from_utf8(text?).ok()?.parse().ok()
    }
    let id = std::str::from_utf8(id).map_err(|_| NoCommandId).and_then(str::parse);
    Ok(Decision {
        partition: message.partition(),
        offset: message.offset(),
        id: id.map_err(|NoCommandId| BadRecord::Header("id"))?,
        key: message.key().filter(|key| !key.is_empty()).ok_or(BadRecord::NoKey)?.to_vec(),
        key_seq: number(header(message, "key_seq")).ok_or(BadRecord::Header("key_seq"))?,
        value: message.payload().map(<[u8]>::to_vec),
        time_ms: message.timestamp().to_millis(),
    })
}

fn of_batch<M: Message>(message: &M, into: &mut Vec<Decision>) -> Result<(), BadRecord> {
    let batch = match PublishedBatch::parse(message.payload().unwrap_or_default()) {
        // Kafka keeps records whole.
        Err(BadBatch::NoBatch | BadBatch::CutOff { .. }) => return Err(BadRecord::Foreign),
        batch => batch?,
    };
    into.extend(batch.decisions().map(|decision| {
        let (key_seq, value) = match decision.effect {
            Effect::Decided { key_seq } => (key_seq, Some(decision.value.to_vec())),
            Effect::Deleted { key_seq } => (key_seq, None),
        };
        Decision {
            partition: message.partition(),
            offset: message.offset(),
            id: batch.origin().command(decision.index.into()),
            key: decision.key.to_vec(),
            key_seq,
            value,
            time_ms: message.timestamp().to_millis(),
        }
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::id::{ClusterId, Epoch, InstanceId, ReplicaId, ShardId};
    use isonomy_wire::published::{Decision as Published, Origin, PublishedBuilder};
    use rdkafka::Timestamp;
    use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};

    const ORIGIN: Origin = Origin {
        cluster: ClusterId(1),
        shard: ShardId(3),
        epoch: Epoch(2),
        instance: InstanceId { row: ReplicaId(1), seq: 9 },
        has_more: false,
    };

    fn message(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, &str)]) -> OwnedMessage {
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
        let (key, value) = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
        OwnedMessage::new(value, key, "t".into(), Timestamp::CreateTime(5), 3, 70, Some(headers))
    }

    fn decisions(message: &OwnedMessage) -> Result<Vec<Decision>, BadRecord> {
        let mut into = Vec::new();
        decode(message, &mut into).map(|()| into)
    }

    fn expected(index: u32, key: &[u8], key_seq: u64, value: Option<&[u8]>) -> Decision {
        let (key, value) = (key.to_vec(), value.map(<[u8]>::to_vec));
        Decision {
            partition: 3,
            offset: 70,
            id: ORIGIN.command(index),
            key,
            key_seq,
            value,
            time_ms: Some(5),
        }
    }

    #[test]
    fn a_record_is_one_decision() {
        let headers = [("id", "2.3.1.9.4"), ("key_seq", "7"), ("epoch", "2")];
        let decided = message(Some(b"k"), Some(b""), &headers);
        assert_eq!(decisions(&decided), Ok(vec![expected(4, b"k", 7, Some(b""))]));
        let deleted = message(Some(b"k"), None, &headers);
        assert_eq!(decisions(&deleted), Ok(vec![expected(4, b"k", 7, None)]));
        assert_eq!(decisions(&message(None, Some(b""), &headers)), Err(BadRecord::NoKey));
        let bad = |headers: &[_]| decisions(&message(Some(b"k"), None, headers));
        assert_eq!(bad(&headers[..1]), Err(BadRecord::Header("key_seq")));
        assert_eq!(bad(&[("id", "2.3.1.9"), ("key_seq", "7")]), Err(BadRecord::Header("id")));
    }

    #[test]
    fn a_batch_is_many_decisions() {
        let mut builder = PublishedBuilder::default();
        let mut push = |index, key, effect, value| builder.push(&Published { index, effect, key, value });
        push(0, b"a", Effect::Decided { key_seq: 1 }, b"x");
        push(6, b"\xff", Effect::Deleted { key_seq: 8 }, b"");
        let mut bytes = builder.finish(&ORIGIN).unwrap().to_vec();
        let all = vec![expected(0, b"a", 1, Some(b"x")), expected(6, b"\xff", 8, None)];
        assert_eq!(decisions(&message(None, Some(&bytes), &[])), Ok(all));
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(decisions(&message(None, Some(&bytes), &[])), Err(BadRecord::Batch(BadBatch::Damaged)));
    }

    #[test]
    fn what_nobody_has_published_is_no_decision() {
        for value in [None, Some(&b"{}"[..]), Some(&[b'x'; 100][..])] {
            assert_eq!(decisions(&message(Some(b"k"), value, &[])), Err(BadRecord::Foreign));
        }
    }
}
