//! `isonomy snapshot verify`: reads everything, and says whether it is whole.

use super::manifest::{Manifest, ManifestFile, manifest_path};
use super::source::{Found, describe, shards, snapshots_of, unless_gone};
use crate::fatal::{Fatal, Reason};
use crate::out;
use clap::Args;
use isonomy_shard::data_dir::{Identity, check_shards, epoch_dir, look};
use isonomy_shard::snapshot::store::read_with;
use isonomy_shard::verify_log;
use isonomy_wire::id::ShardId;
use std::path::{Path, PathBuf};

/// `isonomy snapshot verify`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  isonomy snapshot verify /backup/orders-17
  isonomy snapshot verify /var/lib/isonomy

The command ends with code 0 if everything is whole, with code 6 if a part is damaged, and with code 5 if another
release wrote a part.")]
pub(super) struct VerifyArgs {
    /// A backup, the data directory of a replica, or the file of a snapshot in one of these
    path: PathBuf,
}

/// Prints each part that was verified; an error at the first damage.
pub(super) fn run(args: &VerifyArgs) -> Result<(), Fatal> {
    let path = &args.path;
    if manifest_path(path).exists() {
        return verify_backup(path, &Manifest::load(path)?);
    }
    if path.join("identity.json").exists() {
        return verify_data_dir(path, &look(path)?);
    }
    if path.is_dir() {
        return Err(unknown(
            path,
            "the directory is neither a backup, which has a manifest.json, nor the data directory of a replica",
        ));
    }
    verify_file(path)
}

/// Verifies every file of a backup.
pub(super) fn verify_backup(dir: &Path, manifest: &Manifest) -> Result<(), Fatal> {
    manifest.files.iter().try_for_each(|file| verify_member(dir, manifest, file))
}

fn verify_member(dir: &Path, manifest: &Manifest, file: &ManifestFile) -> Result<(), Fatal> {
    let snapshot = manifest.read(dir, file)?;
    print_whole(&dir.join(&file.file), &describe(&snapshot.head, file.bytes))
}

fn verify_data_dir(dir: &Path, identity: &Identity) -> Result<(), Fatal> {
    check_shards(dir, identity)?;
    for shard in shards(identity) {
        let found = snapshots_of(dir, identity, shard)?;
        if found.is_empty() {
            out::print(format_args!("shard {}: no snapshot yet", shard.0))?;
        }
        found.iter().try_for_each(verify_found)?;
        verify_log_of(dir, identity, shard)?;
    }
    Ok(())
}

/// Judges the log as its replica does when it starts.
fn verify_log_of(dir: &Path, identity: &Identity, shard: ShardId) -> Result<(), Fatal> {
    let Some((epoch, _)) = identity.newest() else { return Ok(()) };
    let id = identity.log_id(epoch, shard).map_err(|what| unknown(dir, &what))?;
    let log_dir = epoch_dir(dir, shard, epoch);
    let log = verify_log(id, &log_dir, || Ok(look(dir)?.known(epoch, shard, 0)))?;
    let (records, (segments, prepared)) = (log.records(), log.segments());
    let what = format!("log of {records} records in {segments} segments, {prepared} more prepared");
    print_whole(&log_dir, &what)
}

fn verify_found(found: &Found) -> Result<(), Fatal> {
    let verified = unless_gone(found, |found| {
        let mut bytes = 0;
        let count = |piece: &[u8]| {
            bytes += piece.len() as u64;
            Ok(())
        };
        let snapshot = read_with(&found.path, found.id, count)?;
        Ok((snapshot.head, bytes))
    })?;
    match verified {
        Some((head, bytes)) => print_whole(&found.path, &describe(&head, bytes)),
        None => out::print(format_args!(
            "{}: the replica has replaced this snapshot by a newer one",
            found.path.display()
        )),
    }
}

/// Verifies one file. The file alone does not name its owner, so the directories around it do.
fn verify_file(path: &Path) -> Result<(), Fatal> {
    let path = std::fs::canonicalize(path).map_err(|error| super::source::io(path, &error))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let around: Vec<&Path> = path.ancestors().skip(1).take(3).collect();
    if let [dir, ..] = around[..]
        && manifest_path(dir).exists()
    {
        let manifest = Manifest::load(dir)?;
        if let Some(file) = manifest.files.iter().find(|file| Some(&file.file) == name.as_ref()) {
            return verify_member(dir, &manifest, file);
        }
    }
    if let [_, _, dir] = around[..]
        && dir.join("identity.json").exists()
    {
        let identity = look(dir)?;
        for shard in shards(&identity) {
            let found = snapshots_of(dir, &identity, shard)?;
            if let Some(found) = found.iter().find(|found| found.path == path) {
                return verify_found(found);
            }
        }
    }
    Err(unknown(&path, "the file is not a snapshot in a backup or in the data directory of a replica"))
}

fn unknown(path: &Path, what: &str) -> Fatal {
    Fatal::new(Reason::Failed, format!("{}: {what}; check the path", path.display()))
}

fn print_whole(path: &Path, what: &str) -> Result<(), Fatal> {
    out::print(format_args!("{}: whole: {what}", path.display()))
}
