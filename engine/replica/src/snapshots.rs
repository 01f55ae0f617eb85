//! Snapshots as files: one per fence in the directory of a shard, whole or not there.

use isonomy_protocol::snapshot::{Broken, Reader, Snapshot, SnapshotHead, SnapshotId};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// How much is read at a time.
const READ_BYTES: usize = 1 << 20;

/// Why a snapshot could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Io(PathBuf, std::io::Error),
    #[error("{path}: it is damaged: {error}", path = .0.display(), error = .1)]
    Broken(PathBuf, Broken),
}

/// The file of the snapshot at a fence.
pub(crate) fn snapshot_path(dir: &Path, fence: u64) -> PathBuf {
    dir.join(format!("{fence:012}.snapshot"))
}

/// The file of a snapshot that is not whole yet.
pub(crate) fn unfinished_path(dir: &Path) -> PathBuf {
    dir.join("snapshot.tmp")
}

/// The fences whose snapshots lie in `dir`, in order.
pub(crate) fn list(dir: &Path) -> std::io::Result<Vec<u64>> {
    let mut fences = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".snapshot"));
        fences.extend(stem.and_then(|stem| stem.parse::<u64>().ok()));
    }
    fences.sort_unstable();
    Ok(fences)
}

/// Reads and verifies a whole snapshot.
pub(crate) fn read(path: &Path, id: SnapshotId) -> Result<Snapshot, SnapshotError> {
    let mut reader = Reader::new(id);
    each_piece(path, |bytes| reader.push(bytes).map(|()| true))?;
    reader.finish().map_err(|broken| SnapshotError::Broken(path.into(), broken))
}

/// Reads what a snapshot says of itself, and verifies no more than that.
pub(crate) fn read_head(path: &Path, id: SnapshotId) -> Result<SnapshotHead, SnapshotError> {
    let mut reader = Reader::new(id);
    each_piece(path, |bytes| reader.push(&bytes[..bytes.len().min(4096)]).map(|()| false))?;
    reader.head().copied().ok_or(SnapshotError::Broken(path.into(), Broken::CutOff))
}

fn each_piece(path: &Path, mut take: impl FnMut(&[u8]) -> Result<bool, Broken>) -> Result<(), SnapshotError> {
    let io = |error| SnapshotError::Io(path.into(), error);
    let mut file = File::open(path).map_err(io)?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => match take(&buffer[..count]) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(broken) => return Err(SnapshotError::Broken(path.into(), broken)),
            },
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(io(error)),
        }
    }
}

/// Gives a whole and synced file the name that makes it count.
pub(crate) fn publish(dir: &Path, fence: u64) -> std::io::Result<()> {
    fs::rename(unfinished_path(dir), snapshot_path(dir, fence))?;
    sync_dir(dir)
}

/// Removes all snapshots before the one of this fence.
pub(crate) fn prune(dir: &Path, newest: u64) -> std::io::Result<()> {
    for fence in list(dir)?.into_iter().filter(|fence| *fence < newest) {
        fs::remove_file(snapshot_path(dir, fence))?;
    }
    Ok(())
}

/// Makes names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}
