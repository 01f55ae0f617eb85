//! The messages between replicas, those between clients and replicas, and the handshake.
//!
//! Batches and responses do not travel inside a message but behind it, as the payload of the
//! frame, so that they are never encoded again.

// Fields that repeat the law's own names, and the archived twins that rkyv derives.
#![allow(missing_docs)]

use crate::address::with_port;
use crate::deps::{Deps, Floor, Frontier};
use crate::failure::Failure;
use crate::id::{
    Ballot, ClusterId, Epoch, InstanceId, REPLICAS_MAX, RecordId, ReplicaId, SessionId, ShardId,
};
use crate::latency::Latency;
use crate::source::Owner;
use crate::tuning::{PathStatus, Tuning};
use rkyv::{Archive, Deserialize, Serialize};

/// The version of frames and messages, which must be equal at both ends.
pub const WIRE_VERSION: u8 = 4;

/// The most conflicts that one ValidateOk reports. Further conflicts would change nothing, since any one of them
/// keeps the recovery from going on (R5).
pub const CONFLICTS_MAX: usize = 4096;

/// The most sources in one answer.
pub const SOURCES_TOLD_MAX: usize = 1000;

/// The phase of an instance at a replica.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Phase {
    /// The replica has no value; it may have given a promise or a validation.
    #[default]
    Init,
    /// The replica has taken the coordinator's proposal at ballot 0.
    PreAccepted,
    /// The replica has taken a value at `abal`.
    Accepted,
    /// The value is final.
    Committed,
}

/// The value of an instance, as messages name it.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Value {
    /// No value.
    #[default]
    None,
    /// A value that executes nothing.
    Nop,
    /// The initial coordinator's batch, which the receiver has.
    Known,
    /// The initial coordinator's batch, which is the payload of the frame.
    Attached,
}

/// A conflict that a validator reports (R4).
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The conflicting instance.
    pub id: InstanceId,
    /// Whether it is committed at the validator.
    pub committed: bool,
}

/// A message from one replica to another about a shard. The rules are those of the law.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum PeerMessage {
    /// C1; the batch is the payload.
    PreAccept { id: InstanceId, deps: Deps },
    /// C2.
    PreAcceptOk { id: InstanceId, deps: Deps },
    /// C3b, R3, R5, R6.
    Accept { id: InstanceId, ballot: Ballot, value: Value, deps: Deps, after: Deps },
    /// C4.
    AcceptOk { id: InstanceId, ballot: Ballot },
    /// C3a, C5, and the answer to a replica that asks about a committed instance.
    Commit { id: InstanceId, ballot: Ballot, value: Value, deps: Deps, after: Deps },
    /// A promise stood in the way of a message of ballot `refused`.
    Nack { id: InstanceId, refused: Ballot, promised: Ballot },
    /// The receiver of an Accept or Commit lacks the batch that the message calls known.
    Lacking { id: InstanceId, ballot: Ballot },
    /// R1, for the instances `from` to `to` of a row.
    Recover { row: ReplicaId, from: u64, to: u64, ballot: Ballot },
    /// R2.
    RecoverOk {
        id: InstanceId,
        ballot: Ballot,
        accepted: Ballot,
        phase: Phase,
        value: Value,
        deps: Deps,
        after: Deps,
        init_value: Value,
        init_deps: Deps,
    },
    /// R3.5; the batch is the payload.
    Validate { id: InstanceId, ballot: Ballot, deps: Deps },
    /// R4.
    ValidateOk { id: InstanceId, ballot: Ballot, conflicts: Vec<Conflict>, floor: Floor },
    /// R5.4.
    Waiting { id: InstanceId, supporters: u8 },
    /// G5: send the commits `from` to `to` of a row.
    Pull { row: ReplicaId, from: u64, to: u64 },
    /// G3: the instances that were asked for are at or below the sender's floor, which rests on `floor_barrier`.
    /// `snapshot` is the barrier of the sender's newest durable snapshot.
    Gone { floor: Floor, floor_barrier: u64, snapshot: u64 },
    /// The progress of the sender, and the conflicts that deps should take in (C1); sent every now and then.
    Gossip(Box<Gossip>),
    /// D9: the sender's disk hangs. The sender repeats the message for as long as the disk does.
    Stalled,
    /// G5: send the snapshot of a barrier from this byte on.
    Fetch { barrier: u64, from: u64 },
    /// A piece of a snapshot's file, whose bytes are the payload. A total of 0 means that there is no such snapshot.
    Piece { barrier: u64, from: u64, total: u64 },
    /// G5: the sender has fetched the receiver's snapshot of this barrier, and the file cannot be read.
    Unreadable { barrier: u64 },
}

