//! The thread that consumes a topic of proposals.
//!
//! The replicas share the partitions of the topic in a consumer group. Each partition is a named source of the cluster
//! (law, S5): its records are commands, numbered by their offsets. So a record that is delivered again, here or at another
//! replica, is decided once, and Kafka is told that a record is done only after its decision.

mod board;
mod dead_letter;
mod error;
mod group;
mod lane;
mod membership;
mod record;
mod settings;

pub use error::{ConsumeError, LaneError};
pub use lane::source_name;
pub use record::Poison;
pub use settings::ConsumerSettings;

use board::Board;
use isonomy_wire::id::ClusterId;
use isonomy_wire::message::ConsumeStatus;
use membership::{Membership, Plan};
use rdkafka::consumer::CommitMode;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a consumer waits before it tries again, first and at most. The time doubles with each try.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// A thread that consumes a topic.
#[derive(Debug)]
pub struct Consumer {
    stop: watch::Sender<bool>,
    board: Board,
    thread: JoinHandle<()>,
}

impl Consumer {
    /// Starts a consumer, which proposes to the cluster of the members at these client ports ("host:port", of shard 0).
    ///
    /// # Errors
    ///
    /// The system's error if it gives no thread.
    pub fn start(
        settings: ConsumerSettings,
        cluster: ClusterId,
        addresses: Vec<String>,
    ) -> io::Result<Consumer> {
        let (stop, stopped) = watch::channel(false);
        let board = Board::default();
        let plan = Plan { settings, cluster, addresses, board: board.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new()
            .name("consume".into())
            .spawn(move || runtime.block_on(run(plan, stopped)))?;
        Ok(Consumer { stop, board, thread })
    }

    /// How the consumption stands.
    pub fn status(&self) -> ConsumeStatus {
        self.board.status()
    }

    /// Tells the consumer to end.
    pub fn stop(&self) {
        // A consumer that has ended needs to be told nothing.
        let _ = self.stop.send(true);
    }

    /// Whether the consumer has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Consumes until it is stopped. Whatever fails is tried again.
async fn run(plan: Plan, mut stop: watch::Receiver<bool>) {
    let mut pause = PAUSE_MIN;
    loop {
        let Err(error) = consume(&plan, &mut stop, &mut pause).await else { return };
        plan.board.clear();
        log::warn!("Topic {} is not consumed for now: {error}", plan.settings.topic);
        plan.board.set_trouble(error.to_string());
        if timeout(pause, stop.wait_for(|is_set| *is_set)).await.is_ok() {
            return;
        }
        pause = (2 * pause).min(PAUSE_MAX);
    }
}

/// One membership in the group. It is `Ok` when it was told to stop.
async fn consume(
    plan: &Plan,
    stop: &mut watch::Receiver<bool>,
    pause: &mut Duration,
) -> Result<(), ConsumeError> {
    let mut membership = Membership::open(plan).await?;
    plan.board.set_trouble(String::new());
    let ended = membership.run(stop).await;
    if plan.board.has_progress() {
        *pause = PAUSE_MIN;
    }
    // What is not told now is found to be done by whoever consumes it next.
    if let Err(error) = membership.commit(CommitMode::Sync) {
        log::debug!("the last offsets were not taken: {error}");
    }
    ended
}
