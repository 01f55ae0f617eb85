//! Reading a segment back after a restart: the whole groups, and what lies behind the last.

use crate::contract::Position;
use crate::log::group::{GROUP_HEAD_BYTES, GroupHead};
use crate::log::record::Record;
use crate::log::{BLOCK_BYTES, LogId};
use crate::payload::Payload;
use bytes::Bytes;
use isonomy_wire::frame::{FrameError, split};

/// A record that was read, and its batch.
pub type Entry = (Record, Option<Payload>);

/// Reads the groups of one segment in order.
#[derive(Debug)]
pub struct Scanner {
    id: LogId,
    segment: u64,
    bytes: Bytes,
    at: usize,
    next: Position,
}

/// Why the bytes at an offset are not the group that was expected.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts are the documentation.
pub enum Broken {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("a group starts with record {found}, not {expected}")]
    Position { found: u64, expected: u64 },
    #[error("a group does not hold the records that its head promises")]
    Records,
    #[error("nothing is there, but later groups are")]
    Lost,
    #[error("a batch does not decode: {0}")]
    Batch(isonomy_wire::command::Invalid),
}

/// What a segment without a head holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Remains {
    /// Where the first group with records begins, in bytes from the start of the segment.
    pub group: Option<usize>,
    /// The last position that groups without records say was durable.
    pub durable: Position,
}

impl Scanner {
    /// For the bytes of a whole segment, whose first record has position `first`.
    pub fn new(id: LogId, segment: u64, bytes: Bytes, first: Position) -> Scanner {
        Scanner { id, segment, bytes, at: BLOCK_BYTES, next: first }
    }

    /// Where the next group begins, in bytes from the start of the segment.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The position of the next record.
    pub fn next_position(&self) -> Position {
        self.next
    }

    /// Reads the next group. `Ok(None)`: the segment ends here, with zeros or with its last
    /// byte. After an error look at [`Scanner::is_torn`].
    pub fn next_group(&mut self, mut take: impl FnMut(Entry)) -> Result<Option<GroupHead>, Broken> {
        if self.at + BLOCK_BYTES > self.bytes.len() {
            return Ok(None);
        }
        if self.bytes[self.at..self.at + BLOCK_BYTES].iter().all(|byte| *byte == 0) {
            return if self.is_torn() { Ok(None) } else { Err(Broken::Lost) };
        }
        let head = self.head_at(self.at)?;
        if head.first != self.next.0 {
            return Err(Broken::Position { found: head.first, expected: self.next.0 });
        }
        let entries = self.entries(&head)?;
        entries.into_iter().for_each(&mut take);
        self.at += (GROUP_HEAD_BYTES + head.bytes as usize).next_multiple_of(BLOCK_BYTES);
        self.next.0 += u64::from(head.records);
        Ok(Some(head))
    }

    /// Whether nothing that was written later than the broken group follows it: then it was the
    /// one in flight when the process died, nothing rests on it, and it is cut (D6). Groups are
    /// written one after the other, so a whole one behind it says that it was durable once.
    pub fn is_torn(&self) -> bool {
        let blocks = (self.at + BLOCK_BYTES..self.bytes.len()).step_by(BLOCK_BYTES);
        !blocks.into_iter().any(|at| self.head_at(at).is_ok_and(|head| head.first > self.next.0))
    }

    /// What lies in a segment without a head. Groups that its file held under another number do not
    /// count.
    pub fn remains(&self) -> Remains {
        let mut remains = Remains::default();
        for at in (BLOCK_BYTES..self.bytes.len()).step_by(BLOCK_BYTES) {
            let Ok(head) = self.head_at(at) else { continue };
            if head.records > 0 {
                return Remains { group: Some(at), ..remains };
            }
            remains.durable = remains.durable.max(Position(head.durable));
        }
        remains
    }

