//! Everything that crosses cores: a bounded lane in each direction between the process and a shard, the wake-up that
//! goes with a lane, and the reasons for which any thread ends the process.
//!
//! One enum goes each way. What crosses is plain data with one owner, and neither side ever waits for the other: a
//! lane that is full gives the item back, and the sender decides what that means.

pub mod bell;
pub mod fatal;
mod lane;

pub use lane::{Inbox, LANE_MAX, Outbox};

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
    /// The members are found at these addresses from now on, by their ids. Links that stand are kept.
    Addresses(Vec<MemberAddress>),
    /// The protocol has these settings from now on.
    Settings(ShardSettings),
    /// The shard answers the requests that are under way, closes its connections and ends.
    Stop,
}

/// What a shard tells the process.
#[derive(Debug)]
pub enum FromShard {
    /// The log is read and the ports are served.
    Ready,
    /// The shard's metrics, about once a second. Newer metrics replace older ones, so some may be left out.
    Metrics(Box<ShardStatus>),
}

/// A shard's end.
#[derive(Debug)]
pub struct ShardEnd {
    /// What the process tells the shard.
    pub orders: Inbox<ToShard>,
    /// What the shard tells the process.
    pub news: Outbox<FromShard>,
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
    (ProcessEnd { orders, news: to_process }, ShardEnd { orders: to_shard, news })
}
