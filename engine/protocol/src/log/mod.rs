//! The log as bytes: records lie in groups, and groups in segments. All functions are pure, so that a simulator can
//! run them against any disk.
//!
//! A segment is a file of fixed size, which is filled with zeros at first. Its first block shows to which log it
//! belongs. Groups follow; each begins at a multiple of [`BLOCK_BYTES`] and is written in one piece:
//!
//! ```text
//! segment = head frame, zeros to 4096 | group*
//! group   = group frame | record frame* | zeros to 4096
//! ```
//!
//! A segment that is prepared has no head, and a group without records lies where its first group will lie. That
//! group says how far the log was durable when the segment was made, so that a log whose end is gone is not taken for
//! a shorter one ([`chain`]).
//!
//! All frames are those of [`isonomy_wire::frame`]. The place of a frame is an offset that starts at a random-looking
//! number for each segment of each log ([`LogId::place`]). So a block that is stale, misdirected or torn never passes
//! for one that belongs where it lies.

pub mod chain;
pub mod group;
pub mod record;
pub mod scan;

use crate::contract::Position;
use group::{Group, GroupEncoder};
use isonomy_wire::frame::{Encoder, FrameError, Kind, Scope, split};
use isonomy_wire::id::{ClusterId, Epoch, ReplicaId, ShardId};
use rkyv::{Archive, Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Groups start at multiples of this, which a disk can write without reading first.
pub const BLOCK_BYTES: usize = 4096;

/// The identity of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogId {
    /// The cluster.
    pub cluster: ClusterId,
    /// The random number of the data directory (G6).
    pub incarnation: u128,
    /// The place of the replica in the epoch.
    pub replica: ReplicaId,
    /// The epoch; each has a log of its own.
    pub epoch: Epoch,
    /// The shard.
    pub shard: ShardId,
}

/// The content of a segment's first block.
// The archived twin that rkyv derives has no documentation of its own.
#[allow(missing_docs)]
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHead {
    /// The segment's number, from 1 without gaps.
    pub segment: u64,
    /// The position of the segment's first record.
    pub first: u64,
}

impl LogId {
    /// The place of the first byte of a segment.
    pub fn place(&self, segment: u64) -> u64 {
        let mut bytes = [0; 48];
        bytes[..16].copy_from_slice(&self.cluster.0.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[32] = self.replica.0;
        bytes[34..36].copy_from_slice(&self.shard.0.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes[40..].copy_from_slice(&segment.to_le_bytes());
        xxh3_64(&bytes)
    }

    /// Log frames belong to a shard in an epoch.
    pub(crate) fn scope(&self) -> Scope {
        Scope { kind: Kind::Log, epoch: self.epoch, shard: self.shard }
    }

    /// The first block of a segment.
    pub fn encode_head(&self, head: SegmentHead) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        Encoder::default().frame(&mut block, self.place(head.segment), self.scope(), &head, &[], 0);
        block.resize(BLOCK_BYTES, 0);
        block
    }

    /// The first bytes of a segment that is prepared while the log is durable up to `durable`.
    pub fn encode_prepared(&self, segment: u64, durable: Position) -> Vec<u8> {
        let mut bytes = vec![0; 2 * BLOCK_BYTES];
        let group = Group::new(Position(durable.0 + 1));
        let place = self.place(segment).wrapping_add(BLOCK_BYTES as u64);
        GroupEncoder::new(*self).finish(&group, &mut bytes[BLOCK_BYTES..], place, durable);
        bytes
    }

    /// Reads the first block of a segment. Returns `Ok(None)` for an empty block, as in a segment that was never
    /// used, and [`FrameError::Version`] for a whole block that another release wrote.
    pub fn decode_head(&self, segment: u64, block: &bytes::Bytes) -> Result<Option<SegmentHead>, FrameError> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let frame = split(block, self.place(segment), block.len())?.ok_or(FrameError::Length(block.len()))?.0;
        let head: SegmentHead = frame.decode(self.scope())?;
        if head.segment == segment { Ok(Some(head)) } else { Err(FrameError::Scope) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bytes::Bytes;
    use isonomy_wire::message::WIRE_VERSION;

    pub(crate) fn log_id() -> LogId {
        LogId {
            cluster: ClusterId::of_name("test"),
            incarnation: 77,
            replica: ReplicaId(1),
            epoch: Epoch(2),
            shard: ShardId(3),
        }
    }

    /// Turns a frame into one that a release with another version wrote. The frame may lie anywhere, since the change
    /// of its checksum depends on the bytes only, and not on the place.
    pub(crate) fn set_version(frame: &mut [u8], version: u8) {
        let word = |at: usize| u32::from_le_bytes(frame[at..at + 4].try_into().unwrap());
        let mut covered = vec![0; 8 + 28 + word(12) as usize];
        let before = crc32c::crc32c(&covered);
        covered[8 + 4] = frame[4] ^ version;
        let crc = word(28) ^ before ^ crc32c::crc32c(&covered);
        frame[4] = version;
        frame[28..32].copy_from_slice(&crc.to_le_bytes());
    }

    #[test]
    fn a_head_is_only_read_where_it_belongs() {
        let head = SegmentHead { segment: 4, first: 1000 };
        let block = Bytes::from(log_id().encode_head(head));
        assert_eq!(block.len(), BLOCK_BYTES);
        assert_eq!(log_id().decode_head(4, &block), Ok(Some(head)));
        assert!(log_id().decode_head(5, &block).is_err());
        let other = LogId { incarnation: 78, ..log_id() };
        assert!(other.decode_head(4, &block).is_err());
        assert_eq!(log_id().decode_head(4, &Bytes::from(vec![0; BLOCK_BYTES])), Ok(None));
    }

    #[test]
    fn a_head_of_another_release_is_no_damage_and_a_flipped_bit_of_its_version_is() {
        let block = log_id().encode_head(SegmentHead { segment: 4, first: 1000 });
        let read = |block: Vec<u8>| log_id().decode_head(4, &Bytes::from(block));
        for bit in 0..8 {
            let version = WIRE_VERSION ^ 1 << bit;
            let (mut flipped, mut other) = (block.clone(), block.clone());
            flipped[4] = version;
            set_version(&mut other, version);
            assert_eq!(read(flipped), Err(FrameError::Checksum));
            assert_eq!(read(other), Err(FrameError::Version(version)));
        }
    }
}
