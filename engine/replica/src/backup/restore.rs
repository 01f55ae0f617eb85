//! `isonomy snapshot restore`: a backup becomes the beginning of a new cluster.

use super::manifest::Manifest;
use super::source::io;
use super::verify::verify_backup;
use crate::config::{Config, ServeArgs};
use crate::fatal::{Fatal, Reason};
use crate::out;
use clap::Args;
use isonomy_protocol::snapshot::{Snapshot, SnapshotId, rebrand};
use isonomy_shard::data_dir::{Began, DataDir, epoch_dir, look};
use isonomy_shard::snapshot::store::{publish, unfinished_path};
use isonomy_wire::id::{ClusterId, Epoch, ShardId};
use std::fs::File;
use std::io::{Result as IoResult, Write};
use std::path::{Path, PathBuf};

/// `isonomy snapshot restore`
#[derive(Args, Debug)]
#[command(after_help = "\
Example, for each member of the new cluster, on the member's machine and with the member's configuration:
  isonomy snapshot restore --from /backup/orders-17 --config isonomy.toml
  isonomy serve --config isonomy.toml

Restore all members from the same backup. The new cluster is another cluster even under the old name: its members
refuse replicas of the old cluster, and members that were not restored.")]
pub(super) struct RestoreArgs {
    /// The directory of the backup
    #[arg(long, value_name = "EXPORT")]
    from: PathBuf,
    /// The data directory to make [default: the one of the configuration]
    #[arg(long, value_name = "DATA_DIR")]
    to: Option<PathBuf>,
    #[command(flatten)]
    serve: ServeArgs,
}

/// Makes the data directory. A backup that does not verify is not used.
pub(super) fn run(mut args: RestoreArgs) -> Result<(), Fatal> {
    args.serve.data_dir = args.to.take().or(args.serve.data_dir);
    let next = next_command(&args.serve);
    let mut config = Config::load(args.serve)?;
    let manifest = Manifest::load(&args.from)?;
    check_fits(&config, &manifest)?;
    config.shards = manifest.shards;
    verify_backup(&args.from, &manifest)?;
    let began = Began { epoch: manifest.epoch(), replicas: manifest.replicas };
    DataDir::restore(&config.expected(), &manifest.checksum, began, |cluster| {
        fill(&config, &args.from, &manifest, cluster)
    })?;
    let Config { replica, cluster, data_dir, .. } = &config;
    let members = manifest.replicas;
    let init = if config.etcd.is_some() {
        let id = look(data_dir)?.cluster_id();
        format!(
            ", name them in etcd under a prefix of their own with: isonomy member init --cluster-id {id} --epoch {} \
                 --shards {} --members ...",
            manifest.epoch().0,
            manifest.shards
        )
    } else {
        String::new()
    };
    out::print(format_args!(
        "{}: restored for replica {replica} of cluster '{cluster}'\n\
         next: restore the same backup for all {members} members{init}, then start each member with: {next}",
        data_dir.display(),
    ))
}

/// Checks that the numbers that are fixed for a cluster's life are those of the backup, since rows and shards of the
/// state mean nothing under others.
fn check_fits(config: &Config, manifest: &Manifest) -> Result<(), Fatal> {
    let misfit = |what: &str, here: usize, there: usize| {
        let text = format!(
            "the backup is of a cluster with {there} {what}, but the configuration names {here}; configure \
             {there} {what}"
        );
        Err(Fatal::new(Reason::Config, text))
    };
    let (members, replicas) = (config.members.len(), usize::from(manifest.replicas));
    // Members in etcd are named there afterwards, and shards come from the backup.
    if config.etcd.is_some() {
        return Ok(());
    }
    if members != replicas {
        return misfit("members", members, replicas);
    }
    if config.shards != manifest.shards {
        return misfit("shards", config.shards.into(), manifest.shards.into());
    }
    Ok(())
}

fn fill(config: &Config, from: &Path, manifest: &Manifest, cluster: ClusterId) -> Result<(), Fatal> {
    for file in &manifest.files {
        let (shard, snapshot) = (ShardId(file.shard), manifest.read(from, file)?);
        let id = SnapshotId { cluster, shard, barrier: file.barrier };
        let dir = epoch_dir(&config.data_dir, shard, Epoch(file.epoch));
        write(&dir, id, snapshot).map_err(|error| io(&dir, &error))?;
    }
    Ok(())
}

/// Writes the snapshot as one of the new cluster.
fn write(dir: &Path, id: SnapshotId, mut snapshot: Snapshot) -> IoResult<()> {
    let mut file = File::create(unfinished_path(dir))?;
    let mut written = Ok(());
    rebrand(&mut snapshot, id, |bytes| {
        written = std::mem::replace(&mut written, Ok(())).and_then(|()| file.write_all(bytes));
    });
    written?;
    file.sync_all()?;
    publish(dir, id.barrier)
}

/// The command that starts the replica with the same settings.
fn next_command(serve: &ServeArgs) -> String {
    let path = |flag: &str, path: &Option<PathBuf>| {
        path.as_ref().map(|path| format!(" --{flag} {}", path.display())).unwrap_or_default()
    };
    let rest = if serve.config.is_some() { "" } else { " and the other settings as here" };
    format!("isonomy serve{}{}{rest}", path("config", &serve.config), path("data-dir", &serve.data_dir))
}
