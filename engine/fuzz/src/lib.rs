//! What the fuzzers share: a small log and a small snapshot by the production code, and edits as a
//! disk makes them. Checksums keep random bytes from ever passing, so inputs are edits of what is
//! whole.

use arbitrary::Arbitrary;
use bytes::Bytes;
use isonomy_protocol::contract::{Append, ClientRef, Config, Output, Position, Time, Timing};
use isonomy_protocol::epoch::FIRST;
use isonomy_protocol::log::LogId;
use isonomy_protocol::payload::Payload;
use isonomy_protocol::replica::Replica;
use isonomy_protocol::snapshot::SnapshotId;
use isonomy_wire::command::{Numbering, RequestBuilder};
use isonomy_wire::id::{ClusterId, Epoch, ReplicaId, SessionId, ShardId};

/// What a disk writes as a whole.
pub const BLOCK_BYTES: usize = isonomy_protocol::log::BLOCK_BYTES;
/// Decisions in the history.
const KEYS: u32 = 40;

/// What happens to bytes on a disk. Numbers are taken modulo what there is.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Edit {
    /// A bit flips.
    Flip { at: u32, bit: u8 },
    /// A byte is another one.
    Set { at: u32, byte: u8 },
    /// Bytes are lost.
    Zero { at: u32, bytes: u16 },
    /// A block has the bytes of another one.
    Misdirect { from: u16, to: u16 },
    /// A block has what an older file had there.
    Stale { block: u16 },
    /// Everything from here on is missing.
    Truncate { at: u32 },
}

/// Applies an edit; `older` is another file of the same kind.
pub fn apply(edit: Edit, bytes: &mut Vec<u8>, older: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    let block = |number: u16| {
        let start = usize::from(number) % length.div_ceil(BLOCK_BYTES) * BLOCK_BYTES;
        start..(start + BLOCK_BYTES).min(length)
    };
    match edit {
        Edit::Flip { at, bit } => bytes[at as usize % length] ^= 1 << (bit % 8),
        Edit::Set { at, byte } => bytes[at as usize % length] = byte,
        Edit::Zero { at, bytes: count } => {
            let start = at as usize % length;
            bytes[start..(start + usize::from(count)).min(length)].fill(0);
        }
        Edit::Misdirect { from, to } => {
            let (from, to) = (block(from), block(to));
            let count = from.len().min(to.len());
            bytes.copy_within(from.start..from.start + count, to.start);
        }
        Edit::Stale { block: number } => {
            let range = block(number);
            let end = range.end.min(older.len());
            if range.start < end {
                bytes[range.start..end].copy_from_slice(&older[range.start..end]);
            }
        }
        Edit::Truncate { at } => bytes.truncate(at as usize % length),
    }
}

/// The name of the log.
pub fn log_id() -> LogId {
    LogId { cluster: ClusterId(7), incarnation: 3, replica: ReplicaId(0), epoch: FIRST, shard: ShardId(0) }
}

/// What a lone replica writes for some decisions of values made of this byte, and its snapshot after
/// them.
pub fn history(value: u8) -> (Vec<Append>, SnapshotId, Vec<u8>) {
    let mut core = Replica::new(config(), 1);
    let mut appends = Vec::new();
    let now = Time(1_000_000);
    core.start(now, Position(0));
    core.on_links(now, &[]);
    for key in 0..KEYS {
        let mut request = RequestBuilder::default();
        request.decide(&key.to_le_bytes(), &vec![value; key as usize % 90]).expect("it is small");
        let bytes = request.encode(
            SessionId::named("fuzz"),
            Numbering { first: u64::from(key) + 1, answered_below: u64::from(key) + 1 },
        );
        let crc = crc32c::crc32c(&bytes);
        let payload = Payload::parse(bytes, crc).expect("it was just encoded");
        let client = ClientRef { connection: 1, tag: key.into() };
        core.on_request(now, client, payload).expect("one at a time");
        turn(&mut core, now, &mut appends);
    }
    core.propose_barrier(now);
    turn(&mut core, now, &mut appends);
    let (barrier, _) = core.taking().expect("a barrier has executed");
    let snapshot = std::iter::from_fn(|| core.snapshot_bytes()).flatten().collect();
    (appends, SnapshotId { cluster: ClusterId(7), shard: ShardId(0), barrier }, snapshot)
}

fn as_append(output: Output) -> Option<Append> {
    if let Output::Append(append) = output { Some(append) } else { None }
}

fn turn(core: &mut Replica, now: Time, appends: &mut Vec<Append>) {
    loop {
        core.end_turn(now);
        let before = appends.len();
        while let Some(output) = core.poll() {
            appends.extend(as_append(output));
        }
        if appends.len() == before {
            return;
        }
        core.on_durable(now, appends[appends.len() - 1].position);
    }
}

fn config() -> Config {
    Config {
        cluster: ClusterId(7),
        replica: ReplicaId(0),
        replicas: 1,
        epoch: Epoch(1),
        shard: ShardId(0),
        timing: Timing::default(),
        reserve_block: 8,
        barrier_bytes: u64::MAX,
        outlives_power: true,
        rescue: false,
        publishes: false,
    }
}

/// Bytes in the memory that a reader of frames wants.
pub fn aligned(bytes: &[u8]) -> Bytes {
    isonomy_wire::frame::aligned(Bytes::copy_from_slice(bytes))
}
