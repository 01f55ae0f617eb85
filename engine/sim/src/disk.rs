//! A replica's disk: the production log format over memory. A write that was not synced is lost in a crash, or is
//! there whole or in part. A write that was synced may be damaged.

use isonomy_protocol::contract::{Append, Position};
use isonomy_protocol::log::chain::{Chain, Known, SegmentUse, Start};
use isonomy_protocol::log::group::{Group, GroupEncoder, group_bytes};
use isonomy_protocol::log::record::Record;
use isonomy_protocol::log::scan::{LogEntry, Scanner};
use isonomy_protocol::log::{BLOCK_BYTES, LogId, SegmentHead};
use isonomy_wire::frame::aligned;
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;

/// The size of a segment: small, so that runs are short and still have many segments. A record that needs more gets
/// more.
const SEGMENT_BYTES: usize = 64 << 10;
/// A group is closed when it is this large.
const GROUP_BYTES_MAX: usize = 16 << 10;

/// A write that is under way.
struct Write {
    segment: u64,
    offset: usize,
    bytes: Vec<u8>,
    last: Position,
}

/// A replica's disk.
pub struct Disk {
    id: LogId,
    encoder: GroupEncoder,
    /// The files of the segments by number, as the platters hold them: those in use, and one that is
    /// prepared.
    files: BTreeMap<u64, Vec<u8>>,
    /// The segment in use; 0 before the first.
    segment: u64,
    /// A segment that was cut. The next segment has its bytes to begin with.
    spare: Option<Vec<u8>>,
    /// Records before this position are no longer needed.
    cut: Position,
    /// Segment and offset of the last group that is durable.
    last_group: (u64, usize),
    /// The replica's note beside the log: a record that the log has held.
    reached: Position,
    /// The newest snapshot, whole and durable.
    snapshot: Option<(u64, Vec<u8>)>,
    is_rotten: bool,
    waiting: Vec<Append>,
    write: Option<Write>,
    offset: usize,
    durable: Position,
    /// The bytes that the log held when it was last read back, and those that it has taken since.
    bytes: u64,
}

impl Disk {
    /// An empty disk.
    pub fn new(id: LogId) -> Disk {
        Disk {
            id,
            encoder: GroupEncoder::new(id),
            files: BTreeMap::new(),
            segment: 0,
            spare: None,
            cut: Position(0),
            last_group: (0, BLOCK_BYTES),
            reached: Position(0),
            snapshot: None,
            is_rotten: false,
            waiting: Vec::new(),
            write: None,
            offset: 0,
            durable: Position(0),
            bytes: 0,
        }
    }

    /// Makes the next segment before it is needed, as the replica does when one has begun.
    fn prepare(&mut self) {
        let next = self.segment + 1;
        if !self.files.contains_key(&next) {
            let mut bytes = self.spare.take().unwrap_or_default();
            bytes.resize(bytes.len().max(SEGMENT_BYTES), 0);
            let prepared = self.id.encode_prepared(next, self.durable);
            bytes[..prepared.len()].copy_from_slice(&prepared);
            self.files.insert(next, bytes);
        }
    }

    /// A copy of what the platters hold now.
    pub fn copy(&self) -> Disk {
        Disk {
            id: self.id,
            encoder: GroupEncoder::new(self.id),
            files: self.files.clone(),
            segment: self.segment,
            spare: self.spare.clone(),
            cut: self.cut,
            last_group: self.last_group,
            reached: self.reached,
            snapshot: self.snapshot.clone(),
            is_rotten: self.is_rotten,
            waiting: Vec::new(),
            write: None,
            offset: self.offset,
            durable: self.durable,
            bytes: self.bytes,
        }
    }

    /// Begins a segment with room for a group of this many bytes.
    fn next_segment(&mut self, first: u64, needed: usize) {
        self.prepare();
        self.segment += 1;
        let head = self.id.encode_head(SegmentHead { segment: self.segment, first });
        let bytes = self.files.get_mut(&self.segment).expect("it was just made");
        bytes.resize(bytes.len().max(BLOCK_BYTES + needed), 0);
        bytes[..BLOCK_BYTES].copy_from_slice(&head);
        self.offset = BLOCK_BYTES;
    }

