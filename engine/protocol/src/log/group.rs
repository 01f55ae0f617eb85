//! Writing a group: the records of one write and sync.

use crate::contract::{Append, Position};
use crate::log::{BLOCK_BYTES, LogId};
use crate::payload::Payload;
use isonomy_wire::frame::{Encode, Encoder, frame_bytes, padding};
use rkyv::{Archive, Deserialize, Serialize};

/// The head of a group, in front of its records.
// The archived twin that rkyv derives has no documentation of its own.
#[allow(missing_docs)]
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupHead {
    /// The position of the first record.
    pub first: u64,
    /// The number of records.
    pub records: u32,
    /// The bytes of the records' frames, without the padding of the group.
    pub bytes: u32,
    /// The position that was durable when the group was written (D6).
    pub durable: u64,
}

/// The archive of a [`GroupHead`]: all its fields are of fixed size.
const HEAD_ARCHIVE_BYTES: usize = size_of::<ArchivedGroupHead>();

/// The frame of a [`GroupHead`].
pub const GROUP_HEAD_BYTES: usize = {
    const HEADER: usize = isonomy_wire::frame::HEADER_BYTES;
    HEADER + HEAD_ARCHIVE_BYTES.next_multiple_of(isonomy_wire::frame::ALIGN)
};

/// More bytes than the frame of any record needs, without its batch.
pub const RECORD_BYTES_MAX: usize = 1024;

/// The size that an empty group needs for a record with this batch.
pub fn group_bytes(payload: Option<&Payload>) -> usize {
    let payload = payload.map_or(0, |payload| payload.batch().payload().len());
    (GROUP_HEAD_BYTES + RECORD_BYTES_MAX + frame_bytes(0, payload)).next_multiple_of(BLOCK_BYTES)
}

/// A group that gathers records in a buffer that its owner provides. The places given to the encoder are those of the
/// group's first byte in its segment.
#[derive(Debug)]
pub struct Group {
    first: Position,
    records: u32,
    filled: usize,
}

/// Encodes groups, and keeps its scratch space from one group to the next.
#[derive(Debug)]
pub struct GroupEncoder {
    id: LogId,
    encoder: Encoder,
    scratch: Vec<u8>,
}

impl Group {
    /// An empty group. Its first record will have this position.
    pub fn new(first: Position) -> Group {
        Group { first, records: 0, filled: GROUP_HEAD_BYTES }
    }

    /// The number of records.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// The bytes that the group will take in the segment.
    pub fn padded_bytes(&self) -> usize {
        self.filled.next_multiple_of(BLOCK_BYTES)
    }

    /// The position of the last record, or the position before the first if there is none yet.
    pub fn last(&self) -> Position {
        Position(self.first.0 + u64::from(self.records) - 1)
    }
}

impl GroupEncoder {
    /// An encoder for the log of `id`.
    pub fn new(id: LogId) -> GroupEncoder {
        GroupEncoder { id, encoder: Encoder::default(), scratch: Vec::new() }
    }

    /// Appends a record to the group in `buffer`, whose first byte will lie at `place`. Returns false, and changes
    /// nothing, if the record does not fit.
    pub fn append(&mut self, group: &mut Group, buffer: &mut [u8], place: u64, append: &Append) -> bool {
        assert_eq!(append.position.0, group.last().0 + 1, "positions are consecutive");
        let payload: &[u8] = append.payload.as_ref().map_or(&[], |payload| payload.batch().payload());
        let needed = RECORD_BYTES_MAX + frame_bytes(0, payload.len());
        if group.filled + needed > buffer.len() {
            return false;
        }
        let crc = append.payload.as_ref().map_or(0, |payload| payload.batch().crc());
        let place = place.wrapping_add(group.filled as u64);
        self.scratch.clear();
        let scope = self.id.scope();
        let size = self.encoder.head(&mut self.scratch, place, scope, &append.record, payload.len(), crc);
        assert!(size <= needed, "a record outgrew RECORD_BYTES_MAX");
        for piece in [&self.scratch[..], payload, padding(payload.len())] {
            let end = group.filled + piece.len();
            buffer[group.filled..end].copy_from_slice(piece);
            group.filled = end;
        }
        group.records += 1;
        true
    }

    /// Writes the head of the group and the zeros behind its records. Returns the number of bytes to write, from the
    /// start of the buffer.
    pub fn finish(&mut self, group: &Group, buffer: &mut [u8], place: u64, durable: Position) -> usize {
        let head = GroupHead {
            first: group.first.0,
            records: group.records,
            bytes: (group.filled - GROUP_HEAD_BYTES) as u32,
            durable: durable.0,
        };
        self.scratch.clear();
        let size = self.frame(place, &head);
        assert_eq!(size, GROUP_HEAD_BYTES);
        buffer[..GROUP_HEAD_BYTES].copy_from_slice(&self.scratch);
        let padded = group.padded_bytes();
        buffer[group.filled..padded].fill(0);
        padded
    }

    fn frame(&mut self, place: u64, message: &impl Encode) -> usize {
        let scope = self.id.scope();
        self.encoder.frame(&mut self.scratch, place, scope, message, &[], 0)
    }
}
