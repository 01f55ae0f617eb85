//! The disk side of a shard's log: groups are written one after the other, and count when they are durable.
//!
//! Overwriting a file that was written before is the only cheap sync, so segments are filled with
//! zeros in the background before they are used, and opened for direct writes that return when
//! they are durable.

mod lack;
mod prepare;

use crate::data_dir::EpochDir;
use crate::told::{Kind, Told};
use crate::waiting::Reminder;
use glommio::io::{DmaFile, OpenOptions};
use isonomy_mesh::fatal::{Reason, stop};
use isonomy_protocol::contract::Position;
use isonomy_protocol::limits::HUNG_AFTER_US;
use isonomy_protocol::log::{LogId, SegmentHead};
use isonomy_tuning::{file_size, files};
use isonomy_wire::latency::Latency;
use lack::Lack;
pub(crate) use prepare::SEGMENTS_AHEAD;
use rustix::fs::FlockOperation;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Error;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::io::error_of;
use crate::log::groups::Write;
use crate::log::recover::{Recovered, SEGMENT_BYTES, segment_path};
use crate::settings::Settings;
use crate::signal::Signal;
use crate::tally::Tally;

/// The time from which on a write is logged as slow.
const SLOW_WRITE: Duration = Duration::from_millis(100);
/// The pause between two tries to get a segment for which something is lacking.
const LACK_PAUSE: Duration = Duration::from_secs(1);
/// D9: the time from which on a write counts as hanging.
const HUNG_AFTER: Duration = Duration::from_micros(HUNG_AFTER_US);
/// D9: that time for the first write of a new log, whose segments must be filled first.
const FIRST_HUNG_AFTER: Duration = Duration::from_secs(15);

/// The segments in use, the prepared segments, and those that were cut.
pub(crate) struct Disk {
    id: LogId,
    data_dir: EpochDir,
    dir: PathBuf,
    /// The directory, held open to sync its names, since that must not fail for lack of open files.
    names: Arc<File>,
    /// Whether each write is a flush as well.
    outlives_power: bool,
    /// The most segments that the budget allows, spare ones included.
    segments_max: usize,
    current: RefCell<Option<(u64, Rc<DmaFile>)>>,
    /// The segments with records, and the position of the first record of each.
    used: RefCell<VecDeque<(u64, Position)>>,
    /// The files of segments that were cut.
    spares: RefCell<Vec<PathBuf>>,
    /// The position before which records are no longer needed.
    cut: Cell<Position>,
    /// What the next segment is lacking, if anything, and when the shard logs that next.
    lack: Cell<Option<Lack>>,
    lack_told: RefCell<Option<Reminder>>,
    /// The consecutive numbers of the segments that are filled and wait for their use.
    prepared: RefCell<VecDeque<u64>>,
    /// The first number without a file.
    next_segment: Cell<u64>,
    is_prepared: Signal,
    is_wanted: Signal,
    /// The position of the last durable record.
    reached: Cell<Position>,
    /// Whether the data directory knows that the log has begun.
    is_noted: Cell<bool>,
    /// Since when a write has been under way, with the wait for its segment, and the time after which it counts as
    /// hanging.
    writing: Cell<Option<(Instant, Duration)>>,
    /// How long the writes took.
    tally: RefCell<Tally>,
    told: Rc<Told>,
}

impl Disk {
    /// The disk side of a log that was read back. Opens the segment in use.
    pub(crate) async fn open(
        id: LogId,
        data_dir: EpochDir,
        settings: &Settings,
        recovered: &Recovered,
        told: Rc<Told>,
    ) -> Disk {
        let is_noted = data_dir.known(id.shard, 0).reached > Position(0);
        let dir = data_dir.log_dir(id.shard);
        let names = File::open(&dir).unwrap_or_else(|error| {
            stop(Reason::Disk, &format!("{}: the directory cannot be opened: {error}", dir.display()))
        });
        let disk = Disk {
            id,
            dir,
            data_dir,
            names: Arc::new(names),
            outlives_power: settings.outlives_power,
            segments_max: (settings.log_budget / SEGMENT_BYTES as u64) as usize,
            current: RefCell::new(None),
            used: RefCell::new(recovered.used.clone()),
            spares: RefCell::new(recovered.spares.clone()),
            cut: Cell::new(Position(0)),
            lack: Cell::new(None),
            lack_told: RefCell::default(),
            prepared: RefCell::new(recovered.prepared.iter().copied().collect()),
            next_segment: Cell::new(recovered.next_segment()),
            is_prepared: Signal::default(),
            is_wanted: Signal::default(),
            reached: Cell::new(Position(recovered.tail.next.0 - 1)),
            is_noted: Cell::new(is_noted),
            writing: Cell::default(),
            tally: RefCell::default(),
            told,
        };
        if recovered.in_use {
            let segment = recovered.tail.segment;
            let file = disk.open_segment(segment).await;
            disk.current.replace(Some((segment, Rc::new(file))));
        }
        disk
    }

