//! The outbox of a shard (law, section 6c): what has executed here, in the order of execution, in files.
//!
//! A segment holds what has executed between two barriers. Its file is named by the barrier before it, and the next one
//! begins at the next barrier, so all replicas have the same decisions in the segment of a barrier, perhaps in
//! another order:
//!
//! ```text
//! segment = head, 128 bytes | published batch*        (published batch: isonomy_wire::published)
//! head
//!   0  u32  magic, the bytes "ISOF"                  12  u32  epoch of the frontier
//!   4  u32  crc32c of all that follows               16  u128 cluster
//!   8  u8   version, 1                               32  u64  barrier
//!   9  u8   flags: 1 = a gap is before it            40  u64  frontier, 9 numbers
//!  10  u16  shard                                   112  16 bytes zero
//! ```

mod error;
mod follow;
mod head;
mod keeper;
mod reader;
mod source;
mod writer;

pub use error::OutboxError;
pub use follow::follow;
pub use head::{HEAD_BYTES, SegmentHead, segment_path, segments};
pub use keeper::{Keeper, Kept};
pub use reader::{Next, OutboxReader};
pub use source::{Lacking, OutboxSource};
pub use writer::{Published, Retain, Writer};

#[cfg(test)]
mod tests;
