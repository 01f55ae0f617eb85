//! Reads an outbox while it is written.

use super::error::OutboxError;
use super::head::{HEAD_BYTES, SegmentHead, head_of, segment_path, segments};
use isonomy_wire::published::{BadBatch, HEAD_BYTES as BATCH_HEAD_BYTES, PublishedBatch};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How much is read at once.
const READ_BYTES: usize = 256 << 10;

/// What comes next in an outbox.
#[derive(Debug)]
pub enum Next<'a> {
    /// A segment begins.
    Segment(SegmentHead),
    /// A batch of it.
    Batch(PublishedBatch<'a>),
    /// Nothing more is there yet.
    End,
}

/// Reads the outbox of a shard from its oldest segment on.
#[derive(Debug)]
pub struct OutboxReader {
    dir: PathBuf,
    /// No segment before this barrier is read.
    from: u64,
    open: Option<Open>,
    /// The bytes that were read and not given yet.
    buffer: Vec<u8>,
    /// How many of them were given.
    given: usize,
}

#[derive(Debug)]
struct Open {
    barrier: u64,
    file: File,
    path: PathBuf,
    /// The place behind the bytes that were read.
    offset: u64,
    /// Whether a later segment was seen, so that nothing more comes to this one.
    is_finished: bool,
}

impl OutboxReader {
    /// A reader of the outbox in a directory.
    pub fn new(dir: &Path) -> OutboxReader {
        OutboxReader { dir: dir.into(), from: 0, open: None, buffer: Vec::new(), given: 0 }
    }

    /// The same from the segment behind this barrier on.
    pub fn starting_at(dir: &Path, barrier: u64) -> OutboxReader {
        OutboxReader { from: barrier, ..OutboxReader::new(dir) }
    }

    /// The segment and the offset in it of what was given so far.
    pub fn position(&self) -> Option<(u64, u64)> {
        let open = self.open.as_ref()?;
        Some((open.barrier, open.offset - (self.buffer.len() - self.given) as u64))
    }

    /// What comes next.
    ///
    /// # Errors
    ///
    /// [`OutboxError`] if a file cannot be read or is damaged.
    pub fn read_next(&mut self) -> Result<Next<'_>, OutboxError> {
        loop {
            if let Some(length) = self.look()? {
                let at = self.given;
                self.given += length;
                let batch = PublishedBatch::parse(&self.buffer[at..at + length]);
                return Ok(Next::Batch(batch.expect("it was just looked at")));
            }
            if self.read()? {
                continue;
            }
            let Some(later) = self.later()? else { return Ok(Next::End) };
            let is_drained = self.is_drained();
            match &mut self.open {
                // The last bytes may have been written since this segment was read.
                Some(open) if !open.is_finished => open.is_finished = true,
                Some(open) if !is_drained => {
                    let at = open.offset - (self.buffer.len() - self.given) as u64;
                    return Err(OutboxError::Batch(open.path.clone(), at, BadBatch::Damaged));
                }
                _ => return Ok(self.open_segment(later)?.map_or(Next::End, Next::Segment)),
            }
        }
    }

    fn is_drained(&self) -> bool {
        self.given == self.buffer.len()
    }

    /// The length of the batch that comes next, if it was read whole.
    fn look(&self) -> Result<Option<usize>, OutboxError> {
        let rest = &self.buffer[self.given..];
        if rest.len() < BATCH_HEAD_BYTES {
            return Ok(None);
        }
        match PublishedBatch::parse(rest) {
            Ok(batch) => Ok(Some(batch.bytes().len())),
            Err(BadBatch::CutOff { .. }) => Ok(None),
            Err(bad) => {
                let (segment, at) = self.position().expect("what was read is of a segment");
                Err(OutboxError::Batch(segment_path(&self.dir, segment), at, bad))
            }
        }
    }

    /// Reads on in the segment. Returns whether more was there.
    fn read(&mut self) -> Result<bool, OutboxError> {
        let Some(open) = &mut self.open else { return Ok(false) };
        self.buffer.drain(..self.given);
        self.given = 0;
        let there = self.buffer.len();
        self.buffer.resize(there + READ_BYTES, 0);
        let read = open.file.read_at(&mut self.buffer[there..], open.offset);
        self.buffer.truncate(there + *read.as_ref().unwrap_or(&0));
        let count = read.map_err(OutboxError::io(&open.path))?;
        open.offset += count as u64;
        Ok(count > 0)
    }

    /// The oldest segment behind the one that is read.
    fn later(&self) -> Result<Option<u64>, OutboxError> {
        let there = match segments(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            there => there.map_err(OutboxError::io(&self.dir))?,
        };
        let from = self.open.as_ref().map_or(self.from, |open| open.barrier + 1);
        Ok(there.into_iter().find(|barrier| *barrier >= from))
    }

    /// Opens a segment; `None` if it was removed meanwhile, or has only just been made.
    fn open_segment(&mut self, barrier: u64) -> Result<Option<SegmentHead>, OutboxError> {
        let path = segment_path(&self.dir, barrier);
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(OutboxError::io(&path))?,
        };
        let Some(head) = head_of(&file, &path)? else { return Ok(None) };
        (self.buffer, self.given) = (Vec::new(), 0);
        self.open = Some(Open { barrier, file, path, offset: HEAD_BYTES as u64, is_finished: false });
        Ok(Some(head))
    }
}
