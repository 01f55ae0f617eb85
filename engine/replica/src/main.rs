//! The replica process of Isonomy, and the commands that talk to it.

mod backup;
mod checks;
mod commands;
mod config;
mod data_dir;
mod demo;
mod fatal;
mod files;
mod logging;
mod memory;
mod propose;
mod read;
mod resolver;
mod rings;
mod serve;
mod shard;
mod snapshots;
mod status;
mod told;
mod waiting;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: memory::Allocator = memory::Allocator;

/// A leaderless replicated decision log
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What the program can do.
#[derive(Subcommand)]
enum Command {
    /// Start a cluster on this machine, load it, kill a replica, and check that all agree
    Demo(demo::DemoArgs),
    /// Run one replica
    Serve(Box<config::ServeArgs>),
    /// Show how replicas stand
    Status(status::StatusArgs),
    /// Decide a key, or every line of a file
    Propose(propose::ProposeArgs),
    /// Print the latest decision of a key
    Read(read::ReadArgs),
    /// Take and verify snapshots, export them as a backup, and restore one as a new cluster
    Snapshot(backup::SnapshotArgs),
}

fn main() -> ExitCode {
    logging::start();
    let done = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Serve(args) => serve::run(*args),
        Command::Status(args) => status::run(&args),
        Command::Propose(args) => propose::run(&args),
        Command::Read(args) => read::run(&args),
        Command::Snapshot(args) => backup::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => fatal.report(),
    }
}
