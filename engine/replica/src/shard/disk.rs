//! The write-ahead log of a shard on its disk: groups gather in memory, are written one after the
//! other, and count when the disk has them.
//!
//! Overwriting a file that was written before is the only cheap sync, so segments are filled with
//! zeros in the background before they are used, and opened for direct writes that return when
//! they are durable.

use crate::config::{Config, Durability};
use crate::data_dir::DataDir;
use crate::fatal::{Reason, stop};
use crate::file_size;
use crate::files;
use crate::snapshots::give_up_spare;
use crate::told::{Kind, Told};
use crate::waiting::{Reminder, Trouble, is_lack_of_room};
use glommio::io::{DmaBuffer, DmaFile, OpenOptions};
use isonomy_protocol::contract::{Append, Position};
use isonomy_protocol::limits::HUNG_AFTER_US;
use isonomy_protocol::log::group::{GROUP_HEAD_BYTES, Group, GroupEncoder, group_bytes};
use isonomy_protocol::log::record::Record;
use isonomy_protocol::log::{BLOCK_BYTES, LogId, SegmentHead};
use rustix::fs::FlockOperation;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Error;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::growing::{error_of, whole};
use super::recover::{Recovered, SEGMENT_BYTES, segment_path, spare_path, unfinished_path};
use super::signal::Signal;

/// A group is closed when it has so many bytes, if more records come while another is written.
pub(crate) const GROUP_BYTES_MAX: usize = 512 << 10;
/// Bytes of closed groups that may wait for the disk before peers have to wait, too.
const LOG_BACKLOG_BYTES_MAX: usize = 32 << 20;
/// How long a group gathers that nobody waits for, until the shard's next beat after it.
const GATHER_AT_MOST: Duration = Duration::from_millis(2);
/// Segments that are filled before they are needed.
pub(super) const SEGMENTS_AHEAD: usize = 2;
/// The same for a log that begins: nothing is filled while its first users come.
const SEGMENTS_AT_FIRST: usize = 1 + SEGMENTS_AHEAD;
/// A log that has written nothing for so long is idle.
const MARK_AFTER: Duration = Duration::from_millis(50);
/// Who waits for a write that takes so long waits for the disk: it is told.
const SLOW_WRITE: Duration = Duration::from_millis(100);
/// Between two tries to get a segment for which something is lacking.
const LACK_PAUSE: Duration = Duration::from_secs(1);
/// D9: a write that takes so long hangs.
const HUNG_AFTER: Duration = Duration::from_micros(HUNG_AFTER_US);
/// The same for the first one of a log that begins: its segments have to be filled first.
const FIRST_HUNG_AFTER: Duration = Duration::from_secs(15);
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
    since: Instant,
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
    /// The bytes of those.
    waiting: usize,
    pub(crate) durable: Position,
    /// What the last group says is durable.
    marked: Position,
    written_at: Instant,
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
        Log {
            id,
            encoder: GroupEncoder::new(id),
            tail,
            gathering: None,
            full: VecDeque::new(),
            waiting: 0,
            durable,
            marked: durable,
            written_at: Instant::now(),
            bytes: 0,
            groups: 0,
        }
    }

    /// Adds a record to the group that gathers. How much can gather is bounded by the core, which
    /// admits only so many instances whose records are not durable.
    pub(crate) fn append(&mut self, append: &Append) {
        if begins_segment(append)
            && let Some(gathering) = self.gathering.take()
        {
            self.close_group(gathering);
        }
        loop {
            let mut gathering = self.gathering.take().unwrap_or_else(|| {
                self.open_group(group_bytes(append.payload.as_ref()), begins_segment(append))
            });
            let Gathering { buffer, group, segment, offset, .. } = &mut gathering;
            let place = self.id.place(*segment).wrapping_add(*offset as u64);
            if self.encoder.append(group, buffer.as_bytes_mut(), place, append) {
                self.tail.next.0 += 1;
                self.gathering = Some(gathering);
                return;
            }
            self.close_group(gathering);
        }
    }

    /// Opens a group where the last one ended, or in the next segment if what it needs does not fit or
    /// has to be the first of one.
    fn open_group(&mut self, needed: usize, begins: bool) -> Gathering {
        if self.tail.offset + needed > SEGMENT_BYTES || begins {
            (self.tail.segment, self.tail.offset) = (self.tail.segment + 1, BLOCK_BYTES);
        }
        let Tail { segment, offset, next } = self.tail;
        let size = GROUP_BYTES_MAX.max(needed).min(SEGMENT_BYTES - offset);
        let buffer = glommio::allocate_dma_buffer(size);
        Gathering { since: Instant::now(), buffer, group: Group::new(next), segment, offset }
    }

    fn close_group(&mut self, gathering: Gathering) {
        let size = gathering.group.padded_bytes();
        self.tail.offset = gathering.offset + size;
        self.waiting += size;
        self.full.push_back(gathering);
    }

    /// D6: an idle log says once more how far it is durable, in a group without records, so that
    /// nothing but a group in flight ever looks torn.
    pub(crate) fn mark_if_idle(&mut self) {
        let idle = !self.has_work() && self.durable.0 + 1 == self.tail.next.0;
        if idle && self.marked < self.durable && self.written_at.elapsed() >= MARK_AFTER {
            let group = self.open_group(GROUP_HEAD_BYTES, false);
            self.close_group(group);
        }
    }

    /// Whether so much waits for the disk that peers should wait as well.
    pub(crate) fn is_behind(&self) -> bool {
        self.waiting > LOG_BACKLOG_BYTES_MAX
    }

    /// Whether it is to be written even if nobody waits for it.
    pub(crate) fn is_due(&self) -> bool {
        let gathers = |gathering: &Gathering| gathering.since.elapsed() >= GATHER_AT_MOST;
        !self.full.is_empty() || self.gathering.as_ref().is_some_and(gathers)
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
        let Gathering { mut buffer, group, segment, offset, .. } = self.full.pop_front()?;
        let place = self.id.place(segment).wrapping_add(offset as u64);
        let size = self.encoder.finish(&group, buffer.as_bytes_mut(), place, self.durable);
        buffer.trim_to_size(size);
        self.waiting -= size;
        (self.marked, self.written_at) = (self.durable, Instant::now());
        let last = group.last();
        let first = Position(last.0 + 1 - u64::from(group.records()));
        self.bytes += size as u64;
        self.groups += 1;
        Some(Write { buffer, segment, offset, first, last })
    }
}