/// The progress of a replica.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct Gossip {
    /// The instances committed without gaps, per row.
    pub committed: Frontier,
    /// The frontier E.
    pub executed: Frontier,
    /// The hash of the state at the frontier.
    pub state_hash: u64,
    /// Instances at or below the floor are executed, and forgotten at the sender (G1).
    pub floor: Floor,
    /// The last barrier on which the floor rests: behind it, what the floor covers and no member has kept are Nops (G5).
    pub floor_barrier: u64,
    /// The end of the blocks reserved before the last start (D8).
    pub restart_mark: u64,
    /// Conflicts with instances at or below this floor may be missing in the sender's answers.
    pub unindexed: Floor,
    /// How many barriers have executed.
    pub barrier: u64,
    /// The hash of the state at the last barrier (G4).
    pub barrier_hash: u64,
    /// The barrier of the newest durable snapshot; 0 if there is none.
    pub snapshot: u64,
    /// How many records the sender's log had, all durable, when the sender sent this; 0 if a power failure could take
    /// some of them (G6).
    pub position: u64,
}

/// A message between a client and a replica.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum ClientMessage {
    /// Client to replica; the request is the payload. The answer repeats the tag.
    Request {
        /// Chosen by the client, unique per connection.
        tag: u64,
    },
    /// Replica to client; the response is the payload.
    Response {
        /// The tag of the request.
        tag: u64,
    },
    /// Replica to client: the whole request failed.
    Failed {
        /// The tag of the request.
        tag: u64,
        /// The reason.
        failure: Failure,
    },
    /// Operator to replica: propose a barrier, at which a snapshot is taken. The answer is the status.
    SnapshotRequest,
    /// Client to replica: send the status of the shard.
    StatusRequest,
    /// Replica to client: the status of the shard.
    Status(Box<ShardStatus>),
    /// Client to replica: send the known sources, in the order of their sessions.
    SourcesRequest {
        /// The answer begins behind this session.
        after: SessionId,
    },
    /// Replica to client: at most [`SOURCES_TOLD_MAX`] sources; fewer if these are the last.
    Sources(Vec<SourceStatus>),
    /// Replica to client: the replica closes this connection, on which nothing is under way.
    Leave(Refusal),
}

/// The status of one source in one shard, as one replica knows it.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct SourceStatus {
    /// The session of the source.
    pub session: SessionId,
    /// The name of the source; empty if no process has attached to it.
    pub name: String,
    /// The process that owns the source.
    pub owner: Owner,
    /// The next number; all lower numbers are done or left out.
    pub low: u64,
    /// How many commands the source has decided.
    pub commands: u64,
    /// How long the source was not used, in microseconds; at most the time since the replica's start.
    pub idle_us: u64,
}

/// Messages of peers that a replica did not act on since its start, by reason.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MessagesDropped {
    /// Messages that came before the replica was admitted.
    pub not_admitted: u64,
    /// Messages that name impossible rows, numbers or ranges; their sender does not follow the protocol.
    pub impossible: u64,
    /// Messages about instances that have executed and that the replica has forgotten.
    pub forgotten: u64,
    /// Answers for which the replica does not wait any more, such as those that come after a fast quorum.
    pub late: u64,
    /// Messages that came after the epoch had ended (law, section 9), and did not ask for what was decided in it.
    pub sealed: u64,
    /// Messages that asked a learner for a vote, or told it of one (law, section 9).
    pub as_learner: u64,
}

