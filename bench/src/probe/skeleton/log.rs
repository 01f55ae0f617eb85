//! The log of a replica: records gather in groups, which are written one after the other.

use bytes::Bytes;
use glommio::io::DmaBuffer;
use isonomy_tuning::direct::BLOCK_BYTES;
use isonomy_wire::frame::{Encoder, frame_bytes, padding};
use isonomy_wire::id::InstanceId;
use std::collections::VecDeque;

use super::words::LOG;

/// A group is closed when it has so many bytes, if more records come while another is written.
const GROUP_BYTES_MAX: usize = 512 << 10;
/// The content of a record besides its batch, which takes 64 bytes with the frame's header.
type Words = [u64; 4];

/// Counts records.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Position(pub(super) u64);

/// One write.
pub(super) struct Group {
    pub(super) buffer: DmaBuffer,
    pub(super) offset: u64,
    /// The last record in the group.
    pub(super) last: Position,
    used: usize,
}

/// The log of a replica. Its file is written round and round.
pub(super) struct Log {
    encoder: Encoder,
    head: Vec<u8>,
    file_bytes: u64,
    /// The offset of the next group.
    offset: u64,
    last: Position,
    gathering: Option<Group>,
    full: VecDeque<Group>,
    pub(super) bytes: u64,
    pub(super) groups: u64,
}

impl Log {
    pub(super) fn new(file_bytes: u64) -> Log {
        Log {
            encoder: Encoder::default(),
            head: Vec::new(),
            file_bytes,
            offset: 0,
            last: Position(0),
            gathering: None,
            full: VecDeque::new(),
            bytes: 0,
            groups: 0,
        }
    }

    /// Adds a record to the group that gathers.
    pub(super) fn append(&mut self, id: InstanceId, payload: &Bytes, crc: u32) -> Position {
        let words: Words = [u64::from(id.row.0), id.seq, 0, 0];
        let needed = frame_bytes(size_of_val(&words), payload.len());
        if let Some(full) = self.gathering.take_if(|group| group.used + needed > group.buffer.len()) {
            self.close(full);
        }
        let mut group = self.gathering.take().unwrap_or_else(|| self.open(needed));
        let place = group.offset + group.used as u64;
        self.head.clear();
        let size = self.encoder.head(&mut self.head, place, LOG, &words, payload.len(), crc);
        assert_eq!(size, needed, "the room was reckoned for this size");
        let record = &mut group.buffer.as_bytes_mut()[group.used..group.used + needed];
        let (head, rest) = record.split_at_mut(self.head.len());
        let (body, end) = rest.split_at_mut(payload.len());
        head.copy_from_slice(&self.head);
        body.copy_from_slice(payload);
        end.copy_from_slice(padding(payload.len()));
        group.used += needed;
        self.last.0 += 1;
        group.last = self.last;
        self.gathering = Some(group);
        self.last
    }

    /// Opens a group where the last one ended, or at the start of the file.
    fn open(&mut self, needed: usize) -> Group {
        let size = GROUP_BYTES_MAX.max(needed.next_multiple_of(BLOCK_BYTES));
        assert!(size as u64 <= self.file_bytes, "options are checked before");
        if self.offset + size as u64 > self.file_bytes {
            self.offset = 0;
        }
        let buffer = glommio::allocate_dma_buffer(size);
        Group { buffer, offset: self.offset, last: self.last, used: 0 }
    }

    fn close(&mut self, group: Group) {
        self.offset += group.used.next_multiple_of(BLOCK_BYTES) as u64;
        self.full.push_back(group);
    }

    pub(super) fn has_work(&self) -> bool {
        self.gathering.is_some() || !self.full.is_empty()
    }

    /// The next group to write; the one that gathers, if no other is left.
    pub(super) fn take(&mut self) -> Option<Group> {
        if self.full.is_empty()
            && let Some(group) = self.gathering.take()
        {
            self.close(group);
        }
        let mut group = self.full.pop_front()?;
        let size = group.used.next_multiple_of(BLOCK_BYTES);
        group.buffer.as_bytes_mut()[group.used..size].fill(0);
        group.buffer.trim_to_size(size);
        self.bytes += size as u64;
        self.groups += 1;
        Some(group)
    }
}
