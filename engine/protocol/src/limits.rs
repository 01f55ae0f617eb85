//! Every bound of the core, and the relations between them.

use isonomy_wire::command::BATCH_BYTES_MAX;
use isonomy_wire::id::REPLICAS_MAX;
use isonomy_wire::tuning::WINDOW_MAX;

/// How many own instances can be unexecuted (section 6): the largest window that settings allow, and the one barrier
/// that may be under way (G4), which does not wait for room in it.
pub const OWN_UNEXECUTED_MAX: usize = WINDOW_MAX as usize + 1;

/// A batch is closed when it has this many bytes, if more requests wait. A request as large as
/// this travels alone and is never copied.
pub const GATHER_BYTES: usize = 64 << 10;

/// The most requests that wait for an instance; beyond them `on_request` returns `Busy`.
pub const PENDING_REQUESTS_MAX: usize = 16 << 10;

/// The most bytes of the requests that wait for an instance.
pub const PENDING_BYTES_MAX: usize = 32 << 20;

/// Sequence numbers are reserved in blocks of this size (C1, D5). A block is small, because numbers that a crash
/// leaves unused become Nops. The next block is reserved when half of one is left, so that no request waits for it.
pub const RESERVE_BLOCK: u64 = 256;

/// How far above the known end of a row an id may lie. A message that names a higher id does not come from a member
/// that follows the law and is dropped.
pub const ROW_AHEAD_MAX: u64 = 1 << 20;

/// The longest range that one Recover covers.
pub const RECOVER_RANGE_MAX: u64 = 64;

/// The most recoveries under way at once.
pub const RECOVERIES_MAX: usize = 512;

/// How far behind the committed prefix of a row one tick looks for overdue instances. A replica that was away for
/// long may have seen a million undecided instances, which are decided from the front anyway.
pub const RECOVER_SCAN_MAX: usize = 2048;

/// The most commits that one Pull brings.
pub const PULL_COMMITS_MAX: u64 = 256;
/// The most bytes of the commits that one Pull brings.
pub const PULL_BYTES_MAX: usize = 8 << 20;

/// The most open sessions per shard; the coordinator refuses more (S4).
pub const SESSIONS_MAX: usize = 64 << 10;

/// The most named sessions per shard; the coordinator refuses more (S5). They have a bound of their own, so that names
/// that are never used again take no place from other sessions. Each takes at most about 2 KiB besides its answers.
pub const SOURCES_MAX: usize = 16 << 10;

/// The most idempotency keys per shard whose answers are kept; the coordinator refuses more (S6). Each takes about 400 bytes
/// besides its answer.
pub const KEYED_MAX: usize = 256 << 10;
/// The most bytes of the answers of idempotency keys per shard; the coordinator refuses more keys beyond them (S6).
pub const KEYED_BYTES_MAX: usize = 64 << 20;

/// The most idle sessions whose end is proposed at once.
pub const IDLE_ENDS_MAX: usize = 4096;

/// The most bytes of stored answers of one session. The oldest answers are dropped first, and a retry of their
/// commands is answered `Duplicate` (S2).
pub const SESSION_RESULT_BYTES_MAX: usize = 4 << 20;

/// The period of the core's housekeeping in microseconds.
pub const TICK_US: u64 = 5_000;

/// The age of the oldest undecided instance, in microseconds, from which on no barrier is proposed.
pub const BARRIER_PATIENCE_US: u64 = 50_000;

/// How much longer than the live replica before it a replica waits, in microseconds, until it proposes a barrier whose
/// snapshot learners need.
pub const HELP_PATIENCE_US: u64 = 1_000_000;

/// How long a client is asked to wait after the log's budget refused its write, in milliseconds.
pub const ROOM_RETRY_MS: u32 = 100;

/// How long a client is asked to wait after the limit of sessions or sources refused it, in milliseconds.
pub const SESSIONS_RETRY_MS: u32 = 1000;

/// A replica that lacks more of the instances that a peer has executed than this sends clients to other replicas,
/// since they would wait for all of these instances.
pub const BEHIND_MAX: u64 = 4096;

