//! The way from the core to whoever keeps the decisions for publication (law, section 6c).

use isonomy_mesh::fatal::{Fatal, Reason, stop_with};
use isonomy_mesh::{FeedEnd, ForSink, Milestone};
use isonomy_protocol::contract::Executed;
use isonomy_wire::id::Epoch;
use isonomy_wire::message::PublishStatus;
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// The bytes of batches that may wait for the sink before clients are refused.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// The bytes at which the process ends. What the members decide cannot be refused, so a sink that stands still for long
/// would take all memory.
const WAITING_BYTES_FATAL: usize = 1 << 30;
/// How often a start looks whether the sink has room.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What has executed and was not given to the sink yet.
pub(crate) struct Feed {
    end: FeedEnd,
    waiting: RefCell<Vec<ForSink>>,
    bytes: Cell<usize>,
}

impl Feed {
    pub(crate) fn new(end: FeedEnd) -> Feed {
        Feed { end, waiting: RefCell::default(), bytes: Cell::new(0) }
    }

    /// Takes what has executed in an epoch.
    pub(crate) fn push(&self, epoch: Epoch, executed: Executed) {
        let item = match executed {
            Executed::State { barrier, frontier } => ForSink::State(Milestone { barrier, epoch, frontier }),
            // A Seal is a barrier like any other: the epoch behind it begins with a barrier of its own.
            Executed::Barrier { barrier, frontier, is_seal: _ } => {
                ForSink::Barrier(Milestone { barrier, epoch, frontier })
            }
            Executed::Batch { id, payload, responses, has_more } => {
                let batch = payload.batch().clone();
                self.bytes.set(self.bytes.get() + batch.payload().len());
                ForSink::Batch { epoch, id, batch, responses, has_more }
            }
        };
        self.waiting.borrow_mut().push(item);
    }

    /// The log is read from its beginning, and no snapshot comes before it.
    pub(crate) fn begin(&self, epoch: Epoch) {
        self.waiting.borrow_mut().push(ForSink::State(Milestone { epoch, ..Milestone::default() }));
    }

    /// Gives all that waits to the sink, if its lane has room.
    pub(crate) fn flush(&self) {
        let waiting = self.waiting.take();
        if waiting.is_empty() {
            return;
        }
        match self.end.items.send(waiting) {
            Ok(()) => self.bytes.set(0),
            Err(waiting) => {
                self.waiting.replace(waiting);
                if self.bytes.get() >= WAITING_BYTES_FATAL {
                    stop_with(&Fatal::new(
                        Reason::Machine,
                        format!(
                            "the outbox takes nothing, and {} MiB of decisions wait in memory; check the disk of the data \
                             directory and start again",
                            self.bytes.get() >> 20
                        ),
                    ));
                }
            }
        }
    }

    /// The same at a start, which waits for the sink where too much would gather.
    pub(crate) fn flush_and_wait(&self) {
        self.flush();
        while self.is_behind() {
            std::thread::sleep(LOOK_EVERY);
            self.flush();
        }
    }

    /// Whether so much waits for the sink that no more is to be begun.
    pub(crate) fn is_behind(&self) -> bool {
        self.bytes.get() >= WAITING_BYTES_MAX
    }

    /// Whether everything before a barrier is kept durably.
    pub(crate) fn has_kept(&self, barrier: u64) -> bool {
        self.end.stand.kept() >= barrier
    }

    /// How the publication stands.
    pub(crate) fn publishing(&self) -> PublishStatus {
        self.end.stand.publishing()
    }

    /// The bytes that are kept and not published yet.
    pub(crate) fn backlog(&self) -> u64 {
        self.end.stand.backlog()
    }
}