/// G1: the records before it can be cut, and whole segments are.
fn begins_segment(append: &Append) -> bool {
    matches!(append.record, Record::Begin { .. })
}

/// The disk side: the segment in use and those prepared.
pub(crate) struct Disk {
    id: LogId,
    data_dir: DataDir,
    dir: PathBuf,
    /// The directory, held open to sync its names: that must not fail for want of open files.
    names: Arc<File>,
    durability: Durability,
    /// Segments, spare ones included, that the budget allows.
    segments_max: usize,
    current: RefCell<Option<(u64, Rc<DmaFile>)>>,
    /// Segments with records, and the position of the first of each.
    used: RefCell<VecDeque<(u64, Position)>>,
    /// Files of segments that were cut.
    spares: RefCell<Vec<PathBuf>>,
    /// Records before it are no longer needed.
    cut: Cell<Position>,
    /// What the next segment is lacking, if anything, and when that is told next.
    lack: Cell<Option<Lack>>,
    lack_told: RefCell<Option<Reminder>>,
    /// Numbers of the segments that are filled and wait for their use, consecutive.
    prepared: RefCell<VecDeque<u64>>,
    /// The first number without a file.
    next_segment: Cell<u64>,
    is_prepared: Signal,
    is_wanted: Signal,
    /// The last record that is durable.
    reached: Cell<Position>,
    /// Whether the data directory knows that the log has begun.
    is_noted: Cell<bool>,
    /// Since when a write has been under way, the wait for its segment included, and from when on it hangs.
    writing: Cell<Option<(Instant, Duration)>>,
    told: Rc<Told>,
}

