//! Reads a segment's file back, a few groups at a time, so that a restart needs little more memory than the state
//! that it builds.

use bytes::Bytes;
use isonomy_protocol::log::scan::SegmentSource;
use std::fs::File;
use std::io::{Error, Result};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::log::groups::GROUP_BYTES_MAX;

/// The size of a piece that is read at a time, which is a whole group under load. Only a longer record, of an
/// unusually large batch, takes a piece of its own length.
pub(crate) const READ_BYTES: usize = GROUP_BYTES_MAX;
/// How long the last writes of a killed process may take, and how often the reader looks for their end.
const IN_FLIGHT_PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const IN_FLIGHT_RETRY: Duration = Duration::from_millis(10);

/// The file of a segment and the piece of it that was read last.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    file: File,
    length: usize,
    /// The offset at which the piece begins.
    start: usize,
    piece: Bytes,
}

impl SegmentFile {
    /// Opens a file to which no process writes. A write that was under way when the last process was killed can end
    /// later than that process; until then the lock on its open file stays.
    pub(crate) fn open(path: &Path) -> Result<SegmentFile> {
        let file = File::open(path)?;
        let began = Instant::now();
        while let Err(error) = file.try_lock() {
            if began.elapsed() > IN_FLIGHT_PATIENCE {
                let what = format!(
                    "the last write of a killed replica is still under way ({error}); start the replica again \
                     later"
                );
                return Err(Error::other(what));
            }
            std::thread::sleep(IN_FLIGHT_RETRY);
        }
        SegmentFile::of(file)
    }

    /// Opens a file to which its replica may write meanwhile, and takes no lock that the replica needs.
    pub(crate) fn open_shared(path: &Path) -> Result<SegmentFile> {
        SegmentFile::of(File::open(path)?)
    }

    fn of(file: File) -> Result<SegmentFile> {
        let length = file.metadata()?.len() as usize;
        Ok(SegmentFile { file, length, start: 0, piece: Bytes::new() })
    }

    fn end(&self) -> usize {
        self.start + self.piece.len()
    }

    /// Reads the piece that begins with this range.
    fn move_to(&mut self, range: &Range<usize>) -> Result<()> {
        let end = range.end.max(range.start + READ_BYTES).min(self.length);
        let mut bytes = vec![0; end - range.start];
        let mut known = 0;
        // Bytes that were read before are not read from the disk again.
        if (self.start..self.end()).contains(&range.start) {
            let rest = &self.piece[range.start - self.start..];
            known = rest.len();
            bytes[..known].copy_from_slice(rest);
        }
        self.file.read_exact_at(&mut bytes[known..], (range.start + known) as u64)?;
        (self.start, self.piece) = (range.start, bytes.into());
        Ok(())
    }
}

impl SegmentSource for SegmentFile {
    type Error = Error;

    fn length(&self) -> usize {
        self.length
    }

    fn read(&mut self, range: Range<usize>) -> Result<Bytes> {
        if range.start < self.start || range.end > self.end() {
            self.move_to(&range)?;
        }
        Ok(self.piece.slice(range.start - self.start..range.end - self.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 5 * READ_BYTES / 2;

    fn file(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    #[test]
    fn every_range_is_that_of_the_file_and_little_else_is_in_memory() {
        let bytes: Vec<u8> = (0..LENGTH).map(|at| ((at * 7919) >> 5) as u8).collect();
        let (_dir, path) = file(&bytes);
        let mut segment = SegmentFile::open(&path).unwrap();
        assert_eq!(segment.length(), LENGTH);
        let edges = [0, 1, 4096, READ_BYTES - 1, READ_BYTES, READ_BYTES + 4096, 2 * READ_BYTES, LENGTH];
        let mut longest = READ_BYTES;
        // Forwards, backwards, over and over, longer and shorter than a piece.
        for step in 0..edges.len() * edges.len() * 3 {
            let (a, b) = (edges[step * 5 % edges.len()], edges[step / 3 % edges.len()]);
            let range = a.min(b)..a.max(b);
            assert_eq!(segment.read(range.clone()).unwrap()[..], bytes[range.clone()], "{range:?}");
            longest = longest.max(range.len());
            assert!(segment.piece.len() <= longest);
        }
    }

    #[test]
    fn what_its_disk_does_not_give_is_an_error() {
        let (_dir, path) = file(&[1; 100]);
        let mut segment = SegmentFile::open(&path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(50).unwrap();
        assert!(segment.read(0..100).is_err());
    }
}
