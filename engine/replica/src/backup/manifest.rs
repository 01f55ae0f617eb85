//! The manifest of a backup, and the verification of the backup's files against the manifest.

use super::source::io;
use crate::fatal::{Fatal, Reason};
use isonomy_doors::status::hash_text;
use isonomy_protocol::snapshot::{Snapshot, SnapshotHead, SnapshotId};
use isonomy_shard::snapshot::store::{SnapshotError, read_with};
use isonomy_wire::id::{ClusterId, Epoch, ShardId};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// The layout that this release writes.
pub(super) const FORMAT: u32 = 1;

/// `manifest.json`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) format: u32,
    /// The release that wrote it.
    pub(super) version: String,
    pub(super) cluster: String,
    pub(super) cluster_id: String,
    /// The owner of the snapshots.
    pub(super) replica: u8,
    pub(super) replicas: u8,
    pub(super) shards: u16,
    /// The snapshots, one per shard, in order.
    pub(super) files: Vec<ManifestFile>,
    /// Over all of the above.
    pub(super) checksum: String,
}

/// A snapshot in a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ManifestFile {
    pub(super) shard: u16,
    pub(super) file: String,
    pub(super) bytes: u64,
    /// The hash of all bytes of the file, padding included.
    pub(super) hash: String,
    pub(super) epoch: u32,
    pub(super) barrier: u64,
    /// The hash of the state at the barrier.
    pub(super) state_hash: String,
}

/// The size and the hash of a file while it is read or written.
#[derive(Default)]
pub(super) struct Sum {
    bytes: u64,
    hash: Xxh3,
}

impl Sum {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }

    /// The entry of a file that holds what was added.
    pub(super) fn to_file(&self, shard: ShardId, head: &SnapshotHead) -> ManifestFile {
        ManifestFile {
            shard: shard.0,
            file: file_name(shard),
            bytes: self.bytes,
            hash: format!("{:032x}", self.hash.digest128()),
            epoch: head.epoch.0,
            barrier: head.barrier,
            state_hash: hash_text(head.hash),
        }
    }
}

/// The file of a shard in a backup.
pub(super) fn file_name(shard: ShardId) -> String {
    format!("shard-{:03}.snapshot", shard.0)
}

/// The file that makes a directory a backup.
pub(super) fn manifest_path(dir: &Path) -> PathBuf {
    dir.join("manifest.json")
}

impl Manifest {
    /// Reads the manifest of a backup, and verifies it in itself.
    pub(super) fn load(dir: &Path) -> Result<Manifest, Fatal> {
        let path = manifest_path(dir);
        let text = fs::read(&path).map_err(|error| io(&path, &error))?;
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|error| damaged(&path, &format!("the manifest does not read: {error}")))?;
        let Manifest { format, version, .. } = &manifest;
        if *format != FORMAT {
            let what = format!(
                "the backup has layout {format}, and this release reads layout {FORMAT}; use release {version}"
            );
            return Err(Fatal::new(Reason::DataDir, format!("{}: {what}", path.display())));
        }
        manifest.check().map_err(|what| damaged(&path, &what))?;
        Ok(manifest)
    }

    /// With its checksum, as text.
    pub(super) fn sealed(self) -> String {
        let checksum = self.checksum_of();
        serde_json::to_string_pretty(&Manifest { checksum, ..self }).expect("plain data encodes")
    }

    fn checksum_of(&self) -> String {
        let plain = Manifest { checksum: String::new(), ..self.clone() };
        let text = serde_json::to_vec(&plain).expect("plain data encodes");
        format!("{:032x}", xxh3_128(&text))
    }

    fn check(&self) -> Result<(), String> {
        if self.checksum != self.checksum_of() {
            return Err("the checksum of the manifest is wrong".into());
        }
        let is_in_place =
            |(shard, it): (u16, &ManifestFile)| it.shard == shard && it.file == file_name(ShardId(shard));
        if self.files.len() != usize::from(self.shards) || !(0..).zip(&self.files).all(is_in_place) {
            return Err(format!("the manifest does not name one file for each of {} shards", self.shards));
        }
        if self.files.iter().any(|file| Epoch(file.epoch) != self.epoch()) {
            return Err("the shards are of different epochs".into());
        }
        Ok(())
    }

    /// The epoch of all shards.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.files.first().map_or(0, |file| file.epoch))
    }

    fn cluster_id(&self) -> Option<ClusterId> {
        u128::from_str_radix(&self.cluster_id, 16).ok().map(ClusterId)
    }

    /// Reads a file of the backup in `dir` and verifies it as a whole.
    pub(super) fn read(&self, dir: &Path, file: &ManifestFile) -> Result<Snapshot, Fatal> {
        let path = dir.join(&file.file);
        let cluster = self
            .cluster_id()
            .ok_or_else(|| damaged(&manifest_path(dir), "the cluster_id of the manifest is not a number"))?;
        let (shard, mut sum) = (ShardId(file.shard), Sum::default());
        let id = SnapshotId { cluster, shard, barrier: file.barrier };
        let read = read_with(&path, id, |bytes| {
            sum.add(bytes);
            Ok(())
        });
        let snapshot = match read {
            Ok(snapshot) => snapshot,
            Err(SnapshotError::Io(path, error)) => return Err(io(&path, &error)),
            Err(SnapshotError::Broken(path, broken)) => return Err(damaged(&path, &broken.to_string())),
            Err(SnapshotError::Release(path, version)) => {
                return Err(Fatal::of_another_release(&path, version));
            }
        };
        if sum.to_file(shard, &snapshot.head) != *file {
            return Err(damaged(&path, "the file is not the one that the manifest describes"));
        }
        Ok(snapshot)
    }
}

fn damaged(path: &Path, what: &str) -> Fatal {
    let remedy = "This backup cannot be restored: copy the backup again from the place where it was made, or \
                  use another backup";
    Fatal::new(Reason::Damaged, format!("{}: the backup is damaged: {what}. {remedy}", path.display()))
}
