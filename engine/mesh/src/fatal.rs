//! Why the process ends, and with which exit code. A shard that is in doubt ends the process, and the replay of its
//! log at the next start does the rest.

use isonomy_wire::message::WIRE_VERSION;
use std::fmt;
use std::path::Path;
use std::process::exit;
use std::sync::OnceLock;

/// A reason to end, with its exit code. 0 is success.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Reason {
    /// The command did not reach its aim; the text says why.
    Failed = 1,
    /// The command line is wrong; clap has the same code.
    CommandLine = 2,
    /// The configuration is wrong.
    Config = 3,
    /// The machine or its limits do not let a replica run.
    Machine = 4,
    /// The data directory belongs to another process, replica or cluster, or it or a backup to another
    /// release.
    DataDir = 5,
    /// The log is damaged in the middle or a part of it is missing, or a snapshot or backup is damaged.
    Damaged = 6,
    /// The disk failed or is full.
    Disk = 7,
    /// The numbers of a source are done, with other contents.
    OtherCommand = 8,
    /// Another process has taken the source over.
    Fenced = 9,
    /// The key has no decision, or there is no such source.
    Missing = 10,
    /// The key is not as a conditional decision expects it; or the agent's hook has refused a decision.
    Rejected = 11,
    /// The topic is not what the agent's file was made of, or lacks or repeats decisions.
    Unfollowed = 12,
}

/// An error that ends the process.
#[derive(Debug)]
pub struct Fatal {
    /// The reason.
    pub reason: Reason,
    /// Whether the trouble can pass by itself, so that a start that meets it waits instead of ending.
    pub passes: bool,
    text: String,
}

impl Fatal {
    /// An error that does not pass.
    pub fn new(reason: Reason, text: impl Into<String>) -> Fatal {
        Fatal { reason, passes: false, text: text.into() }
    }

    /// A trouble that can pass by itself. A start that meets it waits.
    pub fn passing(reason: Reason, text: impl Into<String>) -> Fatal {
        Fatal { reason, passes: true, text: text.into() }
    }

    /// A check of the machine before the start has failed.
    pub fn machine(text: impl fmt::Display) -> Fatal {
        Fatal::new(Reason::Machine, format!("start-up check: {text}"))
    }

    /// The text, which is empty if no reason is to be shown.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A part of what a replica has to remember is missing or does not read.
    pub fn damaged(path: &Path, what: &str) -> Fatal {
        let remedy = "This replica may have forgotten promises, so it must not vote: leave this replica \
                      stopped and keep the directory for examination; then follow docs/OPERATIONS.md, \"Lost \
                      and damaged replicas\"";
        Fatal::new(Reason::Damaged, format!("{}: {what}. {remedy}", path.display()))
    }

    /// An end without a text.
    pub fn quiet(reason: Reason) -> Fatal {
        Fatal { reason, passes: false, text: String::new() }
    }

    /// A file is whole, but another release wrote it, with this wire version.
    pub fn of_another_release(path: &Path, version: u8) -> Fatal {
        let what = format!(
            "a release with wire version {version} wrote it, and this release reads version {WIRE_VERSION}. \
             The file is not damaged: run the release that made it"
        );
        Fatal::new(Reason::DataDir, format!("{}: {what}", path.display()))
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Fatal {}

/// Writes the last words of a process.
type LastWords = fn(&str);

static LAST_WORDS: OnceLock<LastWords> = OnceLock::new();

/// Names the function that writes the last words of this process, which is standard error without one. Only the first
/// call has an effect.
pub fn set_last_words(words: LastWords) {
    let _ = LAST_WORDS.set(words);
}

/// Writes why the process ends.
pub fn say_last(text: &str) {
    match LAST_WORDS.get() {
        Some(words) => words(text),
        None => eprintln!("{text}"),
    }
}

/// Ends the process from any thread. Nothing else is answered or written afterwards.
pub fn stop(reason: Reason, text: &str) -> ! {
    say_last(&format!("isonomy: {text}"));
    exit(i32::from(reason as u8))
}

/// Ends the process as `fatal` says.
pub fn stop_with(fatal: &Fatal) -> ! {
    stop(fatal.reason, &fatal.to_string())
}
