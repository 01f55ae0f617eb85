//! Writes an outbox. Every step can be tried again after an error: nothing is forgotten before it is in its file.

use super::error::OutboxError;
use super::head::{HEAD_BYTES, SegmentHead, read_head, segment_path, segments, whole_from};
use crate::cursor::Cursor;
use isonomy_mesh::{ForSink, Milestone};
use isonomy_wire::command::Batch;
use isonomy_wire::deps::Frontier;
use isonomy_wire::id::{ClusterId, Epoch, ShardId};
use isonomy_wire::published::{Origin, PublishedBuilder};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// The bytes that are gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// How far the publisher has come, which it shows to the writer.
#[derive(Debug, Default)]
pub struct Published {
    segment: AtomicU64,
    offset: AtomicU64,
    /// The newest batches that the outbox has, as a cursor would name them.
    newest: Mutex<(Epoch, Frontier)>,
}

impl Published {
    /// All segments before this one, and so many bytes of it, are published.
    pub fn set(&self, segment: u64, offset: u64) {
        // A reader between the two sees an offset that is too small, which keeps more.
        self.offset.store(0, Ordering::Release);
        self.segment.store(segment, Ordering::Release);
        self.offset.store(offset, Ordering::Release);
    }

    /// All segments before this one are published, and perhaps more.
    pub fn raise(&self, segment: u64) {
        if segment > self.get().0 {
            self.set(segment, 0);
        }
    }

    /// Whether the outbox has batches that a cursor does not cover; those that came before the process started are not counted.
    pub fn is_behind(&self, cursor: Option<&Cursor>) -> bool {
        let (epoch, frontier) = *self.newest.lock().expect("nobody panics with this lock");
        let newest = Milestone { barrier: 0, epoch, frontier };
        !cursor.map_or(epoch == Epoch(0), |cursor| cursor.has_passed(&newest))
    }

    fn get(&self) -> (u64, u64) {
        let segment = self.segment.load(Ordering::Acquire);
        (segment, self.offset.load(Ordering::Acquire))
    }
}

/// What an outbox keeps.
#[derive(Clone, Debug)]
pub enum Retain {
    /// So many bytes, if they are not all in one segment. The oldest segments go first.
    Bytes(u64),
    /// What is not published yet.
    Unpublished(Arc<Published>),
}

/// The segment that is being written.
#[derive(Debug)]
struct Growing {
    file: File,
    path: PathBuf,
    barrier: u64,
    bytes: u64,
}

/// A batch that waits until it is known whether more of its component follow.
#[derive(Debug, Default)]
struct Waiting {
    builder: PublishedBuilder,
    origin: Option<Origin>,
}

/// Writes the outbox of a shard.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    cluster: ClusterId,
    shard: ShardId,
    retain: Retain,
    growing: Option<Growing>,
    /// The finished segments and their sizes.
    finished: VecDeque<(u64, u64)>,
    /// From where on everything is kept, and the oldest segment when that was read.
    whole: Option<(u64, Milestone)>,
    /// The newest batches, as a cursor would name them.
    newest: (Epoch, Frontier),
    /// What is to be appended to the segment.
    buffer: Vec<u8>,
    waiting: Waiting,
    spare: PublishedBuilder,
}

impl Writer {
    /// An outbox in a directory, which is made. What the directory holds stays until the shard says from where it goes
    /// on.
    ///
    /// # Errors
    ///
    /// [`OutboxError::Io`]
    pub fn open(
        dir: &Path,
        cluster: ClusterId,
        shard: ShardId,
        retain: Retain,
    ) -> Result<Writer, OutboxError> {
        std::fs::create_dir_all(dir).map_err(OutboxError::io(dir))?;
        Ok(Writer {
            dir: dir.into(),
            cluster,
            shard,
            retain,
            growing: None,
            finished: VecDeque::new(),
            whole: None,
            newest: (Epoch(0), Frontier::NONE),
            buffer: Vec::new(),
            waiting: Waiting::default(),
            spare: PublishedBuilder::default(),
        })
    }

    /// Takes what has happened. After an error the same must be given again.
    ///
    /// # Errors
    ///
    /// [`OutboxError::Io`]
    pub fn take(&mut self, item: &ForSink) -> Result<(), OutboxError> {
        match item {
            ForSink::State(start) => self.go_on_from(*start),
            ForSink::Barrier(start) => self.begin_next(*start),
            ForSink::Batch { epoch, id, batch, responses, has_more } => {
                if self.buffer.len() >= BUFFER_BYTES {
                    self.flush()?;
                }
                let (cluster, shard) = (self.cluster, self.shard);
                let origin = Origin { cluster, shard, epoch: *epoch, instance: *id, has_more: false };
                self.append(origin, batch, responses, *has_more);
                Ok(())
            }
        }
    }

    fn append(&mut self, origin: Origin, batch: &Batch, responses: &[(usize, bytes::Bytes)], has_more: bool) {
        for (place, response) in responses {
            let part = &batch.parts()[*place];
            let pushed = self.spare.push_part(&origin, batch, part, response.clone());
            pushed.expect("a response of the own core decodes");
        }
        if !self.spare.is_empty() {
            self.release(true);
            std::mem::swap(&mut self.spare, &mut self.waiting.builder);
            self.waiting.origin = Some(origin);
        }
        if !has_more {
            self.release(false);
        }
    }

