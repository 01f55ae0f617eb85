//! What the members of a change have told of themselves, under keys that all see (law, section 9): who is close, and who
//! holds the state at the Seal. Whatever a mark says stays true, so an old copy of the marks only delays.

use crate::id::{ChangeId, Incarnation, MemberId, parse_member};
use isonomy_wire::id::REPLICAS_MAX;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How many marks are kept: both marks of all members of two changes of the largest cluster.
pub(crate) const MARKS_MAX: usize = 4 * REPLICAS_MAX;

/// What a member has told of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fact {
    /// It lacks little of what the others have.
    Close,
    /// It has ended the epoch and holds the state durably; the hash of the state.
    Holds(u64),
}

/// Where a mark lies: in which change, of which kind, of which member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct MarkKey {
    change: ChangeId,
    is_held: bool,
    member: MemberId,
}

/// A mark of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The change that it is about.
    pub change: ChangeId,
    /// The member.
    pub member: MemberId,
    /// The data directory of the member. A mark of another one than the record names counts for nothing.
    pub incarnation: Incarnation,
    /// What the member has told.
    pub fact: Fact,
}

/// The value of a key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Value {
    incarnation: Incarnation,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
}

/// Why the value of a key is no mark.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadMark {
    #[error("{0}")]
    NoJson(#[from] serde_json::Error),
    #[error("its hash is not 16 hexadecimal digits, or it has one and should not")]
    Hash,
}

impl MarkKey {
    /// The key below the prefix of all marks.
    pub(crate) fn path(&self) -> String {
        let MarkKey { change, is_held, member } = self;
        format!("{change}/{}/{member}", if *is_held { "held" } else { "close" })
    }

    pub(crate) fn parse(path: &str) -> Option<MarkKey> {
        let mut parts = path.split('/');
        let change = parts.next()?.parse().ok()?;
        let is_held = match parts.next()? {
            "close" => false,
            "held" => true,
            _ => return None,
        };
        let member = parse_member(parts.next()?)?;
        parts.next().is_none().then_some(MarkKey { change, is_held, member })
    }
}

impl Mark {
    /// Where the mark lies.
    #[must_use]
    pub fn key(&self) -> MarkKey {
        let is_held = matches!(self.fact, Fact::Holds(_));
        MarkKey { change: self.change, is_held, member: self.member }
    }

    pub(crate) fn parse(key: MarkKey, bytes: &[u8]) -> Result<Mark, BadMark> {
        let Value { incarnation, hash } = serde_json::from_slice(bytes)?;
        let fact = match (key.is_held, hash) {
            (false, None) => Fact::Close,
            (true, Some(text)) => Fact::Holds(parse_hash(&text).ok_or(BadMark::Hash)?),
            _ => return Err(BadMark::Hash),
        };
        Ok(Mark { change: key.change, member: key.member, incarnation, fact })
    }

    pub(crate) fn to_json(self) -> Vec<u8> {
        let hash = match self.fact {
            Fact::Close => None,
            Fact::Holds(hash) => Some(format!("{hash:016x}")),
        };
        let value = Value { incarnation: self.incarnation, hash };
        serde_json::to_vec(&value).expect("a mark has a JSON form")
    }
}

fn parse_hash(text: &str) -> Option<u64> {
    let is_hash = text.len() == 16 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| is_hash)
}

/// The marks that are known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Marks(BTreeMap<MarkKey, Mark>);

impl Marks {
    /// Takes a mark, in place of the one that lay there. One that has no room is told and left out.
    pub fn insert(&mut self, mark: Mark) {
        let key = mark.key();
        if self.0.len() >= MARKS_MAX && !self.0.contains_key(&key) {
            log::warn!(
                "more than {MARKS_MAX} marks of changes lie in etcd; {} is left out. Whoever wrote them by hand should \
                 remove them",
                key.path()
            );
            return;
        }
        self.0.insert(key, mark);
    }

    /// Takes a mark away.
    pub fn remove(&mut self, key: &MarkKey) {
        self.0.remove(key);
    }

    /// Whether a mark is there as it is.
    #[must_use]
    pub fn has(&self, mark: &Mark) -> bool {
        self.0.get(&mark.key()) == Some(mark)
    }