/// A replica that lacks more of the instances that a peer has executed than this proposes no barrier by itself. A
/// peer whose gossip is merely newer than its Commits is ahead by less.
pub const BARRIER_BEHIND_MAX: u64 = 256;

/// A replica that lacks more of the instances that a member has executed than this is not close to the members (section
/// 9). One that follows them is behind by what they execute in a period of gossip and a moment.
pub const CLOSE_MAX: u64 = BEHIND_MAX;

/// How many state hashes at barriers a replica keeps for comparison.
pub const BARRIERS_REMEMBERED: usize = 16;

/// How long a source waits for a peer to ask for the next bytes before it takes another snapshot, in microseconds. A
/// peer asks again for a lost piece within a shorter time.
pub const HOLD_US: u64 = 5_000_000;

/// How often a peer may begin to fetch one snapshot again while its source still waits for it.
pub const HOLD_RESTARTS_MAX: u32 = 3;

/// A source waits for no peer any more when its log has grown by this many times the distance of two barriers since
/// its snapshot. The log's budget has room for four, and the next snapshot takes time.
pub const HOLD_BARRIERS: u64 = 3;

/// The first wait before another try of a snapshot that could not be fetched or written, in microseconds.
pub const RETRY_US: u64 = 1_000_000;

/// How many times that wait can double.
pub const RETRY_DOUBLINGS_MAX: u32 = 5;

/// How long a snapshot's file that was verified and is whole is not verified again, in microseconds. Each report of a
/// peer that the file cannot be read could otherwise cost this replica a read of the whole file.
pub const VERIFY_AGAIN_US: u64 = 60_000_000;

/// The growth of the log between two barriers, in bytes.
pub const BARRIER_BYTES: u64 = 256 << 20;

/// How many times a recovery timeout can double.
pub const RECOVER_DOUBLINGS_MAX: u32 = 6;

/// How long a replica may have no quorum before it refuses requests, in microseconds.
pub const UNAVAILABLE_AFTER_US: u64 = 1_000_000;

/// How long a write of the log may take before it counts as hanging (D9), in microseconds. A healthy disk takes far
/// less, and a client learns of a hanging disk before it would have asked another replica by itself.
pub const HUNG_AFTER_US: u64 = 700_000;

/// A peer counts as not reached for this many periods of gossip after it has reported that its disk hangs (D9). The
/// peer repeats the report every period, and some reports may be lost.
pub const STALLED_PERIODS: u64 = 5;

/// How many messages and answers may wait for the disk before peers must wait, too. Far fewer wait for one write
/// under load, but while the disk hangs some are made without a record that would bound them.
pub const HELD_MAX: usize = 256 << 10;

/// Unchanged gossip is sent again after this many periods.
pub const GOSSIP_REPEAT: u64 = 20;

/// The shortest time between two records of how far the peers' logs reach, in microseconds. Only a restart within
/// this time forgets such a report (G6).
pub const HEARD_EVERY_US: u64 = 1_000_000;

/// How many of the instances for which execution waits the status shows.
pub const WAITING_ON_SHOWN: usize = 16;

const _: () = {
    // A gathered batch stays legal, whichever request joins it last.
    assert!(GATHER_BYTES < BATCH_BYTES_MAX);
    assert!(PENDING_BYTES_MAX >= 2 * BATCH_BYTES_MAX);
    // A replica never has to wait for sequence numbers while it may submit.
    assert!(RESERVE_BLOCK / 2 >= 2 * OWN_UNEXECUTED_MAX as u64);
    // One look finds work for all recoveries that may be under way, even if a crash left numbers unused.
    assert!(RECOVER_SCAN_MAX > RECOVERIES_MAX + 2 * RESERVE_BLOCK as usize);
    // All members together may have far fewer unexecuted instances than an id may lie ahead.
    assert!(ROW_AHEAD_MAX > (REPLICAS_MAX * OWN_UNEXECUTED_MAX) as u64 + 2 * RESERVE_BLOCK);
};