/// Requests of clients that a shard has answered with a [`Failure`], by its kind.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RequestsFailed {
    /// A limit was reached, and nothing was proposed.
    pub overloaded: u64,
    /// The replica took no requests, and nothing was proposed.
    pub unavailable: u64,
    /// The outcome was not told.
    pub unknown: u64,
    /// The request was wrong.
    pub invalid: u64,
}

/// A point in the order that is the same at every replica.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Milestone {
    /// The number of the barrier since the shard began; 0 before the first.
    pub barrier: u64,
    /// The epoch of what executes next.
    pub epoch: Epoch,
    /// The instances of that epoch that the state covers.
    pub frontier: Frontier,
}

/// How the publication of a shard's decisions stands at a replica.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct PublishStatus {
    /// Whether this replica publishes the shard to a topic.
    pub is_publisher: bool,
    /// The bytes of decisions that this replica keeps for publication.
    pub backlog_bytes: u64,
    /// The barrier from which on this replica keeps every decision; `None` before that is known.
    pub kept_from: Option<Milestone>,
    /// The decisions that it has published since it began to.
    pub decisions: u64,
    /// The transactions in which it has.
    pub transactions: u64,
    /// Why it does not publish, although it should; empty if there is no trouble.
    pub trouble: String,
}

/// How a partition of a topic of proposals stands at the replica that consumes it.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: u32,
    /// The offset before which every record is done.
    pub position: u64,
    /// How many offsets lie between there and the end of the partition; `None` while that is not known.
    pub lag: Option<u64>,
    /// The records that were decided since this replica consumes the partition.
    pub decided: u64,
    /// The records since then that were delivered again and had been decided before.
    pub before: u64,
    /// The records since then that could not be proposed and went to the dead letters.
    pub dead_letters: u64,
    /// The records that were deleted from the topic before they were decided.
    pub lost: u64,
    /// Why the partition does not get on; empty if there is no trouble.
    pub trouble: String,
}

/// How the consumption of a topic of proposals stands at a replica.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct ConsumeStatus {
    /// The partitions that this replica consumes.
    pub partitions: Vec<PartitionStatus>,
    /// Why it consumes nothing; empty if there is no trouble.
    pub trouble: String,
}

