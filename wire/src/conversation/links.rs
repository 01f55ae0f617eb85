//! The choice of the replica to which a request goes, per shard.

use super::config::{DEAD_AFTER_RETRIES, RETRY_DOUBLINGS_MAX, TICK_US};
use crate::id::{ReplicaId, ShardId};
use std::ops::Range;

/// A class of requests that meet the same limits at a replica. A replica may refuse one class and take the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// Opens; the number of sessions is limited.
    Opens,
    /// Commands that change something, which makes the log grow.
    Writes,
    /// Reads, which change nothing.
    Reads,
}

/// The number of classes.
const CLASSES: usize = 3;

/// The replicas to which the requests of a lane go now, by class.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Targets([Option<ReplicaId>; CLASSES]);

impl Targets {
    /// The replica for a class. `None`: requests wait for a connection, or until a suspicion or an overload ends.
    pub(super) fn of(&self, class: Class) -> Option<ReplicaId> {
        self.0[class as usize]
    }
}

/// How a replica limits one class of requests.
#[derive(Clone, Copy, Debug, Default)]
struct Pause {
    /// The end of the pause for which the replica asked.
    until: u64,
    /// When the replica asked for it last.
    since: u64,
    /// How often in a row the replica refused, with a pause in between.
    refusals: u32,
    /// After the pause one request tests whether the overload has passed. Other requests wait for its answer, but not
    /// longer than until this time.
    trial_until: u64,
}

impl Pause {
    fn is_over(&self, now: u64) -> bool {
        self.until <= now && self.trial_until <= now
    }
}

/// How long a replica that refuses requests is left alone.
#[derive(Clone, Copy)]
pub(super) struct Backoff {
    /// The pause that the refusal asks for.
    pub(super) pause: u64,
    /// The longest pause after repeated refusals, unless a refusal asks for more.
    pub(super) longest: u64,
}

/// The health of one connection, as far as the choice of a replica depends on it.
#[derive(Clone, Copy, Debug, Default)]
struct LinkHealth {
    connected: bool,
    /// The replica did not answer in time. Requests go to others until this time, or until it answers.
    suspect_until: u64,
    /// How often in a row the replica did not answer in time.
    silences: u32,
    /// A request was not answered in time, and not a byte has come since it was sent. Requests go to others until a
    /// byte comes or the connection is a new one.
    mute: bool,
    /// How often in a row the connection counted as dead.
    resets: u32,
    /// Requests that were sent on this connection and have no answer of any kind.
    asked: u32,
    /// Since when nothing has come, as far as the conversation has looked; meaningful while a request is under way.
    quiet_since: u64,
    /// Something has come since the conversation looked last.
    heard: bool,
    /// The connection was idle and has made room for another. It is opened again when there is something to send on
    /// it.
    resting: bool,
    /// The pauses, by class.
    pauses: [Pause; CLASSES],
}

impl LinkHealth {
    fn is_trusted(&self, now: u64) -> bool {
        self.connected && !self.mute && self.suspect_until <= now
    }

    /// Whether nothing has come for so long that the connection counts as dead. A replica that is connected again and
    /// still does not answer gets twice as long each time.
    fn is_dead(&self, now: u64, retry: u64) -> bool {
        let patience = (DEAD_AFTER_RETRIES * retry) << self.resets.min(RETRY_DOUBLINGS_MAX);
        self.connected && self.asked > 0 && now >= self.quiet_since + patience
    }
}

/// The health of all connections of a conversation.
#[derive(Debug)]
pub(super) struct LinkTable {
    replicas: u8,
    links: Vec<LinkHealth>,
}

impl LinkTable {
    pub(super) fn new(replicas: u8, shards: u16) -> LinkTable {
        LinkTable {
            replicas,
            links: vec![LinkHealth::default(); usize::from(replicas) * usize::from(shards)],
        }
    }

    fn at(&mut self, replica: ReplicaId, shard: ShardId) -> &mut LinkHealth {
        &mut self.links[usize::from(shard.0) * usize::from(self.replicas) + replica.index()]
    }

    fn of_shard(&self, shard: ShardId) -> &[LinkHealth] {
        let first = usize::from(shard.0) * usize::from(self.replicas);
        &self.links[first..first + usize::from(self.replicas)]
    }

