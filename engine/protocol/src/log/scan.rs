//! Reads a segment back after a restart: the whole groups, and the remains behind the last of them.

use crate::contract::Position;
use crate::log::group::{GROUP_HEAD_BYTES, GroupHead};
use crate::log::record::Record;
use crate::log::{BLOCK_BYTES, LogId};
use crate::payload::Payload;
use bytes::Bytes;
use isonomy_wire::frame::{FrameError, split};
use std::convert::Infallible;
use std::ops::Range;

/// A record that was read from the log, and its batch.
pub type LogEntry = (Record, Option<Payload>);

/// A source of the bytes of a segment. The scanner asks for single blocks and groups and keeps none of them, so no
/// more than the longest of these must be in memory.
pub trait SegmentSource {
    /// Why bytes could not be read.
    type Error;

    /// The length of the segment in bytes.
    fn length(&self) -> usize;

    /// Reads bytes of the segment; the range lies in the segment.
    fn read(&mut self, range: Range<usize>) -> Result<Bytes, Self::Error>;
}

impl<S: SegmentSource> SegmentSource for &mut S {
    type Error = S::Error;

    fn length(&self) -> usize {
        S::length(self)
    }

    fn read(&mut self, range: Range<usize>) -> Result<Bytes, S::Error> {
        S::read(self, range)
    }
}

/// A segment that is in memory as a whole.
impl SegmentSource for Bytes {
    type Error = Infallible;

    fn length(&self) -> usize {
        self.len()
    }

    fn read(&mut self, range: Range<usize>) -> Result<Bytes, Infallible> {
        Ok(self.slice(range))
    }
}

/// Reads the groups of one segment in order.
#[derive(Debug)]
pub struct Scanner<S = Bytes> {
    id: LogId,
    segment: u64,
    source: S,
    at: usize,
    next: Position,
}

/// Why a scan ends before its segment does.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts are the documentation.
pub enum ScanError<E> {
    #[error("the segment could not be read")]
    Source(E),
    #[error(transparent)]
    Broken(#[from] BadGroup),
}

/// Why the bytes at an offset are not the group that was expected.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts are the documentation.
pub enum BadGroup {
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

/// The content of a segment without a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Remains {
    /// Where the first group with records begins, in bytes from the start of the segment.
    pub group: Option<usize>,
    /// The last position that groups without records say was durable.
    pub durable: Position,
}

impl<S: SegmentSource> Scanner<S> {
    /// A scanner of a whole segment whose first record has position `first`.
    pub fn new(id: LogId, segment: u64, source: S, first: Position) -> Scanner<S> {
        Scanner { id, segment, source, at: BLOCK_BYTES, next: first }
    }

    /// Where the next group begins, in bytes from the start of the segment.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The position of the next record.
    pub fn next_position(&self) -> Position {
        self.next
    }

    /// Reads the next group. Returns `Ok(None)` where the segment ends, with zeros or with its last byte. After an
    /// error, [`Scanner::is_torn`] tells a torn group from a damaged one.
    pub fn next_group(
        &mut self,
        mut take: impl FnMut(LogEntry),
    ) -> Result<Option<GroupHead>, ScanError<S::Error>> {
        if self.at + BLOCK_BYTES > self.source.length() {
            return Ok(None);
        }
        let block = self.source.read(self.at..self.at + BLOCK_BYTES).map_err(ScanError::Source)?;
        if block.iter().all(|byte| *byte == 0) {
            let is_torn = self.is_torn().map_err(ScanError::Source)?;
            return if is_torn { Ok(None) } else { Err(BadGroup::Lost.into()) };
        }
        let head = self.head_at(self.at).map_err(ScanError::Source)?.map_err(BadGroup::Frame)?;
        if head.first != self.next.0 {
            return Err(BadGroup::Position { found: head.first, expected: self.next.0 }.into());
        }
        let start = self.at + GROUP_HEAD_BYTES;
        let body = self.source.read(start..start + head.bytes as usize).map_err(ScanError::Source)?;
        self.entries(&head, body)?.into_iter().for_each(&mut take);
        self.at = (start + head.bytes as usize).next_multiple_of(BLOCK_BYTES);
        self.next.0 += u64::from(head.records);
        Ok(Some(head))
    }

