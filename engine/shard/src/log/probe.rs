//! Tests whether a shard's directory takes direct writes, and how to wait for them.

use crate::waiting::Trouble;
use glommio::io::OpenOptions;
use isonomy_mesh::fatal::Fatal;
use isonomy_protocol::log::BLOCK_BYTES;
use isonomy_wire::id::ShardId;
use std::io::{self, Write};
use std::path::Path;

/// Checks that the file system has direct writes. The first segment would show that, too, but later.
///
/// The file has a block, because glommio uses the first file that it opens on a device to find out whether to poll
/// the driver. An empty file wrongly says yes on some devices, and then the executor spins for as long as a write
/// takes.
pub(crate) async fn check_direct_io(dir: &Path, shard: ShardId) -> Result<(), Fatal> {
    let probe = dir.join("probe.tmp");
    let checked = open_direct(&probe).await;
    // A file that stays does no harm, and the next start makes it anew.
    let _ = std::fs::remove_file(&probe);
    checked.map_err(|error| match Trouble::of_file(&probe, error) {
        Ok(trouble) => trouble.into(),
        Err(error) => Fatal::machine(format!(
            "{}: shard {} cannot write with direct I/O here ({error}); put `data_dir` on a local file system \
             such as ext4 or XFS",
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
