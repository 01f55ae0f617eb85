//! Sources: sessions that number their commands by themselves, and the digests of their commands (law, S5).
//!
//! A source has one process at a time, its *owner*. A process that takes a source over attaches to it. The Attach
//! fences the owner before, and its answer says which numbers are done, and the digests of their commands. A digest
//! covers all commands in their order up to a mark; the number of marks is bounded. So a process that submits other
//! commands under old numbers is found out.

use crate::command::Command;
use crate::id::{SessionId, ShardId};
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use xxhash_rust::xxh3::xxh3_64;

/// The longest name of a source, in bytes.
pub const SOURCE_NAME_BYTES_MAX: usize = 200;
/// The most marks that a shard keeps for one source, besides the mark at its position.
pub const MARKS_MAX: usize = FIRST_MARKS + EVEN_MARKS_MAX;
/// How many of a source's first commands have a mark each, since another file mostly differs early.
const FIRST_MARKS: usize = 16;
/// The most marks at equal distances behind the first ones. Beyond this number every second one is dropped.
const EVEN_MARKS_MAX: usize = 48;

/// The name of a source: 1 to [`SOURCE_NAME_BYTES_MAX`] bytes that are not only blanks.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct SourceName(Box<str>);

/// Why a text is not the name of a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadName {
    /// The name is empty or has only blanks.
    #[error(
        "the name of the source is empty; give each source a name of its own, and use that name in every run"
    )]
    Empty,
    /// The name has this many bytes, which are too many.
    #[error(
        "the name of the source has {0} bytes, and at most {SOURCE_NAME_BYTES_MAX} are allowed; choose a \
         shorter name"
    )]
    Length(usize),
}

impl SourceName {
    /// The session of the source in a shard.
    pub fn session(&self, shard: ShardId) -> SessionId {
        SessionId::named(&format!("{}/{}", self.0, shard.0))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SourceName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<SourceName, BadName> {
        if text.trim().is_empty() {
            return Err(BadName::Empty);
        }
        if text.len() > SOURCE_NAME_BYTES_MAX {
            return Err(BadName::Length(text.len()));
        }
        Ok(SourceName(text.into()))
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The process that owns a source: a random number, made with the process. 0 stands for no process.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Owner(pub u64);

impl Owner {
    /// The owner of a session to which no process has attached.
    pub const NOBODY: Owner = Owner(0);
}

/// The digest of a source's commands up to a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    /// The number behind the last command.
    pub below: u64,
    /// The digest of all commands with lower numbers, see [`fold`].
    pub digest: u64,
}

/// The owner and the position of a source.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// The process that owns the source.
    pub owner: Owner,
    /// The marks of the source, which ascend. The last one is at the source's position: all numbers below are done.
    pub marks: Vec<Mark>,
}

impl Standing {
    /// The next number; all lower numbers are done or left out.
    pub fn low(&self) -> u64 {
        self.marks.last().map_or(1, |mark| mark.below)
    }

    /// Appends the owner, the number of marks, and each mark to `out`, in little endian.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.owner.0.to_le_bytes());
        out.extend_from_slice(&(self.marks.len() as u64).to_le_bytes());
        for Mark { below, digest } in &self.marks {
            out.extend_from_slice(&below.to_le_bytes());
            out.extend_from_slice(&digest.to_le_bytes());
        }
    }

    /// Takes a standing from the front of `bytes`; `None` if the bytes are not one.
    pub fn decode(bytes: &mut &[u8]) -> Option<Standing> {
        let (owner, count) = (Owner(word(bytes)?), word(bytes)?);
        if count > 1 + MARKS_MAX as u64 {
            return None;
        }
        Some(Standing { owner, marks: marks(bytes, count)? })
    }
}

/// The digest of all commands up to this one, given the digest of the commands before it. Skipped numbers do not
/// count, so that a source may divide its gaps in other ways.
pub fn fold(digest: u64, command: &Command<'_>) -> u64 {
    let mut words = [0; 40];
    let kind = (command.op as u64) << 32 | command.key.len() as u64;
    let parts = [digest, command.number, kind, command.expected, xxh3_64(command.key_value)];
    for (word, part) in words.chunks_exact_mut(8).zip(parts) {
        word.copy_from_slice(&part.to_le_bytes());
    }
    xxh3_64(&words)
}

/// The digest of a source's commands as they execute, with its marks. The number of marks is bounded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Said {
    digest: u64,
    commands: u64,
    /// The marks behind each of the first commands.
    first: Vec<Mark>,
    /// Two to this power is the distance of the marks in `even`.
    doublings: u32,
    /// The marks behind every command whose count is a multiple of that distance, in order.
    even: Vec<Mark>,
}

