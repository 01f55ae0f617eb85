//! The settings of a conversation, and every bound that it keeps.

use crate::command::{BATCH_BYTES_MAX, REQUEST_NUMBERS_MAX};
use crate::id::{REPLICAS_MAX, SHARDS_MAX};
use crate::message::Welcome;

/// The most commands, and the most numbers, in one frame of a conversation.
pub const FRAME_COMMANDS_MAX: usize = 1 << 14;
/// A deadline that never comes, for a conversation in which every retry is safe.
pub const NO_DEADLINE_US: u64 = u64::MAX;
/// The most requests with idempotency keys of a lane that are under way at once.
pub(super) const KEYED_IN_FLIGHT_MAX: usize = 256;
/// The most numbers of a lane without an answer.
pub const UNANSWERED_MAX: u64 = 1 << 15;
/// How often a conversation checks its timeouts, in microseconds.
pub(super) const TICK_US: u64 = 5_000;
/// How many times a retry interval can double.
pub(super) const RETRY_DOUBLINGS_MAX: u32 = 3;
/// A connection with a request under way is dead when not a byte has come for this many retry intervals. By then the
/// request was sent to another replica, and no other request was risked on the connection.
pub(super) const DEAD_AFTER_RETRIES: u64 = 2;
/// A request that was sent this often and came early once more waits for the next tick before it is sent again.
pub(super) const EARLY_SENDS_MAX: u32 = 4;
/// How long a replica whose epoch has ended is left alone, in microseconds, and the longest such time, since the pause
/// doubles. The next epoch begins within milliseconds if all goes well.
pub(super) const EPOCH_PAUSE_US: u64 = 10_000;
pub(super) const EPOCH_PAUSE_US_MAX: u64 = 80_000;
/// How many vectors of tokens are kept for reuse.
pub(super) const SPARE_TOKENS_MAX: usize = 256;
/// How many builders of each kind a lane keeps for reuse.
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
    /// The home of the command's key, so that conflicts come from one row.
    #[default]
    Home,
    /// All replicas in turn.
    Any,
}

/// The settings of a conversation. Times are in microseconds, sizes in bytes.
#[derive(Clone, Debug)]
pub struct Config {
    /// The number of replicas, 1 to 9, until the members change.
    pub replicas: u8,
    /// The number of shards, 1 to 256.
    pub shards: u16,
    /// The replica to which a command goes first.
    pub routing: Routing,
    /// The number of commands that makes a frame full, 1 to [`FRAME_COMMANDS_MAX`].
    pub frame_commands: usize,
    /// The number of bytes that makes a frame full, at most [`BATCH_BYTES_MAX`].
    pub frame_bytes: usize,
    /// The most frames of a lane without an answer, at least 1; reads are counted apart.
    pub frames_in_flight: usize,
    /// The most commands that were submitted and have no polled outcome, at least 1.
    pub commands_max: usize,
    /// The most bytes of the keys and values of such commands, with a little for each command.
    pub bytes_max: usize,
    /// How long a request may have no answer before it is sent to another replica; at least a tick of 5 ms.
    pub retry_us: u64,
    /// How long a command may have no answer before it is given up, at least `retry_us`; [`NO_DEADLINE_US`]: never.
    pub deadline_us: u64,
}

impl Config {
    /// The default settings for a cluster of this size.
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

    /// The default settings for the cluster of this welcome.
    pub fn of(welcome: &Welcome) -> Config {
        Config::new(welcome.members.len() as u8, welcome.shards)
    }

    /// Panics when a setting is out of range, since settings come from the program and not from outside.
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
