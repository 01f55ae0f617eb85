//! Reasons why a client gets no answers, for its callers.

use super::connection::ConnectError;
use crate::failure::Failure;
use crate::id::{ReplicaId, ShardId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The reasons of one client; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Troubles(Arc<Mutex<All>>);

#[derive(Debug, Default)]
struct All {
    /// The error of the last try to connect, by shard and replica; at most one for each connection of the client.
    unconnected: BTreeMap<(ShardId, ReplicaId), String>,
    /// The last refusal of a replica since the last answer.
    refusal: Option<String>,
}

impl Troubles {
    /// A try to connect has ended, with this error or without one.
    pub(super) fn note(&self, shard: ShardId, replica: ReplicaId, error: Option<&ConnectError>) {
        let unconnected = &mut self.all().unconnected;
        match error {
            Some(error) => drop(unconnected.insert((shard, replica), error.to_string())),
            None => drop(unconnected.remove(&(shard, replica))),
        }
    }

    /// A replica refused a request.
    pub(super) fn refused(&self, replica: ReplicaId, failure: &Failure) {
        self.all().refusal = Some(format!("replica {replica} is {failure}"));
    }

    /// The members have changed, and nothing is known of the new ones.
    pub(super) fn clear(&self) {
        *self.all() = All::default();
    }

    /// A replica answered.
    pub(super) fn answered(&self) {
        self.all().refusal = None;
    }

    /// The replicas that are not connected.
    pub(super) fn unconnected(&self) -> Vec<String> {
        self.all().unconnected.values().cloned().collect()
    }

    /// The replicas that are not connected for a shard.
    pub(super) fn unconnected_of(&self, shard: ShardId) -> Vec<ReplicaId> {
        let all = self.all();
        all.unconnected.keys().filter(|(of, _)| *of == shard).map(|(_, replica)| *replica).collect()
    }

    /// All present reasons.
    pub(super) fn list(&self) -> Vec<String> {
        let refusal = self.all().refusal.clone();
        refusal.into_iter().chain(self.unconnected()).collect()
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
