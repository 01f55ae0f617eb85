//! One partition: its records become commands of a named source, whose numbers are their offsets.

use super::board::Meter;
use super::dead_letter::DeadLetters;
use super::error::LaneError;
use super::record::{Asked, Incoming};
use crate::cursor::TopicId;
use futures_lite::future::poll_once;
use isonomy_wire::client::{CallError, Proposal, Proposed, Source, sleep_running};
use isonomy_wire::conversation::{Config, NO_DEADLINE_US};
use isonomy_wire::message::Welcome;
use isonomy_wire::source::SourceName;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// The most records of a partition that are under way.
const UNDER_WAY_MAX: usize = 8192;
/// The most bytes of theirs; one record is taken whatever its size.
const UNDER_WAY_BYTES_MAX: usize = 8 << 20;
/// The most records that wait behind them. When there are more, the partition is paused.
const WAITING_MAX: usize = 4096;
/// The partition goes on when so few of them wait.
const WAITING_LOW: usize = WAITING_MAX / 4;
/// After each such time without an outcome, the meter tells what is waited for.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What a partition needs to be proposed.
pub(super) struct Way {
    pub(super) welcome: Welcome,
    pub(super) topic: TopicId,
    pub(super) partition: i32,
    pub(super) letters: Arc<DeadLetters>,
    pub(super) meter: Arc<Meter>,
}

/// The number of a record in its source. Numbers begin with 1, offsets with 0.
fn number_of(offset: i64) -> u64 {
    offset.unsigned_abs() + 1
}

/// The name of the source that a partition is (law, S5).
pub fn source_name(topic: TopicId, partition: i32) -> SourceName {
    format!("kafka/{topic}/{partition}").parse().expect("the name is short")
}

/// A partition that is consumed here. When it is dropped, what is under way is left to whoever consumes it next.
pub(super) struct Lane {
    records: mpsc::Sender<Incoming>,
    /// A record for which there was no room.
    held: Option<Incoming>,
    _is_needed: oneshot::Sender<()>,
}

impl Lane {
    /// Begins with a record of this offset. Why it has ended comes over `ends`.
    pub(super) fn begin(way: Way, first: i64, ends: mpsc::Sender<(i32, LaneError)>) -> Lane {
        let (records, queue) = mpsc::channel(WAITING_MAX);
        let (is_needed, gone) = oneshot::channel();
        tokio::spawn(async move {
            let partition = way.partition;
            if let Some(error) = run(way, first, queue, gone).await {
                // Nobody hears it if the consumer itself has ended.
                let _ = ends.send((partition, error)).await;
            }
        });
        Lane { records, held: None, _is_needed: is_needed }
    }

    /// Takes a record. Returns whether there is room for more.
    pub(super) fn take(&mut self, record: Incoming) -> bool {
        match self.records.try_send(record) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(record)) => {
                self.held = Some(record);
                false
            }
            // The lane has failed, which `ends` tells.
            Err(mpsc::error::TrySendError::Closed(_)) => true,
        }
    }

    /// Whether the partition may go on, after there was no room.
    pub(super) fn has_room_again(&mut self) -> bool {
        if WAITING_MAX - self.records.capacity() > WAITING_LOW {
            return false;
        }
        self.held.take().is_none_or(|record| self.take(record))
    }
}

/// What a record waits for.
enum Waits {
    Decision(Proposal),
    Letter(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// A record that is under way.
struct UnderWay {
    offset: i64,
    bytes: usize,
    waits: Waits,
}

/// What has become of a record.
pub(super) enum Became {
    Decided(Proposed),
    DeadLetter,
}

impl UnderWay {
    async fn outcome(&mut self) -> Result<Became, CallError> {
        match &mut self.waits {
            Waits::Decision(proposal) => proposal.await.map(Became::Decided),
            Waits::Letter(sent) => {
                sent.await;
                Ok(Became::DeadLetter)
            }
        }
    }
}

/// Proposes records until one fails for good, or until the lane is dropped.
async fn run(
    way: Way,
    first: i64,
    mut queue: mpsc::Receiver<Incoming>,
    mut gone: oneshot::Receiver<()>,
) -> Option<LaneError> {
    let config = Config {
        deadline_us: NO_DEADLINE_US,
        commands_max: UNDER_WAY_MAX,
        bytes_max: 2 * UNDER_WAY_BYTES_MAX,
        ..Config::of(&way.welcome)
    };
    let name = source_name(way.topic, way.partition);
    let source = Source::with(&way.welcome, config, &name, number_of(first));
    let failed = tokio::select! {
        error = propose_all(&way, &source, &mut queue) => Some(LaneError::of(error, name)),
        _ = &mut gone => None,
    };
    source.abandon();
    failed
}

async fn propose_all(way: &Way, source: &Source, queue: &mut mpsc::Receiver<Incoming>) -> CallError {
    let mut open: VecDeque<UnderWay> = VecDeque::new();
    let mut bytes = 0;
    let mut quiet = std::pin::pin!(sleep_running(TELL_EVERY));
    loop {
        let has_room = open.len() < UNDER_WAY_MAX && bytes < UNDER_WAY_BYTES_MAX;
        let is_waiting = !open.is_empty();
        let oldest = async {
            match open.front_mut() {
                Some(oldest) => oldest.outcome().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            outcome = oldest => match outcome {
                Ok(became) => {
                    let done = open.pop_front().expect("its outcome has come");
                    bytes -= done.bytes;
                    way.meter.note(&became, done.offset);
                    quiet.set(sleep_running(TELL_EVERY));
                }
                Err(error) => return error,
            },
            record = queue.recv(), if has_room => {
                let Some(record) = record else { return CallError::Closed };
                match submit(way, source, record).await {
                    Ok(under_way) => {
                        bytes += under_way.bytes;
                        open.push_back(under_way);
                    }
                    Err(error) => return error,
                }
            }
            () = &mut quiet, if is_waiting => {
                quiet.set(sleep_running(TELL_EVERY));
                way.meter.set_waiting(source.troubles());
            }
        }
    }
}

async fn submit(way: &Way, source: &Source, record: Incoming) -> Result<UnderWay, CallError> {
    let (offset, bytes) = (record.offset, record.bytes());
    let waits = match record.asked {
        Asked::Decide { key, value } => Waits::Decision(source.propose(number_of(offset), key, value).await?),
        Asked::Delete { key } => Waits::Decision(source.delete(number_of(offset), key).await?),
        Asked::Nothing { poison, record } => {
            let (letters, topic) = (way.letters.clone(), way.topic);
            let mut sending = Box::pin(async move { letters.send(topic, poison, &record).await });
            // The letter leaves at once; its turn to be waited for comes when all records before it are done.
            match poll_once(&mut sending).await {
                Some(()) => Waits::Letter(Box::pin(std::future::ready(()))),
                None => Waits::Letter(sending),
            }
        }
    };
    Ok(UnderWay { offset, bytes, waits })
}
