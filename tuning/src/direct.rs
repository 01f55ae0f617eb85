//! Files without a name that are written past the page cache. Nothing of them stays behind,
//! however the process ends.

use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{Error, Result};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Direct writes begin and end at multiples of this, in memory and on the disk.
pub const BLOCK_BYTES: usize = 4096;
/// The size of one write while a file is filled.
pub const FILL_BYTES: usize = 1 << 20;

/// Memory that can be written directly.
pub struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    size: usize,
}

impl Aligned {
    /// Makes memory of so many bytes.
    pub fn new(size: usize) -> Aligned {
        let bytes = vec![0x5a; size + BLOCK_BYTES];
        let start = bytes.as_ptr().align_offset(BLOCK_BYTES);
        Aligned { bytes, start, size }
    }

    /// The bytes, which begin at a multiple of a block.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.size]
    }
}

/// Why a file does not take direct writes.
#[derive(Debug, thiserror::Error)]
pub enum DirectError {
    /// The directory takes no file.
    #[error("no file can be made in {}; make this directory, or choose another directory", .dir.display())]
    NotMade {
        /// The directory.
        dir: PathBuf,
        /// The system's error.
        source: Error,
    },
    /// The file system does not know direct writes.
    #[error("{} takes no direct writes; choose a directory on a local file system such as ext4 or XFS", .dir.display())]
    NotDirect {
        /// The directory.
        dir: PathBuf,
        /// The system's error.
        source: Error,
    },
    /// The file did not get its size.
    #[error("{mib} MiB cannot be written in {}; make room there, or choose another directory", .dir.display())]
    NotFilled {
        /// The directory.
        dir: PathBuf,
        /// The size that was wanted, in MiB.
        mib: u64,
        /// The system's error.
        source: Error,
    },
    /// A file that was filled does not take a write.
    #[error("writing in {} failed; check the disk and the kernel log", .dir.display())]
    NotOverwritten {
        /// The directory.
        dir: PathBuf,
        /// The system's error.
        source: Error,
    },
}

/// A file of `bytes` bytes that were all written, since only overwriting is cheap to sync.
///
/// # Errors
/// The directory takes no file, no direct writes, or not so many bytes.
pub fn filled(dir: &Path, bytes: u64) -> std::result::Result<File, DirectError> {
    let place = || dir.to_owned();
    let file = tempfile::tempfile_in(dir).map_err(|source| DirectError::NotMade { dir: place(), source })?;
    let direct = reopened(&file, OFlags::DIRECT);
    let direct = direct.map_err(|source| DirectError::NotDirect { dir: place(), source })?;
    let failed = |source| DirectError::NotFilled { dir: place(), mib: bytes >> 20, source };
    fill(&direct, bytes).map_err(failed)?;
    Ok(file)
}

fn fill(direct: &File, bytes: u64) -> Result<()> {
    let zeros = Aligned::new(FILL_BYTES);
    for at in (0..bytes).step_by(FILL_BYTES) {
        direct.write_all_at(zeros.as_slice(), at)?;
    }
    direct.sync_all()
}

/// Opens the file once more, with these flags.
///
/// # Errors
/// The file system refuses the flags.
pub fn reopened(file: &File, flags: OFlags) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(flags.bits() as i32).open(path_of(file))
}

/// The path at which this process can open the file, which has no name.
pub fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}
