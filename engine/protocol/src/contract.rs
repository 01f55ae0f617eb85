//! The types that cross the border of the core: its configuration, inputs and outputs.

#[cfg(doc)]
use crate::limits::{BARRIER_BYTES, RESERVE_BLOCK};
use crate::log::record::Record;
use crate::payload::Payload;
use bytes::Bytes;
use isonomy_wire::deps::Frontier;
use isonomy_wire::failure::{Failure, Reason};
use isonomy_wire::id::{ClusterId, Epoch, InstanceId, RecordId, ReplicaId, ShardId};
use isonomy_wire::message::PeerMessage;
use isonomy_wire::tuning::Tuning;

/// A time in microseconds since an origin that the caller chooses. Time never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// The time `micros` later.
    #[must_use]
    pub fn after(self, micros: u64) -> Time {
        Time(self.0.saturating_add(micros))
    }

    /// The microseconds since `earlier`; 0 if `earlier` is later.
    pub fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The position of a record in the log, which is its number, from 1. Also the number of records of a log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Position(pub u64);

/// The identity of a replica, and its settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster.
    pub cluster: ClusterId,
    /// The place of the replica in the epoch. A replica behind the last member is a learner (section 9).
    pub replica: ReplicaId,
    /// The number of members of the epoch, 1 to 9.
    pub replicas: u8,
    /// The epoch.
    pub epoch: Epoch,
    /// The shard.
    pub shard: ShardId,
    /// The timers of the core. [`Replica::apply`](crate::replica::Replica::apply) changes some of them later.
    pub timing: Timing,
    /// The size of the blocks in which own sequence numbers are reserved (C1, D5). It is [`RESERVE_BLOCK`], except in
    /// simulations of many crashes, which would spend their time on unused numbers.
    pub reserve_block: u64,
    /// The growth of the log on its disk, in bytes, from one barrier to the next (G4). It is [`BARRIER_BYTES`],
    /// except in simulations.
    pub barrier_bytes: u64,
    /// Whether records that the log calls durable outlive a power failure. Only then does a log that is shorter than
    /// before show that it was set back (G6).
    pub outlives_power: bool,
    /// Whether a recovery that would abort an instance proposes the value that its coordinator's slow path
    /// could have proposed (law, Rescue). [`Replica::apply`](crate::replica::Replica::apply) changes this later.
    pub rescue: bool,
    /// Whether the caller wants to know what executes ([`Output::Executed`]).
    pub publishes: bool,
}

/// The timers of the core, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long the coordinator waits for the fast path when the slow path is possible (C3).
    pub fast_path_us: u64,
    /// How long a message may have no answer before it is sent again.
    pub resend_us: u64,
    /// How long an instance may stay undecided before it is recovered; doubled at each try.
    pub recover_us: u64,
    /// How long an instance may stay undecided before it is recovered when its coordinator cannot be reached. This
    /// time is shorter, because a broken link is a reason to suspect the coordinator, and all commands on its keys
    /// wait.
    pub suspect_us: u64,
    /// How often the replica sends its frontier to the others while anything changes.
    pub gossip_us: u64,
    /// How long a session may be idle before its end is proposed (S4).
    pub session_idle_us: u64,
    /// How long a named session may be idle before its end is proposed (S5).
    pub source_idle_us: u64,
    /// How long an idempotency key may be unused before its end is proposed (S6).
    pub keyed_idle_us: u64,
}

impl Default for Timing {
    fn default() -> Timing {
        let Tuning { fast_path_us, resend_us, recover_us, suspect_us, .. } = Tuning::default();
        Timing {
            fast_path_us,
            resend_us,
            recover_us,
            suspect_us,
            gossip_us: 50_000,
            session_idle_us: 600_000_000,
            source_idle_us: 30 * 24 * 3_600_000_000,
            keyed_idle_us: 3_600_000_000,
        }
    }
}

/// The origin of a client's request, to which the reply goes. The core never looks inside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct ClientRef {
    /// The connection, never used twice by a process.
    pub connection: u64,
    /// The tag that the client chose.
    pub tag: u64,
}