impl Said {
    /// A command that is not a Skip has executed.
    pub fn on_command(&mut self, command: &Command<'_>) {
        self.digest = fold(self.digest, command);
        self.commands += 1;
        let mark = Mark { below: command.number + command.run, digest: self.digest };
        if self.first.len() < FIRST_MARKS {
            self.first.push(mark);
        }
        if self.commands.is_multiple_of(1 << self.doublings) {
            self.even.push(mark);
        }
        if self.even.len() > EVEN_MARKS_MAX {
            self.even = self.even.iter().skip(1).step_by(2).copied().collect();
            self.doublings += 1;
        }
    }

    /// How many commands have executed.
    pub fn commands(&self) -> u64 {
        self.commands
    }

    /// The digest of all commands that have executed.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The standing of a source with these commands, this owner and `low` as its next number.
    pub fn standing(&self, owner: Owner, low: u64) -> Standing {
        let behind = self.first.last().map_or(0, |mark| mark.below);
        let even = self.even.iter().filter(|mark| mark.below > behind);
        let earlier = self.first.iter().chain(even).filter(|mark| mark.below < low);
        let marks = earlier.copied().chain([Mark { below: low, digest: self.digest }]).collect();
        Standing { owner, marks }
    }

    /// Appends the digest and its marks to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let head = [self.digest, self.commands, self.doublings.into()];
        let lengths = [self.first.len() as u64, self.even.len() as u64];
        let marks = self.first.iter().chain(&self.even).flat_map(|mark| [mark.below, mark.digest]);
        head.into_iter()
            .chain(lengths)
            .chain(marks)
            .for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    }

    /// Takes a digest with its marks from the front of `bytes`; `None` if the bytes are not one.
    pub fn decode(bytes: &mut &[u8]) -> Option<Said> {
        let (digest, commands) = (word(bytes)?, word(bytes)?);
        let doublings = u32::try_from(word(bytes)?).ok().filter(|doublings| *doublings < u64::BITS)?;
        let (first, even) = (word(bytes)?, word(bytes)?);
        if first > FIRST_MARKS as u64 || even > EVEN_MARKS_MAX as u64 {
            return None;
        }
        let (first, even) = (marks(bytes, first)?, marks(bytes, even)?);
        Some(Said { digest, commands, first, doublings, even })
    }
}

fn word(bytes: &mut &[u8]) -> Option<u64> {
    let (word, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*word))
}

fn marks(bytes: &mut &[u8], count: u64) -> Option<Vec<Mark>> {
    (0..count).map(|_| Some(Mark { below: word(bytes)?, digest: word(bytes)? })).collect()
}

/// A source submits another command under a number that is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Differs {
    /// The lowest number that may be another command.
    pub from: u64,
    /// The highest such number.
    pub to: u64,
}

/// Compares the commands that a source submits under numbers that are done with the commands that were decided.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Comparison {
    /// The digest of all commands so far; `None` if not all of them were submitted here.
    digest: Option<u64>,
    marks: Vec<Mark>,
    /// How many marks were reached.
    passed: usize,
    /// The first and the last number that was submitted since the last mark.
    open: Option<(u64, u64)>,
}

impl Comparison {
    /// A comparison with a source of this standing. `next` is the first number that will be submitted.
    pub fn new(standing: Standing, next: u64) -> Comparison {
        let passed = standing.marks.partition_point(|mark| mark.below < next);
        Comparison { digest: (next == 1).then_some(0), marks: standing.marks, passed, open: None }
    }

    /// The next number that is not done.
    pub fn low(&self) -> u64 {
        self.marks.last().map_or(1, |mark| mark.below)
    }

    /// A command is submitted whose number is done.
    ///
    /// # Errors
    ///
    /// [`Differs`] if the commands up to a mark differ from those that were decided.
    pub fn on_command(&mut self, command: &Command<'_>) -> Result<(), Differs> {
        self.come_to(command.number)?;
        self.digest = self.digest.map(|digest| fold(digest, command));
        let first = self.open.map_or(command.number, |(first, _)| first);
        self.open = Some((first, command.number));
        self.come_to(command.number + command.run)
    }

    /// No command below `number` will be submitted any more.
    ///
    /// # Errors
    ///
    /// [`Differs`] if the commands up to a mark differ from those that were decided.
    pub fn come_to(&mut self, number: u64) -> Result<(), Differs> {
        while let Some(mark) = self.marks.get(self.passed).filter(|mark| mark.below <= number) {
            self.passed += 1;
            let said = self.digest.replace(mark.digest);
            let open = self.open.take();
            if said.is_some_and(|said| said != mark.digest) {
                let last = mark.below - 1;
                let (from, to) = open.unwrap_or((last, last));
                return Err(Differs { from, to: to.max(last) });
            }
        }
        Ok(())
    }