    /// Moves the batch that waits to the buffer.
    fn release(&mut self, has_more: bool) {
        let Some(origin) = self.waiting.origin.take() else { return };
        let (epoch, frontier) = &mut self.newest;
        if origin.epoch > *epoch {
            (*epoch, *frontier) = (origin.epoch, Frontier::NONE);
        }
        frontier.add(origin.instance);
        let bytes = self.waiting.builder.finish(&Origin { has_more, ..origin });
        self.buffer.extend_from_slice(bytes.expect("a batch that waits is not empty"));
        self.waiting.builder.clear();
    }

    /// Writes all that was gathered.
    ///
    /// # Errors
    ///
    /// [`OutboxError::Io`]; the next call writes the same bytes to the same place.
    pub fn flush(&mut self) -> Result<(), OutboxError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let growing =
            self.growing.as_mut().expect("a shard says from where it goes on before anything executes");
        growing.file.write_all_at(&self.buffer, growing.bytes).map_err(OutboxError::io(&growing.path))?;
        growing.bytes += self.buffer.len() as u64;
        self.buffer.clear();
        if let Retain::Unpublished(published) = &self.retain {
            *published.newest.lock().expect("nobody panics with this lock") = self.newest;
        }
        Ok(())
    }

    /// P2: everything from this barrier on is written again.
    fn go_on_from(&mut self, start: Milestone) -> Result<(), OutboxError> {
        self.flush()?;
        let there = segments(&self.dir).map_err(OutboxError::io(&self.dir))?;
        let again = there.contains(&start.barrier);
        let has_gap = match again {
            true => !read_head(&self.dir, start.barrier).is_ok_and(|head| !head.has_gap),
            false => start.barrier > 0,
        };
        for barrier in there.iter().rev().filter(|barrier| **barrier > start.barrier) {
            let path = segment_path(&self.dir, *barrier);
            std::fs::remove_file(&path).map_err(OutboxError::io(&path))?;
        }
        self.begin(start, has_gap)?;
        let size = |barrier: &u64| {
            let path = segment_path(&self.dir, *barrier);
            let size = std::fs::metadata(&path).map_err(OutboxError::io(&path))?.len();
            Ok((*barrier, size))
        };
        self.whole = None;
        let before = there.iter().filter(|barrier| **barrier < start.barrier);
        self.finished = before.map(size).collect::<Result<_, OutboxError>>()?;
        Ok(())
    }

    /// A barrier has executed: what comes before it is kept from now on.
    fn begin_next(&mut self, start: Milestone) -> Result<(), OutboxError> {
        self.flush()?;
        let Some(before) = &self.growing else { return self.go_on_from(start) };
        before.file.sync_data().map_err(OutboxError::io(&before.path))?;
        let finished = (before.barrier, before.bytes);
        self.begin(start, false)?;
        self.finished.push_back(finished);
        self.prune()
    }

    /// Begins a segment, durably.
    fn begin(&mut self, start: Milestone, has_gap: bool) -> Result<(), OutboxError> {
        let path = segment_path(&self.dir, start.barrier);
        let head = SegmentHead { cluster: self.cluster, shard: self.shard, start, has_gap };
        let create = || -> io::Result<File> {
            let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
            file.write_all_at(&head.encode(), 0)?;
            file.sync_data()?;
            File::open(&self.dir)?.sync_all()?;
            Ok(file)
        };
        let file = create().map_err(OutboxError::io(&path))?;
        let (barrier, bytes) = (start.barrier, HEAD_BYTES as u64);
        self.growing = Some(Growing { file, path, barrier, bytes });
        Ok(())
    }

    /// Removes what need not be kept.
    ///
    /// # Errors
    ///
    /// [`OutboxError::Io`]
    pub fn prune(&mut self) -> Result<(), OutboxError> {
        while let Some((oldest, _)) = self.finished.front().copied() {
            let is_needed = match &self.retain {
                Retain::Bytes(most) => self.bytes() <= *most,
                Retain::Unpublished(published) => published.get().0 <= oldest,
            };
            if is_needed {
                break;
            }
            let path = segment_path(&self.dir, oldest);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(OutboxError::Io(path, error));
                }
                _ => self.finished.pop_front(),
            };
        }
        Ok(())
    }

    /// The barrier from which on everything is kept; `None` before the shard has said from where it goes on.
    ///
    /// # Errors
    ///
    /// [`OutboxError`] if the head of a segment cannot be read.
    pub fn kept_from(&mut self) -> Result<Option<Milestone>, OutboxError> {
        let Some(growing) = &self.growing else { return Ok(None) };
        let oldest = self.finished.front().map_or(growing.barrier, |(barrier, _)| *barrier);
        if self.whole.is_none_or(|(known, _)| known != oldest) {
            self.whole = whole_from(&self.dir)?.map(|head| (oldest, head.start));
        }
        Ok(self.whole.map(|(_, start)| start))
    }

    /// The bytes of all segments.
    fn bytes(&self) -> u64 {
        let growing = self.growing.as_ref().map_or(0, |growing| growing.bytes);
        self.finished.iter().map(|(_, size)| size).sum::<u64>() + growing
    }

    /// The bytes that are kept only because they are not published yet.
    pub fn backlog(&self) -> u64 {
        let Retain::Unpublished(published) = &self.retain else { return 0 };
        let (segment, offset) = published.get();
        let growing = self.growing.as_ref().map(|growing| (growing.barrier, growing.bytes));
        let all = self.finished.iter().copied().chain(growing);
        let left = |(barrier, size): (u64, u64)| match barrier.cmp(&segment) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => size.saturating_sub(offset),
            std::cmp::Ordering::Greater => size,
        };
        all.map(left).sum()
    }
}
