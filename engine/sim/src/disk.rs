//! A replica's disk: the production log format over memory. What was not synced is lost in a
//! crash, or is there whole or in part; what was synced may be damaged.

use isonomy_protocol::contract::{Append, Position};
use isonomy_protocol::log::group::{Group, GroupEncoder, group_bytes};
use isonomy_protocol::log::record::Record;
use isonomy_protocol::log::scan::{Entry, Scanner};
use isonomy_protocol::log::{BLOCK_BYTES, LogId, SegmentHead};
use isonomy_wire::frame::aligned;
use rand::Rng;
use rand::rngs::SmallRng;

/// Small, so that runs are short and still have many segments; a record that needs more gets more.
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
    /// A segment that was cut: the next one has its bytes to begin with.
    spare: Option<Vec<u8>>,
    /// Segment and offset of the last group that is durable.
    last_group: (usize, usize),
    /// The newest snapshot, whole and durable.
    snapshot: Option<(u64, Vec<u8>)>,
    waiting: Vec<Append>,
    write: Option<Write>,
    offset: usize,
    durable: Position,
    /// What the log held when it was last read back, and has taken since.
    bytes: u64,
}

impl Disk {
    /// An empty one.
    pub fn new(id: LogId) -> Disk {
        let mut disk = Disk {
            id,
            encoder: GroupEncoder::new(id),
            cut: 0,
            segments: Vec::new(),
            spare: None,
            last_group: (1, BLOCK_BYTES),
            snapshot: None,
            waiting: Vec::new(),
            write: None,
            offset: 0,
            durable: Position(0),
            bytes: 0,
        };
        disk.next_segment(1, 0);
        disk
    }

    /// A segment with room for a group of so many bytes.
    fn next_segment(&mut self, first: u64, needed: usize) {
        let segment = (self.cut + self.segments.len()) as u64 + 1;
        let mut bytes = self.spare.take().unwrap_or_default();
        bytes.resize(bytes.len().max(SEGMENT_BYTES).max(BLOCK_BYTES + needed), 0);
        bytes[..BLOCK_BYTES].copy_from_slice(&self.id.encode_head(SegmentHead { segment, first }));
        self.segments.push(bytes);
        self.offset = BLOCK_BYTES;
    }

    /// The size of the segment in use.
    fn segment_bytes(&self) -> usize {
        self.segments.last().map_or(0, Vec::len)
    }

    /// A record waits for its write.
    pub fn append(&mut self, append: Append) {
        self.waiting.push(append);
    }

    /// Begins the next write if none is under way and something waits; whether it did. A full disk
    /// has no room for another segment, unless an old one was cut.
    pub fn begin_write(&mut self, full: bool) -> bool {
        if self.write.is_some() || self.waiting.is_empty() {
            return false;
        }
        let first = self.waiting[0].position;
        let needed = group_bytes(self.waiting[0].payload.as_ref());
        let begins = |append: &Append| matches!(append.record, Record::Begin { .. });
        if self.offset + needed > self.segment_bytes() || begins(&self.waiting[0]) {
            if full && self.spare.is_none() {
                return false;
            }
            self.next_segment(first.0, needed);
        }
        let (segment, offset) = (self.cut + self.segments.len(), self.offset);
        let mut buffer = vec![0; needed.max(GROUP_BYTES_MAX).min(self.segment_bytes() - offset)];
        let place = self.id.place(segment as u64).wrapping_add(offset as u64);
        let mut group = Group::new(first);
        let taken = self
            .waiting
            .iter()
            .take_while(|append| append.position == first || !begins(append))
            .take_while(|append| self.encoder.append(&mut group, &mut buffer, place, append));
        let taken = taken.count();
        assert!(taken > 0, "a group takes at least one record");
        self.waiting.drain(..taken);
        let size = self.encoder.finish(&group, &mut buffer, place, self.durable);
        buffer.truncate(size);
        self.offset += size;
        self.bytes += size as u64;
        self.write = Some(Write { segment: segment - 1, offset, bytes: buffer, last: group.last() });
        true
    }

