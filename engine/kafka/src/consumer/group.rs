//! The member of the consumer group: which partitions it has, and where each begins.

use super::board::{Board, Meter};
use super::error::LaneError;
use super::lane::source_name;
use super::settings::ConsumerSettings;
use crate::client::PATIENCE;
use crate::cursor::TopicId;
use crate::topic_id::topic_id;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::{Partition, Statistics};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use std::sync::{Mutex, PoisonError};

/// What the consumer has to know of a rebalance.
#[derive(Debug)]
pub(super) enum Change {
    /// The partition is consumed here from now on.
    Given { partition: i32, topic: TopicId },
    /// The partition is given, and must not be consumed.
    Barred { partition: i32 },
    /// The partition is consumed by another member from now on.
    Taken { partition: i32 },
    /// It is not known where partitions begin.
    Failed(KafkaError),
}

/// The member of the group, as librdkafka calls it. All calls come while it is polled, on the consumer's own thread.
pub(super) struct Group {
    topic: String,
    board: Board,
    changes: Mutex<Vec<Change>>,
    trouble: Mutex<String>,
}

impl Group {
    pub(super) fn new(settings: &ConsumerSettings, board: Board) -> Group {
        Group { topic: settings.topic.clone(), board, changes: Mutex::default(), trouble: Mutex::default() }
    }

    pub(super) fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The newest trouble that librdkafka has told.
    pub(super) fn trouble(&self) -> String {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, change: Change) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    }

    /// Finds out where the partitions begin, and takes them.
    fn give(&self, consumer: &BaseConsumer<Group>, given: &TopicPartitionList) -> KafkaResult<()> {
        let topic = topic_id(consumer.client(), &self.topic, PATIENCE).map_err(KafkaError::AdminOp)?;
        let committed = consumer.committed_offsets(given.clone(), PATIENCE)?;
        let mut begins = TopicPartitionList::new();
        let mut changes = Vec::new();
        for element in committed.elements() {
            let partition = element.partition();
            let bounds = consumer.fetch_watermarks(&self.topic, partition, PATIENCE)?;
            let reached = if let Offset::Offset(offset) = element.offset() { Some(offset) } else { None };
            let begin = Begin::of(reached, bounds);
            let meter = self.board.add(partition, begin.offset());
            begins.add_partition_offset(&self.topic, partition, Offset::Offset(begin.offset()))?;
            changes.push(self.judge(begin, topic, partition, &meter));
        }
        consumer.incremental_assign(&begins)?;
        changes.into_iter().for_each(|change| self.note(change));
        Ok(())
    }

    /// What the place at which a partition begins means.
    fn judge(&self, begin: Begin, topic: TopicId, partition: i32, meter: &Meter) -> Change {
        match begin {
            Begin::At(_) => Change::Given { partition, topic },
            Begin::Behind { lost, at } => {
                log::error!(
                    "Partition {partition} of topic {}: Kafka has deleted {lost} records that were not decided, before \
                     offset {at}; keep them for longer",
                    self.topic
                );
                meter.set_lost(lost);
                Change::Given { partition, topic }
            }
            Begin::Truncated { end, reached } => {
                let source_name = source_name(topic, partition);
                let error = LaneError::Truncated { end, reached, source_name };
                log::error!("Partition {partition} of topic {}: {error}", self.topic);
                meter.set_trouble(error.to_string());
                Change::Barred { partition }
            }
        }
    }

    /// Tells Kafka how far partitions are that another member gets.
    fn take(&self, consumer: &BaseConsumer<Group>, taken: &TopicPartitionList) -> KafkaResult<()> {
        let partitions = taken.elements().into_iter().map(|element| element.partition());
        let gone: Vec<_> =
            partitions.filter_map(|partition| Some((partition, self.board.remove(partition)?))).collect();
        if let Some(offsets) = untold(&self.topic, &gone)? {
            // Another member has the partitions already if this one was too slow; it does what is done here once more, and
            // finds that it is done.
            if let Err(error) = consumer.commit(&offsets, CommitMode::Sync) {
                log::debug!("the offsets of partitions that go were not taken: {error}");
            }
        }
        gone.into_iter().for_each(|(partition, _)| self.note(Change::Taken { partition }));
        consumer.incremental_unassign(taken)
    }
}

/// The offsets that Kafka was not told yet; they count as told from now on.
pub(super) fn untold(
    topic: &str,
    meters: &[(i32, std::sync::Arc<Meter>)],
) -> KafkaResult<Option<TopicPartitionList>> {
    let mut offsets = TopicPartitionList::new();
    for (partition, meter) in meters {
        if let Some(done) = meter.untold() {
            offsets.add_partition_offset(topic, *partition, Offset::Offset(done))?;
            meter.set_told(done);
        }
    }
    Ok((offsets.count() > 0).then_some(offsets))
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Group>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let done = match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.give(consumer, list),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => self.take(consumer, list),
            error => {
                let failed = Err(KafkaError::Rebalance(RDKafkaErrorCode::from(error)));
                consumer.unassign().and(failed)
            }
        };
        if let Err(error) = done {
            self.note(Change::Failed(error));
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let Err(error) = result else { return };
        log::debug!("offsets were not taken, and are told again: {error}");
        for element in offsets.elements() {
            if let Some(meter) = self.board.meter(element.partition()) {
                meter.set_told(-1);
            }
        }
    }
}

impl ClientContext for Group {
    fn error(&self, error: KafkaError, reason: &str) {
        log::debug!("Kafka: {error}: {reason}");
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = reason.to_owned();
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else { return };
        for Partition { partition, ls_offset, next_offset, fetchq_cnt, .. } in topic.partitions.values() {
            if let Some(meter) = self.board.meter(*partition) {
                meter.set_end(*ls_offset, (*fetchq_cnt == 0).then_some(*next_offset));
            }
        }
    }
}

/// Where a partition begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Begin {
    /// Where the group is, or at the first record if the group is nowhere.
    At(i64),
    /// At the first record, although the group was at an earlier one: so many were deleted.
    Behind { lost: u64, at: i64 },
    /// Nowhere: the partition ends before the place where the group is.
    Truncated { end: i64, reached: i64 },
}

impl Begin {
    /// The place where the group is, and the first offset of the partition and the one behind its last.
    fn of(reached: Option<i64>, (first, end): (i64, i64)) -> Begin {
        match reached {
            Some(reached) if reached > end => Begin::Truncated { end, reached },
            Some(reached) if reached < first => {
                Begin::Behind { lost: (first - reached).unsigned_abs(), at: first }
            }
            Some(reached) => Begin::At(reached),
            None => Begin::At(first),
        }
    }

    fn offset(self) -> i64 {
        match self {
            Begin::At(offset) | Begin::Behind { at: offset, .. } | Begin::Truncated { end: offset, .. } => {
                offset
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_begins_where_the_group_is_and_nothing_is_left_out_in_silence() {
        assert_eq!(Begin::of(None, (0, 9)), Begin::At(0));
        assert_eq!(Begin::of(None, (4, 9)), Begin::At(4), "nobody was here before");
        assert_eq!(Begin::of(Some(4), (4, 9)), Begin::At(4));
        assert_eq!(Begin::of(Some(9), (4, 9)), Begin::At(9));
        assert_eq!(Begin::of(Some(1), (4, 9)), Begin::Behind { lost: 3, at: 4 });
        assert_eq!(Begin::of(Some(10), (4, 9)), Begin::Truncated { end: 9, reached: 10 });
    }
}
