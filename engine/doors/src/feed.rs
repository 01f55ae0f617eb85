//! Where the executed decisions of a shard are read from, which the process provides.

use isonomy_wire::id::ShardId;
use std::fmt;

/// Where reading begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin {
    /// With what came behind this barrier, or with the oldest that is kept behind it.
    Barrier(u64),
    /// With what came behind the last barrier.
    Newest,
}

/// What comes next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fed {
    /// What comes from here on was executed behind this barrier.
    Segment {
        /// The number of the barrier.
        barrier: u64,
        /// Whether what was executed right before it is not kept here.
        has_gap: bool,
    },
    /// A published batch ([`isonomy_wire::published`]).
    Batch {
        /// The place of the batch behind its barrier. It ascends, and is the same until the process ends.
        offset: u64,
        /// The bytes of the batch.
        bytes: Vec<u8>,
    },
}

/// Reads decisions; `None` if no more are there yet. An error says what to do.
pub type Feed = Box<dyn FnMut() -> Result<Option<Fed>, String> + Send>;

/// Makes a [`Feed`] of a shard.
pub type OpenFeed = Box<dyn Fn(ShardId, Begin) -> Feed + Send + Sync>;

/// The decisions that this replica keeps for those who read them from outside.
pub struct Feeds {
    /// Makes a feed of a shard.
    pub open: OpenFeed,
}

impl fmt::Debug for Feeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feeds")
    }
}
