//! Segments before and after their use: new ones are filled or made of those that were cut, and cut ones are removed.

use crate::snapshot::store::give_up_spare;
use glommio::io::OpenOptions;
use isonomy_protocol::log::BLOCK_BYTES;
use isonomy_tuning::{file_size, files};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;

use super::lack::Lack;
use super::{Disk, LACK_PAUSE};
use crate::io::{error_of, whole};
use crate::log::recover::{SEGMENT_BYTES, segment_path, spare_path, unfinished_path};

/// The number of segments that are filled before they are needed.
pub(crate) const SEGMENTS_AHEAD: usize = 2;
/// The number of segments that a new log fills first, so that none is filled while its first clients come.
const SEGMENTS_AT_FIRST: usize = 1 + SEGMENTS_AHEAD;
/// The size of a write that fills a segment.
const FILL_BYTES: usize = 1 << 20;

const _: () = assert!(SEGMENT_BYTES.is_multiple_of(FILL_BYTES) && FILL_BYTES.is_multiple_of(BLOCK_BYTES));

impl Disk {
    /// Keeps segments prepared, and removes those that were cut, for ever.
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
                // A new log waits for all of these segments, so that its first clients are not disturbed.
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

    /// Whether the oldest segment holds no record that is needed.
    fn is_cut(&self) -> bool {
        self.used.borrow().get(1).is_some_and(|(_, first)| *first <= self.cut.get())
    }

    /// Removes the names of segments that were cut, in order, so that no crash leaves a gap.
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
        let spares = retired.unwrap_or_else(|error| {
            self.fail(last, &format!("the segment cannot be cut off the log ({error})"))
        });
        self.spares.borrow_mut().extend(spares);
    }

    /// Makes an empty segment. False: room or open files are lacking.
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

    /// Takes a spare segment, or fills a new one with zeros. The segment gets its name only when it is whole.
    async fn make(&self, segment: u64) -> std::io::Result<()> {
        let spare = self.spares.borrow_mut().pop();
        let Some(spare) = spare else { return self.fill_with_zeros(segment).await };
        let renewed = self.renew(segment, spare.clone()).await;
        // If open files were lacking, the spare was not touched.
        if renewed.as_ref().is_err_and(files::are_lacking) {
            self.spares.borrow_mut().push(spare);
        }
        renewed
    }

    /// Makes a segment of a spare. Its old groups do not pass for records of another segment, so only its old head
    /// must go.
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
        // The beginning of the segment is written last, since it says how far the log has come.
        for offset in (0..SEGMENT_BYTES).step_by(FILL_BYTES) {
            if let Err(error) = whole(file.write_rc_at(zeros.clone(), offset as u64).await, FILL_BYTES) {
                // A file that could not be filled gives its room back.
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
}
