//! The replica process of Isonomy, and the commands that talk to it.

mod agent;
mod backup;
mod bytes;
mod checks;
mod commands;
mod config;
mod consume;
mod delete;
mod demo;
#[cfg(test)]
mod documents;
mod doors;
mod fatal;
mod file_size;
mod files;
mod logging;
mod member;
mod membership;
mod out;
mod propose;
mod publish;
mod read;
mod serve;
mod settings;
mod shards;
mod source;
mod status;
mod tail;
mod threads;
mod top;

use crate::fatal::{Reason, report};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use isonomy_mesh::fatal::set_last_words;
use isonomy_tuning::environment;
use isonomy_tuning::file_size::outlive_signal;
use isonomy_tuning::pages::Allocator;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// A leaderless replicated decision log
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The commands of the program.
#[derive(Subcommand)]
enum Command {
    /// Start a cluster on this machine, load it, kill a replica, and check that all agree
    Demo(demo::DemoArgs),
    /// Run one replica
    Serve(Box<config::ServeArgs>),
    /// Show the status of replicas
    Status(status::StatusArgs),
    /// Show how replicas stand, again and again
    Top(top::TopArgs),
    /// Decide a key, or every line of a file
    Propose(propose::ProposeArgs),
    /// Print the latest decision of a key
    Read(read::ReadArgs),
    /// End a key's life, and remove its state
    Delete(delete::DeleteArgs),
    /// List the sources of `propose --source`, or end one
    Source(source::SourceArgs),
    /// Initialise a cluster in etcd, show its members, and change them
    Member(member::MemberArgs),
    /// Show or change the settings of a cluster whose members are named in etcd, while it runs
    Settings(settings::SettingsArgs),
    /// Take and verify snapshots, export them as a backup, and restore one as a new cluster
    Snapshot(backup::SnapshotArgs),
    /// Create the topics of Kafka that a cluster publishes to, show how it stands there, and say where it goes on
    Publish(publish::PublishArgs),
    /// Print the decisions that a replica on this machine keeps for publication, in the order of their execution
    Tail(tail::TailArgs),
    /// Keep the latest decision of each key, as published to Kafka, in an SQLite file, and call an HTTP service for each
    Agent(Box<agent::AgentArgs>),
}

/// Parses the command line; an exit code if it is wrong or asks for help.
fn parse() -> Result<Cli, ExitCode> {
    let command = Cli::command();
    let matches = environment::ignore_empty(command.clone()).try_get_matches();
    for name in environment::empty_names(&command, matches.as_ref().ok()) {
        logging::say(&format!(
            "isonomy: the variable {name} is set but empty, which counts as not set; unset {name}, or give it \
             a value"
        ));
    }
    matches.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|told| {
        // Output that was asked for, such as help, is a result; a broken standard error changes no code.
        let is_shown = told.print().is_ok() || told.use_stderr();
        let code = if is_shown { told.exit_code() as u8 } else { Reason::Failed as u8 };
        ExitCode::from(code)
    })
}

fn main() -> ExitCode {
    logging::start();
    set_last_words(logging::say_last);
    outlive_signal();
    let command = match parse() {
        Ok(cli) => cli.command,
        Err(code) => return code,
    };
    let done = match command {
        Command::Demo(args) => demo::run(&args),
        Command::Serve(args) => serve::run(*args),
        Command::Status(args) => status::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Propose(args) => propose::run(&args),
        Command::Read(args) => read::run(&args),
        Command::Delete(args) => delete::run(&args),
        Command::Source(args) => source::run(&args),
        Command::Member(args) => member::run(args),
        Command::Settings(args) => settings::run(args),
        Command::Snapshot(args) => backup::run(args),
        Command::Publish(args) => publish::run(args),
        Command::Tail(args) => tail::run(&args),
        Command::Agent(args) => agent::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => report(&fatal),
    }
}

#[cfg(test)]
mod tests {
    use isonomy_tuning::pages::HUGE_PAGE_BYTES;

    #[test]
    fn large_tables_begin_at_a_huge_page() {
        let table: Vec<u8> = vec![7; HUGE_PAGE_BYTES + 5];
        assert!(table.as_ptr().addr().is_multiple_of(HUGE_PAGE_BYTES));
    }
}
