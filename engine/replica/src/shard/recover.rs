//! Reading the log of a shard back when the process starts.

use crate::fatal::{Fatal, Reason};
use bytes::Bytes;
use isonomy_protocol::contract::Position;
use isonomy_protocol::log::scan::{Entry, Scanner};
use isonomy_protocol::log::{BLOCK_BYTES, LogId};
use isonomy_protocol::snapshot::{Snapshot, SnapshotId};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::disk::Tail;
use crate::snapshots::{self, SnapshotError};

/// The size of a segment file.
pub(crate) const SEGMENT_BYTES: usize = 16 << 20;
/// How long the last writes of a killed process may take, and how often it is looked.
const IN_FLIGHT_PATIENCE: Duration = Duration::from_secs(30);
const IN_FLIGHT_RETRY: Duration = Duration::from_millis(10);

/// What the log said about itself.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// Where it goes on.
    pub(crate) tail: Tail,
    /// Whether the tail's segment has begun.
    pub(crate) in_use: bool,
    /// Segments behind it that are empty.
    pub(crate) prepared: Vec<u64>,
    /// Segments with records, and the position of the first of each.
    pub(crate) used: VecDeque<(u64, Position)>,
    /// Files of segments that were cut.
    pub(crate) spares: Vec<PathBuf>,
}

