//! What is made of the decisions: the part that a service may write by itself.

use isonomy_kafka::Stop;
use isonomy_kafka::cursor::TopicId;
use isonomy_kafka::decision::Decision;
use std::collections::BTreeMap;
use std::time::Duration;

/// Why a projection fails. It ends the agent.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// For each partition, the offset at which reading goes on: that behind the newest record that was applied.
pub type Positions = BTreeMap<i32, i64>;

/// Where a projection goes on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Start {
    /// The topic that it was made of; `None` if it is new.
    pub topic: Option<TopicId>,
    /// Its positions. A partition that is missing is read from the beginning.
    pub positions: Positions,
}

/// What a projection applies at once.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The topic.
    pub topic: TopicId,
    /// The decisions, each partition's in its order. There may be none: positions also move past records that were given
    /// up by their publisher.
    pub decisions: &'a [Decision],
    /// Where each partition goes on once the batch is applied. Partitions that have not moved may be missing.
    pub positions: &'a Positions,
    /// Whether the agent is to end. Who takes long looks at it, and may fail with anything once it is set.
    pub stop: &'a Stop,
}

/// How a partition stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// The offset at which reading goes on; all before it is applied.
    pub next: i64,
    /// The offset behind the last committed record, when Kafka was asked last.
    pub end: i64,
}

impl Standing {
    /// How many offsets are left to read. Records and the marks of transactions take an offset each.
    pub fn lag(&self) -> u64 {
        (self.end - self.next).max(0).unsigned_abs()
    }
}

/// What is known of the distance to the topic. Kafka is asked about once a second.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// The partitions that are read.
    pub partitions: &'a BTreeMap<i32, Standing>,
    /// So long ago the projection had all that was committed, in all partitions; `None` if never since the start.
    pub age: Option<Duration>,
}

/// What is made of the decisions. A projection keeps its state and its positions together: both or neither of a batch.
///
/// ```
/// use isonomy_agent::{Batch, Failure, Projection, Start};
/// use std::collections::HashMap;
///
/// /// Counts the decisions of each shard, in memory: each start begins anew.
/// #[derive(Default)]
/// struct Count(HashMap<i32, u64>);
///
/// impl Projection for Count {
///     fn start(&mut self) -> Result<Start, Failure> {
///         self.0.clear();
///         Ok(Start::default())
///     }
///
///     fn apply(&mut self, batch: &Batch<'_>) -> Result<(), Failure> {
///         batch.decisions.iter().for_each(|decision| *self.0.entry(decision.partition).or_default() += 1);
///         Ok(())
///     }
/// }
/// ```
pub trait Projection: Send {
    /// Where the projection goes on. Called before the first batch, and again after a failure of Kafka.
    ///
    /// # Errors
    ///
    /// Why it cannot be told. It ends the agent.
    fn start(&mut self) -> Result<Start, Failure>;

    /// The `key_seq` of the key's latest decision, 0 for a key that is not alive. With it the agent checks that no
    /// decision is missing or comes twice. `None` if the projection does not know it, and then nobody checks.
    ///
    /// # Errors
    ///
    /// Why it cannot be told. It ends the agent.
    fn key_seq(&mut self, _key: &[u8]) -> Result<Option<u64>, Failure> {
        Ok(None)
    }

    /// Applies decisions and moves the positions, all or nothing.
    ///
    /// # Errors
    ///
    /// Why nothing was applied. It ends the agent.
    fn apply(&mut self, batch: &Batch<'_>) -> Result<(), Failure>;

    /// Hears how old what it shows may be, about once a second while Kafka answers.
    ///
    /// # Errors
    ///
    /// Why it cannot keep that. It ends the agent.
    fn on_look(&mut self, _look: &Look<'_>) -> Result<(), Failure> {
        Ok(())
    }
}
