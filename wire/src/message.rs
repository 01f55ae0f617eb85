//! What replicas say to each other and clients to replicas: one enum each, and the handshake.
//!
//! Batches and responses do not travel inside a message but behind it, as the payload of the
//! frame, so that they are never encoded again.

// Fields that repeat the law's own names, and the archived twins that rkyv derives.
#![allow(missing_docs)]

use crate::deps::{Deps, Floor, Frontier};
use crate::failure::Failure;
use crate::id::{Ballot, ClusterId, Epoch, InstanceId, ReplicaId, ShardId, StreamId};
use crate::source::Owner;
use rkyv::{Archive, Deserialize, Serialize};

/// The version of frames and messages. Both ends must have the same.
pub const WIRE_VERSION: u8 = 3;

/// The most conflicts that one ValidateOk reports; more are as good as this many, since any one
/// of them keeps the recovery from going on (R5).
pub const CONFLICTS_MAX: usize = 4096;

/// The most sources in one answer.
pub const SOURCES_TOLD_MAX: usize = 1000;

/// How far an instance has come at a replica.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Phase {
    /// Nothing but perhaps a promise or a validation.
    #[default]
    Init,
    /// The coordinator's proposal was taken at ballot 0.
    PreAccepted,
    /// A value was taken at `abal`.
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
    /// Nothing is executed.
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

/// What one replica says to another about a shard. The rules are those of the law.
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
    /// C3a, C5, and the answer to whoever asks about a committed instance.
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
    /// G3: what was asked is at or below the sender's floor. The newest durable snapshot says which
    /// barrier the floor rests on.
    Gone { floor: Floor, snapshot: u64 },
    /// Said every now and then: how far the sender is, and what deps should take in (C1).
    Gossip(Box<Gossip>),
    /// D9: the sender's disk hangs. Said again for as long as it does.
    Stalled,
    /// G5: send the snapshot of a barrier from this byte on.
    Fetch { barrier: u64, from: u64 },
    /// A piece of a snapshot's file; the bytes are the payload. A total of 0: there is no such snapshot.
    Piece { barrier: u64, from: u64, total: u64 },
    /// G5: what came of the receiver's snapshot of this barrier does not read.
    Unreadable { barrier: u64 },
}

/// How far a replica is.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct Gossip {
    /// Committed without gaps.
    pub committed: Frontier,
    /// The frontier E.
    pub executed: Frontier,
    /// The hash of the state there.
    pub state_hash: u64,
    /// What is at or below is executed, and forgotten there (G1).
    pub floor: Floor,
    /// The end of the blocks reserved before the last start (D8).
    pub restart_mark: u64,
    /// Conflicts at or below may be missing in its answers.
    pub unindexed: Floor,
    /// How many barriers have executed.
    pub barrier: u64,
    /// The hash of the state at the last of them (G4).
    pub barrier_hash: u64,
    /// The barrier of the newest durable snapshot, 0 if there is none.
    pub snapshot: u64,
    /// How many records the sender's log had, all durable, when it said so; 0 if a power failure could
    /// take some of them (G6).
    pub position: u64,
}

/// What clients and replicas say to each other.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum ClientMessage {
    /// Client to replica; the request is the payload. The answer repeats the tag.
    Request {
        /// Chosen by the client, unique per connection.
        tag: u64,
    },
    /// Replica to client; the response is the payload.
    Response {
        /// The request's.
        tag: u64,
    },
    /// Replica to client: the whole request failed.
    Failed {
        /// The request's.
        tag: u64,
        /// Why.
        failure: Failure,
    },
    /// Operator to replica: propose a barrier, at which a snapshot is taken. Answered with the status.
    SnapshotRequest,
    /// Client to replica.
    StatusRequest,
    /// Replica to client.
    Status(Box<ShardStatus>),
    /// Client to replica: which sources are known, in the order of their streams?
    SourcesRequest {
        /// Those behind this stream.
        after: StreamId,
    },
    /// Replica to client: as many as fit one answer, [`SOURCES_TOLD_MAX`]; fewer, and there are no more.
    Sources(Vec<SourceStatus>),
    /// Replica to client: this connection ends here, with nothing under way on it.
    Leave(Refusal),
}

/// How one source stands in one shard, as one replica knows it.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct SourceStatus {
    /// Its stream.
    pub stream: StreamId,
    /// Its name; empty if nobody has attached to it.
    pub name: String,
    /// The process that has it.
    pub owner: Owner,
    /// The next number: all lower ones are done or do not exist.
    pub low: u64,
    /// How many commands it has decided.
    pub commands: u64,
    /// For how long it has done nothing, since the replica was started at most.
    pub idle_us: u64,
}