    /// The replicas to which requests go: the first from `home` on that is connected, answers, and is not overloaded.
    /// Requests wait only when no replica takes them.
    pub(super) fn targets(&self, home: ReplicaId, shard: ShardId, now: u64) -> Targets {
        let links = self.of_shard(shard);
        let mut targets = Targets::default();
        for step in 0..self.replicas {
            let replica = ReplicaId((home.0 + step) % self.replicas);
            let link = &links[replica.index()];
            if !link.is_trusted(now) {
                continue;
            }
            for (target, pause) in targets.0.iter_mut().zip(&link.pauses) {
                if target.is_none() && pause.is_over(now) {
                    *target = Some(replica);
                }
            }
            if targets.0.iter().all(Option::is_some) {
                break;
            }
        }
        targets
    }

    pub(super) fn is_connected(&self, shard: ShardId) -> bool {
        self.of_shard(shard).iter().any(|link| link.connected)
    }

    /// Whether a request was sent that has no answer of any kind.
    pub(super) fn is_asking(&self) -> bool {
        self.links.iter().any(|link| link.connected && link.asked > 0)
    }

    /// A connection was welcomed. If it replaces a dead connection, it inherits how often the replica was silent,
    /// since the welcome shows that the replica lives, but not yet that it decides.
    pub(super) fn on_connected(&mut self, replica: ReplicaId, shard: ShardId) {
        let link = self.at(replica, shard);
        let LinkHealth { suspect_until, silences, resets, .. } = *link;
        *link = LinkHealth { connected: true, suspect_until, silences, resets, ..LinkHealth::default() };
    }

    pub(super) fn on_disconnected(&mut self, replica: ReplicaId, shard: ShardId) {
        let link = self.at(replica, shard);
        // Otherwise it counted as dead before, which the link remembers.
        if link.connected {
            *link = LinkHealth::default();
        }
    }

    /// The replica closed an idle connection to make room for another.
    pub(super) fn on_yielded(&mut self, replica: ReplicaId, shard: ShardId) {
        *self.at(replica, shard) = LinkHealth { resting: true, ..LinkHealth::default() };
    }

    /// Names the resting connections that the conversation would prefer to the one that takes the requests of a home
    /// now. Each is named once.
    pub(super) fn wake(
        &mut self,
        home: ReplicaId,
        shard: ShardId,
        now: u64,
        mut wanted: impl FnMut(ReplicaId),
    ) {
        for step in 0..self.replicas {
            let replica = ReplicaId((home.0 + step) % self.replicas);
            let link = self.at(replica, shard);
            if std::mem::take(&mut link.resting) {
                wanted(replica);
            }
            if link.is_trusted(now) {
                return;
            }
        }
    }

    /// A request was sent.
    pub(super) fn on_sent(&mut self, replica: ReplicaId, shard: ShardId, class: Class, now: u64, retry: u64) {
        let link = self.at(replica, shard);
        if link.asked == 0 {
            (link.quiet_since, link.heard) = (now, false);
        }
        link.asked += 1;
        let pause = &mut link.pauses[class as usize];
        if pause.refusals > 0 {
            pause.trial_until = now + retry;
        }
    }

    /// A request has an answer of any kind. Returns whether that makes a replica usable again.
    pub(super) fn on_reply(&mut self, replica: ReplicaId, shard: ShardId) -> bool {
        let link = self.at(replica, shard);
        link.asked = link.asked.saturating_sub(1);
        self.on_heard(replica, shard)
    }

    /// Bytes have come. Returns whether that makes a replica usable again.
    pub(super) fn on_heard(&mut self, replica: ReplicaId, shard: ShardId) -> bool {
        let link = self.at(replica, shard);
        link.heard = true;
        std::mem::take(&mut link.mute)
    }

    /// The answer has come to a request that was sent at `at`, if that time is known. Returns whether the answer ends
    /// a suspicion or an overload.
    pub(super) fn on_answer(
        &mut self,
        replica: ReplicaId,
        shard: ShardId,
        class: Class,
        at: Option<u64>,
    ) -> bool {
        let link = self.at(replica, shard);
        (link.silences, link.resets) = (0, 0);
        let pause = &mut link.pauses[class as usize];
        // The answer to a request that was sent before the refusal says nothing about the present.
        let passed = pause.refusals > 0 && at.is_some_and(|at| at > pause.since);
        if passed {
            *pause = Pause::default();
        }
        std::mem::take(&mut link.suspect_until) != 0 || passed
    }

    pub(super) fn suspect(&mut self, replica: ReplicaId, shard: ShardId, until: u64) {
        let link = self.at(replica, shard);
        link.suspect_until = link.suspect_until.max(until);
    }

