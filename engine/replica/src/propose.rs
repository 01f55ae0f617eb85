//! `isonomy propose`: decides one key, or every line of a file.

use crate::commands::{ConnectArgs, Output, block_on};
use crate::fatal::Fatal;
use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use isonomy_wire::client::{CallError, Client, Proposal, Proposed, Source};
use isonomy_wire::command::{check_key, check_value};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// Lines that are under way at once.
const LINES_MAX: usize = 8192;
/// Lines that were read and are not under way yet.
const LINES_AHEAD_MAX: usize = 1024;

/// `isonomy propose`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  isonomy propose --connect 127.0.0.1:7400 order-17 accepted
  isonomy propose --connect 127.0.0.1:7400 --from events.jsonl --key order --source import-1

A file is checked as a whole before its first line is proposed. With --source, running the same file again, after
an interruption or by mistake, decides each line exactly once; without, it decides each line again. Only one process
at a time may use a source name, and lines may be added to the file but not changed.")]
pub(crate) struct ProposeArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// The key to decide
    #[arg(required_unless_present = "from", requires = "value")]
    key_argument: Option<String>,
    /// Its value
    value: Option<String>,
    /// Propose the lines of this file (JSON objects), or of standard input if it is -
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "key_argument")]
    from: Option<PathBuf>,
    /// The field that holds a line's key; the value is the whole line
    #[arg(long, value_name = "FIELD", requires = "from")]
    key: Option<String>,
    /// Number the lines under this name, so that none is decided twice
    #[arg(long, value_name = "NAME", requires = "from")]
    source: Option<String>,
    /// How the outcome is printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Proposes what the arguments say; an error if anything was not decided.
pub(crate) fn run(args: &ProposeArgs) -> Result<(), Fatal> {
    block_on(async {
        match (&args.from, &args.key, &args.key_argument, &args.value) {
            (Some(path), Some(field), ..) => propose_lines(args, path, field).await,
            (_, _, Some(key), Some(value)) => propose_one(args, key, value).await,
            _ => bail!("give KEY and VALUE, or --from FILE and --key FIELD"),
        }
    })
}

async fn propose_one(args: &ProposeArgs, key: &str, value: &str) -> Result<()> {
    let client = Client::connect(&args.connect.connect).await?;
    let decided = client.decide(key.to_owned(), value.to_owned()).await;
    let decided = decided.with_context(|| format!("proposing '{key}'"))?;
    client.close().await;
    let id = decided.id.to_string();
    match args.output {
        Output::Table => println!("committed {id}, decision {} of '{key}'", decided.key_seq),
        Output::Json => println!("{}", json!({"key": key, "key_seq": decided.key_seq, "id": id})),
    }
    Ok(())
}

/// What came of a file's lines.
#[derive(Default)]
struct Tally {
    committed: u64,
    before: u64,
    /// The first that failed.
    failed: Option<(u64, CallError)>,
}

impl Tally {
    fn note(&mut self, line: u64, outcome: Result<Proposed, CallError>) {
        match outcome {
            Ok(Proposed::Committed(_)) => self.committed += 1,
            Ok(Proposed::Before) => self.before += 1,
            Err(error) => {
                let earlier = self.failed.as_ref().is_some_and(|(first, _)| *first < line);
                if !earlier {
                    self.failed = Some((line, error));
                }
            }
        }
    }
}

async fn propose_lines(args: &ProposeArgs, path: &Path, field: &str) -> Result<()> {
    let is_stdin = path == Path::new("-");
    let name = if is_stdin { "standard input".into() } else { path.display().to_string() };
    let count = if is_stdin { None } else { Some(check_file(path, field, &name)?) };
    let proposer = Proposer::connect(args).await?;
    let lines = if is_stdin {
        read_lines(BufReader::new(stdin()), field, &name)
    } else {
        read_lines(BufReader::new(File::open(path).with_context(|| name.clone())?), field, &name)
    };
    let progress = progress(count);
    let mut tally = Tally::default();
    let read = propose_all(&proposer, lines, &progress, &mut tally).await;
    proposer.close().await;
    progress.finish_and_clear();
    let Tally { committed, before, failed } = tally;
    match args.output {
        Output::Table => println!("{committed} lines committed, {before} were committed before"),
        Output::Json => println!("{}", json!({"committed": committed, "committed_before": before})),
    }
    read?;
    match failed {
        Some((line, error)) => {
            Err(error).with_context(|| format!("{name}, line {line}, and perhaps later ones"))
        }
        None => Ok(()),
    }
}

/// Reads the whole file before anything is proposed; how many lines it has.
fn check_file(path: &Path, field: &str, name: &str) -> Result<u64> {
    let file = File::open(path).with_context(|| name.to_owned())?;
    let mut count = 0;
    for (index, line) in BufReader::new(file).lines().enumerate() {
        count = index as u64 + 1;
        let line = line.with_context(|| format!("{name}, line {count}"))?;
        key_of(&line, field).with_context(|| format!("{name}, line {count} (nothing was proposed)"))?;
    }
    Ok(count)
}