/// Messages of peers that a replica did not act on since its start, by reason.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MessagesDropped {
    /// They came before the replica was admitted.
    pub not_admitted: u64,
    /// They name rows, numbers or ranges that cannot be: their sender does not follow the protocol.
    pub impossible: u64,
    /// They are about instances that have executed and are forgotten here.
    pub forgotten: u64,
    /// They answer what is not asked any more, such as the answers that come after a fast quorum.
    pub late: u64,
}

/// How one shard of one replica stands.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct ShardStatus {
    /// Who answers.
    pub replica: ReplicaId,
    /// The epoch it is in.
    pub epoch: Epoch,
    /// The shard.
    pub shard: ShardId,
    /// Messages of peers that had no effect.
    pub messages_dropped: MessagesDropped,
    /// Executed, per row.
    pub frontier: Frontier,
    /// Committed without gaps, per row.
    pub committed: Frontier,
    /// Instances that are known here and not executed.
    pub unexecuted: u64,
    /// The instances that execution waits for, at most 16.
    pub waiting_on: Vec<InstanceId>,
    /// The hash of the state: equal at equal frontiers.
    pub state_hash: u64,
    /// Everything at or below is executed and forgotten here (G1).
    pub floor: Floor,
    /// How many barriers have executed.
    pub barrier: u64,
    /// The hash of the state at the last barrier: equal everywhere.
    pub barrier_hash: u64,
    /// The barrier of the newest durable snapshot; 0 if there is none.
    pub snapshot: u64,
    /// The bytes of a peer's snapshot that have come, and all of them; 0 if none is fetched.
    pub fetched: (u64, u64),
    /// Why no snapshot comes from a peer, or what is wrong with the own one; empty if all is well.
    pub snapshot_trouble: String,
    /// How often the file of the own snapshot was found damaged since the process started.
    pub snapshots_damaged: u64,
    /// Bytes that the log holds on disk.
    pub log_held_bytes: u64,
    /// Bytes that it may hold before clients are refused.
    pub log_budget_bytes: u64,
    /// Keys with a decision.
    pub keys: u64,
    /// Open streams.
    pub streams: u64,
    /// Named streams: those of sources.
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
    /// Instances whose recovery was started here since the process started.
    pub recoveries: u64,
    /// CPU time of the whole process in microseconds, all shards and threads.
    pub process_cpu_us: u64,
    /// Whether every group is synced before anything is said.
    pub durable: bool,
    /// For how long a write of the log has been under way that is taken for one that hangs, in
    /// milliseconds; 0 if none is.
    pub disk_hung_ms: u64,
    /// Lines that the process could not log since it started, because nobody took them.
    pub log_lines_dropped: u64,
    /// Peers with a link that works in both directions.
    pub peers_connected: Vec<ReplicaId>,
    /// How the links with each of the others stand, by their ids.
    pub peers: Vec<PeerStatus>,
    /// Connections of clients, and how many there may be.
    pub clients: (u32, u32),
    /// Connections of operators.
    pub operators: u32,
    /// Clients and operators that were refused since the process started, because all places were taken.
    pub connections_refused: u64,
    /// Idle connections that made room for others since the process started.
    pub connections_yielded: u64,
}

/// How the links of a shard with one peer stand. All counts begin with the process.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct PeerStatus {
    /// The peer.
    pub replica: ReplicaId,
    /// Links to the peer that the peer has welcomed.
    pub opened: u64,
    /// Those of them that have ended.
    pub ended: u64,
    /// Connections on which the peer was heard.
    pub heard: u64,
    /// Those of them that have ended.
    pub silenced: u64,
    /// Messages that never left: there was no link, or it ended before they did.
    pub lost: u64,
    /// Messages that were sent again for want of an answer.
    pub resent: u64,
    /// The wait before the next try to open a link, in milliseconds; 0 while there is one.
    pub retry_ms: u64,
}

/// The first words on each connection, in both directions.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum Handshake {
    /// From whoever opened the connection.
    Hello(Hello),
    /// The other side accepts.
    Welcome(Welcome),
    /// The other side refuses, and closes.
    Refused(Refusal),
}

/// Who opened a connection, and to what.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The cluster meant; `None` from a client that takes any.
    pub cluster: Option<ClusterId>,
    /// The epoch of a replica; clients leave it 0.
    pub epoch: Epoch,
    /// The shard meant.
    pub shard: ShardId,
    /// The number of shards, from a replica; clients leave it 0.
    pub shards: u16,
    /// See [`crate::route::RULE_VERSION`].
    pub rule: u32,
    /// Who speaks.
    pub role: Role,
}