    /// The size of the segment in use.
    fn segment_bytes(&self) -> usize {
        self.files.get(&self.segment).map_or(0, Vec::len)
    }

    /// A record waits for its write.
    pub fn append(&mut self, append: Append) {
        self.waiting.push(append);
    }

    /// Begins the next write if none is under way and a record waits. Returns whether it did. A full disk has no room
    /// for another segment, unless an old one was cut.
    pub fn begin_write(&mut self, full: bool) -> bool {
        if self.write.is_some() || self.waiting.is_empty() {
            return false;
        }
        let first = self.waiting[0].position;
        let needed = group_bytes(self.waiting[0].payload.as_ref());
        let begins = |append: &Append| matches!(append.record, Record::Begin { .. });
        if self.offset + needed > self.segment_bytes() || begins(&self.waiting[0]) {
            if full && self.spare.is_none() && !self.files.contains_key(&(self.segment + 1)) {
                return false;
            }
            self.next_segment(first.0, needed);
        }
        let (segment, offset) = (self.segment, self.offset);
        let mut buffer = vec![0; needed.max(GROUP_BYTES_MAX).min(self.segment_bytes() - offset)];
        let place = self.id.place(segment).wrapping_add(offset as u64);
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
        self.write = Some(Write { segment, offset, bytes: buffer, last: group.last() });
        true
    }

    /// The write is done. Returns the position that is durable now.
    pub fn end_write(&mut self) -> Position {
        let write = self.write.take().expect("a write is under way");
        self.put(&write, 0..write.bytes.len());
        self.last_group = (write.segment, write.offset);
        self.durable = write.last;
        if self.reached == Position(0) {
            self.reached = self.durable;
        }
        self.prepare();
        self.take_away();
        self.durable
    }

    fn put(&mut self, write: &Write, range: std::ops::Range<usize>) {
        let file = self.files.get_mut(&write.segment).expect("it is in use");
        file[write.offset + range.start..write.offset + range.end].copy_from_slice(&write.bytes[range]);
    }

    /// The bytes that the log held when it was last read back, and those that it has taken since.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The part of the log that no crash can take.
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// The process is gone. A write under way may have reached the platters, block by block. Returns whether it did
    /// in part.
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

    /// Keeps a snapshot in place of the one before, and notes how far the log has come.
    pub fn keep_snapshot(&mut self, barrier: u64, bytes: Vec<u8>) {
        self.reached = self.durable;
        self.snapshot = Some((barrier, bytes));
        self.is_rotten = false;
    }

    /// A bit of the newest snapshot flips, and nobody sees it yet.
    pub fn rot(&mut self, random: &mut SmallRng) {
        if let Some((_, bytes)) = &mut self.snapshot {
            flip(bytes, random);
            self.is_rotten = true;
        }
    }

    /// Whether the newest snapshot differs from the bytes that were kept.
    pub fn is_rotten(&self) -> bool {
        self.is_rotten
    }

    /// The newest snapshot: its barrier and its bytes.
    pub fn snapshot(&self) -> Option<&(u64, Vec<u8>)> {
        self.snapshot.as_ref()
    }

    /// Records before this position are no longer needed.
    pub fn cut(&mut self, position: Position) {
        self.cut = position;
    }

    /// Takes away the oldest segment if it holds nothing that is needed. A crash comes before the others go.
    fn take_away(&mut self) {
        let mut used = self.files.range(..=self.segment);
        let (Some((&first, _)), Some((&second, bytes))) = (used.next(), used.next()) else { return };
        let head = self.id.decode_head(second, &aligned(bytes[..BLOCK_BYTES].to_vec().into()));
        if head.is_ok_and(|head| head.is_some_and(|head| head.first <= self.cut.0)) {
            self.spare = self.files.remove(&first);
        }
    }

