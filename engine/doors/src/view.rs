//! What the process shows the doors of itself.

use isonomy_wire::message::{ShardStatus, Welcome};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A shard of this replica, as the process knows it.
#[derive(Clone, Debug, Default)]
pub struct ShardView {
    /// Whether the log is read and the ports are served.
    pub is_serving: bool,
    /// What the shard measured last; about once a second.
    pub status: Option<Arc<ShardStatus>>,
    /// When that came.
    pub told: Option<Instant>,
}

/// This replica, as the process knows it.
#[derive(Clone, Debug)]
pub struct ReplicaView {
    /// Where clients find shard 0 of this replica.
    pub address: String,
    /// The cluster, the epoch, its members, and the place of this replica among them.
    pub welcome: Welcome,
    /// The shards, by their numbers.
    pub shards: Vec<ShardView>,
    /// Whether etcd answers, if the members are named there.
    pub is_etcd_reached: Option<bool>,
}

impl ReplicaView {
    /// What the shards have measured.
    pub fn statuses(&self) -> impl Iterator<Item = &ShardStatus> {
        self.shards.iter().filter_map(|shard| shard.status.as_deref())
    }
}

/// The place where the process shows itself. Clones share it.
#[derive(Clone, Debug)]
pub struct Shown(Arc<Mutex<ReplicaView>>);

impl Shown {
    /// Shows this at first.
    pub fn new(view: ReplicaView) -> Shown {
        Shown(Arc::new(Mutex::new(view)))
    }

    /// What is shown now.
    pub fn look(&self) -> ReplicaView {
        self.lock().clone()
    }

    /// Changes what is shown. The caller must not wait for anything in `change`.
    pub fn change(&self, change: impl FnOnce(&mut ReplicaView)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, ReplicaView> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