/// The queue of requests is full. The caller must stop reading clients until the next reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Busy;

/// Whether the log may grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Room {
    /// The log may grow.
    #[default]
    Enough,
    /// The log has reached its budget, for this reason. The replica refuses writes for a moment.
    Short(Reason),
    /// The log cannot grow, for this reason. Clients must ask another replica, for reads too, since the place of a
    /// read in the order is written to the log as well.
    Gone(Reason),
    /// A write does not end, for this reason (law, D9). Clients must ask another replica, even those that wait
    /// already, and the replica begins nothing until the write has ended.
    Hung(Reason),
}

/// A task of the core for its caller. The variants are in the order in which outputs are polled.
#[derive(Clone, Debug)]
pub enum Output {
    /// A record for the log. Messages and replies that the core made before the record may leave before it is
    /// durable. Those that it made afterwards come out of `poll` only once the log is durable up to the record.
    Append(Append),
    /// A message for another replica.
    Send(Send),
    /// The answer to a request.
    Reply(Reply),
    /// What has executed, in the order of execution, if the configuration asks for it.
    Executed(Executed),
    /// Section 9: the epoch has ended here, and the log is durable as far as the Seal. This comes once, and again after
    /// a restart.
    Sealed(Sealed),
    /// G1: the log need no longer hold records before this position.
    Cut(Position),
}

/// What has happened to the state of the shard (law, P1 and P2). The records that commit it are durable.
///
/// A restart tells everything again from the state of the newest snapshot on, though perhaps in another order: what does not
/// conflict may execute in any order.
#[derive(Clone, Debug)]
pub enum Executed {
    /// The state is now that of a snapshot, whatever has executed before.
    State {
        /// The number of the snapshot's barrier.
        barrier: u64,
        /// The instances that the state covers.
        frontier: Frontier,
    },
    /// The batch of an instance has executed.
    Batch {
        /// The instance.
        id: InstanceId,
        /// The batch.
        payload: Payload,
        /// The encoded responses, by the number of the part. Reads may have none.
        responses: Vec<(usize, Bytes)>,
        /// Whether the next batch belongs to the same component.
        has_more: bool,
    },
    /// A barrier or a Seal has executed. What has been told so far has been told at every replica when it gets here.
    Barrier {
        /// Its number since the shard began.
        barrier: u64,
        /// The instances that the state covers.
        frontier: Frontier,
        /// Whether it ends the epoch.
        is_seal: bool,
    },
}

/// The end of an epoch at a replica (law, section 9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// The record that the Seal names.
    pub record: RecordId,
    /// The number of the Seal among the barriers of the shard.
    pub barrier: u64,
    /// The hash of the state, in which the next epoch begins.
    pub hash: u64,
}

/// The state at a barrier, for comparison (V13).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StateAt {
    /// The number of the barrier among those of the shard.
    pub barrier: u64,
    /// The hash of the state there.
    pub hash: u64,
}

/// A record to append to the log.
#[derive(Clone, Debug)]
pub struct Append {
    /// The position of the record; positions are consecutive from one append to the next.
    pub position: Position,
    /// The record.
    pub record: Record,
    /// The bytes of the batch, if the record carries them.
    pub payload: Option<Payload>,
}

/// A message that may be sent now, because all records on which it rests are durable.
#[derive(Clone, Debug)]
pub struct Send {
    /// The receiver, never the replica itself.
    pub to: ReplicaId,
    /// The message.
    pub message: PeerMessage,
    /// The batch that travels behind it.
    pub payload: Option<Payload>,
    /// Whether the message may wait, because no replica waits for it. A lazy message leaves with the next message to
    /// that replica that is not lazy, or some milliseconds later. No other message may overtake it.
    pub lazy: bool,
}

/// The answer to a request, which may be sent now.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The origin of the request.
    pub client: ClientRef,
    /// The encoded response, or the reason why there is none.
    pub outcome: Result<Bytes, Failure>,
}