    /// Changes something durable on the platters, but not in the last group, since only a later group could tell that
    /// the last one was durable (D6).
    pub fn damage(&mut self, random: &mut SmallRng) {
        if let Some((_, bytes)) = self.snapshot.as_mut().filter(|_| random.random_bool(0.2)) {
            return flip(bytes, random);
        }
        let (last, offset) = self.last_group;
        let used: Vec<u64> = self.files.range(..=last).map(|(segment, _)| *segment).collect();
        if used.is_empty() {
            return;
        }
        if random.random_bool(0.3) {
            return self.make_hole(&used, random);
        }
        let segment = used[random.random_range(0..used.len())];
        let end = if segment == last { offset } else { self.files[&segment].len() };
        let block = random.random_range(0..end / BLOCK_BYTES) * BLOCK_BYTES;
        let other =
            self.files.values().nth(random.random_range(0..self.files.len())).expect("there are as many");
        let from = random.random_range(0..other.len() / BLOCK_BYTES) * BLOCK_BYTES;
        let astray = other[from..from + BLOCK_BYTES].to_vec();
        let target =
            &mut self.files.get_mut(&segment).expect("it is one of them")[block..block + BLOCK_BYTES];
        match random.random_range(0..3) {
            // A bit flips, a block is lost, or a write that went astray has hit it.
            0 => flip(target, random),
            1 => target.fill(0),
            _ => target.copy_from_slice(&astray),
        }
    }

    /// Takes from the log the head of its first or last segment, one of its segments, or all.
    fn make_hole(&mut self, used: &[u64], random: &mut SmallRng) {
        let ends = [used[0], used[used.len() - 1]];
        let end = ends[random.random_range(0..2)];
        let any = used[random.random_range(0..used.len())];
        match random.random_range(0..4) {
            0 => self.files.get_mut(&end).expect("it is one of them")[..BLOCK_BYTES].fill(0),
            1 => self.files.get_mut(&end).expect("it is one of them").fill(0),
            2 => drop(self.files.remove(&any)),
            _ => self.files.clear(),
        }
    }

    /// Reads the log back as the replica process does, and cuts a torn tail. The error is damage.
    pub fn recover(&mut self) -> Result<Vec<LogEntry>, String> {
        let snapshot = self.snapshot.as_ref().map_or(0, |(barrier, _)| *barrier);
        let known = Known { reached: self.reached, restored: false, snapshot };
        let mut chain = Chain::new(known).map_err(|hole| hole.to_string())?;
        let mut entries = Vec::new();
        (self.segment, self.offset, self.bytes) = (0, 0, 0);
        let mut next = Position(1);
        for (&segment, bytes) in &self.files {
            let bytes = aligned(bytes.clone().into());
            let head = self.id.decode_head(segment, &bytes.slice(..BLOCK_BYTES));
            let start = match head.map_err(|error| error.to_string())? {
                Some(head) => Start::Head(head),
                None => {
                    let Ok(remains) = Scanner::new(self.id, segment, bytes.clone(), next).remains();
                    Start::Empty(remains)
                }
            };
            let SegmentUse::Begun(first) = chain.enter(segment, start).map_err(|hole| hole.to_string())?
            else {
                continue;
            };
            let mut scanner = Scanner::new(self.id, segment, bytes, first);
            loop {
                let take = |entry: LogEntry| {
                    if chain.takes(&entry.0) {
                        entries.push(entry);
                    }
                };
                match scanner.next_group(take) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(broken) => {
                        let Ok(is_torn) = scanner.is_torn();
                        if is_torn {
                            break;
                        }
                        return Err(broken.to_string());
                    }
                }
            }
            next = scanner.next_position();
            chain.leave(next).map_err(|hole| hole.to_string())?;
            (self.segment, self.offset) = (segment, scanner.offset());
        }
        chain.finish().map_err(|hole| hole.to_string())?;
        assert!(next.0 > self.durable.0, "V15: what was durable is gone");
        self.durable = Position(next.0 - 1);
        let before = self.files.range(..self.segment);
        self.bytes = (before.map(|(_, bytes)| bytes.len()).sum::<usize>() + self.offset) as u64;
        Ok(entries)
    }
}

fn flip(bytes: &mut [u8], random: &mut SmallRng) {
    let at = random.random_range(0..bytes.len());
    bytes[at] ^= 1 << random.random_range(0..8);
}
