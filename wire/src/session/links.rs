//! Which replicas can be spoken to, per shard.

use crate::id::{ReplicaId, ShardId};

/// One connection, as far as the choice of a replica depends on it.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    connected: bool,
    /// It did not answer in time: others are asked until then, or until it answers.
    suspect_until: u64,
    /// It asked to be left alone until then.
    overloaded_until: u64,
}

/// All connections of a session.
#[derive(Debug)]
pub(super) struct Links {
    replicas: u8,
    links: Vec<Link>,
}

impl Links {
    pub(super) fn new(replicas: u8, shards: u16) -> Links {
        Links { replicas, links: vec![Link::default(); usize::from(replicas) * usize::from(shards)] }
    }

    fn at(&mut self, replica: ReplicaId, shard: ShardId) -> &mut Link {
        &mut self.links[usize::from(shard.0) * usize::from(self.replicas) + replica.index()]
    }

    /// Where a request goes: to the first replica from `home` on that is connected and answers.
    /// `None`: wait, for a connection, for a suspicion to end or for an overload to pass.
    pub(super) fn target(&self, home: ReplicaId, shard: ShardId, now: u64) -> Option<ReplicaId> {
        let first = usize::from(shard.0) * usize::from(self.replicas);
        let links = &self.links[first..first + usize::from(self.replicas)];
        let found = (0..self.replicas).find_map(|step| {
            let replica = (home.0 + step) % self.replicas;
            let link = &links[usize::from(replica)];
            (link.connected && link.suspect_until <= now).then_some((replica, link.overloaded_until))
        });
        let (replica, overloaded_until) = found?;
        (overloaded_until <= now).then_some(ReplicaId(replica))
    }

    pub(super) fn is_connected(&self, shard: ShardId) -> bool {
        let first = usize::from(shard.0) * usize::from(self.replicas);
        self.links[first..first + usize::from(self.replicas)].iter().any(|link| link.connected)
    }

    pub(super) fn on_connected(&mut self, replica: ReplicaId, shard: ShardId) {
        *self.at(replica, shard) = Link { connected: true, ..Link::default() };
    }

    pub(super) fn on_disconnected(&mut self, replica: ReplicaId, shard: ShardId) {
        *self.at(replica, shard) = Link::default();
    }

    /// An answer came. Whether it ends a suspicion.
    pub(super) fn on_answer(&mut self, replica: ReplicaId, shard: ShardId) -> bool {
        std::mem::take(&mut self.at(replica, shard).suspect_until) != 0
    }

    pub(super) fn suspect(&mut self, replica: ReplicaId, shard: ShardId, until: u64) {
        let link = self.at(replica, shard);
        link.suspect_until = link.suspect_until.max(until);
    }

    pub(super) fn overloaded(&mut self, replica: ReplicaId, shard: ShardId, until: u64) {
        let link = self.at(replica, shard);
        link.overloaded_until = link.overloaded_until.max(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_comes_first_and_the_next_ones_after_it() {
        let shard = ShardId(1);
        let mut links = Links::new(3, 2);
        assert_eq!(links.target(ReplicaId(2), shard, 0), None);
        links.on_connected(ReplicaId(1), shard);
        assert_eq!(links.target(ReplicaId(2), shard, 0), Some(ReplicaId(1)));
        links.on_connected(ReplicaId(0), shard);
        assert_eq!(links.target(ReplicaId(2), shard, 0), Some(ReplicaId(0)));
        links.suspect(ReplicaId(0), shard, 10);
        assert_eq!(links.target(ReplicaId(2), shard, 9), Some(ReplicaId(1)));
        assert_eq!(links.target(ReplicaId(2), shard, 10), Some(ReplicaId(0)));
        assert_eq!(links.target(ReplicaId(2), ShardId(0), 0), None);
    }

    #[test]
    fn an_overloaded_replica_is_waited_for_and_not_avoided() {
        let mut links = Links::new(2, 1);
        links.on_connected(ReplicaId(0), ShardId(0));
        links.on_connected(ReplicaId(1), ShardId(0));
        links.overloaded(ReplicaId(0), ShardId(0), 10);
        assert_eq!(links.target(ReplicaId(0), ShardId(0), 9), None);
        assert_eq!(links.target(ReplicaId(0), ShardId(0), 10), Some(ReplicaId(0)));
    }
}
