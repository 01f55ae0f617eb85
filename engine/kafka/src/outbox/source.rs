//! The outbox as what a publisher publishes.

use super::error::OutboxError;
use super::head::{SegmentHead, read_head, segments};
use super::reader::{Next, OutboxReader};
use super::writer::Published;
use crate::cursor::Cursor;
use crate::publisher::Source;
use isonomy_mesh::Milestone;
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
     of another one; a replica that has executed them publishes them"
)]
pub struct Lacking {
    /// The barrier behind which the outbox has everything.
    pub barrier: u64,
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

    /// The newest segment before which decisions are missing; the oldest one if none are.
    fn first(&self) -> Result<Option<SegmentHead>, OutboxError> {
        let mut first = None;
        for barrier in segments(&self.dir).map_err(OutboxError::io(&self.dir))? {
            let head = read_head(&self.dir, barrier)?;
            if first.is_none() || head.has_gap {
                first = Some(head);
            }
        }
        Ok(first)
    }
}

impl Source for OutboxSource {
    fn rewind(&mut self, cursor: &Cursor) -> Result<(), Failure> {
        let first = self.first()?;
        let start = first.map_or(Milestone::default(), |head| head.start);
        if start.barrier > 0 && !cursor.has_passed(&start) {
            return Err(Lacking { barrier: start.barrier }.into());
        }
        (self.reader, self.passed) = (OutboxReader::starting_at(&self.dir, start.barrier), None);
        Ok(())
    }

    fn next(&mut self) -> Result<Option<&[u8]>, Failure> {
        loop {
            let is_first = self.reader.position().is_none();
            match self.reader.read_next()? {
                Next::End => return Ok(None),
                Next::Segment(SegmentHead { start, has_gap, .. }) if has_gap && !is_first => {
                    return Err(Lacking { barrier: start.barrier }.into());
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
        self.first().ok().flatten().is_none_or(|head| head.has_gap)
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
