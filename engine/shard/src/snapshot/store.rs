//! Snapshots as files: one per barrier in the directory of a shard, whole or not there.
//!
//! A snapshot is written over the one before the last: to give so many blocks back and take others
//! costs every write of the log 15 to 40 ms where the file system discards what is given back.

use isonomy_protocol::snapshot::{BadSnapshot, Reader, Snapshot, SnapshotHead, SnapshotId};
use isonomy_wire::frame::FrameError;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The number of bytes that one read takes.
const READ_BYTES: usize = 1 << 20;
/// The number of bytes that a read takes where only the first frame matters.
const HEAD_READ_BYTES: usize = 4 << 10;

/// Why a snapshot could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    /// The file does not read.
    Io(PathBuf, std::io::Error),
    #[error("{path}: the snapshot is damaged: {error}", path = .0.display(), error = .1)]
    /// The file is damaged.
    Broken(PathBuf, BadSnapshot),
    #[error(
        "{path}: a release with wire version {version} wrote the snapshot; run that release",
        path = .0.display(), version = .1
    )]
    /// The file is that of another release.
    Release(PathBuf, u8),
}

impl SnapshotError {
    /// The error that was found in a file.
    pub fn broken(path: &Path, broken: BadSnapshot) -> SnapshotError {
        match broken {
            BadSnapshot::Frame(FrameError::Version(version)) => SnapshotError::Release(path.into(), version),
            broken => SnapshotError::Broken(path.into(), broken),
        }
    }
}

/// The file of the snapshot at a barrier.
pub fn snapshot_path(dir: &Path, barrier: u64) -> PathBuf {
    dir.join(format!("{barrier:012}.snapshot"))
}

/// The file of a snapshot that is not whole yet.
pub fn unfinished_path(dir: &Path) -> PathBuf {
    dir.join("snapshot.tmp")
}

/// The file of a snapshot that was replaced. The next snapshot is written over this file.
fn spare_path(dir: &Path) -> PathBuf {
    dir.join("snapshot.spare")
}

/// The barriers whose snapshots lie in `dir`, in order.
pub fn list(dir: &Path) -> std::io::Result<Vec<u64>> {
    let mut barriers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".snapshot"));
        barriers.extend(stem.and_then(|stem| stem.parse::<u64>().ok()));
    }
    barriers.sort_unstable();
    Ok(barriers)
}

/// Reads and verifies a whole snapshot.
pub fn read(path: &Path, id: SnapshotId) -> Result<Snapshot, SnapshotError> {
    read_with(path, id, |_| Ok(()))
}

/// Reads and verifies a whole snapshot, and hands on the bytes that were read.
pub fn read_with(
    path: &Path,
    id: SnapshotId,
    mut hand_on: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<Snapshot, SnapshotError> {
    let broken = |broken| SnapshotError::broken(path, broken);
    let mut file = open(path)?;
    let (mut reader, mut buffer) = (Reader::new(id), vec![0; READ_BYTES]);
    loop {
        let piece = read_some(&mut file, &mut buffer, path)?;
        if piece.is_empty() {
            return reader.finish().map_err(broken);
        }
        reader.push(piece).map_err(broken)?;
        hand_on(piece).map_err(|error| SnapshotError::Io(path.into(), error))?;
    }
}

/// Reads and verifies only the head of a snapshot.
pub fn read_head(path: &Path, id: SnapshotId) -> Result<SnapshotHead, SnapshotError> {
    let broken = |broken| SnapshotError::broken(path, broken);
    let mut file = open(path)?;
    let (mut reader, mut buffer) = (Reader::new(id), [0; HEAD_READ_BYTES]);
    while reader.head().is_none() {
        let piece = read_some(&mut file, &mut buffer, path)?;
        if piece.is_empty() {
            return Err(broken(BadSnapshot::CutOff));
        }
        reader.push(piece).map_err(broken)?;
    }
    Ok(*reader.head().expect("it was just seen"))
}

/// Opens a snapshot; it is not found if its replica has replaced it meanwhile. As long as it is read it is
/// locked, so that nothing is written over it.
pub fn open(path: &Path) -> Result<File, SnapshotError> {
    let open = || {
        let file = File::open(path)?;
        let is_taken = flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK);
        // The file may have lost its name before it was locked.
        let (opened, named) = (file.metadata()?, fs::metadata(path)?);
        let is_named = (opened.dev(), opened.ino()) == (named.dev(), named.ino());
        if is_taken || !is_named { Err(ErrorKind::NotFound.into()) } else { Ok(file) }
    };
    open().map_err(|error| SnapshotError::Io(path.into(), error))
}

