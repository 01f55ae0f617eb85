//! Decides the lines of an input, many at a time, and counts what became of them.

use super::ProposeArgs;
use super::input::{Held, Input};
use super::lines::{BadLine, Line};
use crate::commands::Output;
use crate::fatal::{Fatal, Reason};
use crate::logging::say;
use crate::out;
use anyhow::{Context, Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use isonomy_wire::client::{
    CallError, Client, ConnectError, Contact, Patience, Proposal, Proposed, Source, Uncompared, sleep_running,
};
use isonomy_wire::conversation::Error;
use isonomy_wire::message::Role;
use serde_json::json;
use std::collections::VecDeque;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep};

/// Lines that are under way at once.
pub(crate) const LINES_MAX: usize = 8192;

/// After each such time without a decision, the import logs what it waits for.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// The time between two tries to reach any replica.
const CONTACT_PAUSE: Duration = Duration::from_millis(500);

/// What became of the lines before one that cannot be proposed, where there are none or all were looked at.
const NOTHING: &str = "nothing was proposed";

/// The outcome of the lines.
#[derive(Default)]
struct Tally {
    /// The lines that this process decided.
    committed: u64,
    /// The lines whose numbers were done before this process came.
    before: u64,
    /// The lines without a known decision.
    failed: u64,
    /// The first of those.
    first_failed: Option<(u64, CallError)>,
}

