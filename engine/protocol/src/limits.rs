//! Every bound of the core, and how they depend on each other.

use isonomy_wire::command::BATCH_BYTES_MAX;
use isonomy_wire::id::REPLICAS_MAX;

/// How many own instances may be unexecuted before a replica stops submitting: W of section 6.
/// Enough to hide two syncs and a round trip; few, so that requests gather under load.
pub const ADMISSION_WINDOW: usize = 32;

/// How many own instances can be unexecuted (section 6): the window, and the one barrier that may be under
/// way (G4), which does not wait for room in it.
pub const OWN_UNEXECUTED_MAX: usize = ADMISSION_WINDOW + 1;

/// A batch is closed when it has this many bytes, if more requests wait. A request as large as
/// this travels alone and is never copied.
pub const GATHER_BYTES: usize = 64 << 10;

/// Requests that wait for an instance; beyond it `on_request` says `Busy`.
pub const PENDING_REQUESTS_MAX: usize = 16 << 10;

/// Their bytes.
pub const PENDING_BYTES_MAX: usize = 32 << 20;

/// Sequence numbers are reserved in blocks of this size (C1, D5). What a crash leaves unused
/// becomes Nops, so not too many. The next block is reserved when half of one is left, so that
/// nobody waits for it.
pub const RESERVE_BLOCK: u64 = 256;

/// How far above the known end of a row an id may lie. Whatever names more is not from a member
/// that follows the law and is dropped.
pub const ROW_AHEAD_MAX: u64 = 1 << 20;

/// The longest range that one Recover covers.
pub const RECOVER_RANGE_MAX: u64 = 64;

/// Recoveries under way at once.
pub const RECOVERIES_MAX: usize = 512;

/// How far behind the committed prefix of a row one tick looks for overdue instances. A replica
/// that was away for long may have seen a million; they are decided from the front anyway.
pub const RECOVER_SCAN_MAX: usize = 2048;

/// The most commits that one Pull brings, and their bytes.
pub const PULL_COMMITS_MAX: u64 = 256;
/// See [`PULL_COMMITS_MAX`].
pub const PULL_BYTES_MAX: usize = 8 << 20;

/// Open streams per shard; the coordinator refuses more (S4).
pub const STREAMS_MAX: usize = 64 << 10;

/// Named streams per shard; the coordinator refuses more (S5). They have a bound of their own, so that names
/// that are never used again take the place of nobody else. Each takes about 2 KiB at most besides its answers.
pub const SOURCES_MAX: usize = 16 << 10;

/// Stored answers of one stream in bytes; the oldest go first, and a retry of them is answered
/// `Duplicate` (S2).
pub const STREAM_RESULT_BYTES_MAX: usize = 4 << 20;

/// The period of the core's housekeeping in microseconds.
pub const TICK_US: u64 = 5_000;

/// The oldest undecided instance keeps a barrier from being proposed from this age on, in microseconds.
pub const BARRIER_PATIENCE_US: u64 = 50_000;

/// When a write may be tried again that the log's budget refused, in milliseconds.
pub const ROOM_RETRY_MS: u32 = 100;

/// When a client is to try again that was refused because there are as many streams or sources as there may be.
pub const STREAMS_RETRY_MS: u32 = 1000;

/// A replica that lacks more instances than this of what a peer has executed asks clients to go
/// elsewhere: they would wait for all of them.
pub const BEHIND_MAX: u64 = 4096;

/// A replica that lacks more instances than this of what a peer has executed proposes no barrier by itself.
/// More than a peer can be ahead by because its gossip is newer than what came of its Commits.
pub const BARRIER_BEHIND_MAX: u64 = 256;

/// How many state hashes at barriers are kept to be compared.
pub const BARRIERS_REMEMBERED: usize = 16;

/// How long a source waits for the next bytes that a peer asks for before it takes another snapshot, in
/// microseconds. Longer than a piece that was lost takes to be asked for again.
pub const HOLD_US: u64 = 5_000_000;

/// How often a peer may begin the same snapshot again and be waited for.
pub const HOLD_RESTARTS_MAX: u32 = 3;

/// A source waits for nobody any more when its log has grown by so many times the distance of two barriers
/// since its snapshot: the log's budget has four, and the next snapshot takes time.
pub const HOLD_BARRIERS: u64 = 3;

/// The first wait before a snapshot is tried again that could not be fetched or written, in microseconds.
pub const RETRY_US: u64 = 1_000_000;

/// That wait doubles up to this many times.
pub const RETRY_DOUBLINGS_MAX: u32 = 5;

/// A snapshot's file that was verified and is whole is not verified again for so long, in microseconds:
/// whoever says that it does not read costs this replica a read of all of it.
pub const VERIFY_AGAIN_US: u64 = 60_000_000;

/// Log growth between two barriers in bytes.
pub const BARRIER_BYTES: u64 = 256 << 20;

/// Recovery timeouts double up to this many times.
pub const RECOVER_DOUBLINGS_MAX: u32 = 6;

/// How long without a quorum until requests are refused, in microseconds.
pub const UNAVAILABLE_AFTER_US: u64 = 1_000_000;

/// A write of the log that takes so long is taken for one that hangs (D9), in microseconds: far above
/// what a healthy disk takes, and so short that a client hears of it before it would have asked elsewhere.
pub const HUNG_AFTER_US: u64 = 700_000;

/// A peer counts as not reached for so many periods of gossip after it has said that its disk hangs (D9):
/// it says so every period, and some of that may be lost.
pub const STALLED_PERIODS: u64 = 5;

/// Messages and answers that may wait for the disk before peers have to wait, too. Far more than wait for
/// one write under load; while the disk hangs some are made without a record that would bound them.
pub const HELD_MAX: usize = 256 << 10;

/// What was told before is told again after this many periods of gossip.
pub const GOSSIP_REPEAT: u64 = 20;

/// How far the peers' logs reach is written down at most so often, in microseconds: each time costs a
/// record, and only a restart within this time forgets what was heard (G6).
pub const HEARD_EVERY_US: u64 = 1_000_000;

/// Instances shown as waited for in the status.
pub const WAITING_ON_SHOWN: usize = 16;

const _: () = {
    // A gathered batch stays a legal one whatever joins it last.
    assert!(GATHER_BYTES < BATCH_BYTES_MAX);
    assert!(PENDING_BYTES_MAX >= 2 * BATCH_BYTES_MAX);
    // A replica never has to wait for sequence numbers while it may submit.
    assert!(RESERVE_BLOCK / 2 >= 2 * OWN_UNEXECUTED_MAX as u64);
    // One look finds work for all recoveries that may be under way, whatever a crash left unused.
    assert!(RECOVER_SCAN_MAX > RECOVERIES_MAX + 2 * RESERVE_BLOCK as usize);
    // What all members may have unexecuted is far below what an id may lie ahead.
    assert!(ROW_AHEAD_MAX > (REPLICAS_MAX * OWN_UNEXECUTED_MAX) as u64 + 2 * RESERVE_BLOCK);
};
