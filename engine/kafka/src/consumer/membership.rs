//! One membership in the consumer group, from the subscription until something fails.

use super::board::{Board, Meter};
use super::dead_letter::DeadLetters;
use super::error::{ConsumeError, LaneError};
use super::group::{Change, Group, untold};
use super::lane::{Lane, Way};
use super::record::Incoming;
use super::settings::ConsumerSettings;
use crate::client::PATIENCE;
use crate::cursor::TopicId;
use crate::topic_id::topic_id;
use isonomy_wire::client::contact;
use isonomy_wire::id::ClusterId;
use isonomy_wire::message::{Role, Welcome};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often paused partitions are looked at, and those that have failed.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How often Kafka is told what is done.
const COMMIT_EVERY: Duration = Duration::from_millis(500);
/// How often it is asked whether the topic is still the same.
const TOPIC_EVERY: Duration = Duration::from_secs(5);
/// How long a partition may have no room before it is paused. Until then no records are taken at all, since Kafka has to
/// deliver once more what was fetched of a partition that is paused.
const FULL_PATIENCE: Duration = Duration::from_secs(1);
/// How many records are taken before the proposals get a turn.
const RECORDS_AT_ONCE: usize = 256;
/// How many ends of lanes may wait to be heard; a lane that ends when there are more waits, too.
const ENDS_MAX: usize = 64;
/// The pause before a partition that has failed is consumed again.
const LANE_PAUSE: Duration = Duration::from_secs(10);

/// What the consumption of a topic needs.
pub(super) struct Plan {
    pub(super) settings: ConsumerSettings,
    pub(super) cluster: ClusterId,
    /// Client ports of members, as "host:port".
    pub(super) addresses: Vec<String>,
    pub(super) board: Board,
}

impl Plan {
    pub(super) fn failed(&self, asked: &'static str, trouble: &str, error: &KafkaError) -> ConsumeError {
        ConsumeError::of_kafka(&self.settings.brokers, asked, error, trouble)
    }
}

type GroupMember = StreamConsumer<Group>;

/// A record and its partition.
type Received = Result<(i32, Incoming), KafkaError>;

/// What a membership waits for.
enum Event {
    Ended(i32, LaneError),
    Received(Received),
    Look,
}

/// How a partition stands.
enum Stand {
    /// It has been given, and no record has come.
    Given(TopicId),
    Consumed(TopicId, Lane),
    /// There is no room for its records since then.
    Full(TopicId, Lane, Instant),
    /// There was no room for so long that it is paused.
    Paused(TopicId, Lane),
    /// It has failed, and is paused until then.
    Failed(TopicId, Instant),
    Barred,
}

/// A membership in the group.
pub(super) struct Membership<'a> {
    plan: &'a Plan,
    consumer: GroupMember,
    welcome: Welcome,
    letters: Arc<DeadLetters>,
    stands: BTreeMap<i32, Stand>,
    ends: mpsc::Sender<(i32, LaneError)>,
    ended: mpsc::Receiver<(i32, LaneError)>,
}

