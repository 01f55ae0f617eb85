//! Why an outbox could not be read.

use isonomy_wire::published::BadBatch;
use std::io;
use std::path::{Path, PathBuf};

/// Why an outbox could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The system refuses to read or write a file.
    #[error("{path}: {error}; check the disk and its free space", path = .0.display(), error = .1)]
    Io(PathBuf, io::Error),
    /// A file does not begin as a segment does.
    #[error(
        "{path} is not a segment of an outbox, or is damaged; what it held is at the other replicas, and a restart writes \
         again what came after the last snapshot",
        path = .0.display()
    )]
    Head(PathBuf),
    /// A batch is damaged.
    #[error("{path}, byte {at}: {bad}", path = .0.display(), at = .1, bad = .2)]
    Batch(PathBuf, u64, BadBatch),
}

impl OutboxError {
    /// An error of the system at a path.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> OutboxError + '_ {
        |error| OutboxError::Io(path.into(), error)
    }
}
