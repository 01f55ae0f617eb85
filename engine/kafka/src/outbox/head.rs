//! The head of a segment, and the names of the files.

use super::error::OutboxError;
use isonomy_mesh::Milestone;
use isonomy_wire::deps::Frontier;
use isonomy_wire::id::{ClusterId, Epoch, REPLICAS_MAX, ShardId};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The size of a head, in bytes.
pub const HEAD_BYTES: usize = 128;

const MAGIC: [u8; 4] = *b"ISOF";
const VERSION: u8 = 1;
const GAP: u8 = 1;
const SUFFIX: &str = ".decisions";

/// The head of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHead {
    /// The cluster.
    pub cluster: ClusterId,
    /// The shard.
    pub shard: ShardId,
    /// The barrier at which it begins.
    pub start: Milestone,
    /// Whether what executed before it is not in the outbox, because the state came as a snapshot.
    pub has_gap: bool,
}

impl SegmentHead {
    /// The bytes of the head.
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let SegmentHead { cluster, shard, start: Milestone { barrier, epoch, frontier }, has_gap } = *self;
        let mut bytes = [0; HEAD_BYTES];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(0, &MAGIC);
        put(8, &[VERSION, if has_gap { GAP } else { 0 }]);
        put(10, &shard.0.to_le_bytes());
        put(12, &epoch.0.to_le_bytes());
        put(16, &cluster.0.to_le_bytes());
        put(32, &barrier.to_le_bytes());
        for (row, seq) in frontier.0.iter().enumerate() {
            put(40 + 8 * row, &seq.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a head; `None` if the bytes are none of this version.
    pub fn decode(bytes: &[u8; HEAD_BYTES]) -> Option<SegmentHead> {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let is_whole = bytes[..4] == MAGIC && bytes[8] == VERSION && crc32c::crc32c(&bytes[8..]) == word(4);
        let frontier: [u64; REPLICAS_MAX] = std::array::from_fn(|row| number(40 + 8 * row));
        is_whole.then(|| SegmentHead {
            cluster: ClusterId(u128::from_le_bytes(bytes[16..32].try_into().expect("16 bytes"))),
            shard: ShardId(u16::from_le_bytes(bytes[10..12].try_into().expect("2 bytes"))),
            start: Milestone {
                barrier: number(32),
                epoch: Epoch(word(12)),
                frontier: Frontier::from(frontier),
            },
            has_gap: bytes[9] & GAP != 0,
        })
    }
}

/// The file of the segment behind a barrier.
pub fn segment_path(dir: &Path, barrier: u64) -> PathBuf {
    dir.join(format!("{barrier:020}{SUFFIX}"))
}

/// The head of the segment behind a barrier.
///
/// # Errors
///
/// [`OutboxError`] if the file cannot be read, or does not begin as a segment does.
pub(crate) fn read_head(dir: &Path, barrier: u64) -> Result<SegmentHead, OutboxError> {
    let path = segment_path(dir, barrier);
    let file = File::open(&path).map_err(OutboxError::io(&path))?;
    head_of(&file, &path)?.ok_or(OutboxError::Head(path))
}

/// The head of the segment from which on the outbox lacks nothing: the newest one before which decisions are missing, or the
/// oldest one if none are.
pub(super) fn whole_from(dir: &Path) -> Result<Option<SegmentHead>, OutboxError> {
    let mut first = None;
    for barrier in segments(dir).map_err(OutboxError::io(dir))? {
        let head = read_head(dir, barrier)?;
        if first.is_none() || head.has_gap {
            first = Some(head);
        }
    }
    Ok(first)
}

/// The head with which a file begins; `None` if the file is shorter than a head.
pub(super) fn head_of(file: &File, path: &Path) -> Result<Option<SegmentHead>, OutboxError> {
    let mut bytes = [0; HEAD_BYTES];
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(OutboxError::Io(path.into(), error)),
        Ok(()) => SegmentHead::decode(&bytes).map(Some).ok_or_else(|| OutboxError::Head(path.into())),
    }
}

/// The barriers of the segments in a directory, in order.
///
/// # Errors
///
/// The directory cannot be read.
pub fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut barriers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let barrier = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.parse::<u64>().ok());
        barriers.extend(barrier);
    }
    barriers.sort_unstable();
    Ok(barriers)
}