    /// Writes a group and returns the position that is then durable. A disk that fails stops the process (D3),
    /// because it might have written half of the group.
    pub(crate) async fn write(&self, write: Write) -> Position {
        let patience = if self.current.borrow().is_some() { HUNG_AFTER } else { FIRST_HUNG_AFTER };
        self.writing.set(Some((Instant::now(), patience)));
        let (file, begins) = self.file(write.segment, write.first).await;
        let (began, expected) = (Instant::now(), write.buffer.len());
        let written = file.write_at(write.buffer, write.offset as u64).await;
        self.writing.set(None);
        let took = began.elapsed();
        self.tally.borrow_mut().record(took.as_micros() as u64, 1);
        if took >= SLOW_WRITE {
            self.tell_slow(took, expected);
        }
        match written {
            Ok(written) if written == expected => {}
            Ok(written) => {
                self.fail(write.segment, &format!("only {written} of {expected} bytes were written"))
            }
            Err(error) => self.fail_by(write.segment, &error_of(error)),
        }
        self.reached.set(write.last);
        if !self.is_noted.get() {
            self.note(write.segment, write.last).await;
        }
        if begins {
            // The head of the segment that is prepared now says that this one has records.
            self.is_wanted.notify();
        }
        write.last
    }

    /// Closes the segment in use. Nothing is written any more.
    pub(crate) async fn close(&self) {
        let current = self.current.take();
        if let Some((segment, file)) = current {
            self.check(segment, file.close_rc().await.map(|_| ()));
        }
    }

    /// D6: notes in the data directory that the log has begun, before anything rests on the log. From then on a log
    /// without records does not count as a new one.
    async fn note(&self, segment: u64, reached: Position) {
        loop {
            let (data_dir, shard) = (self.data_dir.clone(), self.id.shard);
            let noted =
                glommio::executor().spawn_blocking(move || data_dir.note_reached(shard, reached)).await;
            let Err(error) = noted else { break };
            let Some(lack) = Lack::of(&error) else {
                self.fail(segment, &format!("identity.json could not be written ({error})"))
            };
            self.tell_lack(lack, segment, error);
            glommio::timer::sleep(LACK_PAUSE).await;
        }
        self.is_noted.set(true);
        self.lacks_nothing();
    }

    fn tell_slow(&self, took: Duration, bytes: usize) {
        if self.told.may(Kind::SlowDisk) {
            log::warn!(
                "shard {}: the disk took {took:.0?} to write {bytes} bytes of the log, and decisions waited \
                 for this write; see docs/OPERATIONS.md, \"Slow disks\"",
                self.id.shard.0,
            );
        }
    }

    /// D9: how long a hanging write has been under way, if there is one.
    pub(crate) fn hung_for(&self) -> Option<Duration> {
        let (since, patience) = self.writing.get()?;
        Some(since.elapsed()).filter(|elapsed| *elapsed >= patience)
    }

    /// The file of a segment, which is the one in use or the next one. Returns with it whether the segment was begun.
    async fn file(&self, segment: u64, first: Position) -> (Rc<DmaFile>, bool) {
        let current = self.current.borrow().clone();
        if let Some((number, file)) = &current
            && *number == segment
        {
            return (file.clone(), false);
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
        self.used.borrow_mut().push_back((segment, first));
        self.current.replace(Some((segment, file.clone())));
        self.prepared.borrow_mut().pop_front();
        (file, true)
    }

    async fn open_segment(&self, segment: u64) -> DmaFile {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if self.outlives_power {
            // With this flag each write is a flush as well.
            options.custom_flags(libc::O_DSYNC);
        }
        let path = segment_path(&self.dir, segment);
        let file = loop {
            match options.dma_open(&path).await.map_err(error_of) {
                Err(error) if files::are_lacking(&error) => {
                    self.tell_lack(Lack::Files, segment, error);
                    glommio::timer::sleep(LACK_PAUSE).await;
                }
                opened => break opened.unwrap_or_else(|error| self.fail_by(segment, &error)),
            }
        };
        if self.lack.get() == Some(Lack::Files) {
            self.lacks_nothing();
        }
        // A write under way keeps the file open, and so locked, even when this process is killed.
        let locked = rustix::fs::flock(descriptor_of(&file), FlockOperation::NonBlockingLockExclusive);
        locked.unwrap_or_else(|error| self.fail(segment, &format!("the file cannot be locked ({error})")));
        file
    }

    /// Records before this position are no longer needed. The segments that hold nothing else are cut.
    pub(crate) fn cut(&self, position: Position) {
        self.cut.set(position);
        self.is_wanted.notify();
    }

    /// How long the writes took.
    pub(crate) fn latency(&self) -> Latency {
        self.tally.borrow().latency()
    }

    /// The size of the log on the disk, in bytes.
    pub(crate) fn held_bytes(&self) -> u64 {
        (self.used.borrow().len() * SEGMENT_BYTES) as u64
    }

    /// Whether the disk has no room for the next segment.
    pub(crate) fn is_full(&self) -> bool {
        self.lack.get() == Some(Lack::Room)
    }

    fn check<T>(&self, segment: u64, result: Result<T, glommio::GlommioError<()>>) -> T {
        result.unwrap_or_else(|error| self.fail_by(segment, &error_of(error)))
    }

    fn fail_by(&self, segment: u64, error: &Error) -> ! {
        match file_size::remedy(error) {
            Some(remedy) => self.end(segment, &error.to_string(), &remedy),
            None => self.fail(segment, &error.to_string()),
        }
    }

    fn fail(&self, segment: u64, what: &str) -> ! {
        self.end(segment, what, "check the disk and its free space")
    }

    fn end(&self, segment: u64, what: &str, remedy: &str) -> ! {
        let path = segment_path(&self.dir, segment);
        let text = "the log could not be written, so this replica stops; nothing acknowledged is lost. First";
        let text = format!("{}: {what}: {text} {remedy}, then start the replica again", path.display());
        stop(Reason::Disk, &text)
    }
}

#[allow(unsafe_code)]
fn descriptor_of(file: &DmaFile) -> BorrowedFd<'_> {
    // SAFETY: the file is open for as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) }
}

#[cfg(test)]
mod tests;