    /// Whether no group that was written later follows the broken group. The broken group was then in flight when the
    /// process died, nothing rests on it, and it is cut (D6). Groups are written one after the other, so a whole
    /// group behind the broken one shows that the broken one was durable once.
    pub fn is_torn(&mut self) -> Result<bool, S::Error> {
        for at in (self.at + BLOCK_BYTES..self.source.length()).step_by(BLOCK_BYTES) {
            if self.head_at(at)?.is_ok_and(|head| head.first > self.next.0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The content of a segment without a head. Groups that the file held under another segment's number do not
    /// count.
    pub fn remains(&mut self) -> Result<Remains, S::Error> {
        let mut remains = Remains::default();
        for at in (BLOCK_BYTES..self.source.length()).step_by(BLOCK_BYTES) {
            let Ok(head) = self.head_at(at)? else { continue };
            if head.records > 0 {
                return Ok(Remains { group: Some(at), ..remains });
            }
            remains.durable = remains.durable.max(Position(head.durable));
        }
        Ok(remains)
    }

    /// Reads the head of a group, which lies in the group's first block.
    fn head_at(&mut self, at: usize) -> Result<Result<GroupHead, FrameError>, S::Error> {
        let rest = self.source.length() - at;
        let block = self.source.read(at..at + rest.min(BLOCK_BYTES))?;
        Ok(self.head_in(&block, at, rest))
    }

    fn head_in(&self, block: &Bytes, at: usize, rest: usize) -> Result<GroupHead, FrameError> {
        let place = self.id.place(self.segment).wrapping_add(at as u64);
        let (frame, size) = split(block, place, block.len())?.ok_or(FrameError::Length(block.len()))?;
        let head: GroupHead = frame.decode(self.id.scope())?;
        let fits = size == GROUP_HEAD_BYTES && head.bytes as usize <= rest - GROUP_HEAD_BYTES;
        if fits { Ok(head) } else { Err(FrameError::Length(head.bytes as usize)) }
    }

    fn entries(&self, head: &GroupHead, body: Bytes) -> Result<Vec<LogEntry>, BadGroup> {
        let start = self.at + GROUP_HEAD_BYTES;
        let mut place = self.id.place(self.segment).wrapping_add(start as u64);
        let mut rest = body;
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let Some((frame, size)) = split(&rest, place, rest.len())? else { return Err(BadGroup::Records) };
            let record: Record = frame.decode(self.id.scope())?;
            let payload = if frame.payload.is_empty() {
                None
            } else {
                // The batch is copied, since it may be kept for long and must not keep the whole group in memory.
                let own = Bytes::copy_from_slice(&frame.payload);
                Some(Payload::parse(own, frame.payload_crc).map_err(BadGroup::Batch)?)
            };
            entries.push((record, payload));
            place = place.wrapping_add(size as u64);
            rest = rest.slice(size..);
        }
        if entries.len() == head.records as usize { Ok(entries) } else { Err(BadGroup::Records) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Append;
    use crate::log::group::{Group, GroupEncoder, group_bytes};
    use crate::log::tests::log_id;
    use crate::log::{LogId, SegmentHead};
    use isonomy_wire::command::{Numbering, RequestBuilder};
    use isonomy_wire::deps::Deps;
    use isonomy_wire::id::{InstanceId, ReplicaId, SessionId};
    use std::sync::Arc;

    const SEGMENT: u64 = 9;

    fn payload(text: &str) -> Payload {
        let mut builder = RequestBuilder::default();
        builder.decide(b"key", text.as_bytes()).unwrap();
        let bytes = builder.encode(SessionId::named("s"), Numbering::at(1));
        let crc = crc32c::crc32c(&bytes);
        Payload::parse(bytes, crc).unwrap()
    }

    fn record(seq: u64) -> LogEntry {
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

    /// A segment that gives each piece in memory of its own, and counts the pieces that live.
    struct Pieces<'a> {
        image: &'a [u8],
        alive: Arc<()>,
        longest: usize,
    }

    struct CountedPiece(Vec<u8>, #[allow(dead_code)] Arc<()>);

    impl AsRef<[u8]> for CountedPiece {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl SegmentSource for Pieces<'_> {
        type Error = Infallible;

        fn length(&self) -> usize {
            self.image.len()
        }

        fn read(&mut self, range: Range<usize>) -> Result<Bytes, Infallible> {
            self.longest = self.longest.max(range.len());
            let piece = CountedPiece(self.image[range].to_vec(), self.alive.clone());
            Ok(isonomy_wire::frame::aligned(Bytes::from_owner(piece)))
        }
    }

    /// The entries that a scan reads, the position where it stopped, and whether the group that stopped it was torn.
    /// A segment in memory and a segment read in pieces give equal results.
    fn scan(image: &[u8]) -> (Vec<LogEntry>, u64, Option<bool>) {
        let bytes = isonomy_wire::frame::aligned(Bytes::copy_from_slice(image));
        let whole = scan_from(&mut Scanner::new(log_id(), SEGMENT, bytes, Position(1)));
        let pieces = Pieces { image, alive: Arc::default(), longest: 0 };
        let mut scanner = Scanner::new(log_id(), SEGMENT, pieces, Position(1));
        assert_eq!(scan_from(&mut scanner), whole);
        assert!(scanner.source.longest <= 4 * BLOCK_BYTES, "no piece is longer than a group");
        whole
    }

    fn scan_from<S: SegmentSource<Error = Infallible>>(
        scanner: &mut Scanner<S>,
    ) -> (Vec<LogEntry>, u64, Option<bool>) {
        let mut entries = Vec::new();
        let broken = loop {
            match scanner.next_group(|entry| entries.push(entry)) {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(_) => {
                    let Ok(is_torn) = scanner.is_torn();
                    break Some(is_torn);
                }
            }
        };
        (entries, scanner.next_position().0, broken)
    }

    #[test]
    fn what_is_kept_of_a_segment_keeps_nothing_else_of_it() {
        let image = image(&[1..4, 4..5, 5..9], 8);
        let alive = Arc::default();
        let pieces = Pieces { image: &image, alive: Arc::clone(&alive), longest: 0 };
        let mut scanner = Scanner::new(log_id(), SEGMENT, pieces, Position(1));
        let (entries, ..) = scan_from(&mut scanner);
        assert!(entries.iter().any(|(_, payload)| payload.is_some()));
        assert_eq!(Arc::strong_count(&alive), 2, "the scanner's and this one");
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
            // Missing bytes read as zeros, as in a file of fixed size.
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
