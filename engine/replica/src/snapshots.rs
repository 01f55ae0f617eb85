//! Snapshots as files: one per fence in the directory of a shard, whole or not there.

use isonomy_protocol::snapshot::{Broken, Reader, Snapshot, SnapshotHead, SnapshotId};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// How much is read at a time.
const READ_BYTES: usize = 1 << 20;
/// The same where only the first frame matters.
const HEAD_READ_BYTES: usize = 4 << 10;

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
    read_with(path, id, |_| Ok(()))
}

/// The same, and hands on the bytes that were read.
pub(crate) fn read_with(
    path: &Path,
    id: SnapshotId,
    mut hand_on: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<Snapshot, SnapshotError> {
    let broken = |broken| SnapshotError::Broken(path.into(), broken);
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

/// Reads what a snapshot says of itself, and verifies no more than that.
pub(crate) fn read_head(path: &Path, id: SnapshotId) -> Result<SnapshotHead, SnapshotError> {
    let broken = |broken| SnapshotError::Broken(path.into(), broken);
    let mut file = open(path)?;
    let (mut reader, mut buffer) = (Reader::new(id), [0; HEAD_READ_BYTES]);
    while reader.head().is_none() {
        let piece = read_some(&mut file, &mut buffer, path)?;
        if piece.is_empty() {
            return Err(broken(Broken::CutOff));
        }
        reader.push(piece).map_err(broken)?;
    }
    Ok(*reader.head().expect("it was just seen"))
}

fn open(path: &Path) -> Result<File, SnapshotError> {
    File::open(path).map_err(|error| SnapshotError::Io(path.into(), error))
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
