//! Why a client gets no answers, for whoever waits for them.

use super::connection::ConnectError;
use crate::failure::Failure;
use crate::id::{ReplicaId, ShardId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Those of a client.
#[derive(Clone, Debug, Default)]
pub(super) struct Troubles(Arc<Mutex<All>>);

#[derive(Debug, Default)]
struct All {
    /// By shard and replica, what the last try to connect said. At most one for each connection of the client.
    unconnected: BTreeMap<(ShardId, ReplicaId), String>,
    /// Why a replica took nothing, since the last answer.
    refusal: Option<String>,
}

impl Troubles {
    /// A try to connect has ended, by this error or well.
    pub(super) fn note(&self, shard: ShardId, replica: ReplicaId, error: Option<&ConnectError>) {
        let unconnected = &mut self.all().unconnected;
        match error {
            Some(error) => drop(unconnected.insert((shard, replica), error.to_string())),
            None => drop(unconnected.remove(&(shard, replica))),
        }
    }

    /// A replica took nothing.
    pub(super) fn refused(&self, replica: ReplicaId, failure: &Failure) {
        self.all().refusal = Some(format!("replica {replica} is {failure}"));
    }

    /// A replica answered.
    pub(super) fn answered(&self) {
        self.all().refusal = None;
    }

    /// The replicas that are not connected.
    pub(super) fn unconnected(&self) -> Vec<String> {
        self.all().unconnected.values().cloned().collect()
    }

    /// All there are now.
    pub(super) fn list(&self) -> Vec<String> {
        let refusal = self.all().refusal.clone();
        refusal.into_iter().chain(self.unconnected()).collect()
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
