//! A file that is written from its beginning to its end, past the page cache and in small pieces, so that the log's
//! writes never wait for long behind it. Old bytes of the file are overwritten.

use glommio::io::{DmaFile, OpenOptions};
use isonomy_protocol::log::BLOCK_BYTES;
use isonomy_tuning::file_size;
use std::fs::File;
use std::io::Result;
use std::path::{Path, PathBuf};

use crate::aside::Aside;
use crate::io::{error_of, whole};

/// The size of a write.
const WRITE_BYTES: usize = 256 << 10;

/// The file; see the module.
pub(crate) struct Growing {
    path: PathBuf,
    file: DmaFile,
    /// How many bytes were written.
    written: u64,
    /// The bytes that were not written yet.
    rest: Vec<u8>,
}

impl Growing {
    pub(crate) async fn open(path: &Path) -> Result<Growing> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).dma_open(path).await.map_err(error_of)?;
        Ok(Growing { path: path.into(), file, written: 0, rest: Vec::with_capacity(2 * WRITE_BYTES) })
    }

    /// How many bytes were appended.
    pub(crate) fn length(&self) -> u64 {
        self.written + self.rest.len() as u64
    }

    pub(crate) async fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.rest.extend_from_slice(bytes);
        while self.rest.len() >= WRITE_BYTES {
            self.write(WRITE_BYTES).await?;
        }
        Ok(())
    }

    /// Writes the first bytes of the rest, with zeros up to the end of a block.
    async fn write(&mut self, count: usize) -> Result<()> {
        let mut buffer = self.file.alloc_dma_buffer(count.next_multiple_of(BLOCK_BYTES));
        let (bytes, padding) = buffer.as_bytes_mut().split_at_mut(count);
        bytes.copy_from_slice(&self.rest[..count]);
        padding.fill(0);
        let length = buffer.len();
        file_size::check_fits(self.written + length as u64)?;
        whole(self.file.write_at(buffer, self.written).await, length)?;
        self.rest.drain(..count);
        self.written += count as u64;
        Ok(())
    }

    /// Makes all bytes durable, and cuts off old bytes behind them.
    pub(crate) async fn finish(mut self, aside: &Aside) -> Result<()> {
        if !self.rest.is_empty() {
            self.write(self.rest.len()).await?;
        }
        // Glommio would do this on its blocking thread, which belongs to the log.
        let (path, length) = (self.path, self.written);
        aside.run(move || File::options().write(true).open(path)?.set_len(length)).await?;
        self.file.fdatasync().await?;
        Ok(self.file.close().await?)
    }
}
