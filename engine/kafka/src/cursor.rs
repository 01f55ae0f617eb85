//! The cursor: which batches are published, kept in Kafka and written in the transactions that publish them.
//!
//! The cursor of a partition is the newest record with its key, `TOPIC/PARTITION` in UTF-8, in the partition of the same
//! number of the cursor topic. All numbers of its value are little endian, and nothing is padded:
//!
//! ```text
//!   0  u32  magic, the bytes "ISOC"
//!   4  u32  crc32c of all that follows
//!   8  u8   version, 1
//!   9  u8   number of rows, n, at most 9
//!  10  u16  shard
//!  12  u32  epoch
//!  16  u128 cluster
//!  32  16 bytes: the id of the topic that the batches went to, as Kafka writes it (the highest byte first)
//!  48  u64  an offset that the partition reaches: transactions before that of this cursor ended there or later
//!  56  n times u64: for each row of the epoch, the sequence number of its newest published instance
//! ```
//!
//! A batch is published if it is of an earlier epoch, or if it is of the cursor's epoch and its sequence number is not
//! above that of its row. A row executes in its order, and everything that an instance depends on is published before it.
//! So a vector says it all, to every replica, whatever the order in which that replica has executed.

use isonomy_mesh::Milestone;
use isonomy_wire::deps::Frontier;
use isonomy_wire::id::{ClusterId, Epoch, REPLICAS_MAX, ReplicaId, ShardId};
use isonomy_wire::published::Origin;
use std::cmp::Ordering;
use std::fmt;

/// The version of the layout.
pub const CURSOR_VERSION: u8 = 1;

const MAGIC: [u8; 4] = *b"ISOC";
const HEAD_BYTES: usize = 56;

/// The id that Kafka gives a topic when it is created. A topic that is deleted and created again has another one.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicId(pub [u8; 16]);

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which batches of a shard are published, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    /// The cluster whose batches they are.
    pub cluster: ClusterId,
    /// The shard.
    pub shard: ShardId,
    /// The epoch of the newest published batch. Everything of earlier epochs is published.
    pub epoch: Epoch,
    /// For each row of the epoch, its newest published instance.
    pub frontier: Frontier,
    /// The topic that the batches went to.
    pub topic: TopicId,
    /// An offset that the partition reaches.
    pub end: u64,
}

/// A batch cannot follow what is published: its row goes back, or no cluster has its row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("batch {}.{} of epoch {} does not follow what was taken before it", .0.instance.row.0, .0.instance.seq, .0.epoch.0)]
pub struct OutOfOrder(pub Origin);

impl Cursor {
    /// The cursor of a shard of which nothing is published.
    pub fn nothing(cluster: ClusterId, shard: ShardId, topic: TopicId) -> Cursor {
        Cursor { cluster, shard, epoch: Epoch(0), frontier: Frontier::NONE, topic, end: 0 }
    }

    /// Whether a batch is published.
    pub fn covers(&self, origin: &Origin) -> bool {
        let row = origin.instance.row;
        origin.epoch < self.epoch
            || origin.epoch == self.epoch && origin.instance.seq <= self.frontier.of(row)
    }

    /// Adds the batch that is published next.
    ///
    /// # Errors
    ///
    /// [`OutOfOrder`] if the cursor covers the batch, or if no member of a cluster has its row. Nothing is added.
    pub fn add(&mut self, origin: &Origin) -> Result<(), OutOfOrder> {
        if self.covers(origin) || origin.instance.row.index() >= REPLICAS_MAX {
            return Err(OutOfOrder(*origin));
        }
        if origin.epoch > self.epoch {
            (self.epoch, self.frontier) = (origin.epoch, Frontier::NONE);
        }
        self.frontier.add(origin.instance);
        Ok(())
    }

    /// Whether everything before a barrier is published, or decides nothing.
    pub fn has_passed(&self, Milestone { epoch, frontier, .. }: &Milestone) -> bool {
        self.epoch > *epoch || (self.epoch == *epoch && self.frontier.covers(frontier))
    }

    /// Whether who keeps everything from a barrier on lacks nothing that is not published.
    pub fn goes_on_at(&self, start: &Milestone) -> bool {
        start.barrier == 0 || self.has_passed(start)
    }

    /// Everything before a barrier is published, or decides nothing.
    pub fn pass(&mut self, Milestone { epoch, frontier, .. }: &Milestone) {
        match epoch.cmp(&self.epoch) {
            Ordering::Less => {}
            Ordering::Equal => self.frontier.merge(frontier),
            Ordering::Greater => (self.epoch, self.frontier) = (*epoch, *frontier),
        }
    }

    /// The key of the record, which names the partition of the decisions.
    pub fn key(topic: &str, partition: i32) -> String {
        format!("{topic}/{partition}")
    }

    /// The value of the record.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&[CURSOR_VERSION, REPLICAS_MAX as u8]);
        bytes.extend_from_slice(&self.shard.0.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.0.to_le_bytes());
        bytes.extend_from_slice(&self.cluster.0.to_le_bytes());
        bytes.extend_from_slice(&self.topic.0);
        bytes.extend_from_slice(&self.end.to_le_bytes());
        self.frontier.0.iter().for_each(|seq| bytes.extend_from_slice(&seq.to_le_bytes()));
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the value of a record.
    ///
    /// # Errors
    ///
    /// [`BadCursor`] if it is no cursor.
    pub fn decode(bytes: &[u8]) -> Result<Cursor, BadCursor> {
        if bytes.len() < HEAD_BYTES || bytes[..4] != MAGIC {
            return Err(BadCursor::NoCursor);
        }
        if bytes[8] != CURSOR_VERSION {
            return Err(BadCursor::Version(bytes[8]));
        }
        let rows = usize::from(bytes[9]);
        let crc = u32::from_le_bytes(array(bytes, 4));
        if rows > REPLICAS_MAX || bytes.len() != HEAD_BYTES + 8 * rows || crc32c::crc32c(&bytes[8..]) != crc {
            return Err(BadCursor::Damaged);
        }
        let mut frontier = Frontier::NONE;
        for row in 0..rows {
            frontier.set(ReplicaId(row as u8), u64::from_le_bytes(array(bytes, HEAD_BYTES + 8 * row)));
        }
        Ok(Cursor {
            cluster: ClusterId(u128::from_le_bytes(array(bytes, 16))),
            shard: ShardId(u16::from_le_bytes(array(bytes, 10))),
            epoch: Epoch(u32::from_le_bytes(array(bytes, 12))),
            frontier,
            topic: TopicId(array(bytes, 32)),
            end: u64::from_le_bytes(array(bytes, 48)),
        })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has this length")
}

/// Why a record of the cursor topic is no cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadCursor {
    /// Something else.
    #[error("the record is no cursor; check that nothing else writes to the cursor topic")]
    NoCursor,
    /// Another version has written the cursor.
    #[error(
        "the cursor has the layout {0}, and this release reads {CURSOR_VERSION}; use the release that wrote it"
    )]
    Version(u8),
    /// The checksum does not agree.
    #[error("the cursor is damaged; check that nothing else writes to the cursor topic")]
    Damaged,
}

#[cfg(test)]
mod tests;