    /// The replica has not answered a request in time. `waited` begins when the request was sent and ends now. Each
    /// time in a row the pause is twice as long, since another request to the replica may wait in vain.
    pub(super) fn silent(&mut self, replica: ReplicaId, shard: ShardId, waited: Range<u64>, pause: u64) {
        let Range { start: sent_at, end: now } = waited;
        let link = self.at(replica, shard);
        if link.suspect_until <= now {
            link.suspect_until = now + (pause << link.silences.min(RETRY_DOUBLINGS_MAX));
            link.silences += 1;
        }
        link.mute |= !link.heard && link.quiet_since <= sent_at;
    }

    /// The replica refuses a class of requests from now on. If the replica still refuses after the pause, the next
    /// pause is twice as long. When all replicas are overloaded, each request that went to one of them before goes to
    /// all of them, and must not come more often for that.
    pub(super) fn overloaded(
        &mut self,
        replica: ReplicaId,
        shard: ShardId,
        class: Class,
        now: u64,
        Backoff { pause, longest }: Backoff,
    ) {
        let current = &mut self.at(replica, shard).pauses[class as usize];
        let doubled = pause << current.refusals.min(RETRY_DOUBLINGS_MAX);
        // Refusals of requests that were sent together count once.
        if current.until <= now {
            current.refusals += 1;
        }
        let wait = pause.max(doubled.min(longest)).max(TICK_US);
        *current = Pause { until: current.until.max(now + wait), since: now, trial_until: 0, ..*current };
    }

