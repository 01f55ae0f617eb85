//! The write-ahead log of a shard on its disk: groups gather in memory, are written one after the
//! other, and count when the disk has them.
//!
//! Overwriting a file that was written before is the only cheap sync, so segments are filled with
//! zeros in the background before they are used, and opened for direct writes that return when
//! they are durable.

use crate::config::Durability;
use crate::fatal::{Reason, stop};
use glommio::io::{Directory, DmaBuffer, DmaFile, OpenOptions};
use isonomy_protocol::contract::{Append, Position};
use isonomy_protocol::log::group::{Group, GroupEncoder, group_bytes};
use isonomy_protocol::log::{BLOCK_BYTES, LogId, SegmentHead};
use rustix::fs::FlockOperation;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::rc::Rc;

use super::recover::{Recovered, SEGMENT_BYTES, segment_path, unfinished_path};
use super::signal::Signal;

/// A group is closed when it has so many bytes, if more records come while another is written.
pub(crate) const GROUP_BYTES_MAX: usize = 512 << 10;
/// Segments that are filled before they are needed.
const SEGMENTS_AHEAD: usize = 1;
/// The same for a log that begins: nothing is filled while its first users come.
const SEGMENTS_AT_FIRST: usize = 1 + SEGMENTS_AHEAD;
/// One write while a segment is filled.
const FILL_BYTES: usize = 1 << 20;

const _: () = {
    assert!(SEGMENT_BYTES.is_multiple_of(FILL_BYTES) && FILL_BYTES.is_multiple_of(BLOCK_BYTES));
    // The largest record fits a fresh segment.
    assert!(SEGMENT_BYTES >= 4 * isonomy_wire::command::BATCH_BYTES_MAX);
};

/// Where the next bytes of the log go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    pub(crate) segment: u64,
    pub(crate) offset: usize,
    pub(crate) next: Position,
}

/// A group that gathers, or waits for its write.
struct Gathering {
    buffer: DmaBuffer,
    group: Group,
    segment: u64,
    offset: usize,
}

/// The memory side: records become groups.
pub(crate) struct Log {
    id: LogId,
    encoder: GroupEncoder,
    tail: Tail,
    gathering: Option<Gathering>,
    full: VecDeque<Gathering>,
    pub(crate) durable: Position,
    /// Written since the start.
    pub(crate) bytes: u64,
    pub(crate) groups: u64,
}

/// One write.
pub(crate) struct Write {
    buffer: DmaBuffer,
    segment: u64,
    offset: usize,
    first: Position,
    last: Position,
}

impl Log {
    pub(crate) fn new(id: LogId, tail: Tail) -> Log {
        let durable = Position(tail.next.0 - 1);
        let (gathering, full) = (None, VecDeque::new());
        Log { id, encoder: GroupEncoder::new(id), tail, gathering, full, durable, bytes: 0, groups: 0 }
    }

    /// Adds a record to the group that gathers. How much can gather is bounded by the core, which
    /// admits only so many instances whose records are not durable.
    pub(crate) fn append(&mut self, append: &Append) {
        loop {
            let mut gathering = self.gathering.take().unwrap_or_else(|| self.open_group(append));
            let Gathering { buffer, group, segment, offset } = &mut gathering;
            let place = self.id.place(*segment).wrapping_add(*offset as u64);
            if self.encoder.append(group, buffer.as_bytes_mut(), place, append) {
                self.tail.next.0 += 1;
                self.gathering = Some(gathering);
                return;
            }
            self.close_group(gathering);
        }
    }

    /// Opens a group where the last one ended, or in the next segment if the record does not fit.
    fn open_group(&mut self, append: &Append) -> Gathering {
        let needed = group_bytes(append.payload.as_ref());
        if self.tail.offset + needed > SEGMENT_BYTES {
            (self.tail.segment, self.tail.offset) = (self.tail.segment + 1, BLOCK_BYTES);
        }
        let Tail { segment, offset, next } = self.tail;
        let size = GROUP_BYTES_MAX.max(needed).min(SEGMENT_BYTES - offset);
        Gathering { buffer: glommio::allocate_dma_buffer(size), group: Group::new(next), segment, offset }
    }

    fn close_group(&mut self, gathering: Gathering) {
        self.tail.offset = gathering.offset + gathering.group.padded_bytes();
        self.full.push_back(gathering);
    }

    pub(crate) fn has_work(&self) -> bool {
        self.gathering.is_some() || !self.full.is_empty()
    }

    /// The next group to write; the one that gathers, if no other is left.
    pub(crate) fn take(&mut self) -> Option<Write> {
        if self.full.is_empty()
            && let Some(gathering) = self.gathering.take()
        {
            self.close_group(gathering);
        }
        let Gathering { mut buffer, group, segment, offset } = self.full.pop_front()?;
        let place = self.id.place(segment).wrapping_add(offset as u64);
        let size = self.encoder.finish(&group, buffer.as_bytes_mut(), place, self.durable);
        buffer.trim_to_size(size);
        let last = group.last();
        let first = Position(last.0 + 1 - u64::from(group.records()));
        self.bytes += size as u64;
        self.groups += 1;
        Some(Write { buffer, segment, offset, first, last })
    }
}

/// The disk side: the segment in use and those prepared.
pub(crate) struct Disk {
    id: LogId,
    dir: PathBuf,
    durability: Durability,
    current: RefCell<Option<(u64, Rc<DmaFile>)>>,
    /// Numbers of the segments that are filled and wait for their use, consecutive.
    prepared: RefCell<VecDeque<u64>>,
    /// The first number without a file.
    next_segment: Cell<u64>,
    is_prepared: Signal,
    is_wanted: Signal,
}