/// The status of one shard of one replica.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct ShardStatus {
    /// The replica that answers.
    pub replica: ReplicaId,
    /// The epoch of the replica.
    pub epoch: Epoch,
    /// The shard.
    pub shard: ShardId,
    /// Whether the replica is a learner, which has no vote (law, section 9).
    pub is_learner: bool,
    /// The record that the Seal names, if the epoch has ended (law, section 9).
    pub sealed: Option<RecordId>,
    /// Messages of peers that had no effect.
    pub messages_dropped: MessagesDropped,
    /// The executed instances, per row.
    pub frontier: Frontier,
    /// The instances committed without gaps, per row.
    pub committed: Frontier,
    /// The number of instances that are known to the replica and not executed.
    pub unexecuted: u64,
    /// The instances that execution waits for, at most 16.
    pub waiting_on: Vec<InstanceId>,
    /// The hash of the state, which is equal at equal frontiers.
    pub state_hash: u64,
    /// Instances at or below the floor are executed and forgotten at the replica (G1).
    pub floor: Floor,
    /// How many barriers have executed.
    pub barrier: u64,
    /// The hash of the state at the last barrier, which is equal at all replicas.
    pub barrier_hash: u64,
    /// The barrier of the newest durable snapshot; 0 if there is none.
    pub snapshot: u64,
    /// The bytes that have come of a peer's snapshot, and the bytes of the whole; 0 if none is fetched.
    pub fetched: (u64, u64),
    /// Why no snapshot comes from a peer, or the trouble with the replica's own snapshot; empty if all is well.
    pub snapshot_trouble: String,
    /// How often the file of the replica's own snapshot was found damaged since the process started.
    pub snapshots_damaged: u64,
    /// The bytes that the log holds on disk.
    pub log_held_bytes: u64,
    /// The bytes that the log may hold before clients are refused.
    pub log_budget_bytes: u64,
    /// The number of keys with a decision.
    pub keys: u64,
    /// The number of open sessions.
    pub sessions: u64,
    /// The number of named sessions, which belong to sources.
    pub sources: u64,
    /// Bytes written to the log since the process started.
    pub log_bytes: u64,
    /// Groups written to the log since the process started: one write and sync each.
    pub log_groups: u64,
    /// Decisions executed since the process started, replay excluded.
    pub decisions: u64,
    /// Own instances committed on the fast path since the process started.
    pub fast: u64,
    /// Own instances committed on the slow path since the process started.
    pub slow: u64,
    /// Own instances that waited for the fast path until the time for that was over, since the process started. They
    /// count as slow, too.
    pub waited_in_vain: u64,
    /// How the publication of the shard's decisions stands, if they are published.
    pub publishing: Option<PublishStatus>,
    /// How the consumption of proposals stands, if this replica consumes them; told by shard 0 only.
    pub consuming: Option<ConsumeStatus>,
    /// How the replica stands to the fast path.
    pub path: PathStatus,
    /// The settings in force.
    pub tuning: Tuning,
    /// Why the settings in etcd are not followed; empty if they are, or if there are none.
    pub tuning_trouble: String,
    /// Instances whose recovery was started here since the process started.
    pub recoveries: u64,
    /// CPU time of the whole process in microseconds, all shards and threads.
    pub process_cpu_us: u64,
    /// Whether every group is synced before messages and answers that rest on it are sent.
    pub durable: bool,
    /// How long a write of the log that counts as hanging has been under way, in milliseconds; 0 if there is none.
    pub disk_hung_ms: u64,
    /// Lines that the process dropped from its log since it started, because they were not read in time.
    pub log_lines_dropped: u64,
    /// Peers with a link that works in both directions.
    pub peers_connected: Vec<ReplicaId>,
    /// The status of the links with each peer, by the peers' ids.
    pub peers: Vec<PeerStatus>,
    /// The number of connections of clients, and its limit.
    pub clients: (u32, u32),
    /// The number of connections of operators.
    pub operators: u32,
    /// Clients and operators that were refused since the process started, because all places were taken.
    pub connections_refused: u64,
    /// Idle connections that made room for others since the process started.
    pub connections_yielded: u64,
    /// Commands that clients have sent since the shard entered its epoch, those of failed requests included.
    pub proposals: u64,
    /// Requests that have failed since then.
    pub requests_failed: RequestsFailed,
    /// How long commands took since then, from the arrival of their requests here to the answers. Commands of failed
    /// requests are not counted.
    pub latency: Latency,
    /// How long the writes of the log took since then, with the syncs that the durability asks for.
    pub log_latency: Latency,
    /// The requests that wait for an instance, and their bytes.
    pub queued: (u64, u64),
    /// The bytes of the log that wait for the disk.
    pub log_queued_bytes: u64,
}

/// The status of the links of a shard with one peer. All counts begin with the process.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct PeerStatus {
    /// The peer.
    pub replica: ReplicaId,
    /// The number of links to the peer that the peer has welcomed.
    pub opened: u64,
    /// The number of those links that have ended.
    pub ended: u64,
    /// The number of connections on which the peer has sent.
    pub heard: u64,
    /// The number of those connections that have ended.
    pub silenced: u64,
    /// Messages that were never sent, because there was no link, or because the link ended before.
    pub lost: u64,
    /// Messages that were sent again because no answer came.
    pub resent: u64,
    /// The wait before the next try to open a link, in milliseconds; 0 while there is a link.
    pub retry_ms: u64,
    /// How many instances this replica has executed and the peer has not, as far as the peer has told since it was
    /// linked; `None` if it has told nothing, and for a learner.
    pub behind: Option<u64>,
    /// The bytes that wait for the peer.
    pub queued_bytes: u64,
}

