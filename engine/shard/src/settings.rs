//! What a shard is started with: plain values, whatever file or flag they come from.

use crate::net::resolver::Resolver;
use isonomy_mesh::Roster;
use isonomy_wire::id::{Epoch, RecordId, ReplicaId, ShardId};
use isonomy_wire::message::ConsumeStatus;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The settings of a shard.
#[derive(Clone)]
pub struct Settings {
    /// The shard.
    pub shard: ShardId,
    /// How many shards each member has.
    pub shards: u16,
    /// The core to which the shard is pinned; without one it runs wherever the system lets it.
    pub core: Option<usize>,
    /// Whether a decision is answered only when the disk has flushed it.
    pub outlives_power: bool,
    /// The most connections of clients.
    pub connections_max: u32,
    /// The log that the shard may keep, in bytes.
    pub log_budget: u64,
    /// The bytes that may wait for publication before the shard refuses clients, if the decisions are published.
    pub publish_budget: u64,
    /// The time without use after which a source is forgotten.
    pub source_expiry: Duration,
    /// Looks up the names of members; the shards of a process share it.
    pub resolver: Resolver,
    /// Why other machines do not reach this replica, if they do not.
    pub unreachable: Option<String>,
    /// How many lines of the process's log were dropped because nobody read them.
    pub log_lines_dropped: fn() -> u64,
    /// How the consumption of proposals stands, at the shard that tells it.
    pub consuming: Option<Arc<Mutex<ConsumeStatus>>>,
}

/// The place of this replica in an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seat {
    pub(crate) epoch: Epoch,
    /// The record that names the members.
    pub(crate) record: RecordId,
    /// The place, which is behind those of the members for a learner.
    pub(crate) replica: ReplicaId,
    /// The number of members.
    pub(crate) members: u8,
}

impl Seat {
    /// The place that a roster gives; none if it gives none.
    pub(crate) fn of(roster: &Roster) -> Option<Seat> {
        let Roster { epoch, record, own, members, .. } = *roster;
        own.map(|replica| Seat { epoch, record, replica, members })
    }

    /// Whether the replica copies the state and has no vote.
    pub(crate) fn is_learner(&self) -> bool {
        self.replica.0 >= self.members
    }

    /// The other members.
    pub(crate) fn peers(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        let own = self.replica;
        (0..self.members).map(ReplicaId).filter(move |id| *id != own)
    }
}

/// The listening ports of a shard, which the process takes before anything else happens.
#[derive(Debug)]
pub struct Ports {
    /// For the other replicas.
    pub peers: TcpListener,
    /// For clients.
    pub clients: TcpListener,
}