impl Disk {
    /// The disk side of a log that was read back. Opens the segment in use.
    pub(crate) async fn open(id: LogId, dir: PathBuf, durability: Durability, recovered: &Recovered) -> Disk {
        let disk = Disk {
            id,
            dir,
            durability,
            current: RefCell::new(None),
            prepared: RefCell::new(recovered.prepared.iter().copied().collect()),
            next_segment: Cell::new(recovered.next_segment()),
            is_prepared: Signal::default(),
            is_wanted: Signal::default(),
        };
        if recovered.in_use {
            let segment = recovered.tail.segment;
            let file = disk.open_segment(segment).await;
            disk.current.replace(Some((segment, Rc::new(file))));
        }
        disk
    }

    /// Writes a group; the position that is durable when it returns. A disk that fails stops the
    /// process (D3): what it did not write it might have written halfway.
    pub(crate) async fn write(&self, write: Write) -> Position {
        let file = self.file(write.segment, write.first).await;
        let expected = write.buffer.len();
        match file.write_at(write.buffer, write.offset as u64).await {
            Ok(written) if written == expected => write.last,
            Ok(written) => {
                self.fail(write.segment, &format!("only {written} of {expected} bytes were written"))
            }
            Err(error) => self.fail(write.segment, &error.to_string()),
        }
    }

    /// The file of a segment: the one in use, or the next, which is begun.
    async fn file(&self, segment: u64, first: Position) -> Rc<DmaFile> {
        let current = self.current.borrow().clone();
        if let Some((number, file)) = &current
            && *number == segment
        {
            return file.clone();
        }
        while self.prepared.borrow().front() != Some(&segment) {
            self.is_prepared.wait().await;
        }
        let file = self.open_segment(segment).await;
        let block = self.id.encode_head(SegmentHead { segment, first: first.0 });
        let mut buffer = file.alloc_dma_buffer(block.len());
        buffer.as_bytes_mut().copy_from_slice(&block);
        self.check(segment, file.write_at(buffer, 0).await.map(|_| ()));
        if let Some((number, before)) = current {
            self.current.replace(None);
            self.check(number, before.close_rc().await.map(|_| ()));
        }
        let file = Rc::new(file);
        self.current.replace(Some((segment, file.clone())));
        self.prepared.borrow_mut().pop_front();
        self.is_wanted.notify();
        file
    }

    async fn open_segment(&self, segment: u64) -> DmaFile {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if self.durability == Durability::Fsync {
            // One write is write and flush.
            options.custom_flags(libc::O_DSYNC);
        }
        let file = self.check(segment, options.dma_open(segment_path(&self.dir, segment)).await);
        // A write under way keeps the file open, and so locked, even when this process is killed.
        let locked = rustix::fs::flock(descriptor_of(&file), FlockOperation::NonBlockingLockExclusive);
        locked.unwrap_or_else(|error| self.fail(segment, &format!("it cannot be locked ({error})")));
        file
    }

    /// Keeps segments prepared, for ever.
    pub(crate) async fn prepare(&self) {
        let begins = self.current.borrow().is_none() && self.prepared.borrow().is_empty();
        let mut wanted = if begins { SEGMENTS_AT_FIRST } else { SEGMENTS_AHEAD };
        loop {
            let mut filled = Vec::new();
            while self.prepared.borrow().len() + filled.len() < wanted {
                let next = self.next_segment.get();
                self.fill(next).await;
                self.next_segment.set(next + 1);
                filled.push(next);
            }
            self.prepared.borrow_mut().extend(filled);
            self.is_prepared.notify();
            wanted = SEGMENTS_AHEAD;
            self.is_wanted.wait().await;
        }
    }

    /// Makes a segment of zeros. It has its name only when it is whole.
    async fn fill(&self, segment: u64) {
        let temporary = unfinished_path(&self.dir);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).dma_open(&temporary).await;
        let file = self.check(segment, file);
        let mut zeros = file.alloc_dma_buffer(FILL_BYTES);
        zeros.as_bytes_mut().fill(0);
        let zeros = Rc::new(zeros);
        for offset in (0..SEGMENT_BYTES).step_by(FILL_BYTES) {
            self.check(segment, file.write_rc_at(zeros.clone(), offset as u64).await.map(|_| ()));
        }
        self.check(segment, file.fdatasync().await);
        self.check(segment, file.rename(segment_path(&self.dir, segment)).await);
        self.check(segment, file.close().await);
        let dir = self.check(segment, Directory::open(&self.dir).await);
        self.check(segment, dir.sync().await);
        self.check(segment, dir.close().await);
    }

    fn check<T>(&self, segment: u64, result: Result<T, glommio::GlommioError<()>>) -> T {
        result.unwrap_or_else(|error| self.fail(segment, &error.to_string()))
    }

    fn fail(&self, segment: u64, what: &str) -> ! {
        let path = segment_path(&self.dir, segment);
        let remedy = "the log could not be written, so this replica stops; nothing acknowledged is lost. \
                      Check the disk and its free space, then start the replica again";
        stop(Reason::Disk, &format!("{}: {what}: {remedy}", path.display()))
    }
}

#[allow(unsafe_code)]
fn descriptor_of(file: &DmaFile) -> BorrowedFd<'_> {
    // SAFETY: the file is open for as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) }
}