/// The first message on each connection, in both directions.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum Handshake {
    /// The message of the side that opened the connection.
    Hello(Hello),
    /// The other side accepts.
    Welcome(Welcome),
    /// The other side refuses, and closes.
    Refused(Refusal),
}

/// The description of a connection by the side that opened it.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The cluster to which the connection shall lead; `None` from a client that accepts any.
    pub cluster: Option<ClusterId>,
    /// The epoch of a replica; clients leave it 0.
    pub epoch: Epoch,
    /// The shard to which the connection shall lead.
    pub shard: ShardId,
    /// The number of shards, from a replica; clients leave it 0.
    pub shards: u16,
    /// The sender's [`crate::route::RULE_VERSION`].
    pub rule: u32,
    /// The role of the sender.
    pub role: Role,
}

/// The role of the side that opened a connection.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A member. The fields identify its data directory and the state of that directory (G6).
    Replica {
        /// The place of the member in the epoch; behind those of all members for a learner.
        id: ReplicaId,
        /// The record that names the epoch's members; 0 where members are not named in etcd.
        record: RecordId,
        /// A random number, made with the data directory.
        incarnation: u128,
        /// The process of the member.
        start: Start,
        /// How many records the member's log of this shard has; `None` if a power failure could take some of them
        /// lawfully, so that the number says nothing.
        position: Option<u64>,
    },
    /// A client.
    Client,
    /// An operator, which asks for a status or a snapshot, or ends a source, and does nothing else. A shard has
    /// places for operators when clients have taken all others.
    Operator,
}

/// A process of a replica, as its data directory counts processes (G6).
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Start {
    /// How many processes have taken part with this directory, this one included.
    pub number: u64,
    /// A random number, made with the process.
    pub nonce: u64,
}

/// Why a replica's data directory cannot be its newest one (G6).
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SetBack {
    /// A peer has met a later process before.
    #[error("the directory has counted {here} starts, but start {known} of the directory was met before")]
    Starts { here: u64, known: u64 },
    /// A peer has met another process with the same number, from which this one does not descend.
    #[error("another process that was also start {here} of the directory was met before")]
    SameStart { here: u64 },
    /// The log has lost records that the replica had said to be durable.
    #[error(
        "the log of this shard has {here} records, but the replica had said before that {heard} were durable"
    )]
    Log { here: u64, heard: u64 },
}

/// The description that the accepting side gives of itself.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The cluster of the replica.
    pub cluster: ClusterId,
    /// The epoch of the replica.
    pub epoch: Epoch,
    /// The place of the replica in the epoch. A replica that is not a member welcomes operators only, and its place
    /// is not among those of the members.
    pub replica: ReplicaId,
    /// The number of shards.
    pub shards: u16,
    /// The addresses of the members, by their places.
    pub members: Vec<Member>,
    /// Whether decisions are synced before they are answered.
    pub durable: bool,
}

impl Welcome {
    /// Whether the replica is one of the members that it names.
    pub fn is_member(&self) -> bool {
        self.replica.index() < self.members.len()
    }
}

/// The address at which clients reach a replica.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// A name or an address, without a port.
    pub host: String,
    /// The client port of shard 0; shard `s` listens on `client_base + s`.
    pub client_base: u16,
}

