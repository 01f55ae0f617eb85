//! Which shards this replica publishes.
//!
//! Of the members that reach each other the first one publishes a shard; each shard begins to count at another member. Two
//! may both believe to be the first for a while: the one that comes later fences the other (law, P4). The first may be unable
//! to publish, since it lacks decisions or does not reach Kafka. Then the others see that nothing is published, and try.

use crate::fatal::{Fatal, Reason};
use crate::threads::{await_end, no_thread};
use isonomy_kafka::Error;
use isonomy_kafka::cursor::Cursor;
use isonomy_kafka::outbox::{OutboxSource, Published, follow};
use isonomy_kafka::publisher::{Publication, Publisher, Status};
use isonomy_kafka::settings::Settings;
use isonomy_mesh::SinkStand;
use isonomy_wire::id::ReplicaId;
use isonomy_wire::message::{PublishStatus, ShardStatus};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a replica must have been the first before it publishes, so that a link that is lost for a moment moves nothing.
const FIRST_FOR: Duration = Duration::from_secs(2);
/// How long a replica that was fenced, or that cannot publish, waits before it tries again; doubled each time.
const PAUSE_MIN: Duration = Duration::from_secs(4);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How often it is asked what other replicas have published.
const FOLLOW_EVERY: Duration = Duration::from_secs(5);
/// How much longer than a transaction takes nothing may have been published, although decisions wait, before a replica tries that
/// is not the first.
const STALLED_FOR: Duration = Duration::from_secs(20);

/// A shard that may be published from here.
struct Slot {
    publication: Publication,
    outbox: PathBuf,
    published: Arc<Published>,
    stand: Arc<SinkStand>,
    publisher: Option<Publisher>,
    /// Whether nobody publishes.
    is_stalled: Arc<AtomicBool>,
    /// Since when this replica is the first, or nobody publishes.
    first_since: Option<Instant>,
    not_before: Option<Instant>,
    pause: Duration,
    /// Why the last publisher has ended.
    trouble: String,
}

/// The publishers of a replica.
pub(crate) struct Publishers {
    settings: Settings,
    slots: Vec<Slot>,
}

/// A shard, as the follower knows it.
struct Followed {
    publication: Publication,
    outbox: PathBuf,
    published: Arc<Published>,
    stand: Arc<SinkStand>,
    is_stalled: Arc<AtomicBool>,
}

/// What is published of a shard, and since when not more although decisions wait.
struct Watch {
    cursor: Option<Cursor>,
    since: Instant,
}

impl Watch {
    fn new() -> Watch {
        Watch { cursor: None, since: Instant::now() }
    }

    /// Whether nobody has published for so long.
    fn is_stalled(
        &mut self,
        cursor: Option<Cursor>,
        is_behind: bool,
        now: Instant,
        at_most: Duration,
    ) -> bool {
        if !is_behind || cursor != self.cursor {
            *self = Watch { cursor, since: now };
        }
        now.duration_since(self.since) >= at_most
    }
}

/// Follows for ever: what others have published is not kept any longer. Trouble with Kafka is the publishers' to tell.
fn follow_all(settings: &Settings, all: &[Followed]) {
    let mut watches: Vec<Watch> = all.iter().map(|_| Watch::new()).collect();
    loop {
        for (it, watch) in all.iter().zip(&mut watches) {
            let is_stalled = !it.stand.publishing().is_publisher && it.look(settings, watch);
            it.is_stalled.store(is_stalled, Ordering::Relaxed);
        }
        std::thread::sleep(FOLLOW_EVERY);
    }
}

impl Followed {
    /// Asks how far the shard is published. Returns whether it is stalled.
    fn look(&self, settings: &Settings, watch: &mut Watch) -> bool {
        let Followed { publication, outbox, published, .. } = self;
        match follow(settings, *publication, outbox, published) {
            Ok(cursor) => {
                let is_behind = published.is_behind(cursor.as_ref());
                watch.is_stalled(cursor, is_behind, Instant::now(), settings.batch_time + STALLED_FOR)
            }
            Err(error) => {
                log::debug!("shard {}: not known how far it is published: {error}", publication.shard.0);
                *watch = Watch::new();
                false
            }
        }
    }
}

impl Publishers {
    pub(crate) fn new(settings: Settings) -> Publishers {
        Publishers { settings, slots: Vec::new() }
    }

    /// Adds the next shard.
    pub(crate) fn add(
        &mut self,
        publication: Publication,
        outbox: PathBuf,
        published: Arc<Published>,
        stand: Arc<SinkStand>,
    ) {
        let (publisher, first_since, not_before, trouble) = (None, None, None, String::new());
        let (pause, is_stalled) = (PAUSE_MIN, Arc::default());
        self.slots.push(Slot {
            publication,
            outbox,
            published,
            stand,
            publisher,
            is_stalled,
            first_since,
            not_before,
            pause,
            trouble,
        });
    }

    /// Starts the thread that asks what other replicas have published. It ends with the process.
    pub(crate) fn start(&self) -> Result<(), Fatal> {
        let settings = self.settings.clone();
        let followed = |slot: &Slot| Followed {
            publication: slot.publication,
            outbox: slot.outbox.clone(),
            published: slot.published.clone(),
            stand: slot.stand.clone(),
            is_stalled: slot.is_stalled.clone(),
        };
        let all: Vec<Followed> = self.slots.iter().map(followed).collect();
        let thread =
            std::thread::Builder::new().name("follow".into()).spawn(move || follow_all(&settings, &all));
        thread.map(drop).map_err(no_thread("to follow"))
    }