impl Tally {
    fn note(&mut self, line: u64, outcome: Result<Proposed, CallError>) {
        match outcome {
            Ok(Proposed::Committed(_) | Proposed::Deleted(_)) => self.committed += 1,
            Ok(Proposed::Before) => self.before += 1,
            Err(error) => {
                self.failed += 1;
                let earlier = self.first_failed.as_ref().is_some_and(|(first, _)| *first < line);
                if !earlier {
                    self.first_failed = Some((line, error));
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.committed + self.before + self.failed == 0
    }

    /// `is_same`: whether the lines that were done are known to be those that are done.
    fn print(&self, output: Output, was_empty: bool, is_same: bool) -> Result<()> {
        let Tally { committed, failed, .. } = self;
        let before = is_same.then_some(self.before);
        match output {
            Output::Table if was_empty => out::print("0 lines committed: the input has no lines")?,
            Output::Table => {
                let before = before.map(|before| format!(", {before} were committed before"));
                let failed = if *failed == 0 { String::new() } else { format!(", {failed} failed") };
                out::print(format_args!(
                    "{committed} lines committed{}{failed}",
                    before.unwrap_or_default()
                ))?;
            }
            Output::Json => {
                out::print(json!({"committed": committed, "committed_before": before, "failed": failed}))?;
            }
        }
        Ok(())
    }
}

/// Decides every line of the file.
pub(super) async fn run(args: &ProposeArgs, path: &Path, field: &str) -> Result<()> {
    let mut input = Input::open(path)?;
    let name = input.name.clone();
    let checked = input.check(field);
    let count = checked.map_err(|bad| anyhow!("{name}, {bad} ({NOTHING})"))?;
    let proposer = Proposer::connect(args).await?;
    let progress = progress(count);
    let mut tally = Tally::default();
    let read = propose_all(&proposer, input.read(field), &progress, &mut tally).await;
    let closed = proposer.close().await;
    progress.finish_and_clear();
    let was_empty = read.as_ref().is_ok_and(|lines| *lines == 0);
    let reason = tally.first_failed.as_ref().map_or(Reason::Failed, |(_, error)| reason_of(error));
    let is_same = closed.is_ok() && reason != Reason::OtherCommand;
    tally.print(args.output, was_empty, is_same)?;
    let rest = if tally.is_empty() { NOTHING } else { "the lines before it were proposed" };
    read.map_err(|bad| anyhow!("{name}, {bad} ({rest})"))?;
    match (tally.first_failed, closed) {
        (Some((_, error)), _) if reason != Reason::Failed => {
            Err(Fatal::new(reason, format!("{name}: {error}")).into())
        }
        (Some((line, error)), _) => {
            Err(error).with_context(|| format!("{name}, line {line}, and perhaps later ones"))
        }
        (None, Err(uncompared)) => {
            Err(Fatal::new(Reason::OtherCommand, format!("{name}: {uncompared}")).into())
        }
        (None, Ok(())) => Ok(()),
    }
}

/// The outcomes that a script has to tell apart.
fn reason_of(error: &CallError) -> Reason {
    match error {
        CallError::Failed(Error::OtherCommand { .. }) => Reason::OtherCommand,
        CallError::Failed(Error::Fenced) => Reason::Fenced,
        _ => Reason::Failed,
    }
}

/// What lines leave by.
enum Proposer {
    Numbered(Source),
    Unnumbered(Client),
}

impl Proposer {
    async fn connect(args: &ProposeArgs) -> Result<Proposer> {
        let welcome = contact(args).await?.welcome;
        let config = args.conversation(&welcome);
        Ok(match &args.source {
            Some(name) => Proposer::Numbered(Source::with(&welcome, config, name, 1)),
            None => Proposer::Unnumbered(Client::with(welcome, config)),
        })
    }

    fn troubles(&self) -> Vec<String> {
        match self {
            Proposer::Numbered(source) => source.troubles(),
            Proposer::Unnumbered(client) => client.troubles(),
        }
    }

    async fn propose(&self, line: Line) -> Result<Proposal, CallError> {
        let Line { number, key, value } = line;
        match self {
            Proposer::Numbered(source) => source.propose(number, key, value).await,
            Proposer::Unnumbered(client) => client.propose(key, value).await,
        }
    }

    async fn close(self) -> Result<(), Uncompared> {
        match self {
            Proposer::Numbered(source) => source.close().await,
            Proposer::Unnumbered(client) => {
                client.close().await;
                Ok(())
            }
        }
    }
}

/// The first contact, which an import that may wait waits for.
async fn contact(args: &ProposeArgs) -> Result<Contact, ConnectError> {
    let patience = Patience::of(args.deadline());
    let mut told = Instant::now();
    loop {
        let error = match args.connect.contact(Role::Client).await {
            Err(error @ ConnectError::Nobody(_)) if args.source.is_some() => error,
            found => return found,
        };
        if patience.is_over() {
            return Err(error);
        }
        if Instant::now() >= told {
            say(&format!("isonomy: the import waits: {error}"));
            told = Instant::now() + TELL_EVERY;
        }
        sleep(CONTACT_PAUSE).await;
    }
}

/// A line that is under way, with the room in memory that it takes.
struct Open {
    number: u64,
    proposal: Proposal,
    _room: OwnedSemaphorePermit,
}

/// Proposes lines until one cannot be read or was not decided; how many there were.
async fn propose_all(
    proposer: &Proposer,
    mut lines: mpsc::Receiver<Result<Held, BadLine>>,
    progress: &ProgressBar,
    tally: &mut Tally,
) -> Result<u64, BadLine> {
    let mut open: VecDeque<Open> = VecDeque::new();
    let mut read = Ok(0);
    let mut quiet = pin!(sleep_running(TELL_EVERY));
    let mut more = true;
    while tally.first_failed.is_none() && (more || !open.is_empty()) {
        let has_room = more && open.len() < LINES_MAX;
        let waiting = open.front().map(|open| open.number);
        let oldest = async {
            let oldest = open.front_mut()?;
            Some((oldest.number, (&mut oldest.proposal).await))
        };
        tokio::select! {
            Some((number, outcome)) = oldest => {
                open.pop_front();
                tally.note(number, outcome);
                progress.inc(1);
                quiet.set(sleep_running(TELL_EVERY));
            }
            () = &mut quiet, if waiting.is_some() => {
                quiet.set(sleep_running(TELL_EVERY));
                let troubles = proposer.troubles();
                let why = if troubles.is_empty() { "the replicas do not answer".into() } else { troubles.join("; ") };
                progress.suspend(|| say(&format!("isonomy: line {} waits: {why}", waiting.unwrap_or_default())));
            }
            line = lines.recv(), if has_room => match line {
                Some(Ok(Held { line, room })) => {
                    let number = line.number;
                    read = read.map(|count| count + 1);
                    match proposer.propose(line).await {
                        Ok(proposal) => open.push_back(Open { number, proposal, _room: room }),
                        Err(error) => tally.note(number, Err(error)),
                    }
                }
                Some(Err(bad)) => {
                    read = Err(bad);
                    more = false;
                }
                None => more = false,
            },
        }
    }
    for Open { number, proposal, .. } in open {
        tally.note(number, proposal.await);
        progress.inc(1);
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
