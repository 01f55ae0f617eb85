//! What crosses from a shard to the thread that keeps its decisions for publication.

use crate::lane::{self, Inbox, Outbox};
use bytes::Bytes;
use isonomy_wire::command::Batch;
use isonomy_wire::id::{Epoch, InstanceId};
use isonomy_wire::message::{Milestone, PublishStatus};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What has happened to the state of a shard (law, section 6c).
#[derive(Clone, Debug)]
pub enum ForSink {
    /// The state is that of a barrier, whatever came before; what comes next is behind it.
    State(Milestone),
    /// The batch of an instance has executed.
    Batch {
        /// The epoch of the instance.
        epoch: Epoch,
        /// The instance.
        id: InstanceId,
        /// The batch.
        batch: Batch,
        /// The encoded responses, by the number of the part.
        responses: Vec<(usize, Bytes)>,
        /// Whether the next batch belongs to the same component.
        has_more: bool,
    },
    /// A barrier has executed.
    Barrier(Milestone),
}

/// How far the sink has come, which it shows to the shard.
#[derive(Debug, Default)]
pub struct SinkStand {
    kept: AtomicU64,
    backlog: AtomicU64,
    kept_from: Mutex<Option<Milestone>>,
    publishing: Mutex<PublishStatus>,
}

impl SinkStand {
    /// The last barrier before which everything is kept durably.
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Acquire)
    }

    /// Everything before this barrier is kept durably.
    pub fn set_kept(&self, barrier: u64) {
        self.kept.store(barrier, Ordering::Release);
    }

    /// How the publication stands.
    pub fn publishing(&self) -> PublishStatus {
        let told = self.publishing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let kept_from = *self.kept_from.lock().unwrap_or_else(PoisonError::into_inner);
        PublishStatus { backlog_bytes: self.backlog(), kept_from, ..told }
    }

    /// The publication stands like this, but for what is kept.
    pub fn set_publishing(&self, status: PublishStatus) {
        *self.publishing.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// From this barrier on every decision is kept.
    pub fn set_kept_from(&self, start: Option<Milestone>) {
        *self.kept_from.lock().unwrap_or_else(PoisonError::into_inner) = start;
    }

    /// The bytes that are kept and not published yet.
    pub fn backlog(&self) -> u64 {
        self.backlog.load(Ordering::Relaxed)
    }

    /// So many bytes are kept and not published yet.
    pub fn set_backlog(&self, bytes: u64) {
        self.backlog.store(bytes, Ordering::Relaxed);
    }
}

/// The shard's end.
#[derive(Debug)]
pub struct FeedEnd {
    /// What has happened, several at a time.
    pub items: Outbox<Vec<ForSink>>,
    /// How far the sink has come.
    pub stand: Arc<SinkStand>,
}

/// The sink's end.
#[derive(Debug)]
pub struct SinkEnd {
    /// What has happened, several at a time.
    pub items: Inbox<Vec<ForSink>>,
    /// How far the sink has come.
    pub stand: Arc<SinkStand>,
}

/// The lane from a shard to the sink, and the sink's stand.
pub fn connect_sink() -> (FeedEnd, SinkEnd) {
    let (items, taken) = lane::new();
    let stand = Arc::new(SinkStand::default());
    (FeedEnd { items, stand: stand.clone() }, SinkEnd { items: taken, stand })
}