    /// The first and the last number that was submitted and could not be compared, because the source has decided
    /// more numbers than were submitted here.
    pub fn left(&self) -> Option<(u64, u64)> {
        self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Batch, Numbering, RequestBuilder};
    use proptest::prelude::*;

    /// Shows the commands of lines with these numbers and values.
    fn each(lines: &[(u64, String)], mut act: impl FnMut(&Command<'_>)) {
        for (number, value) in lines {
            let mut builder = RequestBuilder::default();
            builder.decide(b"key", value.as_bytes()).unwrap();
            let batch =
                Batch::parse(builder.encode(SessionId::named("s"), Numbering::at(*number)), 0, |_| ())
                    .unwrap();
            act(&batch.commands_of(&batch.parts()[0]).next().unwrap());
        }
    }

    fn lines(count: u64) -> Vec<(u64, String)> {
        (1..=count).map(|number| (number, format!("line {number}"))).collect()
    }

    fn said(lines: &[(u64, String)]) -> Standing {
        let mut said = Said::default();
        each(lines, |command| said.on_command(command));
        said.standing(Owner(7), lines.last().map_or(1, |(number, _)| number + 1))
    }

    fn compared(standing: &Standing, lines: &[(u64, String)]) -> Result<Option<(u64, u64)>, Differs> {
        let next = lines.first().map_or(1, |(number, _)| *number);
        let mut comparison = Comparison::new(standing.clone(), next);
        let mut found = Ok(());
        each(lines, |command| {
            if found.is_ok() && command.number < standing.low() {
                found = comparison.on_command(command);
            } else if found.is_ok() {
                found = comparison.come_to(command.number);
            }
        });
        found.map(|()| comparison.left())
    }

    #[test]
    fn the_same_lines_are_the_same_and_more_of_them_too() {
        let standing = said(&lines(1000));
        assert_eq!(compared(&standing, &lines(1000)), Ok(None));
        assert_eq!(compared(&standing, &lines(2000)), Ok(None));
        assert_eq!(compared(&standing, &lines(2000)[500..]), Ok(None), "it begins in the middle");
    }

    #[test]
    fn what_is_shorter_is_compared_as_far_as_marks_go() {
        let standing = said(&lines(1000));
        assert_eq!(compared(&standing, &lines(7)), Ok(None));
        let left = compared(&standing, &lines(999)).unwrap().unwrap();
        assert!(left.0 > 900 && left.1 == 999, "{left:?}");
    }

    #[test]
    fn an_early_difference_is_named_and_a_later_one_nearly() {
        let standing = said(&lines(1000));
        let mut other = lines(1000);
        other[2].1 = "another".into();
        assert_eq!(compared(&standing, &other), Err(Differs { from: 3, to: 3 }));
        let mut other = lines(1000);
        other[699].1 = "another".into();
        let Differs { from, to } = compared(&standing, &other).unwrap_err();
        assert!(from <= 700 && 700 <= to && to - from < 100, "{from} to {to}");
        let mut other = lines(1000);
        other.remove(4);
        assert_eq!(compared(&standing, &other), Err(Differs { from: 5, to: 5 }), "it is left out");
    }

    #[test]
    fn names_are_neither_empty_nor_long() {
        assert_eq!("".parse::<SourceName>(), Err(BadName::Empty));
        assert_eq!(" \t".parse::<SourceName>(), Err(BadName::Empty));
        assert_eq!("x".repeat(201).parse::<SourceName>(), Err(BadName::Length(201)));
        assert_eq!("daily".parse::<SourceName>().unwrap().as_str(), "daily");
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_kept_in_little_space_and_comes_back(count in 0u64..5000) {
            let standing = said(&lines(count));
            prop_assert!(standing.marks.len() <= MARKS_MAX + 1);
            prop_assert!(standing.marks.is_sorted_by(|a, b| a.below < b.below));
            prop_assert_eq!(standing.low(), count + 1);
            let mut bytes = Vec::new();
            standing.encode(&mut bytes);
            let mut rest = &bytes[..];
            prop_assert_eq!(Standing::decode(&mut rest), Some(standing));
            prop_assert!(rest.is_empty());
            prop_assert_eq!(Standing::decode(&mut &bytes[..bytes.len() - 1]), None);
            let mut kept = Said::default();
            each(&lines(count), |command| kept.on_command(command));
            let mut bytes = Vec::new();
            kept.encode(&mut bytes);
            let mut rest = &bytes[..];
            prop_assert_eq!(Said::decode(&mut rest), Some(kept));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn no_other_line_is_taken_for_the_same(count in 1u64..300, place in 0usize..300) {
            let standing = said(&lines(count));
            let mut other = lines(count);
            let place = place % other.len();
            other[place].1.push('x');
            let Differs { from, to } = compared(&standing, &other).unwrap_err();
            prop_assert!((from..=to).contains(&(place as u64 + 1)));
        }
    }
}