    /// The directories of those who are close in a change.
    #[must_use]
    pub fn close(&self, change: ChangeId) -> BTreeSet<Incarnation> {
        let close = self.0.values().filter(|mark| mark.change == change && mark.fact == Fact::Close);
        close.map(|mark| mark.incarnation).collect()
    }

    /// The directories of those who hold the state at the Seal of a change, and its hash.
    #[must_use]
    pub fn holders(&self, change: ChangeId) -> BTreeMap<Incarnation, u64> {
        let of_it = self.0.values().filter(|mark| mark.change == change);
        let holds = |mark: &Mark| match mark.fact {
            Fact::Close => None,
            Fact::Holds(hash) => Some((mark.incarnation, hash)),
        };
        of_it.filter_map(holds).collect()
    }
}

impl FromIterator<Mark> for Marks {
    fn from_iter<T: IntoIterator<Item = Mark>>(marks: T) -> Marks {
        let mut all = Marks::default();
        marks.into_iter().for_each(|mark| all.insert(mark));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(member: u8, fact: Fact) -> Mark {
        Mark { change: ChangeId(7), member: MemberId(member), incarnation: Incarnation(0xbee), fact }
    }

    #[test]
    fn a_mark_reads_as_it_was_written() {
        for (fact, path, value) in [
            (Fact::Close, "close/3", r#"{"incarnation":"00000000000000000000000000000bee"}"#),
            (
                Fact::Holds(0xab),
                "held/3",
                r#"{"incarnation":"00000000000000000000000000000bee","hash":"00000000000000ab"}"#,
            ),
        ] {
            let mark = mark(3, fact);
            assert_eq!(mark.key().path(), format!("00000000000000000000000000000007/{path}"));
            assert_eq!(MarkKey::parse(&mark.key().path()), Some(mark.key()));
            assert_eq!(String::from_utf8(mark.to_json()).unwrap(), value);
            assert_eq!(Mark::parse(mark.key(), value.as_bytes()).unwrap(), mark);
        }
    }

    #[test]
    fn what_is_no_mark_is_not_taken_for_one() {
        let change = "00000000000000000000000000000007";
        for path in ["7/close/1", "x", "", &format!("{change}/open/1"), &format!("{change}/close/")] {
            assert_eq!(MarkKey::parse(path), None, "{path}");
        }
        for member in ["x", "+1", "01", "256", "1/", "1/2"] {
            assert_eq!(MarkKey::parse(&format!("{change}/close/{member}")), None, "{member}");
        }
        let (close, held) = (mark(1, Fact::Close), mark(1, Fact::Holds(1)));
        let incarnation = "\"incarnation\":\"00000000000000000000000000000bee\"";
        for (key, value) in [
            (close.key(), "{}".to_owned()),
            (close.key(), String::new()),
            (close.key(), format!("{{{incarnation},\"hash\":\"0000000000000001\"}}")),
            (close.key(), format!("{{{incarnation},\"more\":1}}")),
            (held.key(), format!("{{{incarnation}}}")),
            (held.key(), format!("{{{incarnation},\"hash\":\"1\"}}")),
            (held.key(), format!("{{{incarnation},\"hash\":\"+000000000000001\"}}")),
        ] {
            assert!(Mark::parse(key, value.as_bytes()).is_err(), "{value}");
        }
    }

    #[test]
    fn marks_are_counted_for_their_change_and_are_bounded() {
        let other = Mark { change: ChangeId(8), incarnation: Incarnation(5), ..mark(2, Fact::Close) };
        let mut marks: Marks = [mark(1, Fact::Close), mark(1, Fact::Holds(4)), other].into_iter().collect();
        assert_eq!(marks.close(ChangeId(7)), [Incarnation(0xbee)].into());
        assert_eq!(marks.holders(ChangeId(7)), [(Incarnation(0xbee), 4)].into());
        assert!(marks.holders(ChangeId(8)).is_empty());
        marks.remove(&mark(1, Fact::Close).key());
        assert!(marks.close(ChangeId(7)).is_empty() && marks.has(&mark(1, Fact::Holds(4))));
        (0..=u8::MAX).for_each(|member| marks.insert(mark(member, Fact::Close)));
        assert_eq!(marks.0.len(), MARKS_MAX);
        // Where one lies already, another takes its place.
        let anew = Mark { incarnation: Incarnation(9), ..mark(0, Fact::Close) };
        marks.insert(anew);
        assert!(marks.has(&anew));
    }
}
