//! `isonomy snapshot export`: the newest snapshots of a replica as a backup that stands alone.

use super::manifest::{FORMAT, Manifest, ManifestFile, Sum, file_name, manifest_path};
use super::source::{Found, io, shards, snapshots_of, unless_gone};
use crate::fatal::{Fatal, Reason};
use crate::out;
use clap::Args;
use isonomy_shard::data_dir::{Identity, look};
use isonomy_shard::snapshot::store::{SnapshotError, read_with, sync_dir};
use isonomy_wire::id::ShardId;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// `isonomy snapshot export`
#[derive(Args, Debug)]
#[command(after_help = "\
Example: isonomy snapshot take --connect 10.0.0.1:7400 &&
         isonomy snapshot export --dir /var/lib/isonomy --to /backup/orders-17

The replica may be running. The command verifies every copied file. The backup gets its name only when it is whole and
synced.")]
pub(super) struct ExportArgs {
    /// The data directory of a replica
    #[arg(long, env = "ISONOMY_DATA_DIR", value_name = "DIR")]
    dir: PathBuf,
    /// The directory to make for the backup
    #[arg(long, value_name = "OUT")]
    to: PathBuf,
}

/// Makes the backup.
pub(super) fn run(args: &ExportArgs) -> Result<(), Fatal> {
    let ExportArgs { dir, to } = args;
    let identity = look(dir)?;
    let temporary = make_temporary(to)?;
    let written = write_all(dir, &identity, &temporary).and_then(|manifest| {
        publish(&temporary, to)?;
        Ok(manifest)
    });
    if written.is_err() {
        // Only the reason of the failure is reported, not an error of the removal.
        let _ = fs::remove_dir_all(&temporary);
    }
    let manifest = written?;
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    out::print(format_args!(
        "{to}: {} shards, {bytes} bytes\nnext: isonomy snapshot verify {to}, at the place where the backup is \
         kept",
        manifest.shards,
        to = to.display(),
    ))
}

/// Makes the temporary directory beside the backup, which becomes the backup.
fn make_temporary(to: &Path) -> Result<PathBuf, Fatal> {
    let refused =
        |path: &Path, what: &str| Err(Fatal::new(Reason::Failed, format!("{}: {what}", path.display())));
    if fs::symlink_metadata(to).is_ok() {
        return refused(
            to,
            "the directory exists, and a backup is never overwritten; name a directory that does not exist yet",
        );
    }
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = to.with_file_name(name);
    match fs::create_dir(&temporary) {
        Ok(()) => Ok(temporary),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => refused(
            &temporary,
            "another export into this directory is under way or was interrupted; if no export is under way, \
             remove the directory",
        ),
        Err(error) => Err(io(&temporary, &error)),
    }
}

fn write_all(dir: &Path, identity: &Identity, out: &Path) -> Result<Manifest, Fatal> {
    let files: Result<Vec<ManifestFile>, Fatal> =
        shards(identity).map(|shard| copy_newest(dir, identity, shard, out)).collect();
    let files = files?;
    if files.windows(2).any(|pair| pair[0].epoch != pair[1].epoch) {
        let what =
            "the members are being changed, and the shards are in different epochs; export again in a moment";
        return Err(Fatal::new(Reason::Failed, format!("{}: {what}", dir.display())));
    }
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        cluster: identity.cluster.clone(),
        cluster_id: identity.cluster_id().to_string(),
        replica: identity.member,
        replicas: identity.newest().map_or(0, |(_, part)| part.replicas),
        shards: identity.shards,
        files,
        checksum: String::new(),
    };
    let path = manifest_path(out);
    let write = |text: String| {
        let mut file = File::create_new(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write(manifest.clone().sealed()).map_err(|error| io(&path, &error))?;
    Ok(manifest)
}

/// Copies the newest snapshot of a shard. A running replica may replace the snapshot at any moment; then there is a
/// newer one to copy.
fn copy_newest(dir: &Path, identity: &Identity, shard: ShardId, out: &Path) -> Result<ManifestFile, Fatal> {
    while let Some(found) = snapshots_of(dir, identity, shard)?.pop() {
        if let Some(file) = unless_gone(&found, |found| copy(found, &out.join(file_name(shard))))? {
            return Ok(file);
        }
    }
    let what = format!("shard {} has no snapshot yet; run `isonomy snapshot take` first", shard.0);
    Err(Fatal::new(Reason::Failed, format!("{}: {what}", dir.display())))
}

fn copy(found: &Found, to: &Path) -> Result<ManifestFile, SnapshotError> {
    let failed = |error| SnapshotError::Io(to.into(), error);
    let mut out = File::create(to).map_err(failed)?;
    let (mut sum, mut written) = (Sum::default(), Ok(()));
    let snapshot = read_with(&found.path, found.id, |bytes| {
        sum.add(bytes);
        // These are errors of the target, not of the file that is read.
        written = std::mem::replace(&mut written, Ok(())).and_then(|()| out.write_all(bytes));
        Ok(())
    })?;
    written.and_then(|()| out.sync_all()).map_err(failed)?;
    Ok(sum.to_file(found.id.shard, &snapshot.head))
}

/// Gives the whole backup its name.
fn publish(temporary: &Path, to: &Path) -> Result<(), Fatal> {
    let publish = || {
        sync_dir(temporary)?;
        fs::rename(temporary, to)?;
        sync_dir(&to.join(".."))
    };
    publish().map_err(|error| io(to, &error))
}
