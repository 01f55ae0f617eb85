//! Ids of the membership: random ones, which read as 32 hexadecimal digits, and the numbers of members.

use isonomy_wire::id::ClusterId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// What an id must look like.
const EXPECTED: &str = "32 hexadecimal digits";

/// A text is no id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an id has {EXPECTED}")]
pub struct NoId;

/// A member of a cluster, by the number that operators use. A member keeps its number for as long as it belongs to
/// the cluster; its place in the list of members, which is its replica's id in an epoch, can change with each epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberId(pub u8);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

macro_rules! random_ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub u128);

        impl $name {
            /// An id that nobody else has.
            #[must_use]
            pub fn random() -> $name {
                $name(rand::random())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = NoId;

            fn from_str(text: &str) -> Result<$name, NoId> {
                parse(text).map($name)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                read(deserializer).map($name)
            }
        }
    )*};
}

random_ids! {
    /// The record of an epoch. All records of one epoch have the same, and no other epoch has it, so that an etcd that
    /// was restored from an old backup and went on from there is told from the one before.
    RecordId

    /// One change of the membership. Whoever wrote it finds out by it whether etcd has taken the record.
    ChangeId

    /// The data directory of a member: a new directory is another incarnation.
    Incarnation
}

fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(|NoId| serde::de::Error::invalid_value(serde::de::Unexpected::Str(&text), &EXPECTED))
}

fn parse(text: &str) -> Result<u128, NoId> {
    let is_id = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    u128::from_str_radix(text, 16).ok().filter(|_| is_id).ok_or(NoId)
}

/// The number of a member as a part of a key, which has one form only.
pub(crate) fn parse_member(text: &str) -> Option<MemberId> {
    text.parse().ok().map(MemberId).filter(|id| id.to_string() == text)
}

/// The id of a cluster as text, for serde.
pub(crate) mod cluster {
    use super::{ClusterId, Deserializer, Serializer, read};

    pub(crate) fn serialize<S: Serializer>(id: &ClusterId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ClusterId, D::Error> {
        read(deserializer).map(ClusterId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_id_reads_as_it_was_written() {
        let id = RecordId::random();
        let text = serde_json::to_string(&id).unwrap();
        assert_eq!(text, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<RecordId>(&text).unwrap(), id);
        assert_ne!(id, RecordId::random());
    }

    #[test]
    fn another_text_is_no_id() {
        for text in ["", "abc", "+0000000000000000000000000000abc", "0000000000000000000000000000000000abc"] {
            let error = serde_json::from_str::<RecordId>(&format!("{text:?}")).unwrap_err().to_string();
            assert!(error.contains(EXPECTED), "{error}");
        }
    }
}