/// Who opened a connection.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A member. The rest says which state of which data directory it has (G6).
    Replica {
        /// Its place in the epoch.
        id: ReplicaId,
        /// Random, made with the data directory.
        incarnation: u128,
        /// Which process it is.
        start: Start,
        /// How many records its log of this shard has; `None` if a power failure could take some of them
        /// lawfully, so that the number says nothing.
        position: Option<u64>,
    },
    /// A client.
    Client,
    /// Whoever asks how a replica stands or for a snapshot, or ends a source, and does nothing else: it gets in where
    /// clients have taken all places.
    Operator,
}

/// A process of a replica, as its data directory counts them (G6).
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Start {
    /// How many processes have taken part with this directory, this one included.
    pub number: u64,
    /// Random, made with the process.
    pub nonce: u64,
}

/// Why a replica's data directory cannot be its newest one (G6).
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SetBack {
    /// A later process was met before.
    #[error("its directory has counted {here} starts, and its start {known} was met before")]
    Starts { here: u64, known: u64 },
    /// The same number was met before, from a process that this one does not come from.
    #[error("another process was met before that was start {here} of its directory, too")]
    SameStart { here: u64 },
    /// Its log has lost records that it had said to be durable.
    #[error("its log of this shard has {here} records, and it had said before that {heard} were durable")]
    Log { here: u64, heard: u64 },
}

/// What the accepting side says of itself.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its place in the epoch.
    pub replica: ReplicaId,
    /// The number of shards.
    pub shards: u16,
    /// All replicas, by their ids.
    pub members: Vec<Member>,
    /// Whether decisions are synced before they are answered.
    pub durable: bool,
}

/// Where clients reach a replica.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Name or address.
    pub host: String,
    /// The client port of shard 0; shard `s` listens on `client_base + s`.
    pub client_base: u16,
}

/// Why a connection was refused. The text says what to do.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error(
        "this is cluster {here}, not {there}; check the address, the cluster name, and that all members began with the same backup or none"
    )]
    WrongCluster { here: ClusterId, there: ClusterId },
    #[error("this replica speaks wire version {here}, not {there}; run the same release on both sides")]
    WrongVersion { here: u8, there: u8 },
    #[error("this replica has conflict rule {here}, not {there}; run the same release on both sides")]
    WrongRule { here: u32, there: u32 },
    #[error("this replica is in epoch {}, not {}; restart with the current member list", here.0, there.0)]
    WrongEpoch { here: Epoch, there: Epoch },
    #[error("shard {} does not live on this port, which serves shard {}; check client_base and peer_base", there.0, here.0)]
    WrongShard { here: ShardId, there: ShardId },
    #[error("this cluster has {here} shards, not {there}; give all members the same configuration")]
    WrongShards { here: u16, there: u16 },
    #[error("replica {} is not a peer that this port expects; check the member list", id.0)]
    NotAPeer { id: ReplicaId },
    #[error("replica {} was known here with another data directory, and one that has lost its promises must not vote: start it with its old directory; if that is lost, leave this replica stopped and see docs/OPERATIONS.md, \"Lost and damaged replicas\"", id.0)]
    WrongIncarnation { id: ReplicaId },
    #[error("replica {} has a data directory that was set back or copied: {found}. It has forgotten what was promised since, so it must not vote: start it with the newest state of its directory; if that is lost, leave this replica stopped and see docs/OPERATIONS.md, \"Lost and damaged replicas\"", id.0)]
    SetBack {
        id: ReplicaId,
        found: SetBack,
        /// Who has found it. Nobody else's word may stop a replica for good.
        by: ReplicaId,
        cluster: ClusterId,
        epoch: Epoch,
    },
    #[error("another process of replica {} (start {} of its data directory) is linked here and was heard a moment ago; this is start {}. Of two processes one has a copy of the directory, and a copy must never run: stop that one", id.0, living.number, here.number)]
    AnotherLives { id: ReplicaId, here: Start, living: Start },
    #[error("this port is for {expected}; use the other base port")]
    WrongPort { expected: String },
    #[error("all {limit} connections of this shard are taken; close some or raise `connections_max`")]
    TooManyConnections { limit: u32 },
    #[error(
        "all connections of this shard were taken, and this one had been idle for {idle_s} s: another has its place; connect again when there is something to ask, or raise `connections_max`"
    )]
    MadeRoom { idle_s: u64 },
    #[error("the first frame must be a hello")]
    NoHello,
}