    /// Looks at what the shards have measured last, in their order, and begins to publish where this replica is the first.
    pub(crate) fn tend<'a>(
        &mut self,
        own: Option<ReplicaId>,
        members: u8,
        metrics: impl Iterator<Item = Option<&'a ShardStatus>>,
    ) -> Result<(), Fatal> {
        for (slot, status) in self.slots.iter_mut().zip(metrics) {
            let first = status.and_then(|status| first_of(slot.publication.shard.0, own?, members, status));
            slot.tend(&self.settings, first.is_some() && first == own)?;
        }
        Ok(())
    }

    /// Stops all publishers, but waits for none for long.
    pub(crate) fn stop(self) {
        let publishers: Vec<Publisher> = self.slots.into_iter().filter_map(|slot| slot.publisher).collect();
        publishers.iter().for_each(Publisher::stop);
        // A transaction that is left open is given up by the next publisher.
        await_end(|| publishers.iter().all(Publisher::has_ended));
    }
}

/// The first member that is reached, itself included, as a shard that takes part sees it.
fn first_of(shard: u16, own: ReplicaId, members: u8, status: &ShardStatus) -> Option<ReplicaId> {
    if own.0 >= members {
        return None;
    }
    let order = (0..members)
        .map(|place| ReplicaId(((u32::from(place) + u32::from(shard)) % u32::from(members)) as u8));
    let mut live = order.filter(|id| *id == own || status.peers_connected.contains(id));
    // Who reaches no majority knows nothing of what the others do.
    let reached = status.peers_connected.iter().filter(|peer| peer.0 < members).count() + 1;
    if 2 * reached > usize::from(members) { live.next() } else { None }
}

impl Slot {
    fn tend(&mut self, settings: &Settings, is_first: bool) -> Result<(), Fatal> {
        self.heed_end();
        let is_called = is_first || self.is_stalled.load(Ordering::Relaxed);
        self.first_since = is_called.then(|| self.first_since.unwrap_or_else(Instant::now));
        let is_due = self.first_since.is_some_and(|since| since.elapsed() >= FIRST_FOR)
            && self.not_before.is_none_or(|at| Instant::now() >= at);
        if self.publisher.is_none() && is_due {
            let source = OutboxSource::new(&self.outbox, self.published.clone());
            let started = Publisher::start(settings.clone(), self.publication, source);
            let no_thread = |error: Error| Fatal::new(Reason::Machine, format!("publishing: {error}"));
            self.publisher = Some(started.map_err(no_thread)?);
        }
        self.tell();
        Ok(())
    }

    /// Takes note of a publisher that has ended by itself.
    fn heed_end(&mut self) {
        let Some(publisher) = self.publisher.take_if(|publisher| publisher.has_ended()) else { return };
        if publisher.status().transactions > 0 {
            self.pause = PAUSE_MIN;
        }
        if let Err(error) = publisher.join() {
            self.trouble = error.to_string();
        }
        self.not_before = Some(Instant::now() + self.pause);
        self.pause = (2 * self.pause).min(PAUSE_MAX);
    }

    /// Shows in the shard's status how it stands.
    fn tell(&mut self) {
        let status = self.publisher.as_ref().map(Publisher::status);
        let is_publishing = status.as_ref().is_some_and(|status| status.cursor.is_some());
        if is_publishing {
            self.trouble.clear();
        }
        let Status { decisions, transactions, error, .. } = status.unwrap_or_default();
        let trouble = error.unwrap_or_else(|| self.trouble.clone());
        self.stand.set_publishing(PublishStatus {
            is_publisher: is_publishing,
            decisions,
            transactions,
            trouble,
            ..PublishStatus::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_kafka::cursor::TopicId;
    use isonomy_wire::id::{ClusterId, ShardId};

    #[test]
    fn a_shard_is_stalled_when_its_cursor_stands_still_while_decisions_wait() {
        let (began, most) = (Instant::now(), Duration::from_secs(20));
        let cursor =
            |end| Some(Cursor { end, ..Cursor::nothing(ClusterId(1), ShardId(0), TopicId::default()) });
        let mut watch = Watch { cursor: cursor(1), since: began };
        let mut stalls = |seconds, end, is_behind| {
            watch.is_stalled(cursor(end), is_behind, began + Duration::from_secs(seconds), most)
        };
        assert!(!stalls(5, 1, true) && !stalls(19, 1, true) && stalls(20, 1, true));
        assert!(!stalls(25, 2, true), "something was published");
        assert!(!stalls(40, 2, true) && !stalls(45, 2, false), "nothing waits");
        assert!(!stalls(64, 2, true) && stalls(65, 2, true));
    }

    #[test]
    fn the_first_member_that_is_reached_publishes_and_each_shard_counts_from_another_one() {
        let reaching = |peers: &[u8]| ShardStatus {
            peers_connected: peers.iter().copied().map(ReplicaId).collect(),
            ..ShardStatus::default()
        };
        let first =
            |shard, own, peers: &[u8]| first_of(shard, ReplicaId(own), 3, &reaching(peers)).map(|id| id.0);
        assert_eq!([0, 1, 2, 3].map(|shard| first(shard, 1, &[0, 2])), [Some(0), Some(1), Some(2), Some(0)]);
        assert_eq!(first(0, 1, &[2]), Some(1), "the first one is down");
        assert_eq!(first(2, 1, &[0]), Some(0));
        assert_eq!(first(0, 0, &[]), None, "it reaches no majority");
        assert_eq!(first(0, 0, &[3, 4]), None, "learners do not count");
        assert_eq!(first(0, 3, &[0, 1, 2]), None, "a learner publishes nothing");
    }
}