/// The key of a line; `None` for an empty one.
fn key_of(line: &str, field: &str) -> Result<Option<String>> {
    if line.trim().is_empty() {
        return Ok(None);
    }
    let value: Value = serde_json::from_str(line).context("not JSON")?;
    let key = match value.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(scalar @ (Value::Number(_) | Value::Bool(_))) => scalar.to_string(),
        Some(_) => bail!("field '{field}' is neither text nor a number"),
        None => bail!("it has no field '{field}'"),
    };
    check_key(key.len())?;
    check_value(line.len())?;
    Ok(Some(key))
}

/// A line that is not empty.
struct Line {
    /// Counted from 1, empty ones too.
    number: u64,
    key: String,
    text: String,
}

/// The lines with their keys.
fn keyed(reader: impl BufRead, field: &str, name: &str) -> impl Iterator<Item = Result<Line>> {
    (1..).zip(reader.lines()).filter_map(move |(number, text)| {
        let place = || format!("{name}, line {number} (those before it were proposed)");
        let line = text.map_err(anyhow::Error::from).and_then(|text| {
            let key = key_of(&text, field)?;
            Ok(key.map(|key| Line { number, key, text }))
        });
        line.with_context(place).transpose()
    })
}

/// Reads the lines on a thread of their own: a pipe may have long pauses between them.
fn read_lines(
    reader: impl BufRead + Send + 'static,
    field: &str,
    name: &str,
) -> mpsc::Receiver<Result<Line>> {
    let (sender, lines) = mpsc::channel(LINES_AHEAD_MAX);
    let (field, name) = (field.to_owned(), name.to_owned());
    std::thread::spawn(move || {
        // Nobody receives any more once a line was not decided.
        let _ = keyed(reader, &field, &name).try_for_each(|line| sender.blocking_send(line));
    });
    lines
}

/// What lines leave by.
enum Proposer {
    Numbered(Source),
    Unnumbered(Client),
}

impl Proposer {
    async fn connect(args: &ProposeArgs) -> Result<Proposer> {
        let addresses = &args.connect.connect;
        Ok(match &args.source {
            Some(name) => Proposer::Numbered(Source::connect(addresses, name, 1).await?),
            None => Proposer::Unnumbered(Client::connect(addresses).await?),
        })
    }

    async fn propose(&self, number: u64, key: String, text: String) -> Result<Proposal, CallError> {
        match self {
            Proposer::Numbered(source) => source.propose(number, key, text).await,
            Proposer::Unnumbered(client) => client.propose(key, text).await,
        }
    }

    async fn close(self) {
        match self {
            Proposer::Numbered(source) => source.close().await,
            Proposer::Unnumbered(client) => client.close().await,
        }
    }
}

/// Proposes lines until one cannot be read or was not decided.
async fn propose_all(
    proposer: &Proposer,
    mut lines: mpsc::Receiver<Result<Line>>,
    progress: &ProgressBar,
    tally: &mut Tally,
) -> Result<()> {
    let mut open: VecDeque<(u64, Proposal)> = VecDeque::new();
    let mut read = Ok(());
    while tally.failed.is_none() {
        let has_room = open.len() < LINES_MAX;
        let oldest = async {
            let (number, proposal) = open.front_mut()?;
            Some((*number, proposal.await))
        };
        tokio::select! {
            Some((number, outcome)) = oldest => {
                open.pop_front();
                tally.note(number, outcome);
                progress.set_position(number);
            }
            line = lines.recv(), if has_room => match line {
                Some(Ok(Line { number, key, text })) => match proposer.propose(number, key, text).await {
                    Ok(proposal) => open.push_back((number, proposal)),
                    Err(error) => tally.note(number, Err(error)),
                },
                Some(Err(error)) => {
                    read = Err(error);
                    break;
                }
                None => break,
            },
        }
    }
    for (number, proposal) in open {
        tally.note(number, proposal.await);
        progress.set_position(number);
    }
    read
}

/// Drawn on a terminal only.
fn progress(count: Option<u64>) -> ProgressBar {
    match count {
        Some(count) => {
            let style =
                ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} lines, {per_sec}, {eta}");
            ProgressBar::new(count).with_style(style.expect("the template is right"))
        }
        None => ProgressBar::new_spinner(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_text_or_numbers_and_everything_else_says_what_it_is() {
        assert_eq!(key_of(r#"{"id": "a", "x": 1}"#, "id").unwrap(), Some("a".into()));
        assert_eq!(key_of(r#"{"id": 17}"#, "id").unwrap(), Some("17".into()));
        assert_eq!(key_of("  ", "id").unwrap(), None);
        let error = |line: &str| format!("{:#}", key_of(line, "id").unwrap_err());
        assert!(error("{").starts_with("not JSON"));
        assert!(error("{}").contains("no field 'id'"));
        assert!(error(r#"{"id": [1]}"#).contains("neither text nor a number"));
        assert!(error(r#"{"id": ""}"#).contains("1 to 1024"));
        assert!(error(&format!(r#"{{"id": "{}"}}"#, "k".repeat(1025))).contains("1025 bytes"));
    }

    #[test]
    fn lines_keep_their_numbers_across_empty_ones() {
        let text = "{\"k\":1}\n\n{\"k\":2}\nnonsense\n";
        let mut lines = keyed(text.as_bytes(), "k", "here");
        let mut next = || lines.next().unwrap();
        assert_eq!((next().unwrap().number, next().unwrap().number), (1, 3));
        let error = format!("{:#}", next().err().unwrap());
        assert!(error.starts_with("here, line 4"), "{error}");
    }
}