    /// The write is done: the position that is durable now.
    pub fn end_write(&mut self) -> Position {
        let write = self.write.take().expect("a write is under way");
        self.put(&write, 0..write.bytes.len());
        self.last_group = (write.segment + 1, write.offset);
        self.durable = write.last;
        self.durable
    }

    fn put(&mut self, write: &Write, range: std::ops::Range<usize>) {
        let target = &mut self.segments[write.segment - self.cut]
            [write.offset + range.start..write.offset + range.end];
        target.copy_from_slice(&write.bytes[range]);
    }

    /// What the log held when it was last read back, and has taken since, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
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
        let is_done = |head: SegmentHead| head.first <= position.0;
        while self.segments.len() > 1 && self.head(1).is_ok_and(is_done) {
            self.spare = Some(self.segments.remove(0));
            self.cut += 1;
        }
    }

    fn head(&self, place: usize) -> Result<SegmentHead, String> {
        let bytes = aligned(self.segments[place][..BLOCK_BYTES].to_vec().into());
        let head = self.id.decode_head((self.cut + place) as u64 + 1, &bytes);
        head.map_err(|error| error.to_string())?.ok_or_else(|| "a segment has lost its head".to_string())
    }

    /// Something that was durable changes on the platters: a bit flips, a block is lost, or a write
    /// that went astray has hit it. Not in the last group: of that one only a later group could tell
    /// that it was durable (D6).
    pub fn damage(&mut self, random: &mut SmallRng) {
        let (segment, offset) = self.last_group;
        let place =
            random.random_range(0..=segment.saturating_sub(self.cut + 1).min(self.segments.len() - 1));
        let is_last = self.cut + place + 1 == segment;
        let end = if is_last { offset } else { self.segments[place].len() };
        if let Some((_, bytes)) = self.snapshot.as_mut().filter(|_| random.random_bool(0.2)) {
            return flip(bytes, random);
        }
        let block = random.random_range(0..end / BLOCK_BYTES) * BLOCK_BYTES;
        let target = block..block + BLOCK_BYTES;
        match random.random_range(0..3) {
            0 => flip(&mut self.segments[place][target], random),
            1 => self.segments[place][target].fill(0),
            _ => {
                let other = random.random_range(0..self.segments.len());
                let from = random.random_range(0..self.segments[other].len() / BLOCK_BYTES) * BLOCK_BYTES;
                let astray = self.segments[other][from..from + BLOCK_BYTES].to_vec();
                self.segments[place][target].copy_from_slice(&astray);
            }
        }
    }

    /// Reads the log back as the replica process does, a torn tail cut. The error is damage.
    pub fn recover(&mut self) -> Result<Vec<Entry>, String> {
        let mut entries = Vec::new();
        let mut next = Position(self.head(0)?.first);
        for (place, bytes) in self.segments.iter().enumerate() {
            let number = (self.cut + place) as u64 + 1;
            if self.head(place)?.first != next.0 {
                return Err(format!("segment {number} does not follow the one before"));
            }
            let mut scanner = Scanner::new(self.id, number, aligned(bytes.clone().into()), next);
            loop {
                match scanner.next_group(|entry| entries.push(entry)) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) if scanner.is_torn() => break,
                    Err(broken) => return Err(broken.to_string()),
                }
            }
            next = scanner.next_position();
            self.offset = scanner.offset();
        }
        assert!(next.0 > self.durable.0, "V15: what was durable is gone");
        self.durable = Position(next.0 - 1);
        let before = &self.segments[..self.segments.len() - 1];
        self.bytes = (before.iter().map(Vec::len).sum::<usize>() + self.offset) as u64;
        Ok(entries)
    }
}

fn flip(bytes: &mut [u8], random: &mut SmallRng) {
    let at = random.random_range(0..bytes.len());
    bytes[at] ^= 1 << random.random_range(0..8);
}
