//! The thread that keeps what the shards have executed.

use super::error::OutboxError;
use super::writer::Writer;
use isonomy_mesh::bell::own_waker;
use isonomy_mesh::{ForSink, SinkEnd};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the thread waits before it tries a write again that has failed.
const RETRY: Duration = Duration::from_millis(100);
/// How often it says that writes fail.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);
/// How often it looks at what need not be kept any more while nothing comes.
const PRUNE_EVERY: Duration = Duration::from_secs(1);

/// The outbox of a shard, and the shard's end of the lane.
#[derive(Debug)]
pub struct Kept {
    /// Writes the outbox.
    pub writer: Writer,
    /// What the shard says.
    pub end: SinkEnd,
}

/// The thread of all outboxes of a process.
#[derive(Debug)]
pub struct Keeper {
    thread: JoinHandle<()>,
    is_stopping: Arc<AtomicBool>,
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system gives the process no thread.
    pub fn start(all: Vec<Kept>) -> std::io::Result<Keeper> {
        let is_stopping = Arc::new(AtomicBool::new(false));
        let stopping = is_stopping.clone();
        let run = move || {
            let mut shards: Vec<Shard> = all.into_iter().map(Shard::new).collect();
            while keep(&mut shards, &stopping) {}
        };
        let thread = std::thread::Builder::new().name("outbox".into()).spawn(run)?;
        Ok(Keeper { thread, is_stopping })
    }

    /// Keeps what the shards have said so far, and ends the thread. The shards have ended before.
    pub fn stop(self) {
        self.is_stopping.store(true, Ordering::Release);
        self.thread.thread().unpark();
        // A panic was printed when it happened, and has ended the process.
        let _ = self.thread.join();
    }
}

/// What the thread knows of one shard.
struct Shard {
    kept: Kept,
    /// What was taken out of the lane and is not written.
    items: VecDeque<ForSink>,
    complained: Option<Instant>,
}

/// One round. Returns whether there will be another.
fn keep(shards: &mut [Shard], stopping: &AtomicBool) -> bool {
    let is_last = stopping.load(Ordering::Acquire);
    let mut pause = PRUNE_EVERY;
    let mut is_idle = true;
    for shard in shards {
        match shard.work() {
            Ok(has_worked) => is_idle &= !has_worked,
            Err(error) => {
                shard.complain(&error);
                pause = RETRY;
            }
        }
    }
    if is_last && (is_idle || pause == RETRY) {
        return false;
    }
    if is_idle {
        std::thread::park_timeout(pause);
    }
    true
}

impl Shard {
    fn new(kept: Kept) -> Shard {
        kept.end.items.listen(&own_waker());
        Shard { kept, items: VecDeque::new(), complained: None }
    }

    /// Keeps what has come. Returns whether anything has.
    fn work(&mut self) -> Result<bool, OutboxError> {
        let Kept { writer, end } = &mut self.kept;
        if self.items.is_empty() {
            self.items.extend(end.items.take().flatten());
        }
        let has_worked = !self.items.is_empty();
        while let Some(item) = self.items.front() {
            writer.take(item)?;
            if let ForSink::State(start) | ForSink::Barrier(start) = item {
                end.stand.set_kept(start.barrier);
            }
            self.items.pop_front();
        }
        writer.flush()?;
        writer.prune()?;
        end.stand.set_backlog(writer.backlog());
        end.stand.set_kept_from(writer.kept_from()?);
        if self.complained.take().is_some() {
            log::info!("the outbox is written again");
        }
        Ok(has_worked)
    }

    fn complain(&mut self, error: &OutboxError) {
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            self.complained = Some(Instant::now());
            log::error!("the outbox is not written, and is tried again: {error}");
        }
    }
}