impl Disk {
    /// The disk side of a log that was read back. Opens the segment in use.
    pub(crate) async fn open(
        id: LogId,
        data_dir: DataDir,
        config: &Config,
        recovered: &Recovered,
        told: Rc<Told>,
    ) -> Disk {
        let is_noted = data_dir.known(id.shard, 0).reached > Position(0);
        let dir = data_dir.shard_dir(id.shard);
        let names = File::open(&dir).unwrap_or_else(|error| {
            stop(Reason::Disk, &format!("{}: it cannot be opened: {error}", dir.display()))
        });
        let disk = Disk {
            id,
            dir,
            data_dir,
            names: Arc::new(names),
            durability: config.durability,
            segments_max: (config.log_budget / SEGMENT_BYTES as u64) as usize,
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
            told,
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
        let patience = if self.current.borrow().is_some() { HUNG_AFTER } else { FIRST_HUNG_AFTER };
        self.writing.set(Some((Instant::now(), patience)));
        let (file, begins) = self.file(write.segment, write.first).await;
        let (began, expected) = (Instant::now(), write.buffer.len());
        let written = file.write_at(write.buffer, write.offset as u64).await;
        self.writing.set(None);
        if began.elapsed() >= SLOW_WRITE {
            self.tell_slow(began.elapsed(), expected);
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
            // The segment that is prepared now tells that this one has records.
            self.is_wanted.notify();
        }
        write.last
    }

    /// D6: the data directory notes that the log has begun, before anything rests on it. From then on
    /// a log without records is not taken for a new one.
    async fn note(&self, segment: u64, reached: Position) {
        loop {
            let (data_dir, shard) = (self.data_dir.clone(), self.id.shard);
            let noted =
                glommio::executor().spawn_blocking(move || data_dir.note_reached(shard, reached)).await;
            let Err(error) = noted else { break };
            let Some(lack) = Lack::of(&error) else {
                self.fail(segment, &format!("identity.json was not written ({error})"))
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
                "shard {}: the disk took {took:.0?} to write {bytes} bytes of the log; decisions waited for it. See \
                 docs/OPERATIONS.md, \"Slow disks\"",
                self.id.shard.0,
            );
        }
    }

    /// D9: for how long a write has been under way that hangs, if one does.
    pub(crate) fn hung_for(&self) -> Option<Duration> {
        let (since, patience) = self.writing.get()?;
        Some(since.elapsed()).filter(|elapsed| *elapsed >= patience)
    }

    /// The file of a segment: the one in use, or the next, which is begun; whether it is.
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
        if self.durability == Durability::Fsync {
            // One write is write and flush.
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
        locked.unwrap_or_else(|error| self.fail(segment, &format!("it cannot be locked ({error})")));
        file
    }

    /// Records before this position are no longer needed: the segments that hold nothing else go.
    pub(crate) fn cut(&self, position: Position) {
        self.cut.set(position);
        self.is_wanted.notify();
    }

    /// What the log takes on the disk, in bytes.
    pub(crate) fn held_bytes(&self) -> u64 {
        (self.used.borrow().len() * SEGMENT_BYTES) as u64
    }

    /// Whether the disk has no room for the next segment.
    pub(crate) fn is_full(&self) -> bool {
        self.lack.get() == Some(Lack::Room)
    }

    /// Keeps segments prepared, and takes away what was cut, for ever.
    pub(crate) async fn prepare(&self) {
        let begins = self.current.borrow().is_none() && self.prepared.borrow().is_empty();
        let mut wanted = if begins { SEGMENTS_AT_FIRST } else { SEGMENTS_AHEAD };
        loop {
            self.take_away().await;
            while self.prepared.borrow().len() < wanted {
                let next = self.next_segment.get();
                if !self.fill(next).await {
                    glommio::timer::sleep(LACK_PAUSE).await;
                    self.take_away().await;
                    continue;
                }
                self.next_segment.set(next + 1);
                self.prepared.borrow_mut().push_back(next);
                // A log that begins waits for all of them, so that its first users are not disturbed.
                if wanted == SEGMENTS_AHEAD {
                    self.is_prepared.notify();
                }
            }
            self.is_prepared.notify();
            wanted = SEGMENTS_AHEAD;
            // The log may have been cut while a segment was filled.
            if !self.is_cut() {
                self.is_wanted.wait().await;
            }
        }
    }

    /// Whether the oldest segment holds nothing that is needed.
    fn is_cut(&self) -> bool {
        self.used.borrow().get(1).is_some_and(|(_, first)| *first <= self.cut.get())
    }

    /// Segments that were cut lose their names in order, so that no crash leaves a gap.
    async fn take_away(&self) {
        let mut gone = Vec::new();
        while self.is_cut() {
            gone.extend(self.used.borrow_mut().pop_front());
        }
        let Some((last, _)) = gone.last().copied() else { return };
        let held = self.used.borrow().len() + self.prepared.borrow().len() + self.spares.borrow().len();
        let (dir, names) = (self.dir.clone(), self.names.clone());
        let kept = self.segments_max.saturating_sub(held);
        let retire = move || {
            let mut spares = Vec::new();
            for (segment, _) in gone {
                let (path, spare) = (segment_path(&dir, segment), spare_path(&dir, segment));
                std::fs::rename(path, &spare)?;
                if spares.len() < kept { spares.push(spare) } else { std::fs::remove_file(spare)? }
            }
            names.sync_all().map(|()| spares)
        };
        let retired = glommio::executor().spawn_blocking(retire).await;
        let spares = retired.unwrap_or_else(|error| self.fail(last, &format!("it cannot be cut ({error})")));
        self.spares.borrow_mut().extend(spares);
    }

    /// Makes a segment that is empty. False: something is lacking.
    async fn fill(&self, segment: u64) -> bool {
        let mut made = self.make(segment).await;
        let dir = self.dir.clone();
        // A snapshot can be written without its spare file, and the log needs the room more.
        if made.as_ref().is_err_and(|error| Lack::of(error) == Some(Lack::Room))
            && glommio::executor().spawn_blocking(move || give_up_spare(&dir)).await
        {
            made = self.make(segment).await;
        }
        let lack = match &made {
            Ok(()) => None,
            Err(error) => Some(Lack::of(error).unwrap_or_else(|| self.fail_by(segment, error))),
        };
        match (lack, made) {
            (Some(lack), Err(error)) => self.tell_lack(lack, segment, error),
            _ => self.lacks_nothing(),
        }
        lack.is_none()
    }

    fn lacks_nothing(&self) {
        self.lack.set(None);
        self.lack_told.replace(None);
    }

    /// Says what is lacking, again and again until it is there.
    fn tell_lack(&self, lack: Lack, segment: u64, error: Error) {
        self.lack.set(Some(lack));
        let is_due =
            self.lack_told.borrow_mut().get_or_insert_with(|| Reminder::new(Duration::ZERO)).is_due();
        if !is_due || !self.told.may(Kind::FullDisk) {
            return;
        }
        let shard = self.id.shard.0;
        match (lack, Trouble::of_file(&segment_path(&self.dir, segment), error)) {
            (Lack::Room, Ok(trouble)) => log::warn!(
                "shard {shard}: the disk is full, a segment of {SEGMENT_BYTES} bytes is needed and clients are refused \
                 until it has room: {trouble}"
            ),
            (_, Err(error)) => log::warn!(
                "shard {shard}: the log's next segment cannot be opened ({error}), and decisions wait for that; {}",
                files::REMEDY
            ),
            (Lack::Files, Ok(_)) => unreachable!("a lack of files is not one of room"),
        }
    }

    /// Takes a spare segment, or fills one with zeros. It has its name only when it is whole.
    async fn make(&self, segment: u64) -> std::io::Result<()> {
        let spare = self.spares.borrow_mut().pop();
        let Some(spare) = spare else { return self.fill_with_zeros(segment).await };
        let renewed = self.renew(segment, spare.clone()).await;
        // For want of open files nothing was done to it.
        if renewed.as_ref().is_err_and(files::are_lacking) {
            self.spares.borrow_mut().push(spare);
        }
        renewed
    }

    /// What it held before does not pass for records of another segment; only its head must not be
    /// there.
    async fn renew(&self, segment: u64, spare: PathBuf) -> std::io::Result<()> {
        let (names, path) = (self.names.clone(), segment_path(&self.dir, segment));
        let prepared = self.id.encode_prepared(segment, self.reached.get());
        let renew = move || {
            let file = File::options().write(true).open(&spare)?;
            file.write_all_at(&prepared, 0)?;
            file.sync_data()?;
            std::fs::rename(spare, path)?;
            names.sync_all()
        };
        glommio::executor().spawn_blocking(renew).await
    }

    async fn fill_with_zeros(&self, segment: u64) -> std::io::Result<()> {
        file_size::check_fits(SEGMENT_BYTES as u64)?;
        let temporary = unfinished_path(&self.dir);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.dma_open(&temporary).await.map_err(error_of)?;
        let mut zeros = file.alloc_dma_buffer(FILL_BYTES);
        zeros.as_bytes_mut().fill(0);
        let zeros = Rc::new(zeros);
        // What it begins with is written last: it says how far the log has come.
        for offset in (0..SEGMENT_BYTES).step_by(FILL_BYTES) {
            if let Err(error) = whole(file.write_rc_at(zeros.clone(), offset as u64).await, FILL_BYTES) {
                // What could not be filled gives its room back.
                file.truncate(0).await?;
                file.close().await?;
                return Err(error);
            }
        }
        let prepared = self.id.encode_prepared(segment, self.reached.get());
        let mut first = file.alloc_dma_buffer(prepared.len());
        first.as_bytes_mut().copy_from_slice(&prepared);
        file.write_at(first, 0).await?;
        file.fdatasync().await?;
        file.rename(segment_path(&self.dir, segment)).await?;
        file.close().await?;
        let names = self.names.clone();
        glommio::executor().spawn_blocking(move || names.sync_all()).await
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

/// What can be waited for: nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lack {
    Room,
    Files,
}

impl Lack {
    fn of(error: &Error) -> Option<Lack> {
        if is_lack_of_room(error.kind()) {
            return Some(Lack::Room);
        }
        files::are_lacking(error).then_some(Lack::Files)
    }
}

#[allow(unsafe_code)]
fn descriptor_of(file: &DmaFile) -> BorrowedFd<'_> {
    // SAFETY: the file is open for as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) }
}