/// Why a connection was refused. The text says what to do.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error(
        "this is cluster {here}, not {there}; check the address and the cluster name, and that all members \
         began with the same backup or with none"
    )]
    WrongCluster { here: ClusterId, there: ClusterId },
    #[error("this replica speaks wire version {here}, not {there}; run the same release on both sides")]
    WrongVersion { here: u8, there: u8 },
    #[error("this replica has conflict rule {here}, not {there}; run the same release on both sides")]
    WrongRule { here: u32, there: u32 },
    #[error("this replica is in epoch {}, not {}; the replica in the lower epoch follows as soon as etcd names it the later one", here.0, there.0)]
    WrongEpoch { here: Epoch, there: Epoch },
    #[error(
        "this replica follows the record {:032x} of epoch {}, not {:032x}: etcd was restored from an old backup, or the \
         replicas use different prefixes; see docs/MEMBERSHIP.md",
        here.0, epoch.0, there.0
    )]
    WrongRecord { epoch: Epoch, here: RecordId, there: RecordId },
    #[error(
        "this port does not serve shard {}; it serves shard {}; check client_base and peer_base",
        there.0, here.0
    )]
    WrongShard { here: ShardId, there: ShardId },
    #[error("this cluster has {here} shards, not {there}; give all members the same configuration")]
    WrongShards { here: u16, there: u16 },
    #[error(
        "replica {} is not among the peers that this port expects. If the members are named in etcd, they have changed, \
         and one of the two replicas was left out or has not heard of the change: let both reach etcd, and see \
         `isonomy member list`. If they are named in the configurations, name the same ones in all configurations",
        id.0
    )]
    NotAPeer { id: ReplicaId },
    #[error(
        "replica {} was known here with another data directory, and a replica that has lost its promises must \
         not vote: start the replica with its old directory; if the old directory is lost, leave the replica \
         stopped and see docs/OPERATIONS.md, \"Lost and damaged replicas\"",
        id.0
    )]
    WrongIncarnation { id: ReplicaId },
    #[error(
        "replica {} has a data directory that was set back or copied: {found}. The replica has forgotten \
         promises that it made since, so it must not vote: start the replica with the newest state of its \
         directory; if that state is lost, leave the replica stopped and see docs/OPERATIONS.md, \"Lost and \
         damaged replicas\"",
        id.0
    )]
    SetBack {
        id: ReplicaId,
        found: SetBack,
        /// The member that has found this. Only a refusal by that member itself may stop a replica for good.
        by: ReplicaId,
        cluster: ClusterId,
        epoch: Epoch,
    },
    #[error(
        "another process of replica {} (start {} of its data directory) is linked here and was heard a moment \
         ago; this process is start {}. One of the two processes has a copy of the directory, and a copy must \
         never run: find the process that has the copy, and stop that one",
        id.0, living.number, here.number
    )]
    AnotherLives { id: ReplicaId, here: Start, living: Start },
    #[error(
        "this port is for {expected}; connect to a port counted from the other base (client_base or peer_base)"
    )]
    WrongPort { expected: String },
    #[error(
        "all {limit} connections of this shard are taken; close some connections or raise `connections_max`"
    )]
    TooManyConnections { limit: u32 },
    #[error(
        "all connections of this shard were taken, and this one, idle for {idle_s} s, was closed to make room \
         for another; connect again when there is something to ask, or raise `connections_max`"
    )]
    MadeRoom { idle_s: u64 },
    #[error("the first frame was not a hello; connect with a client or a replica of this release")]
    NoHello,
    /// To a client, from a replica that learns or was left out of the epoch.
    #[error(
        "this replica is not a member in epoch {}, whose members are {}; connect to one of them",
        epoch.0, listed(members)
    )]
    NotAMember {
        /// The epoch that the replica knows.
        epoch: Epoch,
        /// The members of that epoch, by their places. A client uses them only as a [`crate::view::View`].
        members: Vec<Member>,
    },
    /// To a client that is connected while the members change.
    #[error("epoch {} has begun; connect again, and send the requests without an answer again", epoch.0)]
    EpochChanged {
        /// The epoch that has begun.
        epoch: Epoch,
    },
}

/// The addresses of members, for a text. A cluster has no more members than are listed.
fn listed(members: &[Member]) -> String {
    let addresses = members.iter().take(REPLICAS_MAX).map(|it| with_port(&it.host, it.client_base));
    addresses.collect::<Vec<_>>().join(", ")
}
