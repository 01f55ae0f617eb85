//! A replica's disk: the production log format over memory. What was not synced is lost in a
//! crash, or is there whole or in part.

use isonomy_protocol::contract::{Append, Position};
use isonomy_protocol::log::group::{Group, GroupEncoder, group_bytes};
use isonomy_protocol::log::record::Record;
use isonomy_protocol::log::scan::{Entry, Scanner};
use isonomy_protocol::log::{BLOCK_BYTES, LogId, SegmentHead};
use isonomy_wire::frame::aligned;
use rand::Rng;
use rand::rngs::SmallRng;

/// Small, so that runs are short and still have many segments.
const SEGMENT_BYTES: usize = 64 << 10;
/// A group is closed when it is this large.
const GROUP_BYTES_MAX: usize = 16 << 10;

/// A write that is under way.
struct Write {
    segment: usize,
    offset: usize,
    bytes: Vec<u8>,
    last: Position,
}

/// See the module.
pub struct Disk {
    id: LogId,
    encoder: GroupEncoder,
    /// How many segments were cut from the front.
    cut: usize,
    /// What the platters hold of the log; the last segment is the one in use.
    segments: Vec<Vec<u8>>,
    /// The newest snapshot, whole and durable.
    snapshot: Option<(u64, Vec<u8>)>,
    waiting: Vec<Append>,
    write: Option<Write>,
    offset: usize,
    durable: Position,
}

impl Disk {
    /// An empty one.
    pub fn new(id: LogId) -> Disk {
        let mut disk = Disk {
            id,
            encoder: GroupEncoder::new(id),
            cut: 0,
            segments: Vec::new(),
            snapshot: None,
            waiting: Vec::new(),
            write: None,
            offset: SEGMENT_BYTES,
            durable: Position(0),
        };
        disk.next_segment(1);
        disk
    }

    fn next_segment(&mut self, first: u64) {
        let segment = (self.cut + self.segments.len()) as u64 + 1;
        let mut bytes = self.id.encode_head(SegmentHead { segment, first });
        bytes.resize(SEGMENT_BYTES, 0);
        self.segments.push(bytes);
        self.offset = BLOCK_BYTES;
    }

    /// A record waits for its write.
    pub fn append(&mut self, append: Append) {
        self.waiting.push(append);
    }

    /// Begins the next write if none is under way and something waits; whether it did.
    pub fn begin_write(&mut self) -> bool {
        if self.write.is_some() || self.waiting.is_empty() {
            return false;
        }
        let first = self.waiting[0].position;
        let needed = group_bytes(self.waiting[0].payload.as_ref());
        let begins = |append: &Append| matches!(append.record, Record::Begin { .. });
        if self.offset + needed > SEGMENT_BYTES || begins(&self.waiting[0]) {
            self.next_segment(first.0);
        }
        let (segment, offset) = (self.cut + self.segments.len(), self.offset);
        let mut buffer = vec![0; needed.max(GROUP_BYTES_MAX).min(SEGMENT_BYTES - offset)];
        let place = self.id.place(segment as u64).wrapping_add(offset as u64);
        let mut group = Group::new(first);
        let taken = self
            .waiting
            .iter()
            .take_while(|append| append.position == first || !begins(append))
            .take_while(|append| self.encoder.append(&mut group, &mut buffer, place, append));
        let taken = taken.count();
        self.waiting.drain(..taken);
        let size = self.encoder.finish(&group, &mut buffer, place, self.durable);
        buffer.truncate(size);
        self.offset += size;
        self.write = Some(Write { segment: segment - 1, offset, bytes: buffer, last: group.last() });
        true
    }

    /// The write is done: the position that is durable now.
    pub fn end_write(&mut self) -> Position {
        let write = self.write.take().expect("a write is under way");
        self.put(&write, 0..write.bytes.len());
        self.durable = write.last;
        self.durable
    }

    fn put(&mut self, write: &Write, range: std::ops::Range<usize>) {
        let target = &mut self.segments[write.segment - self.cut]
            [write.offset + range.start..write.offset + range.end];
        target.copy_from_slice(&write.bytes[range]);
    }

    /// What no crash can take.
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// The process is gone. A write under way may have reached the platters, block by block;
    /// whether it did in part.
    pub fn crash(&mut self, random: &mut SmallRng) -> bool {
        self.waiting.clear();
        let Some(write) = self.write.take() else { return false };
        let (kind, mut kept) = (random.random_range(0..4), 0);
        for start in (0..write.bytes.len()).step_by(BLOCK_BYTES) {
            if kind == 1 || (kind >= 2 && random.random_bool(0.5)) {
                self.put(&write, start..start + BLOCK_BYTES);
                kept += BLOCK_BYTES;
            }
        }
        kept > 0 && kept < write.bytes.len()
    }

    /// Keeps a snapshot in place of the one before.
    pub fn keep_snapshot(&mut self, fence: u64, bytes: Vec<u8>) {
        self.snapshot = Some((fence, bytes));
    }

    /// The newest snapshot: its fence and its bytes.
    pub fn snapshot(&self) -> Option<&(u64, Vec<u8>)> {
        self.snapshot.as_ref()
    }

    /// Records before this position are no longer needed.
    pub fn cut(&mut self, position: Position) {
        while self.segments.len() > 1 && self.head(1).first <= position.0 {
            self.segments.remove(0);
            self.cut += 1;
        }
    }

    fn head(&self, place: usize) -> SegmentHead {
        let bytes = aligned(self.segments[place][..BLOCK_BYTES].to_vec().into());
        let head = self.id.decode_head((self.cut + place) as u64 + 1, &bytes);
        head.expect("D6: the head reads").expect("a segment begins with its head")
    }

    /// Reads the log back as the replica process does, a torn tail cut.
    pub fn recover(&mut self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut next = Position(self.head(0).first);
        for (place, bytes) in self.segments.iter().enumerate() {
            let number = (self.cut + place) as u64 + 1;
            assert_eq!(self.head(place).first, next.0, "D6: segment {number} follows the one before");
            let bytes = aligned(bytes.clone().into());
            let mut scanner = Scanner::new(self.id, number, bytes, next);
            loop {
                match scanner.next_group(|entry| entries.push(entry)) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(broken) => {
                        assert!(
                            scanner.is_torn(),
                            "D6: the log of replica {} is damaged: {broken}",
                            self.id.replica
                        );
                        break;
                    }
                }
            }
            next = scanner.next_position();
            self.offset = scanner.offset();
        }
        assert!(next.0 > self.durable.0, "V15: what was durable is gone");
        self.durable = Position(next.0 - 1);
        entries
    }
}
