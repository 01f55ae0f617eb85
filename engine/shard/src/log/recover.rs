//! Reads the log of a shard back when the process starts.

use isonomy_mesh::fatal::{Fatal, Reason};
use isonomy_protocol::contract::Position;
use isonomy_protocol::log::chain::{Chain, Hole, Known, SegmentUse, Start};
use isonomy_protocol::log::scan::{LogEntry, ScanError, Scanner, SegmentSource};
use isonomy_protocol::log::{BLOCK_BYTES, LogId};
use isonomy_protocol::snapshot::{Snapshot, SnapshotId};
use isonomy_wire::frame::FrameError;
use std::collections::VecDeque;
use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use crate::log::groups::Tail;
use crate::log::segment::SegmentFile;
use crate::snapshot::store::{self as snapshots, SnapshotError};

/// The size of a segment file.
pub const SEGMENT_BYTES: usize = 16 << 20;
/// How often to read a log that its replica changes meanwhile before its damage is believed.
const VERIFY_TRIES: u32 = 20;

/// The state of a log that was read back.
#[derive(Debug)]
pub struct Recovered {
    /// The place at which the log goes on.
    pub(crate) tail: Tail,
    /// Whether the tail's segment has begun.
    pub(crate) in_use: bool,
    /// The empty segments behind the tail's.
    pub(crate) prepared: Vec<u64>,
    /// The segments with records, and the position of the first record of each.
    pub(crate) used: VecDeque<(u64, Position)>,
    /// The files of segments that were cut.
    pub(crate) spares: Vec<PathBuf>,
}

impl Recovered {
    /// The bytes that the log holds; a finished segment counts as a whole.
    pub(crate) fn bytes(&self) -> u64 {
        let done = self.used.len().saturating_sub(1) * SEGMENT_BYTES;
        (done + self.tail.offset) as u64
    }

    /// How many records the log holds, without those that were cut.
    pub fn records(&self) -> u64 {
        self.used.front().map_or(0, |(_, first)| self.tail.next.0 - first.0)
    }

    /// How many segments hold records, and how many empty ones are prepared behind these.
    pub fn segments(&self) -> (usize, usize) {
        (self.used.len(), self.prepared.len())
    }

    /// The first number without a file.
    pub(crate) fn next_segment(&self) -> u64 {
        self.tail.segment + u64::from(self.in_use) + self.prepared.len() as u64
    }
}

/// The file of a segment.
pub(crate) fn segment_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:012}.log"))
}

/// The file of a segment that is being filled.
pub(crate) fn unfinished_path(dir: &Path) -> PathBuf {
    dir.join("next.tmp")
}

/// The file of a segment that was cut.
pub(crate) fn spare_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:012}.spare"))
}

/// Why a log could not be read back.
#[derive(Debug, thiserror::Error)]
enum LogError {
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Io(PathBuf, Error),
    #[error("{path}: {what}", path = .0.display(), what = .1)]
    Damaged(PathBuf, String),
    #[error(
        "{path}: a release with wire version {version} wrote the file; run that release",
        path = .0.display(), version = .1
    )]
    Release(PathBuf, u8),
}

impl LogError {
    fn hole(path: &Path, hole: Hole) -> LogError {
        LogError::Damaged(path.into(), hole.to_string())
    }
}

impl From<LogError> for Fatal {
    fn from(error: LogError) -> Fatal {
        match error {
            LogError::Io(..) => Fatal::new(Reason::Disk, error.to_string()),
            LogError::Damaged(path, what) => Fatal::damaged(&path, &what),
            LogError::Release(path, version) => Fatal::of_another_release(&path, version),
        }
    }
}

/// The newest snapshot, if there is one. A snapshot that cannot be read is damage, because the log before it may have
/// been cut.
pub(crate) fn newest_snapshot(id: LogId, dir: &Path) -> Result<Option<Snapshot>, Fatal> {
    let failed = |error: Error| Fatal::new(Reason::Disk, format!("{}: {error}", dir.display()));
    let _ = fs::remove_file(snapshots::unfinished_path(dir));
    let Some(barrier) = snapshots::list(dir).map_err(failed)?.pop() else { return Ok(None) };
    let path = snapshots::snapshot_path(dir, barrier);
    let id = SnapshotId { cluster: id.cluster, shard: id.shard, barrier };
    match snapshots::read(&path, id) {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(SnapshotError::Io(_, error)) => Err(failed(error)),
        Err(SnapshotError::Broken(path, broken)) => Err(Fatal::damaged(&path, &broken.to_string())),
        Err(SnapshotError::Release(path, version)) => Err(Fatal::of_another_release(&path, version)),
    }
}

/// The files in `dir` whose names `name` makes of numbers, in the order of the numbers.
fn numbered(dir: &Path, name: impl Fn(&Path, u64) -> PathBuf) -> Result<Vec<(u64, PathBuf)>, LogError> {
    let failed = |error: Error| LogError::Io(dir.into(), error);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        found.extend(number.filter(|number| name(dir, *number) == path).map(|number| (number, path)));
    }
    found.sort_unstable();
    Ok(found)
}

/// Reads all segments in `dir` in order and hands over every record with content. A torn tail is cut, since nothing
/// rests on it. Any other part that cannot be read or is missing is damage, and the replica must not vote (D6).
pub(crate) fn recover(
    id: LogId,
    dir: &Path,
    known: Known,
    take: impl FnMut(LogEntry),
) -> Result<Recovered, Fatal> {
    // Writes to this file that are still under way have no effect.
    let _ = fs::remove_file(unfinished_path(dir));
    let recovered = read_back(id, dir, numbered(dir, segment_path)?, known, SegmentFile::open, take)?;
    let spares = numbered(dir, spare_path)?.into_iter().map(|(_, path)| path).collect();
    Ok(Recovered { spares, ..recovered })
}

