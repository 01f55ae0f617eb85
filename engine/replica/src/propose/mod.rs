//! `isonomy propose`: decides one key, or every line of a file.

mod import;
mod input;
mod key;
mod lines;
mod single;

use crate::bytes::KeyBytesArgs;
use crate::commands::{ConnectArgs, Output, block_on};
use crate::fatal::Fatal;
use clap::Args;
#[cfg(test)]
pub(crate) use import::LINES_MAX;
#[cfg(test)]
pub(crate) use input::LINES_BYTES_MAX;
use isonomy_wire::conversation::{Config, NO_DEADLINE_US};
use isonomy_wire::message::Welcome;
use isonomy_wire::source::SourceName;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The deadline for decisions that a retry may make twice.
pub(crate) const DEADLINE_SECONDS: u64 = 10;
/// The longest deadline that can be given: a year.
const SECONDS_MAX: u64 = 366 * 24 * 3600;

/// `isonomy propose`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  isonomy propose --connect 127.0.0.1:7400 order-17 accepted
  isonomy propose --connect 127.0.0.1:7400 order-17 paid --if-seq 1
  isonomy propose --connect 127.0.0.1:7400 picture-3 --value-file picture.png
  date | isonomy propose --connect 127.0.0.1:7400 --key-hex 00ff17 -
  isonomy propose --connect 127.0.0.1:7400 --from events.jsonl --key order --source import-1
  zcat events.jsonl.gz | isonomy propose --connect 127.0.0.1:7400 --from - --key order

A regular file is checked as a whole before its first line is proposed. The lines of any other input are proposed as
they come.

With --source, a second run with the same file, after an interruption or by mistake, still decides each line exactly
once. Without --source, a second run decides each line again. Lines may be added to the file but not changed: the
cluster remembers the line of each number under this name, and the command ends with code 8 if another line has the
number now. A process that starts later takes the source over from a process that still runs, and the earlier process
ends with code 9. See also isonomy source --help.

With --if-seq, the command ends with code 11 if the key is at another decision, and prints the number and the value of
that decision.")]
pub(crate) struct ProposeArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// The key to decide; leave the key out with --key-hex and --key-base64
    #[arg(value_name = "KEY", required_unless_present_any = ["from", "key_hex", "key_base64"])]
    first: Option<OsString>,
    /// The value, or - for the bytes of standard input
    #[arg(value_name = "VALUE")]
    second: Option<OsString>,
    #[command(flatten)]
    key_bytes: KeyBytesArgs,
    /// Take the bytes of this file as the value
    #[arg(long, value_name = "FILE")]
    value_file: Option<PathBuf>,
    /// Decide only if the key's latest decision has this number; 0: only if the key has no decision
    #[arg(long, value_name = "N")]
    if_seq: Option<u64>,
    /// Propose the lines of this file (JSON objects), or the lines of standard input if FILE is -
    #[arg(long, value_name = "FILE", requires = "key",
          conflicts_with_all = ["first", "second", "key_hex", "key_base64", "value_file", "if_seq"])]
    from: Option<PathBuf>,
    /// The field that holds a line's key; the value is the whole line
    #[arg(long, value_name = "FIELD", requires = "from")]
    key: Option<String>,
    /// Number the lines under this name, so that no line is decided twice
    #[arg(long, value_name = "NAME", requires = "from")]
    source: Option<SourceName>,
    /// How long each decision may take, not the whole import. Time in which this process is stopped does not count
    /// [default: 10; with --source, where every retry is safe, there is no deadline, and messages name the reason why
    /// the import waits]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    deadline: Option<u64>,
    /// The format in which the outcome is printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl ProposeArgs {
    /// How long a decision may take; `None`: no deadline.
    fn deadline(&self) -> Option<Duration> {
        let default = if self.source.is_some() { None } else { Some(DEADLINE_SECONDS) };
        self.deadline.or(default).map(Duration::from_secs)
    }

    /// The settings of a conversation with that cluster.
    fn conversation(&self, welcome: &Welcome) -> Config {
        let deadline_us = self.deadline().map_or(NO_DEADLINE_US, |deadline| deadline.as_micros() as u64);
        Config { deadline_us, ..Config::of(welcome) }
    }
}

/// Proposes the key or the lines of the arguments; an error if anything was not decided.
pub(crate) fn run(args: &ProposeArgs) -> Result<(), Fatal> {
    if let (Some(path), Some(field)) = (&args.from, &args.key) {
        return block_on(import::run(args, path, field));
    }
    let asked = single::Asked::of(args)?;
    block_on(single::run(args, asked))
}
