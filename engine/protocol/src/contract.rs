//! What crosses the border of the core.

#[cfg(doc)]
use crate::limits::{BARRIER_BYTES, RESERVE_BLOCK};
use crate::log::record::Record;
use crate::payload::Payload;
use bytes::Bytes;
use isonomy_wire::failure::{Failure, Reason};
use isonomy_wire::id::{ClusterId, Epoch, ReplicaId, ShardId};
use isonomy_wire::message::PeerMessage;

/// Microseconds since an origin that the caller chooses; never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// `micros` later.
    #[must_use]
    pub fn after(self, micros: u64) -> Time {
        Time(self.0.saturating_add(micros))
    }

    /// Microseconds since `earlier`; 0 if that is later.
    pub fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// How many records the log has: the position of a record is its number, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Position(pub u64);

/// Who and where a replica is, and how patient.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its place in the epoch.
    pub replica: ReplicaId,
    /// The number of replicas in the epoch, 1 to 9.
    pub replicas: u8,
    /// The epoch.
    pub epoch: Epoch,
    /// The shard.
    pub shard: ShardId,
    /// Its timers.
    pub timing: Timing,
    /// Own sequence numbers are reserved in blocks of so many (C1, D5); [`RESERVE_BLOCK`] but in
    /// simulations of many crashes, which would spend their time on what is left unused.
    pub reserve_block: u64,
    /// The log grows by so many bytes on its disk from one barrier to the next (G4); [`BARRIER_BYTES`] but in
    /// simulations.
    pub barrier_bytes: u64,
    /// Whether what the log calls durable outlives a power failure: only then a log that is shorter than
    /// it was has been set back (G6).
    pub outlives_power: bool,
    /// Whether a recovery that would abort an instance proposes what its coordinator's slow path
    /// could have proposed (law, Rescue). For simulations, until those have run ten million seeds
    /// with it.
    pub rescue: bool,
}

/// The timers of the core, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long the coordinator waits for the fast path when the slow path is possible (C3).
    pub fast_path_us: u64,
    /// How long before an unanswered message is sent again.
    pub resend_us: u64,
    /// How long an instance may stay undecided before it is recovered; doubled at each try.
    pub recover_us: u64,
    /// The same when the coordinator cannot be reached at all: a broken link is a reason to
    /// suspect it at once, and everybody who touches its keys waits.
    pub suspect_us: u64,
    /// How often the frontier is told to the others while anything changes.
    pub gossip_us: u64,
    /// How long a stream may be idle before its end is proposed (S4).
    pub stream_idle_us: u64,
    /// The same for a named one (S5).
    pub source_idle_us: u64,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            fast_path_us: 10_000,
            resend_us: 200_000,
            recover_us: 500_000,
            suspect_us: 50_000,
            gossip_us: 50_000,
            stream_idle_us: 600_000_000,
            source_idle_us: 30 * 24 * 3_600_000_000,
        }
    }
}

/// A client's request, so that its reply finds the way back. The core never looks inside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct ClientRef {
    /// The connection, never used twice by a process.
    pub connection: u64,
    /// The client's tag.
    pub tag: u64,
}

/// The queue of requests is full: stop reading clients until the next reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Busy;

/// Whether the log may grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Room {
    /// It may.
    #[default]
    Enough,
    /// It has reached its budget, for this reason: writes are refused for a moment.
    Short(Reason),
    /// It cannot, for this reason: clients have to ask another replica, for reads, too, since their
    /// place in the order is written down as well.
    Gone(Reason),
    /// A write does not end, for this reason (law, D9): clients have to ask another replica, those who wait
    /// already as well, and nothing is begun until it has ended.
    Hung(Reason),
}

/// What the core wants done, in the order in which it is polled.
#[derive(Clone, Debug)]
pub enum Output {
    /// A record for the log. What was said before it may leave before it is durable; what is said from here on
    /// comes out of `poll` only once the log is durable so far.
    Append(Append),
    /// A message for another replica.
    Send(Send),
    /// The answer to a request.
    Reply(Reply),
    /// G1: records before this position are no longer needed.
    Cut(Position),
}

/// A record to append to the log. The payload is the batch's bytes when the record carries them.
#[derive(Clone, Debug)]
pub struct Append {
    /// Its place; consecutive from one append to the next.
    pub position: Position,
    /// The record.
    pub record: Record,
    /// The batch that belongs to it.
    pub payload: Option<Payload>,
}

/// A message that may leave now: everything that it rests on is durable.
#[derive(Clone, Debug)]
pub struct Send {
    /// The receiver, never the replica itself.
    pub to: ReplicaId,
    /// The message.
    pub message: PeerMessage,
    /// The batch that travels behind it.
    pub payload: Option<Payload>,
    /// Nobody waits for it: it may leave with the next message to the same replica that is not lazy,
    /// or some milliseconds later. It must not be overtaken.
    pub lazy: bool,
}

/// The answer to a request, which may leave now.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Whose request it was.
    pub client: ClientRef,
    /// The encoded response, or why there is none.
    pub outcome: Result<Bytes, Failure>,
}
