//! How a session behaves, and every bound that it keeps.

use crate::command::{BATCH_BYTES_MAX, REQUEST_NUMBERS_MAX};
use crate::id::{REPLICAS_MAX, SHARDS_MAX};
use crate::message::Welcome;

/// Most commands in one frame of a session, and most numbers.
pub const FRAME_COMMANDS_MAX: usize = 1 << 14;
/// A deadline that never comes, for a session whose every retry is safe.
pub const NO_DEADLINE_US: u64 = u64::MAX;
/// Most numbers of a lane without an answer.
pub const UNANSWERED_MAX: u64 = 1 << 15;
/// How often timeouts are looked at, in microseconds.
pub(super) const TICK_US: u64 = 5_000;
/// Retry intervals double up to this many times.
pub(super) const RETRY_DOUBLINGS_MAX: u32 = 3;
/// A connection on which something was asked is dead when not a byte has come for so many retry intervals:
/// by then the request has been sent elsewhere, and no other one was risked on it.
pub(super) const DEAD_AFTER_RETRIES: u64 = 2;
/// A request that was sent so often and comes early once more waits a moment before it goes again.
pub(super) const EARLY_SENDS_MAX: u32 = 4;
/// Vectors of tokens that are kept for reuse.
pub(super) const SPARE_TOKENS_MAX: usize = 256;
/// Builders of a lane that are kept for reuse, of each kind.
pub(super) const SPARE_BUILDERS_MAX: usize = 16;

const _: () = {
    // Several frames are under way whatever they skip.
    assert!(FRAME_COMMANDS_MAX as u64 <= UNANSWERED_MAX / 2);
    assert!(FRAME_COMMANDS_MAX as u64 <= REQUEST_NUMBERS_MAX);
    // A lane's index has its place in a tag.
    assert!(REPLICAS_MAX * SHARDS_MAX <= 1 << LANE_BITS);
};

/// The bits of a tag that name the lane.
pub(super) const LANE_BITS: u32 = 16;

/// Which replica a command goes to first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Routing {
    /// The key's home, so that conflicts come from one row.
    #[default]
    Home,
    /// One after the other.
    Any,
}

/// How a session behaves. Times are microseconds, sizes bytes.
#[derive(Clone, Debug)]
pub struct Config {
    /// The number of replicas, 1 to 9.
    pub replicas: u8,
    /// The number of shards, 1 to 256.
    pub shards: u16,
    /// Which replica a command goes to first.
    pub routing: Routing,
    /// A frame is full with this many commands, 1 to [`FRAME_COMMANDS_MAX`].
    pub frame_commands: usize,
    /// A frame is full with this many bytes.
    pub frame_bytes: usize,
    /// Frames of a lane without an answer; reads are counted apart.
    pub frames_in_flight: usize,
    /// Commands that were submitted and whose outcome was not polled.
    pub commands_max: usize,
    /// Their keys and values in bytes, and a little for each.
    pub bytes_max: usize,
    /// How long without an answer before a request is sent to another replica.
    pub retry_us: u64,
    /// How long before a command is given up; [`NO_DEADLINE_US`]: never.
    pub deadline_us: u64,
}

impl Config {
    /// The defaults, for a cluster of this size.
    pub fn new(replicas: u8, shards: u16) -> Config {
        Config {
            replicas,
            shards,
            routing: Routing::Home,
            frame_commands: 1024,
            frame_bytes: 64 << 10,
            frames_in_flight: 16,
            commands_max: 64 << 10,
            bytes_max: 64 << 20,
            retry_us: 1_000_000,
            deadline_us: 10_000_000,
        }
    }

    /// The defaults, for the cluster that said welcome.
    pub fn of(welcome: &Welcome) -> Config {
        Config::new(welcome.members.len() as u8, welcome.shards)
    }

    /// Panics where a value makes no sense: it comes from the program, not from outside.
    pub(super) fn check(&self) {
        assert!((1..=REPLICAS_MAX).contains(&self.replicas.into()), "1 to {REPLICAS_MAX} replicas");
        assert!((1..=SHARDS_MAX).contains(&self.shards.into()), "1 to {SHARDS_MAX} shards");
        let commands = 1..=FRAME_COMMANDS_MAX;
        assert!(commands.contains(&self.frame_commands), "1 to {FRAME_COMMANDS_MAX} commands in a frame");
        assert!(self.frame_bytes <= BATCH_BYTES_MAX, "a frame holds at most {BATCH_BYTES_MAX} bytes");
        assert!(self.frames_in_flight > 0 && self.commands_max > 0 && self.bytes_max > 0);
        assert!(self.retry_us >= TICK_US && self.deadline_us >= self.retry_us, "times below a tick");
    }
}
