//! The outbox as what a publisher publishes.

use super::head::{SegmentHead, whole_from};
use super::reader::{Next, OutboxReader};
use super::writer::Published;
use crate::cursor::Cursor;
use crate::publisher::Source;
use isonomy_mesh::Milestone;
use isonomy_wire::id::ShardId;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a publisher waits at the end of an outbox before it looks again.
const LOOK_EVERY: Duration = Duration::from_millis(2);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Decisions that are not published are not here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the outbox lacks decisions before barrier {barrier} that are not published, because this replica took over a snapshot \
     of another one, took its own before it published, or was restored; a replica that keeps them publishes them. If none \
     does (isonomy publish status), give them up: isonomy publish reset --shard {} --from kept", .shard.0
)]
pub struct Lacking {
    /// The shard.
    pub shard: ShardId,
    /// The barrier behind which the outbox has everything.
    pub barrier: u64,
}

impl Lacking {
    /// What a segment does not tell of the time before it.
    pub fn before(head: &SegmentHead) -> Lacking {
        Lacking { shard: head.shard, barrier: head.start.barrier }
    }
}

/// The outbox of a shard, for its publisher.
#[derive(Debug)]
pub struct OutboxSource {
    dir: PathBuf,
    published: Arc<Published>,
    reader: OutboxReader,
    /// The barrier that was passed and not asked for.
    passed: Option<Milestone>,
    /// The place behind the newest batch that was given.
    given: (u64, u64),
    batch: Vec<u8>,
}

impl OutboxSource {
    /// The outbox in a directory, whose writer is shown what is published.
    pub fn new(dir: &Path, published: Arc<Published>) -> OutboxSource {
        let reader = OutboxReader::new(dir);
        OutboxSource { dir: dir.into(), published, reader, passed: None, given: (0, 0), batch: Vec::new() }
    }
}

impl Source for OutboxSource {
    fn rewind(&mut self, cursor: &Cursor) -> Result<(), Failure> {
        let first = whole_from(&self.dir)?;
        if let Some(head) = first.filter(|head| !cursor.goes_on_at(&head.start)) {
            return Err(Lacking::before(&head).into());
        }
        let barrier = first.map_or(0, |head| head.start.barrier);
        (self.reader, self.passed) = (OutboxReader::starting_at(&self.dir, barrier), None);
        Ok(())
    }

    fn next(&mut self) -> Result<Option<&[u8]>, Failure> {
        loop {
            let is_first = self.reader.position().is_none();
            match self.reader.read_next()? {
                Next::End => return Ok(None),
                Next::Segment(head) if head.has_gap && !is_first => {
                    return Err(Lacking::before(&head).into());
                }
                Next::Segment(SegmentHead { start, .. }) => self.passed = Some(start),
                Next::Batch(batch) => {
                    self.batch.clear();
                    self.batch.extend_from_slice(batch.bytes());
                    self.given = self.reader.position().expect("a segment is read");
                    return Ok(Some(&self.batch));
                }
            }
        }
    }

    fn may_lack(&self) -> bool {
        // A reset may have set the cursor back behind what was published and is not kept any more.
        whole_from(&self.dir).ok().flatten().is_none_or(|head| head.start.barrier > 0)
    }

    fn passed(&mut self) -> Option<Milestone> {
        self.passed.take()
    }

    fn wait(&mut self, at_most: Duration) {
        std::thread::sleep(at_most.min(LOOK_EVERY));
    }

    fn on_published(&mut self, _: &Cursor) {
        let (segment, offset) = self.given;
        self.published.set(segment, offset);
    }
}