impl Recovered {
    /// What it holds, in bytes, segments that are done as wholes.
    pub(crate) fn bytes(&self) -> u64 {
        let done = self.used.len().saturating_sub(1) * SEGMENT_BYTES;
        (done + self.tail.offset) as u64
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

/// The newest snapshot, if there is one. One that does not read is damage: the log before it may
/// have been cut.
pub(crate) fn newest_snapshot(id: LogId, dir: &Path) -> Result<Option<Snapshot>, Fatal> {
    let failed = |error: std::io::Error| Fatal::new(Reason::Disk, format!("{}: {error}", dir.display()));
    let _ = fs::remove_file(snapshots::unfinished_path(dir));
    let Some(fence) = snapshots::list(dir).map_err(failed)?.pop() else { return Ok(None) };
    let path = snapshots::snapshot_path(dir, fence);
    let id = SnapshotId { cluster: id.cluster, shard: id.shard, fence };
    match snapshots::read(&path, id) {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(SnapshotError::Io(_, error)) => Err(failed(error)),
        Err(SnapshotError::Broken(path, broken)) => Err(damaged(&path, &broken.to_string())),
    }
}

/// The files in `dir` with this extension and their segments' numbers, in order.
fn numbered(dir: &Path, extension: &str) -> Result<Vec<(u64, PathBuf)>, Fatal> {
    let failed = |error: std::io::Error| Fatal::new(Reason::Disk, format!("{}: {error}", dir.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(number) = stem.filter(|_| path.extension().is_some_and(|it| it == extension)) {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Reads all segments in `dir` in order and hands over every record. A torn tail is cut: nothing
/// rests on it. Anything else that does not read is damage, and the replica must not vote (D6).
pub(crate) fn recover(
    id: LogId,
    dir: &Path,
    restored: bool,
    mut take: impl FnMut(Entry),
) -> Result<Recovered, Fatal> {
    // Whatever may still be written to it goes nowhere.
    let _ = fs::remove_file(unfinished_path(dir));
    let segments = numbered(dir, "log")?;
    let segment = segments.first().map_or(1, |(number, _)| *number);
    if segment > 1 && !restored {
        return Err(damaged(
            dir,
            &format!("the log begins with segment {segment}, and its snapshot is missing"),
        ));
    }
    let mut recovered = Recovered {
        tail: Tail { segment, offset: BLOCK_BYTES, next: Position(1) },
        in_use: false,
        prepared: Vec::new(),
        used: VecDeque::new(),
        spares: numbered(dir, "spare")?.into_iter().map(|(_, path)| path).collect(),
    };
    for (expected, (segment, path)) in (segment..).zip(segments) {
        let bytes = read_idle(&path).map(|bytes| isonomy_wire::frame::aligned(Bytes::from(bytes)));
        let bytes =
            bytes.map_err(|error| Fatal::new(Reason::Disk, format!("{}: {error}", path.display())))?;
        if segment != expected {
            return Err(damaged(&path, &format!("segment {expected} is missing before it")));
        }
        let damaged = |what: String| damaged(&path, &what);
        if bytes.len() != SEGMENT_BYTES {
            return Err(damaged(format!("it has {} bytes, not {SEGMENT_BYTES}", bytes.len())));
        }
        let head = id.decode_head(segment, &bytes.slice(..BLOCK_BYTES));
        // Where a log begins that was cut, its first segment says.
        let is_first = recovered.used.is_empty() && segment > 1;
        let expected = recovered.tail.next;
        match head.map_err(|error| damaged(format!("its first block is not that of this log: {error}")))? {
            None => recovered.prepared.push(segment),
            Some(head) if (head.first != expected.0 && !is_first) || !recovered.prepared.is_empty() => {
                let what = format!("it begins with record {}, but {expected:?} comes next", head.first);
                return Err(damaged(what));
            }
            Some(head) => {
                recovered.in_use = true;
                recovered.used.push_back((segment, Position(head.first)));
                recovered.tail = scan(id, segment, bytes, Position(head.first), &path, &mut take)?;
            }
        }
    }
    Ok(recovered)
}

/// Reads a file that nobody writes. A write that was under way when the last process was killed
/// can still end after it: until then the lock on the file that it opened stays.
fn read_idle(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let began = Instant::now();
    while let Err(error) = file.try_lock() {
        if began.elapsed() > IN_FLIGHT_PATIENCE {
            let what =
                format!("a killed replica's last write is still under way ({error}); start again later");
            return Err(std::io::Error::other(what));
        }
        std::thread::sleep(IN_FLIGHT_RETRY);
    }
    let mut bytes = Vec::with_capacity(SEGMENT_BYTES);
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn scan(
    id: LogId,
    segment: u64,
    bytes: Bytes,
    first: Position,
    path: &Path,
    take: &mut impl FnMut(Entry),
) -> Result<Tail, Fatal> {
    let mut scanner = Scanner::new(id, segment, bytes, first);
    loop {
        match scanner.next_group(&mut *take) {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(broken) if scanner.is_torn() => {
                log::info!(
                    "{}: the log ends at byte {}; nothing rests on what lies behind ({broken})",
                    path.display(),
                    scanner.offset()
                );
                break;
            }
            Err(broken) => {
                return Err(damaged(
                    path,
                    &format!("the group at byte {} is damaged: {broken}", scanner.offset()),
                ));
            }
        }
    }
    Ok(Tail { segment, offset: scanner.offset(), next: scanner.next_position() })
}

fn damaged(path: &Path, what: &str) -> Fatal {
    let remedy = "This replica may have forgotten what it promised, so it must not vote: keep the \
                  directory for examination and this replica stopped; docs/OPERATIONS.md says under \
                  \"Lost and damaged replicas\" how to go on";
    Fatal::new(Reason::Damaged, format!("{}: {what}. {remedy}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_protocol::log::SegmentHead;
    use isonomy_wire::id::{ClusterId, ReplicaId, ShardId};

    fn log_id() -> LogId {
        let cluster = ClusterId::of_name("test");
        LogId { cluster, incarnation: 1, replica: ReplicaId(0), shard: ShardId(0) }
    }

    fn write(dir: &Path, segment: u64, head: Option<u64>) {
        let mut bytes = match head {
            Some(first) => log_id().encode_head(SegmentHead { segment, first }),
            None => Vec::new(),
        };
        bytes.resize(SEGMENT_BYTES, 0);
        fs::write(segment_path(dir, segment), bytes).unwrap();
    }

    #[test]
    fn an_empty_directory_is_an_empty_log() {
        let dir = tempfile::tempdir().unwrap();
        let recovered = recover(log_id(), dir.path(), false, |_| ()).unwrap();
        assert!(!recovered.in_use && recovered.prepared.is_empty());
        assert_eq!((recovered.tail.segment, recovered.next_segment()), (1, 1));
    }

    #[test]
    fn prepared_segments_are_used_again() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 1, Some(1));
        write(dir.path(), 2, None);
        let recovered = recover(log_id(), dir.path(), false, |_| ()).unwrap();
        assert!(recovered.in_use);
        assert_eq!((recovered.prepared.as_slice(), recovered.next_segment()), (&[2][..], 3));
    }

    #[test]
    fn the_last_writes_of_a_killed_process_are_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 1, Some(1));
        let writer = File::options().write(true).open(segment_path(dir.path(), 1)).unwrap();
        writer.lock().unwrap();
        let began = Instant::now();
        let ends = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(writer);
        });
        assert!(recover(log_id(), dir.path(), false, |_| ()).unwrap().in_use);
        assert!(began.elapsed() >= Duration::from_millis(200));
        ends.join().unwrap();
    }

    #[test]
    fn a_hole_is_damage_and_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 1, Some(1));
        write(dir.path(), 2, Some(5));
        let fatal = recover(log_id(), dir.path(), false, |_| ()).unwrap_err();
        assert_eq!(fatal.reason, Reason::Damaged);
        assert!(fatal.to_string().contains("000000000002.log"), "{fatal}");
        fs::write(segment_path(dir.path(), 2), b"short").unwrap();
        assert_eq!(recover(log_id(), dir.path(), false, |_| ()).unwrap_err().reason, Reason::Damaged);
    }
}
