//! Whether the limit on the size of files leaves room for the log and for snapshots.

use crate::checks::raise;
use crate::config::Config;
use crate::fatal::Fatal;
use isonomy_shard::SEGMENT_BYTES;
use isonomy_shard::data_dir::{epoch_dir, look};
use isonomy_shard::snapshot::store as snapshots;
use isonomy_tuning::file_size::REMEDY;
use isonomy_tuning::limits::{Resource, UNLIMITED};
use isonomy_wire::id::{Epoch, ShardId};
use std::path::{Path, PathBuf};

/// Raises the limit as far as it goes; an error if a segment of the log or a snapshot that is there does not
/// fit it.
pub(crate) fn check(config: &Config) -> Result<(), Fatal> {
    let limit = raise(Resource::FSIZE, UNLIMITED)?;
    if limit == UNLIMITED {
        return Ok(());
    }
    if limit < SEGMENT_BYTES as u64 {
        return Err(Fatal::machine(format!(
            "the limit on the size of files is {limit} bytes, and a segment of the log has {SEGMENT_BYTES} \
             bytes; {REMEDY}"
        )));
    }
    // A directory that does not read is reported when it is opened.
    let epoch = look(&config.data_dir).ok().and_then(|identity| identity.newest().map(|(epoch, _)| epoch));
    for dir in epoch.iter().flat_map(|epoch| dirs(config, *epoch)) {
        if let Some((barrier, bytes)) = newest_snapshot(&dir).filter(|(_, bytes)| *bytes > limit) {
            let path = snapshots::snapshot_path(&dir, barrier);
            return Err(Fatal::machine(format!(
                "the limit on the size of files is {limit} bytes, and the snapshot {} has {bytes} bytes, as \
                 the next snapshots will have; {REMEDY}",
                path.display()
            )));
        }
    }
    log::warn!(
        "the limit on the size of files is {limit} bytes: no larger snapshot will be written, and without \
         snapshots the log grows to its budget; {REMEDY}, to `unlimited`"
    );
    Ok(())
}

/// Where the snapshots of all shards lie.
fn dirs(config: &Config, epoch: Epoch) -> impl Iterator<Item = PathBuf> {
    (0..config.shards).map(move |shard| epoch_dir(&config.data_dir, ShardId(shard), epoch))
}

/// The barrier and the size of the newest snapshot in a shard's directory, if there is one. An unreadable snapshot is
/// reported when it is needed.
fn newest_snapshot(dir: &Path) -> Option<(u64, u64)> {
    let barrier = snapshots::list(dir).ok()?.pop()?;
    Some((barrier, snapshots::snapshot_path(dir, barrier).metadata().ok()?.len()))
}
