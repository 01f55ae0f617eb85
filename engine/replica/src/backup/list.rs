//! `isonomy snapshot list`: which snapshots a data directory holds.

use super::source::{Found, describe, shards, snapshots_of, unless_gone};
use crate::commands::Output;
use crate::fatal::Fatal;
use crate::out;
use clap::Args;
use isonomy_doors::status::hash_text;
use isonomy_protocol::snapshot::SnapshotHead;
use isonomy_shard::data_dir::look;
use isonomy_shard::snapshot::store::{SnapshotError, read_head};
use serde_json::json;
use std::path::PathBuf;

/// `isonomy snapshot list`
#[derive(Args, Debug)]
#[command(after_help = "Example: isonomy snapshot list --dir /var/lib/isonomy")]
pub(super) struct SnapshotListArgs {
    /// The data directory of a replica, which may be running
    #[arg(long, env = "ISONOMY_DATA_DIR", value_name = "DIR")]
    dir: PathBuf,
    /// The format in which the snapshots are printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Prints the description of each snapshot.
pub(super) fn run(args: &SnapshotListArgs) -> Result<(), Fatal> {
    let identity = look(&args.dir)?;
    for shard in shards(&identity) {
        let found = snapshots_of(&args.dir, &identity, shard)?;
        if found.is_empty() && args.output == Output::Table {
            out::print(format_args!("shard {}: no snapshot yet", shard.0))?;
        }
        for found in found {
            if let Some(listed) = unless_gone(&found, Listed::of)? {
                listed.print(&found, args.output)?;
            }
        }
    }
    Ok(())
}

/// The head of a snapshot's file, and its size and age from the file system.
struct Listed {
    head: SnapshotHead,
    bytes: u64,
    /// The age in seconds, unless the clock was set back since.
    age: Option<u64>,
}

impl Listed {
    fn of(found: &Found) -> Result<Listed, SnapshotError> {
        let failed = |error| SnapshotError::Io(found.path.clone(), error);
        let head = read_head(&found.path, found.id)?;
        let metadata = found.path.metadata().map_err(failed)?;
        let age = metadata.modified().map_err(failed)?.elapsed().ok().map(|age| age.as_secs());
        Ok(Listed { head, bytes: metadata.len(), age })
    }

    fn print(&self, found: &Found, output: Output) -> Result<(), Fatal> {
        let Listed { head, bytes, age } = self;
        let shard = found.id.shard.0;
        match output {
            Output::Table => {
                let age = age.map_or("of unknown age".to_owned(), |age| format!("{age} s old"));
                let (path, head) = (found.path.display(), describe(head, *bytes));
                out::print(format_args!("shard {shard}: {path}: {head}, {age}"))
            }
            Output::Json => out::print(json!({
                "shard": shard,
                "file": found.path,
                "barrier": head.barrier,
                "epoch": head.epoch.0,
                "bytes": bytes,
                "keys": head.keys,
                "sessions": head.sessions,
                "state_hash": hash_text(head.hash),
                "age_seconds": age,
            })),
        }
    }
}
