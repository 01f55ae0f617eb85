//! Files without a name that are written past the page cache. Nothing of them stays behind,
//! however the process ends.

use anyhow::{Context, Result};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Direct writes begin and end at multiples of this, in memory and on the disk.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// One write while a file is filled.
pub(crate) const FILL_BYTES: usize = 1 << 20;

/// Memory that direct writes take.
pub(crate) struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    size: usize,
}

impl Aligned {
    pub(crate) fn new(size: usize) -> Aligned {
        let bytes = vec![0x5a; size + BLOCK_BYTES];
        let start = bytes.as_ptr().align_offset(BLOCK_BYTES);
        Aligned { bytes, start, size }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.size]
    }
}

/// A file of `bytes` bytes that were all written: only overwriting is cheap to sync.
pub(crate) fn filled(dir: &Path, bytes: u64) -> Result<File> {
    let shown = dir.display();
    let file = tempfile::tempfile_in(dir).with_context(|| {
        format!("no file can be made in {shown}; make that directory or choose another --dir")
    })?;
    let direct = reopened(&file, OFlags::DIRECT).with_context(|| {
        format!("{shown} takes no direct writes; choose a --dir on a local file system such as ext4 or XFS")
    })?;
    let zeros = Aligned::new(FILL_BYTES);
    let fill = || {
        for at in (0..bytes).step_by(FILL_BYTES) {
            direct.write_all_at(zeros.as_slice(), at)?;
        }
        direct.sync_all()
    };
    fill().with_context(|| {
        format!("{} MiB cannot be written in {shown}; make room there or choose another --dir", bytes >> 20)
    })?;
    Ok(file)
}

/// The same file, opened once more with these flags.
pub(crate) fn reopened(file: &File, flags: OFlags) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(flags.bits() as i32).open(path_of(file))
}

/// Where this process can open the file, which has no name.
pub(crate) fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}
