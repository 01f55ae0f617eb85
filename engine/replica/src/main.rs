//! The replica process of Isonomy, and the commands that talk to it.

mod checks;
mod config;
mod data_dir;
mod fatal;
mod serve;
mod shard;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A leaderless replicated decision log
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one replica
    Serve(config::ServeArgs),
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn,isonomy=info")).init();
    let done = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => fatal.report(),
    }
}