    /// Finds connections dead on which a request is under way and nothing has come for too long. Time in which the
    /// conversation was not called, `skipped`, does not count, since received bytes may still lie in a socket.
    pub(super) fn bury(
        &mut self,
        now: u64,
        skipped: u64,
        retry: u64,
        mut dead: impl FnMut(ReplicaId, ShardId),
    ) {
        let replicas = usize::from(self.replicas);
        for (place, link) in self.links.iter_mut().enumerate().filter(|(_, link)| link.asked > 0) {
            if std::mem::take(&mut link.heard) {
                link.quiet_since = now;
            }
            link.quiet_since = now.min(link.quiet_since + skipped);
            if link.is_dead(now, retry) {
                let LinkHealth { suspect_until, silences, resets, .. } = *link;
                *link = LinkHealth { suspect_until, silences, resets: resets + 1, ..LinkHealth::default() };
                dead(ReplicaId((place % replicas) as u8), ShardId((place / replicas) as u16));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(0);
    const FIRST: ReplicaId = ReplicaId(0);
    const SECOND: ReplicaId = ReplicaId(1);

    fn two() -> LinkTable {
        let mut links = LinkTable::new(2, 1);
        links.on_connected(FIRST, SHARD);
        links.on_connected(SECOND, SHARD);
        links
    }

    fn target(links: &LinkTable, now: u64) -> Option<ReplicaId> {
        links.targets(FIRST, SHARD, now).of(Class::Writes)
    }

    fn refuse(links: &mut LinkTable, replica: ReplicaId, now: u64) {
        links.overloaded(replica, SHARD, Class::Writes, now, Backoff { pause: 10_000, longest: 40_000 });
    }

    #[test]
    fn the_home_comes_first_and_the_next_ones_after_it() {
        let shard = ShardId(1);
        let mut links = LinkTable::new(3, 2);
        let from_last =
            |links: &LinkTable, shard, now| links.targets(ReplicaId(2), shard, now).of(Class::Reads);
        assert_eq!(from_last(&links, shard, 0), None);
        links.on_connected(ReplicaId(1), shard);
        assert_eq!(from_last(&links, shard, 0), Some(ReplicaId(1)));
        links.on_connected(ReplicaId(0), shard);
        assert_eq!(from_last(&links, shard, 0), Some(ReplicaId(0)));
        links.suspect(ReplicaId(0), shard, 10);
        assert_eq!(from_last(&links, shard, 9), Some(ReplicaId(1)));
        assert_eq!(from_last(&links, shard, 10), Some(ReplicaId(0)));
        assert_eq!(from_last(&links, SHARD, 0), None);
    }

    #[test]
    fn a_slow_replica_is_left_alone_for_longer_each_time() {
        let mut links = two();
        let silent = |links: &mut LinkTable, now: u64| {
            // The replica sends something else meanwhile.
            links.on_heard(FIRST, SHARD);
            links.silent(FIRST, SHARD, now - 10..now, 10);
        };
        silent(&mut links, 100);
        silent(&mut links, 101);
        assert_eq!(target(&links, 109), Some(SECOND), "what was sent together counts once");
        assert_eq!(target(&links, 110), Some(FIRST));
        silent(&mut links, 120);
        assert_eq!(target(&links, 139), Some(SECOND));
        assert_eq!(target(&links, 140), Some(FIRST));
        links.on_answer(FIRST, SHARD, Class::Writes, None);
        silent(&mut links, 150);
        assert_eq!(target(&links, 160), Some(FIRST));
    }

    #[test]
    fn an_overloaded_replica_is_avoided_and_waited_for_when_all_are() {
        let mut links = two();
        refuse(&mut links, FIRST, 0);
        assert_eq!(target(&links, 0), Some(SECOND));
        let reads = links.targets(FIRST, SHARD, 0).of(Class::Reads);
        assert_eq!(reads, Some(FIRST), "it refuses what makes its log grow");
        refuse(&mut links, SECOND, 5_000);
        assert_eq!(target(&links, 9_999), None);
        assert_eq!(target(&links, 10_000), Some(FIRST));
        refuse(&mut links, FIRST, 10_000);
        assert_eq!(target(&links, 15_000), Some(SECOND));
        refuse(&mut links, SECOND, 15_000);
        assert_eq!(target(&links, 29_999), None, "the second pause is twice as long");
        assert_eq!(target(&links, 30_000), Some(FIRST));
        for _ in 0..9 {
            refuse(&mut links, FIRST, 100_000_000);
        }
        assert_eq!(target(&links, 100_039_999), Some(SECOND));
        assert_eq!(target(&links, 100_040_000), Some(FIRST), "what was sent together counts once");
    }

    #[test]
    fn one_request_shows_whether_an_overload_has_passed() {
        let mut links = two();
        refuse(&mut links, FIRST, 0);
        let sent = |links: &mut LinkTable, now| links.on_sent(FIRST, SHARD, Class::Writes, now, 1_000_000);
        sent(&mut links, 10_000);
        assert_eq!(target(&links, 10_000), Some(SECOND));
        assert!(!links.on_answer(FIRST, SHARD, Class::Writes, Some(0)), "it was sent before");
        assert_eq!(target(&links, 10_000), Some(SECOND));
        assert!(links.on_answer(FIRST, SHARD, Class::Writes, Some(10_000)));
        assert_eq!(target(&links, 10_000), Some(FIRST));
        refuse(&mut links, FIRST, 20_000);
        sent(&mut links, 30_000);
        assert_eq!(target(&links, 1_030_000), Some(FIRST), "nobody waits for ever for the one");
    }

    #[test]
    fn a_connection_that_says_nothing_is_dead_and_the_next_has_longer() {
        let mut links = two();
        let dead = |links: &mut LinkTable, now: u64, skipped: u64| {
            let mut found = Vec::new();
            links.bury(now, skipped, 10, |replica, _| found.push(replica));
            found
        };
        assert_eq!(dead(&mut links, 1_000, 0), [], "nothing was asked");
        let ask = |links: &mut LinkTable, now: u64| links.on_sent(FIRST, SHARD, Class::Writes, now, 10);
        ask(&mut links, 1_000);
        links.silent(FIRST, SHARD, 1_000..1_010, 10);
        assert_eq!(dead(&mut links, 1_019, 0), []);
        assert!(links.on_heard(FIRST, SHARD), "a byte does");
        assert_eq!(dead(&mut links, 1_020, 0), []);
        assert_eq!(dead(&mut links, 1_530, 500), [], "nobody looked");
        assert_eq!(dead(&mut links, 1_540, 0), [FIRST]);
        assert_eq!(target(&links, 1_540), Some(SECOND));
        links.on_disconnected(FIRST, SHARD);
        links.on_connected(FIRST, SHARD);
        assert_eq!(target(&links, 1_540), Some(FIRST), "it was welcomed");
        ask(&mut links, 1_540);
        links.silent(FIRST, SHARD, 1_540..1_550, 10);
        assert_eq!(target(&links, 1_570), Some(SECOND), "nothing but a byte or a welcome helps");
        assert_eq!(dead(&mut links, 1_579, 0), []);
        assert_eq!(dead(&mut links, 1_580, 0), [FIRST]);
        links.on_connected(FIRST, SHARD);
        links.on_answer(FIRST, SHARD, Class::Writes, None);
        ask(&mut links, 1_600);
        assert_eq!(dead(&mut links, 1_620, 0), [FIRST], "an answer starts afresh");
    }
}
