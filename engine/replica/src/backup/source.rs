//! Snapshots in the data directory of a replica, which may run and replace them at any time.

use crate::fatal::{Fatal, Reason};
use isonomy_protocol::snapshot::{SnapshotHead, SnapshotId};
use isonomy_shard::data_dir::{Identity, epoch_dir};
use isonomy_shard::snapshot::store::{self as snapshots, SnapshotError, snapshot_path};
use isonomy_tuning::file_size;
use isonomy_wire::id::ShardId;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A snapshot's file.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) id: SnapshotId,
    pub(super) path: PathBuf,
}

/// All shards of a replica.
pub(super) fn shards(identity: &Identity) -> impl Iterator<Item = ShardId> + use<> {
    (0..identity.shards).map(ShardId)
}

/// The snapshots of a shard in the newest epoch, in order. In an epoch that has just begun there is none for a moment.
pub(super) fn snapshots_of(dir: &Path, identity: &Identity, shard: ShardId) -> Result<Vec<Found>, Fatal> {
    let Some((epoch, _)) = identity.newest() else { return Ok(Vec::new()) };
    let (dir, cluster) = (epoch_dir(dir, shard, epoch), identity.cluster_id());
    let barriers = snapshots::list(&dir).map_err(|error| io(&dir, &error))?;
    let found = barriers.into_iter().map(|barrier| Found {
        id: SnapshotId { cluster, shard, barrier },
        path: snapshot_path(&dir, barrier),
    });
    Ok(found.collect())
}

/// Does something with a snapshot; `None` if the replica has removed it meanwhile, since it has a
/// newer one.
pub(super) fn unless_gone<T>(
    found: &Found,
    visit: impl FnOnce(&Found) -> Result<T, SnapshotError>,
) -> Result<Option<T>, Fatal> {
    match visit(found) {
        Ok(value) => Ok(Some(value)),
        Err(SnapshotError::Io(path, error)) if error.kind() == ErrorKind::NotFound && path == found.path => {
            Ok(None)
        }
        Err(SnapshotError::Io(path, error)) => Err(io(&path, &error)),
        Err(error @ SnapshotError::Broken(..)) => Err(broken(&error)),
        Err(SnapshotError::Release(path, version)) => Err(Fatal::of_another_release(&path, version)),
    }
}

/// A snapshot of a replica that does not read.
fn broken(error: &SnapshotError) -> Fatal {
    let remedy = "The disk or the memory of this machine may be failing: check both, back up another replica, \
                  and follow docs/OPERATIONS.md, \"Lost and damaged replicas\"";
    Fatal::new(Reason::Damaged, format!("{error}. {remedy}"))
}

/// What the system says about a file.
pub(super) fn io(path: &Path, error: &std::io::Error) -> Fatal {
    let hint = file_size::remedy(error);
    let hint = hint.unwrap_or_else(|| "check the path, and that this user may read and write it".to_owned());
    Fatal::new(Reason::Failed, format!("{}: {error}; {hint}", path.display()))
}

/// What a snapshot says of itself, in words.
pub(super) fn describe(head: &SnapshotHead, bytes: u64) -> String {
    let SnapshotHead { epoch, barrier, hash, keys, sessions, .. } = head;
    format!(
        "barrier {barrier}, epoch {}, {bytes} bytes, {keys} keys, {sessions} sessions, state {}",
        epoch.0,
        isonomy_doors::status::hash_text(*hash)
    )
}
