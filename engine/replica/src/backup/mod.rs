//! `isonomy snapshot`: snapshots of a running cluster, and backups that are made of them.

mod export;
mod list;
mod manifest;
mod restore;
mod source;
mod take;
mod verify;

use crate::fatal::Fatal;
use clap::{Args, Subcommand};
#[cfg(test)]
pub(crate) use take::TAKE_SECONDS;

/// `isonomy snapshot`
#[derive(Args, Debug)]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    command: SnapshotCommand,
}

#[derive(Subcommand, Debug)]
enum SnapshotCommand {
    /// Take a snapshot of every shard now, and wait until the replica has stored all of them
    Take(take::TakeArgs),
    /// List the snapshots in a data directory
    List(list::SnapshotListArgs),
    /// Read whole snapshots or a whole backup, and check every byte that matters
    Verify(verify::VerifyArgs),
    /// Copy the newest snapshots out of a data directory, as a backup
    Export(export::ExportArgs),
    /// Make a replica's data directory from a backup, for a new cluster
    Restore(Box<restore::RestoreArgs>),
}

/// Runs the subcommand of the arguments.
pub(crate) fn run(args: SnapshotArgs) -> Result<(), Fatal> {
    match args.command {
        SnapshotCommand::Take(args) => take::run(&args),
        SnapshotCommand::List(args) => list::run(&args),
        SnapshotCommand::Verify(args) => verify::run(&args),
        SnapshotCommand::Export(args) => export::run(&args),
        SnapshotCommand::Restore(args) => restore::run(*args),
    }
}
