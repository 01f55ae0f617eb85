//! `isonomy source`: which sources are known, and the end of one.

use crate::bytes::quoted;
use crate::commands::{ConnectArgs, Output, block_on};
use crate::fatal::{Fatal, Reason};
use crate::out;
use clap::{Args, Subcommand};
use isonomy_wire::client::{end_source, sources};
use isonomy_wire::message::{Role, SourceStatus};
use isonomy_wire::source::SourceName;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// `isonomy source`
#[derive(Args, Debug)]
pub(crate) struct SourceArgs {
    #[command(subcommand)]
    command: SourceCommand,
}

#[derive(Subcommand, Debug)]
enum SourceCommand {
    /// Show the sources that a replica knows, and the position of each
    List(SourceListArgs),
    /// End a source: the cluster forgets it, and an import that uses its name again begins anew
    End(EndArgs),
}

#[derive(Args, Debug)]
struct SourceListArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// The format in which the sources are printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example: isonomy source end --connect 127.0.0.1:7400 import-1

A second import of the lines of an ended source decides each line again. The command ends with code 10 if there is no
such source.")]
struct EndArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// The name of the source
    #[arg(value_name = "NAME")]
    name: SourceName,
    /// The format in which the outcome is printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(crate) fn run(args: &SourceArgs) -> Result<(), Fatal> {
    match &args.command {
        SourceCommand::List(args) => block_on(list(args)),
        SourceCommand::End(args) => block_on(end(args)),
    }
}

/// A source in all shards.
#[derive(Default)]
struct Whole {
    /// The number of the last line that is done.
    done: u64,
    commands: u64,
    idle: Option<Duration>,
}

impl Whole {
    fn add(&mut self, status: &SourceStatus) {
        self.done = self.done.max(status.low - 1);
        self.commands += status.commands;
        let idle = Duration::from_micros(status.idle_us);
        self.idle = Some(self.idle.map_or(idle, |least| least.min(idle)));
    }
}

async fn list(args: &SourceListArgs) -> anyhow::Result<()> {
    let shards = sources(&args.connect.contact(Role::Operator).await?).await?;
    let mut named: BTreeMap<String, Whole> = BTreeMap::new();
    for status in shards.iter().flatten() {
        named.entry(status.name.clone()).or_default().add(status);
    }
    if named.is_empty() && args.output == Output::Table {
        out::print("no sources")?;
    }
    for (name, Whole { done, commands, idle }) in named {
        let idle = idle.unwrap_or_default().as_secs();
        match args.output {
            Output::Table => out::print(format_args!(
                "{}  to line {done}  {commands} committed  idle for {idle} s",
                quoted(name.as_bytes())
            ))?,
            Output::Json => out::print(json!({
                "source": name, "line": done, "committed": commands, "idle_seconds": idle,
            }))?,
        }
    }
    Ok(())
}

async fn end(args: &EndArgs) -> anyhow::Result<()> {
    let ended = end_source(&args.connect.contact(Role::Operator).await?, &args.name).await?;
    let mut whole = Whole::default();
    ended.iter().for_each(|status| whole.add(status));
    let name = args.name.as_str();
    if ended.is_empty() {
        let text = format!(
            "there is no source {}; list the sources with isonomy source list",
            quoted(name.as_bytes())
        );
        return Err(Fatal::new(Reason::Missing, text).into());
    }
    let Whole { done, commands, .. } = whole;
    match args.output {
        Output::Table => out::print(format_args!(
            "ended {}, which had come to line {done} with {commands} committed",
            quoted(name.as_bytes())
        ))?,
        Output::Json => out::print(json!({"source": name, "line": done, "committed": commands}))?,
    }
    Ok(())
}
