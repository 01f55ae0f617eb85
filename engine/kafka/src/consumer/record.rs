//! What a record of the topic asks for.

use bytes::Bytes;
use isonomy_wire::command::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use rdkafka::message::{BorrowedMessage, Message, OwnedMessage};

/// What a record asks for.
#[derive(Debug)]
pub(super) enum Asked {
    /// The value becomes the key's latest decision.
    Decide { key: Bytes, value: Bytes },
    /// A tombstone: the key's life ends.
    Delete { key: Bytes },
    /// Nothing that can be proposed.
    Nothing { poison: Poison, record: Box<OwnedMessage> },
}

/// A record on its way.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) offset: i64,
    pub(super) asked: Asked,
}

/// Why a record cannot be proposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Poison {
    /// The record has no key, or an empty one.
    #[error("the record has no key; a proposal needs the key that it decides")]
    NoKey,
    /// The key has this many bytes, which are too many.
    #[error("the key has {0} bytes, and at most {KEY_BYTES_MAX} are allowed")]
    KeyTooLong(usize),
    /// The value has this many bytes, which are too many.
    #[error("the value has {0} bytes, and at most {VALUE_BYTES_MAX} are allowed")]
    ValueTooLong(usize),
}

impl Poison {
    /// The reason as programs compare it.
    pub fn name(&self) -> &'static str {
        match self {
            Poison::NoKey => "no-key",
            Poison::KeyTooLong(_) => "key-too-long",
            Poison::ValueTooLong(_) => "value-too-long",
        }
    }
}

impl Incoming {
    pub(super) fn of(message: &BorrowedMessage<'_>) -> Incoming {
        let asked = match judge(message.key(), message.payload()) {
            Ok((key, Some(value))) => {
                Asked::Decide { key: Bytes::copy_from_slice(key), value: Bytes::copy_from_slice(value) }
            }
            Ok((key, None)) => Asked::Delete { key: Bytes::copy_from_slice(key) },
            Err(poison) => Asked::Nothing { poison, record: Box::new(message.detach()) },
        };
        Incoming { offset: message.offset(), asked }
    }

    /// The bytes that it takes in memory, but for its frame.
    pub(super) fn bytes(&self) -> usize {
        match &self.asked {
            Asked::Decide { key, value } => key.len() + value.len(),
            Asked::Delete { key } => key.len(),
            Asked::Nothing { record, .. } => {
                record.key().map_or(0, <[u8]>::len) + record.payload().map_or(0, <[u8]>::len)
            }
        }
    }
}

fn judge<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Result<(&'a [u8], Option<&'a [u8]>), Poison> {
    let key = key.filter(|key| !key.is_empty()).ok_or(Poison::NoKey)?;
    if key.len() > KEY_BYTES_MAX {
        return Err(Poison::KeyTooLong(key.len()));
    }
    match value {
        Some(value) if value.len() > VALUE_BYTES_MAX => Err(Poison::ValueTooLong(value.len())),
        value => Ok((key, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_proposed_keeps_the_limits_of_commands() {
        let (key, value) = (vec![b'k'; KEY_BYTES_MAX], vec![0; VALUE_BYTES_MAX]);
        assert_eq!(judge(Some(&key), Some(&value)), Ok((&key[..], Some(&value[..]))));
        assert_eq!(judge(Some(b"k"), Some(b"")), Ok((&b"k"[..], Some(&b""[..]))));
        assert_eq!(judge(Some(b"k"), None), Ok((&b"k"[..], None)));
        let (long_key, long_value) = (vec![b'k'; KEY_BYTES_MAX + 1], vec![0; VALUE_BYTES_MAX + 1]);
        for (key, value, poison) in [
            (None, Some(&value[..1]), Poison::NoKey),
            (Some(&key[..0]), None, Poison::NoKey),
            (Some(&long_key[..]), None, Poison::KeyTooLong(KEY_BYTES_MAX + 1)),
            (Some(&key[..]), Some(&long_value[..]), Poison::ValueTooLong(VALUE_BYTES_MAX + 1)),
        ] {
            assert_eq!(judge(key, value), Err(poison));
        }
    }
}