/// Verifies the log in `dir` and changes nothing, since a replica may run on the log, and write to it and cut it
/// meanwhile. `known` returns what the directory knows of the log by now, without snapshots.
///
/// In a file that is being written, a part may be older than a part that was read before, and a segment that was cut
/// is filled anew. Such a finding does not come up a second time in one place; damage does.
///
/// # Errors
///
/// The log is damaged, does not read, or is written faster than it can be read.
pub fn verify(id: LogId, dir: &Path, known: impl Fn() -> Result<Known, Fatal>) -> Result<Recovered, Fatal> {
    let mut found = String::new();
    for _ in 0..VERIFY_TRIES {
        match verify_once(id, dir, &known) {
            Ok(Ok(recovered)) => return Ok(recovered),
            Ok(Err(LogError::Io(_, error))) if error.kind() == ErrorKind::NotFound => {}
            Ok(Err(LogError::Damaged(path, what))) => {
                let damage = LogError::Damaged(path, what);
                if damage.to_string() == found {
                    return Err(damage.into());
                }
                found = damage.to_string();
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(fatal) => return Err(fatal),
        }
    }
    let what = "the replica writes the log faster than this command can read it; run the command again when \
                the replica writes less";
    Err(Fatal::new(Reason::Failed, format!("{}: {what}", dir.display())))
}

/// Reads first the directory's knowledge of the log, then the list of segments, and last their bytes. Each is at
/// least as new as the one before, as in a log to which no process writes.
fn verify_once(
    id: LogId,
    dir: &Path,
    known: impl Fn() -> Result<Known, Fatal>,
) -> Result<Result<Recovered, LogError>, Fatal> {
    let before = known()?;
    let listed = numbered(dir, segment_path).and_then(|segments| {
        Ok((segments, snapshots::list(dir).map_err(|error| LogError::Io(dir.into(), error))?))
    });
    let (segments, barriers) = match listed {
        Ok(listed) => listed,
        Err(error) => return Ok(Err(error)),
    };
    let known = Known { snapshot: barriers.last().copied().unwrap_or(0), ..before };
    Ok(read_back(id, dir, segments, known, SegmentFile::open_shared, |_| ()))
}

fn read_back(
    id: LogId,
    dir: &Path,
    segments: Vec<(u64, PathBuf)>,
    known: Known,
    open: impl Fn(&Path) -> std::io::Result<SegmentFile>,
    mut take: impl FnMut(LogEntry),
) -> Result<Recovered, LogError> {
    let mut chain = Chain::new(known).map_err(|hole| LogError::hole(dir, hole))?;
    let first = segments.first().map_or(1, |(number, _)| *number);
    let mut recovered = Recovered {
        tail: Tail { segment: first, offset: BLOCK_BYTES, next: Position(1) },
        in_use: false,
        prepared: Vec::new(),
        used: VecDeque::new(),
        spares: Vec::new(),
    };
    for (segment, path) in segments {
        let failed = |error: Error| LogError::Io(path.clone(), error);
        let damaged = |what: String| LogError::Damaged(path.clone(), what);
        let mut file = open(&path).map_err(failed)?;
        if file.length() != SEGMENT_BYTES {
            return Err(damaged(format!("the segment has {} bytes, not {SEGMENT_BYTES}", file.length())));
        }
        let head = id.decode_head(segment, &file.read(0..BLOCK_BYTES).map_err(failed)?);
        let start = match head {
            Err(FrameError::Version(version)) => return Err(LogError::Release(path, version)),
            Err(error) => {
                return Err(damaged(format!(
                    "the first block of the segment is not that of this log: {error}"
                )));
            }
            Ok(Some(head)) => Start::Head(head),
            Ok(None) => {
                Start::Empty(Scanner::new(id, segment, &mut file, Position(1)).remains().map_err(failed)?)
            }
        };
        match chain.enter(segment, start).map_err(|hole| LogError::hole(&path, hole))? {
            SegmentUse::Prepared => recovered.prepared.push(segment),
            SegmentUse::Begun(first) => {
                recovered.in_use = true;
                recovered.used.push_back((segment, first));
                let taken = |entry: LogEntry| {
                    if chain.takes(&entry.0) {
                        take(entry);
                    }
                };
                recovered.tail = scan(id, segment, file, first, &path, taken)?;
                chain.leave(recovered.tail.next).map_err(|hole| LogError::hole(&path, hole))?;
            }
        }
    }
    chain.finish().map_err(|hole| LogError::hole(dir, hole))?;
    Ok(recovered)
}

fn scan(
    id: LogId,
    segment: u64,
    file: SegmentFile,
    first: Position,
    path: &Path,
    mut take: impl FnMut(LogEntry),
) -> Result<Tail, LogError> {
    let failed = |error: Error| LogError::Io(path.into(), error);
    let mut scanner = Scanner::new(id, segment, file, first);
    loop {
        let broken = match scanner.next_group(&mut take) {
            Ok(Some(_)) => continue,
            Ok(None) => break,
            Err(ScanError::Source(error)) => return Err(failed(error)),
            Err(ScanError::Broken(broken)) => broken,
        };
        let offset = scanner.offset();
        if !scanner.is_torn().map_err(failed)? {
            let what = format!("the group at byte {offset} is damaged: {broken}");
            return Err(LogError::Damaged(path.into(), what));
        }
        log::info!(
            "{}: the log ends at byte {offset}; no promise or answer rests on the bytes behind ({broken})",
            path.display()
        );
        break;
    }
    Ok(Tail { segment, offset: scanner.offset(), next: scanner.next_position() })
}

#[cfg(test)]
mod tests;