    fn head_at(&self, at: usize) -> Result<GroupHead, FrameError> {
        let place = self.id.place(self.segment).wrapping_add(at as u64);
        let rest = self.bytes.slice(at..);
        let (frame, size) = split(&rest, place, rest.len())?.ok_or(FrameError::Length(rest.len()))?;
        let head: GroupHead = frame.decode(self.id.scope())?;
        let fits = size == GROUP_HEAD_BYTES && head.bytes as usize <= rest.len() - GROUP_HEAD_BYTES;
        if fits { Ok(head) } else { Err(FrameError::Length(head.bytes as usize)) }
    }

    fn entries(&self, head: &GroupHead) -> Result<Vec<Entry>, Broken> {
        let start = self.at + GROUP_HEAD_BYTES;
        let mut place = self.id.place(self.segment).wrapping_add(start as u64);
        let mut rest = self.bytes.slice(start..start + head.bytes as usize);
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let Some((frame, size)) = split(&rest, place, rest.len())? else { return Err(Broken::Records) };
            let record: Record = frame.decode(self.id.scope())?;
            let payload = if frame.payload.is_empty() {
                None
            } else {
                Some(Payload::parse(frame.payload, frame.payload_crc).map_err(Broken::Batch)?)
            };
            entries.push((record, payload));
            place = place.wrapping_add(size as u64);
            rest = rest.slice(size..);
        }
        if entries.len() == head.records as usize { Ok(entries) } else { Err(Broken::Records) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Append;
    use crate::log::group::{Group, GroupEncoder, group_bytes};
    use crate::log::tests::log_id;
    use crate::log::{LogId, SegmentHead};
    use isonomy_wire::command::RequestBuilder;
    use isonomy_wire::deps::Deps;
    use isonomy_wire::id::{InstanceId, ReplicaId, StreamId};

    const SEGMENT: u64 = 9;

    fn payload(text: &str) -> Payload {
        let mut builder = RequestBuilder::default();
        builder.decide(b"key", text.as_bytes()).unwrap();
        let bytes = builder.encode(StreamId::named("s"), 1, 0);
        let crc = crc32c::crc32c(&bytes);
        Payload::parse(bytes, crc).unwrap()
    }

    fn record(seq: u64) -> Entry {
        let id = InstanceId::new(ReplicaId(0), seq);
        let record = Record::PreAccepted { id, deps: Deps::NONE, init_deps: Deps::NONE };
        (record, (seq.is_multiple_of(2)).then(|| payload(&format!("value {seq}"))))
    }

    /// A small segment with these groups of records, `blocks` long.
    fn image(groups: &[std::ops::Range<u64>], blocks: usize) -> Vec<u8> {
        let mut image = log_id().encode_head(SegmentHead { segment: SEGMENT, first: 1 });
        let mut encoder = GroupEncoder::new(log_id());
        for range in groups {
            let place = log_id().place(SEGMENT).wrapping_add(image.len() as u64);
            let mut buffer = vec![0xee; 4 * BLOCK_BYTES];
            let mut group = Group::new(Position(range.start));
            for seq in range.clone() {
                let (record, payload) = record(seq);
                let append = Append { position: Position(seq), record, payload };
                assert!(encoder.append(&mut group, &mut buffer, place, &append));
            }
            let size = encoder.finish(&group, &mut buffer, place, Position(range.start - 1));
            image.extend_from_slice(&buffer[..size]);
        }
        image.resize(blocks * BLOCK_BYTES, 0);
        image
    }

    /// What a scan reads, where it stopped, and whether what stopped it was torn.
    fn scan(image: &[u8]) -> (Vec<Entry>, u64, Option<bool>) {
        let bytes = isonomy_wire::frame::aligned(Bytes::copy_from_slice(image));
        let mut scanner = Scanner::new(log_id(), SEGMENT, bytes, Position(1));
        let mut entries = Vec::new();
        let broken = loop {
            match scanner.next_group(|entry| entries.push(entry)) {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(_) => break Some(scanner.is_torn()),
            }
        };
        (entries, scanner.next_position().0, broken)
    }

    #[test]
    fn what_was_written_is_read() {
        let (entries, next, broken) = scan(&image(&[1..4, 4..5, 5..9], 8));
        assert_eq!(entries, (1..9).map(record).collect::<Vec<_>>());
        assert_eq!((next, broken), (9, None));
    }

    #[test]
    fn every_truncation_reads_a_prefix_of_whole_groups() {
        let whole = image(&[1..4, 4..5, 5..9], 4);
        for length in BLOCK_BYTES..whole.len() {
            // What is missing reads as zeros, as in a file of fixed size.
            let mut cut = whole[..length].to_vec();
            cut.resize(whole.len(), 0);
            let (entries, next, broken) = scan(&cut);
            let groups = (length / BLOCK_BYTES).saturating_sub(1);
            assert!([1, 4, 5, 9][groups.min(3)..].contains(&next), "{length}: {next}");
            assert_ne!(broken, Some(false), "{length}: a cut tail is torn, not damaged");
            assert_eq!(entries, (1..next).map(record).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_flipped_bit_is_harmless_torn_or_damage() {
        let whole = image(&[1..4, 4..5, 5..9], 5);
        let groups = BLOCK_BYTES * 8..whole.len() * 8;
        for bit in groups {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (entries, next, broken) = scan(&flipped);
            assert_eq!(entries, (1..next).map(record).collect::<Vec<_>>(), "bit {bit}");
            let group = bit / 8 / BLOCK_BYTES - 1;
            match broken {
                None => assert_eq!(next, 9, "bit {bit}: padding only"),
                Some(torn) => assert_eq!(torn, group >= 2, "bit {bit}: group {group} has followers or not"),
            }
        }
    }

    #[test]
    fn every_lost_block_of_a_group_with_followers_is_damage() {
        let whole = image(&[1..4, 4..5, 5..9], 5);
        for block in 1..4 {
            let mut lost = whole.clone();
            lost[block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES].fill(0);
            let (entries, next, broken) = scan(&lost);
            assert_eq!(entries, (1..next).map(record).collect::<Vec<_>>());
            let expected = if block < 3 { Some(false) } else { None };
            assert_eq!(broken, expected, "block {block}");
        }
    }

    #[test]
    fn d6_once_an_idle_log_has_said_how_far_it_is_durable_nothing_before_looks_torn() {
        // The last group has no records and says that all before is durable.
        let whole = image(&[1..4, 4..5, 5..9, 9..9], 6);
        assert_eq!(scan(&whole), ((1..9).map(record).collect(), 9, None));
        for bit in BLOCK_BYTES * 8..4 * BLOCK_BYTES * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (_, next, broken) = scan(&flipped);
            assert!(broken == Some(false) || (broken.is_none() && next == 9), "bit {bit}: {broken:?}");
        }
        let mut lost = whole.clone();
        lost[3 * BLOCK_BYTES..4 * BLOCK_BYTES].fill(0);
        assert_eq!(scan(&lost).2, Some(false), "a lost write");
    }

    #[test]
    fn a_stale_group_of_a_recycled_segment_does_not_pass() {
        let image = image(&[1..3, 3..5], 4);
        let bytes = isonomy_wire::frame::aligned(Bytes::from(image));
        let mut other = Scanner::new(log_id(), SEGMENT + 1, bytes.clone(), Position(1));
        assert!(other.next_group(|_| ()).is_err());
        let foreign = LogId { incarnation: 5, ..log_id() };
        assert!(Scanner::new(foreign, SEGMENT, bytes, Position(1)).next_group(|_| ()).is_err());
    }

    #[test]
    fn a_record_that_does_not_fit_changes_nothing() {
        let mut encoder = GroupEncoder::new(log_id());
        let mut group = Group::new(Position(1));
        let (record, payload) = record(2);
        let append = Append { position: Position(1), record, payload };
        let size = group_bytes(append.payload.as_ref());
        let mut buffer = vec![0; 512];
        assert!(!encoder.append(&mut group, &mut buffer, 0, &append));
        assert_eq!((group.records(), group.last()), (0, Position(0)));
        let mut buffer = vec![0; size];
        assert!(encoder.append(&mut group, &mut buffer, 0, &append));
    }
}