impl<'a> Membership<'a> {
    pub(super) async fn open(plan: &'a Plan) -> Result<Membership<'a>, ConsumeError> {
        let welcome = contact(&plan.addresses, Some(plan.cluster), Role::Client).await?.welcome;
        let failed = |asked| move |error| plan.failed(asked, "", &error);
        let letters = DeadLetters::new(&plan.settings).map_err(failed("made a producer"))?;
        let group = Group::new(&plan.settings, plan.board.clone());
        let consumer = GroupMember::from_config_and_context(&plan.settings.consumer(plan.cluster), group)
            .map_err(failed("made a consumer"))?;
        let (ends, ended) = mpsc::channel(ENDS_MAX);
        let stands = BTreeMap::new();
        let membership =
            Membership { plan, consumer, welcome, letters: Arc::new(letters), stands, ends, ended };
        membership.check_topics()?;
        let subscribed = membership.consumer.subscribe(&[&plan.settings.topic]);
        subscribed.map_err(|error| membership.failed("let this member into the group", &error))?;
        Ok(membership)
    }

    fn failed(&self, asked: &'static str, error: &KafkaError) -> ConsumeError {
        self.plan.failed(asked, &self.consumer.context().trouble(), error)
    }

    /// Both topics are there. That of the dead letters is made if it is not.
    fn check_topics(&self) -> Result<(), ConsumeError> {
        let ConsumerSettings { topic, dead_letter_topic, .. } = &self.plan.settings;
        let asked = "told what the topics are like";
        let copies_of = |name: &str| -> Result<Option<usize>, ConsumeError> {
            let metadata = self.consumer.fetch_metadata(Some(name), PATIENCE);
            let metadata = metadata.map_err(|error| self.failed(asked, &error))?;
            let topic = metadata.topics().first();
            Ok(topic.and_then(|topic| topic.partitions().first()).map(|partition| partition.replicas().len()))
        };
        let copies = copies_of(topic)?.ok_or_else(|| ConsumeError::NoTopic(topic.clone()))?;
        if copies_of(dead_letter_topic)?.is_none() {
            super::dead_letter::create_topic(&self.plan.settings, copies)
                .map_err(|error| self.failed("created the topic of the dead letters", &error))?;
        }
        Ok(())
    }

    /// Consumes until something fails, or until it is to stop.
    pub(super) async fn run(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), ConsumeError> {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut committed, mut checked) = (Instant::now(), Instant::now());
        loop {
            let event = tokio::select! {
                _ = stop.wait_for(|is_set| *is_set) => return Ok(()),
                Some((partition, error)) = self.ended.recv() => Event::Ended(partition, error),
                _ = look.tick() => Event::Look,
                received = next_record(&self.consumer), if !self.is_full() => Event::Received(received),
            };
            match event {
                Event::Ended(partition, error) => self.on_end(partition, &error)?,
                Event::Received(received) => self.take_records(received)?,
                Event::Look => {
                    self.heed_changes()?;
                    self.wake()?;
                    if committed.elapsed() >= COMMIT_EVERY {
                        committed = Instant::now();
                        self.commit(CommitMode::Async)?;
                    }
                    if checked.elapsed() >= TOPIC_EVERY {
                        checked = Instant::now();
                        self.check_identity()?;
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Whether no records are taken until there is room again.
    fn is_full(&self) -> bool {
        self.stands.values().any(|stand| matches!(stand, Stand::Full(..)))
    }

    /// Takes a record, and others that are there.
    fn take_records(&mut self, first: Received) -> Result<(), ConsumeError> {
        self.on_record(first)?;
        for _ in 1..RECORDS_AT_ONCE {
            if self.is_full() {
                break;
            }
            match at_once(next_record(&self.consumer)) {
                Some(record) => self.on_record(record)?,
                None => break,
            }
        }
        Ok(())
    }

    fn on_record(&mut self, received: Received) -> Result<(), ConsumeError> {
        // The record comes behind the rebalance that has given its partition.
        self.heed_changes()?;
        let (partition, record) = received.map_err(|error| self.failed("given records", &error))?;
        let (Some(stand), Some(meter)) = (self.stands.remove(&partition), self.plan.board.meter(partition))
        else {
            return Ok(());
        };
        let (topic, mut lane) = match stand {
            Stand::Given(topic) => (topic, self.begin(topic, partition, &meter, record.offset)),
            Stand::Consumed(topic, lane) => (topic, lane),
            // What was under way when it was paused comes again.
            other => {
                self.stands.insert(partition, other);
                return Ok(());
            }
        };
        meter.on_taken(record.offset);
        let stand = match lane.take(record) {
            true => Stand::Consumed(topic, lane),
            false => Stand::Full(topic, lane, Instant::now()),
        };
        self.stands.insert(partition, stand);
        Ok(())
    }

    fn begin(&self, topic: TopicId, partition: i32, meter: &Arc<Meter>, first: i64) -> Lane {
        let (welcome, letters, meter) = (self.welcome.clone(), self.letters.clone(), meter.clone());
        Lane::begin(Way { welcome, topic, partition, letters, meter }, first, self.ends.clone())
    }

    fn heed_changes(&mut self) -> Result<(), ConsumeError> {
        for change in self.consumer.context().take_changes() {
            match change {
                Change::Given { partition, topic } => {
                    // A pause outlasts the loss of the partition.
                    self.resume(partition, false)?;
                    self.stands.insert(partition, Stand::Given(topic));
                }
                Change::Barred { partition } => {
                    self.pause(partition)?;
                    self.stands.insert(partition, Stand::Barred);
                }
                Change::Taken { partition } => drop(self.stands.remove(&partition)),
                Change::Failed(error) => return Err(self.failed("told where the partitions begin", &error)),
            }
        }
        Ok(())
    }

    /// A lane has ended by itself: its partition is consumed again from what is done, after a pause.
    fn on_end(&mut self, partition: i32, error: &LaneError) -> Result<(), ConsumeError> {
        let (
            Some(Stand::Consumed(topic, lane) | Stand::Full(topic, lane, _) | Stand::Paused(topic, lane)),
            Some(meter),
        ) = (self.stands.remove(&partition), self.plan.board.meter(partition))
        else {
            return Ok(());
        };
        drop(lane);
        log::warn!("Partition {partition} of topic {}: {error}", self.plan.settings.topic);
        meter.set_trouble(error.to_string());
        self.pause(partition)?;
        self.stands.insert(partition, Stand::Failed(topic, Instant::now() + LANE_PAUSE));
        Ok(())
    }

    /// Lets partitions go on that have room again, or whose pause is over, and pauses those that have none for long.
    fn wake(&mut self) -> Result<(), ConsumeError> {
        for partition in self.stands.keys().copied().collect::<Vec<_>>() {
            let Some(stand) = self.stands.remove(&partition) else { continue };
            let stand = self.woken(partition, stand)?;
            self.stands.insert(partition, stand);
        }
        Ok(())
    }

    fn woken(&self, partition: i32, stand: Stand) -> Result<Stand, ConsumeError> {
        Ok(match stand {
            Stand::Full(topic, mut lane, since) => {
                if lane.has_room_again() {
                    Stand::Consumed(topic, lane)
                } else if since.elapsed() < FULL_PATIENCE {
                    Stand::Full(topic, lane, since)
                } else {
                    self.pause(partition)?;
                    Stand::Paused(topic, lane)
                }
            }
            Stand::Paused(topic, mut lane) => {
                if lane.has_room_again() {
                    self.resume(partition, false)?;
                    Stand::Consumed(topic, lane)
                } else {
                    Stand::Paused(topic, lane)
                }
            }
            Stand::Failed(topic, until) if Instant::now() >= until => {
                self.resume(partition, true)?;
                Stand::Given(topic)
            }
            other => other,
        })
    }

    fn pause(&self, partition: i32) -> Result<(), ConsumeError> {
        let paused = self.only(partition).and_then(|list| self.consumer.pause(&list));
        paused.map_err(|error| self.failed("paused a partition", &error))
    }

    fn resume(&self, partition: i32, is_anew: bool) -> Result<(), ConsumeError> {
        let done = self.plan.board.meter(partition).filter(|_| is_anew).map(|meter| meter.done());
        let sought = done.map_or(Ok(()), |done| {
            self.consumer.seek(&self.plan.settings.topic, partition, Offset::Offset(done), PATIENCE)
        });
        let resumed = sought.and_then(|()| self.consumer.resume(&self.only(partition)?));
        resumed.map_err(|error| self.failed("gone on with a partition", &error))
    }

    fn only(&self, partition: i32) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.plan.settings.topic, partition);
        Ok(list)
    }

    /// Tells Kafka what is done.
    pub(super) fn commit(&self, mode: CommitMode) -> Result<(), ConsumeError> {
        let untold = untold(&self.plan.settings.topic, &self.plan.board.meters());
        let committed = untold.and_then(|offsets| match offsets {
            Some(offsets) => self.consumer.commit(&offsets, mode),
            None => Ok(()),
        });
        committed.map_err(|error| self.failed("taken the offsets", &error))
    }

    /// Whether the topic is still the one whose records are consumed.
    fn check_identity(&self) -> Result<(), ConsumeError> {
        let topic = &self.plan.settings.topic;
        // Kafka does not answer while brokers restart, and then nothing is consumed either.
        let Ok(now) = topic_id(self.consumer.client(), topic, PATIENCE) else { return Ok(()) };
        let is_other = self.stands.values().any(|stand| match stand {
            Stand::Given(id)
            | Stand::Consumed(id, _)
            | Stand::Full(id, ..)
            | Stand::Paused(id, _)
            | Stand::Failed(id, _) => *id != now,
            Stand::Barred => false,
        });
        if is_other { Err(ConsumeError::Replaced(topic.clone())) } else { Ok(()) }
    }
}

/// What a future has at once.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(it) => Some(it),
        Poll::Pending => None,
    }
}

async fn next_record(consumer: &GroupMember) -> Received {
    use rdkafka::message::Message;
    let message = consumer.recv().await?;
    Ok((message.partition(), Incoming::of(&message)))
}
