//! Whether a shard's directory takes direct writes, and how they are best waited for.

use crate::checks::machine;
use crate::fatal::Fatal;
use crate::waiting::Trouble;
use glommio::io::OpenOptions;
use isonomy_protocol::log::BLOCK_BYTES;
use isonomy_wire::id::ShardId;
use std::io::{self, Write};
use std::path::Path;

/// Direct writes need a file system that has them; the first segment would tell, but later.
///
/// The file has a block, because glommio takes the first that it opens on a device to find out
/// whether the driver is to be polled. An empty one says yes where that is wrong, and then the
/// executor spins for as long as a write takes.
pub(super) async fn check_direct_io(dir: &Path, shard: ShardId) -> Result<(), Fatal> {
    let probe = dir.join("probe.tmp");
    let checked = open_direct(&probe).await;
    // It is in nobody's way, and the next start makes it anew.
    let _ = std::fs::remove_file(&probe);
    checked.map_err(|error| match Trouble::of_file(&probe, error) {
        Ok(trouble) => trouble.into(),
        Err(error) => machine(format!(
            "{}: shard {} cannot write past the page cache here ({error}); put `data_dir` on a local file \
             system such as ext4 or XFS",
            dir.display(),
            shard.0
        )),
    })
}

async fn open_direct(path: &Path) -> io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(&[0; BLOCK_BYTES])?;
    file.sync_data()?;
    OpenOptions::new().read(true).write(true).dma_open(path).await?.close().await?;
    Ok(())
}
