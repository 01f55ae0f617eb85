//! Which replicas can be spoken to, per shard.

use super::config::RETRY_DOUBLINGS_MAX;
use crate::id::{ReplicaId, ShardId};

/// One connection, as far as the choice of a replica depends on it.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    connected: bool,
    /// It did not answer in time: others are asked until then, or until it answers.
    suspect_until: u64,
    /// How often in a row it did not answer in time.
    silences: u32,
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
        let link = self.at(replica, shard);
        link.silences = 0;
        std::mem::take(&mut link.suspect_until) != 0
    }

    pub(super) fn suspect(&mut self, replica: ReplicaId, shard: ShardId, until: u64) {
        let link = self.at(replica, shard);
        link.suspect_until = link.suspect_until.max(until);
    }

    /// It did not answer in time. Each time in a row it is left alone for twice as long: whoever tries
    /// it again waits in vain, perhaps.
    pub(super) fn silent(&mut self, replica: ReplicaId, shard: ShardId, now: u64, pause: u64) {
        let link = self.at(replica, shard);
        if link.suspect_until <= now {
            link.suspect_until = now + (pause << link.silences.min(RETRY_DOUBLINGS_MAX));
            link.silences += 1;
        }
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
    fn a_silent_replica_is_left_alone_for_longer_each_time() {
        let (first, second, shard) = (ReplicaId(0), ReplicaId(1), ShardId(0));
        let mut links = Links::new(2, 1);
        links.on_connected(first, shard);
        links.on_connected(second, shard);
        links.silent(first, shard, 100, 10);
        links.silent(first, shard, 101, 10);
        assert_eq!(links.target(first, shard, 109), Some(second), "what was sent together counts once");
        assert_eq!(links.target(first, shard, 110), Some(first));
        links.silent(first, shard, 120, 10);
        assert_eq!(links.target(first, shard, 139), Some(second));
        assert_eq!(links.target(first, shard, 140), Some(first));
        links.on_answer(first, shard);
        links.silent(first, shard, 150, 10);
        assert_eq!(links.target(first, shard, 160), Some(first));
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
