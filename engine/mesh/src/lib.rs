//! Everything that crosses cores: a bounded lane in each direction between the process and a shard, the wake-up that
//! goes with a lane, and the reasons for which any thread ends the process.
//!
//! One enum goes each way. What crosses is plain data with one owner, and neither side ever waits for the other: a
//! lane that is full gives the item back, and the sender decides what that means.

pub mod bell;
pub mod fatal;
mod lane;
mod sink;

pub use isonomy_wire::message::Milestone;
pub use lane::{Inbox, LANE_MAX, Outbox};
pub use sink::{FeedEnd, ForSink, SinkEnd, SinkStand, connect_sink};

use isonomy_wire::id::{Epoch, RecordId, ReplicaId};
use isonomy_wire::message::ShardStatus;
use isonomy_wire::tuning::Tuning;

/// Where a member of the cluster is found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberAddress {
    /// A name or an address; an IPv6 address has no brackets.
    pub host: String,
    /// Shard `s` listens for peers on this port plus `s`.
    pub peer_base: u16,
    /// Shard `s` listens for clients on this port plus `s`.
    pub client_base: u16,
}

/// A member or a learner of an epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Where it is found.
    pub address: MemberAddress,
    /// The data directory that it takes part with, if that is known.
    pub incarnation: Option<u128>,
}

/// Who takes part in an epoch (law, section 9).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Roster {
    /// The epoch.
    pub epoch: Epoch,
    /// The record that names the members; 0 if they are not named in etcd.
    pub record: RecordId,
    /// The place of this replica; none if the epoch has left it out.
    pub own: Option<ReplicaId>,
    /// The number of members, which have the first places.
    pub members: u8,
    /// The members, and behind them the learners of a change that is under way.
    pub places: Vec<Place>,
    /// Whether a change of the members is announced.
    pub is_changing: bool,
}

impl Roster {
    /// The members of the first epoch of a cluster that names them in its configuration.
    pub fn of_first_epoch(own: ReplicaId, addresses: impl IntoIterator<Item = MemberAddress>) -> Roster {
        let place = |address| Place { address, incarnation: None };
        let places: Vec<Place> = addresses.into_iter().map(place).collect();
        let members = places.len() as u8;
        Roster { epoch: Epoch(1), record: RecordId(0), own: Some(own), members, places, is_changing: false }
    }
}

/// The settings of the protocol, and whether the members have agreed to take slow paths because a fast quorum cannot be
/// formed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShardSettings {
    /// The settings.
    pub tuning: Tuning,
    /// Whether they have agreed so.
    pub is_slow_agreed: bool,
}

/// What the process tells a shard.
#[derive(Debug, PartialEq, Eq)]
pub enum ToShard {
    /// Who takes part, and where they are found from now on. Links that stand are kept within an epoch. With a later
    /// epoch the shard leaves its own for that one, or takes no part any more.
    Roster(Roster),
    /// The shard proposes a Seal with this record, again and again, until its epoch has ended.
    Seal(RecordId),
    /// The protocol has these settings from now on.
    Settings(ShardSettings),
    /// Why the settings in etcd are not followed, for the shard's status; empty if they are.
    SettingsTrouble(String),
    /// The shard answers the requests that are under way, closes its connections and ends.
    Stop,
}

/// What a shard tells the process.
#[derive(Debug)]
pub enum FromShard {
    /// The log is read and the ports are served.
    Ready,
    /// What the shard has come to, whenever that changes.
    Progress(Progress),
    /// The shard's metrics, about once a second. Newer metrics replace older ones, so some may be left out.
    Metrics(Box<ShardStatus>),
}

/// How far a shard has come in an epoch and in the change of its members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// The epoch.
    pub epoch: Epoch,
    /// Whether the shard has the state, up to a small rest.
    pub is_close: bool,
    /// The end of the epoch, if the shard holds the state at it durably.
    pub end: Option<EpochEnd>,
}

/// The end of an epoch in a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEnd {
    /// The record that the Seal names.
    pub record: RecordId,
    /// The hash of the state.
    pub hash: u64,
}

/// A shard's end.
#[derive(Debug)]
pub struct ShardEnd {
    /// What the process tells the shard.
    pub orders: Inbox<ToShard>,
    /// What the shard tells the process.
    pub news: Outbox<FromShard>,
    /// The way to the sink, if the decisions are published.
    pub feed: Option<FeedEnd>,
}

/// The process's end of the lanes with one shard.
#[derive(Debug)]
pub struct ProcessEnd {
    /// What the process tells the shard.
    pub orders: Outbox<ToShard>,
    /// What the shard tells the process.
    pub news: Inbox<FromShard>,
}

/// The two lanes between the process and a shard.
pub fn connect() -> (ProcessEnd, ShardEnd) {
    let (orders, to_shard) = lane::new();
    let (news, to_process) = lane::new();
    (ProcessEnd { orders, news: to_process }, ShardEnd { orders: to_shard, news, feed: None })
}
