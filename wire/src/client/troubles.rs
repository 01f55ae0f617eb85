//! Why connections of a client are missing, for whoever waits for them.

use super::connection::ConnectError;
use crate::id::{ReplicaId, ShardId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// By shard and replica, what its last try said. At most one for each connection of the client.
#[derive(Clone, Debug, Default)]
pub(super) struct Troubles(Arc<Mutex<BTreeMap<(ShardId, ReplicaId), String>>>);

impl Troubles {
    /// A try to connect has ended, by this error or well.
    pub(super) fn note(&self, shard: ShardId, replica: ReplicaId, error: Option<&ConnectError>) {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            Some(error) => drop(troubles.insert((shard, replica), error.to_string())),
            None => drop(troubles.remove(&(shard, replica))),
        }
    }

    /// All there are now.
    pub(super) fn list(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