/// The next bytes of a file; none at its end.
fn read_some<'a>(file: &mut File, buffer: &'a mut [u8], path: &Path) -> Result<&'a [u8], SnapshotError> {
    loop {
        match file.read(buffer) {
            Ok(count) => return Ok(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(SnapshotError::Io(path.into(), error)),
        }
    }
}

/// Gives a whole and synced file the name that makes it count.
pub fn publish(dir: &Path, barrier: u64) -> std::io::Result<()> {
    fs::rename(unfinished_path(dir), snapshot_path(dir, barrier))?;
    sync_dir(dir)
}

/// Prepares the file to which a new snapshot is written. The file may hold older bytes; its length counts when the
/// snapshot is whole.
pub fn begin(dir: &Path) -> std::io::Result<PathBuf> {
    let (spare, unfinished) = (spare_path(dir), unfinished_path(dir));
    match File::open(&spare) {
        Ok(file) if is_unused(&file)? => {
            fs::rename(&spare, &unfinished)?;
            // After a crash no snapshot's name may lead to what is written over it.
            sync_dir(dir)?;
        }
        Ok(_) => fs::remove_file(&spare)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(unfinished)
}

/// Whether the file has no reader and no further name.
fn is_unused(file: &File) -> std::io::Result<bool> {
    Ok(file.metadata()?.nlink() == 1 && flock(file, FlockOperation::NonBlockingLockExclusive).is_ok())
}

/// Takes the name from a snapshot that turned out not to be needed, and keeps its file for the next.
pub fn retire(dir: &Path, barrier: u64) -> std::io::Result<()> {
    fs::rename(snapshot_path(dir, barrier), spare_path(dir))?;
    sync_dir(dir)
}

/// Takes their names from all snapshots before the one of this barrier, and keeps the file of one.
pub fn prune(dir: &Path, newest: u64) -> std::io::Result<()> {
    for barrier in list(dir)?.into_iter().filter(|barrier| *barrier < newest) {
        fs::rename(snapshot_path(dir, barrier), spare_path(dir))?;
    }
    Ok(())
}

/// Gives back the room of the file that is kept for the next snapshot. Returns whether there was such a file.
pub fn give_up_spare(dir: &Path) -> bool {
    fs::remove_file(spare_path(dir)).is_ok()
}

/// Makes names in a directory durable.
pub fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: SnapshotId = SnapshotId {
        cluster: isonomy_wire::id::ClusterId(7),
        shard: isonomy_wire::id::ShardId(0),
        barrier: 1,
    };

    /// A directory in which barrier 1 has been replaced by barrier 2.
    fn replaced() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(snapshot_path(dir.path(), 1), b"one").unwrap();
        fs::write(snapshot_path(dir.path(), 2), b"two").unwrap();
        prune(dir.path(), 2).unwrap();
        assert_eq!(list(dir.path()).unwrap(), [2]);
        dir
    }

    #[test]
    fn the_next_is_written_over_one_that_was_replaced() {
        let dir = replaced();
        let unfinished = begin(dir.path()).unwrap();
        assert_eq!(fs::read(&unfinished).unwrap(), b"one");
        publish(dir.path(), 3).unwrap();
        assert_eq!(fs::read(snapshot_path(dir.path(), 3)).unwrap(), b"one");
        // Only one file is kept for the next snapshot.
        prune(dir.path(), 3).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn nothing_is_written_over_what_somebody_reads() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(snapshot_path(dir.path(), 1), b"one").unwrap();
        fs::write(snapshot_path(dir.path(), 2), b"two").unwrap();
        let mut reading = open(&snapshot_path(dir.path(), 1)).unwrap();
        prune(dir.path(), 2).unwrap();
        assert!(!begin(dir.path()).unwrap().exists());
        let mut read = String::new();
        reading.read_to_string(&mut read).unwrap();
        assert_eq!(read, "one");
    }

    #[test]
    fn nor_over_what_somebody_has_linked() {
        let dir = replaced();
        let kept = dir.path().join("kept");
        fs::hard_link(spare_path(dir.path()), &kept).unwrap();
        assert!(!begin(dir.path()).unwrap().exists());
        assert_eq!(fs::read(kept).unwrap(), b"one");
    }

    #[test]
    fn what_is_written_over_is_not_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = snapshot_path(dir.path(), 1);
        fs::write(&path, b"one").unwrap();
        let writing = File::open(&path).unwrap();
        assert!(is_unused(&writing).unwrap());
        let error = read(&path, ID).unwrap_err();
        assert!(matches!(error, SnapshotError::Io(_, error) if error.kind() == ErrorKind::NotFound));
    }
}
