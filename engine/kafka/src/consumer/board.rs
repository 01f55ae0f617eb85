//! How the consumption stands, as everybody may see.

use super::lane::Became;
use isonomy_wire::client::Proposed;
use isonomy_wire::message::{ConsumeStatus, PartitionStatus};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How one partition stands.
#[derive(Debug)]
pub(super) struct Meter {
    partition: i32,
    /// The offset before which everything is done.
    done: AtomicI64,
    /// The offset behind the last record that was taken.
    taken: AtomicI64,
    /// The offset that Kafka was told last.
    told: AtomicI64,
    /// Where the partition ends, for those who read what is committed; -1 if that is not known.
    end: AtomicI64,
    /// An offset up to which there are no records that are not done.
    empty_to: AtomicI64,
    decided: AtomicU64,
    before: AtomicU64,
    dead_letters: AtomicU64,
    lost: AtomicU64,
    trouble: Mutex<String>,
}

impl Meter {
    fn new(partition: i32, done: i64) -> Meter {
        let zero = AtomicU64::default;
        Meter {
            partition,
            done: AtomicI64::new(done),
            taken: AtomicI64::new(done),
            told: AtomicI64::new(done),
            end: AtomicI64::new(-1),
            empty_to: AtomicI64::new(0),
            decided: zero(),
            before: zero(),
            dead_letters: zero(),
            lost: zero(),
            trouble: Mutex::default(),
        }
    }

    /// All records up to this one are done.
    pub(super) fn note(&self, became: &Became, offset: i64) {
        let count = match became {
            Became::Decided(Proposed::Before) => &self.before,
            Became::Decided(Proposed::Committed(_) | Proposed::Deleted(_)) => &self.decided,
            Became::DeadLetter => &self.dead_letters,
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.done.store(offset + 1, Ordering::Relaxed);
        let mut trouble = self.trouble();
        if !trouble.is_empty() {
            trouble.clear();
        }
    }

    /// The offset before which everything is done, if Kafka was told another one.
    pub(super) fn untold(&self) -> Option<i64> {
        let done = self.done();
        (done != self.told.load(Ordering::Relaxed)).then_some(done)
    }

    /// Kafka is told this offset.
    pub(super) fn set_told(&self, offset: i64) {
        self.told.store(offset, Ordering::Relaxed);
    }

    /// The offset before which everything is done.
    pub(super) fn done(&self) -> i64 {
        self.done.load(Ordering::Relaxed)
    }

    /// A record was taken from librdkafka.
    pub(super) fn on_taken(&self, offset: i64) {
        self.taken.store(offset + 1, Ordering::Relaxed);
    }

    /// Where the partition ends, and up to where librdkafka has fetched it, if all that it has fetched was taken. A
    /// partition may end with the mark of a transaction, which is no record.
    pub(super) fn set_end(&self, end: i64, all_to: Option<i64>) {
        self.end.store(end, Ordering::Relaxed);
        let is_all_done = self.done() >= self.taken.load(Ordering::Relaxed);
        if let Some(offset) = all_to.filter(|_| is_all_done) {
            self.empty_to.store(offset, Ordering::Relaxed);
        }
    }

    pub(super) fn set_lost(&self, records: u64) {
        self.lost.store(records, Ordering::Relaxed);
    }

    /// The oldest record has no outcome for a while.
    pub(super) fn set_waiting(&self, troubles: Vec<String>) {
        let why = if troubles.is_empty() { "the replicas do not answer".into() } else { troubles.join("; ") };
        self.set_trouble(format!("offset {} waits: {why}", self.done()));
    }

    pub(super) fn set_trouble(&self, text: String) {
        *self.trouble() = text;
    }

    fn trouble(&self) -> MutexGuard<'_, String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_progress(&self) -> bool {
        [&self.decided, &self.before, &self.dead_letters]
            .iter()
            .any(|count| count.load(Ordering::Relaxed) > 0)
    }

    fn status(&self) -> PartitionStatus {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let (done, end) = (self.done(), self.end.load(Ordering::Relaxed));
        let empty_to = self.empty_to.load(Ordering::Relaxed);
        PartitionStatus {
            partition: self.partition.unsigned_abs(),
            position: done.unsigned_abs(),
            lag: (end >= 0).then(|| (end - done.max(empty_to)).max(0).unsigned_abs()),
            decided: count(&self.decided),
            before: count(&self.before),
            dead_letters: count(&self.dead_letters),
            lost: count(&self.lost),
            trouble: self.trouble().clone(),
        }
    }
}

/// The partitions that are consumed here, and the trouble with all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Board {
    partitions: Arc<Mutex<BTreeMap<i32, Arc<Meter>>>>,
    trouble: Arc<Mutex<String>>,
}

impl Board {
    /// A partition is consumed here from this offset on.
    pub(super) fn add(&self, partition: i32, from: i64) -> Arc<Meter> {
        let meter = Arc::new(Meter::new(partition, from));
        self.partitions().insert(partition, meter.clone());
        meter
    }

    pub(super) fn remove(&self, partition: i32) -> Option<Arc<Meter>> {
        self.partitions().remove(&partition)
    }

    pub(super) fn clear(&self) {
        self.partitions().clear();
    }

    pub(super) fn meter(&self, partition: i32) -> Option<Arc<Meter>> {
        self.partitions().get(&partition).cloned()
    }

    pub(super) fn meters(&self) -> Vec<(i32, Arc<Meter>)> {
        self.partitions().iter().map(|(partition, meter)| (*partition, meter.clone())).collect()
    }

    /// Whether anything has been done.
    pub(super) fn has_progress(&self) -> bool {
        self.partitions().values().any(|meter| meter.has_progress())
    }

    pub(super) fn set_trouble(&self, text: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    pub(super) fn status(&self) -> ConsumeStatus {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let partitions = self.partitions().values().map(|meter| meter.status()).collect();
        ConsumeStatus { partitions, trouble }
    }

    fn partitions(&self) -> MutexGuard<'_, BTreeMap<i32, Arc<Meter>>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
