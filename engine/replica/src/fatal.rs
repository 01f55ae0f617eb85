//! Why the process ends, and with which exit code. Doubt stops the process; a replay of the log
//! does the rest.

use crate::logging;
use crate::waiting::Trouble;
use isonomy_wire::message::WIRE_VERSION;
use std::fmt;
use std::path::Path;
use std::process::{ExitCode, exit};

/// A reason to end, with its exit code. 0 is success.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Reason {
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
    /// The numbers of a source are done, and said something else.
    OtherCommand = 8,
    /// Another process has taken the source over.
    Fenced = 9,
    /// The key has no decision, or there is no such source.
    Missing = 10,
    /// The key is not as a conditional decision expects it; it is unchanged.
    Rejected = 11,
}

/// An error that ends the process.
#[derive(Debug)]
pub(crate) struct Fatal {
    pub(crate) reason: Reason,
    /// A start that meets it waits instead of ending.
    pub(crate) passes: bool,
    text: String,
}

impl Fatal {
    pub(crate) fn new(reason: Reason, text: impl Into<String>) -> Fatal {
        Fatal { reason, passes: false, text: text.into() }
    }

    /// A part of what a replica has to remember is missing or does not read.
    pub(crate) fn damaged(path: &Path, what: &str) -> Fatal {
        let remedy = "This replica may have forgotten what it promised, so it must not vote: keep the \
                      directory for examination and this replica stopped; docs/OPERATIONS.md says under \
                      \"Lost and damaged replicas\" how to go on";
        Fatal::new(Reason::Damaged, format!("{}: {what}. {remedy}", path.display()))
    }

    /// An end of which nobody wants to hear the reason.
    pub(crate) fn quiet(reason: Reason) -> Fatal {
        Fatal { reason, passes: false, text: String::new() }
    }

    /// A file is whole, but another release wrote it, with this wire version.
    pub(crate) fn of_another_release(path: &Path, version: u8) -> Fatal {
        let what = format!(
            "a release with wire version {version} wrote it, and this release reads version {WIRE_VERSION}. \
             It is not damaged: run the release that made it"
        );
        Fatal::new(Reason::DataDir, format!("{}: {what}", path.display()))
    }

    /// For commands: anything that went wrong, with all its causes. What has an exit code of its own
    /// keeps it.
    pub(crate) fn failed(error: impl Into<anyhow::Error>) -> Fatal {
        let error = error.into();
        error.downcast().unwrap_or_else(|error| Fatal::new(Reason::Failed, format!("{error:#}")))
    }

    /// Says why, and ends `main`.
    pub(crate) fn report(self) -> ExitCode {
        if !self.text.is_empty() {
            logging::say_last(&format!("isonomy: {self}"));
        }
        ExitCode::from(self.reason as u8)
    }
}

/// For whoever cannot wait until it has passed.
impl From<Trouble> for Fatal {
    fn from(trouble: Trouble) -> Fatal {
        let reason = match trouble {
            Trouble::Room { .. } => Reason::Disk,
            Trouble::Name { .. } | Trouble::Address { .. } => Reason::Machine,
        };
        Fatal { reason, passes: true, text: trouble.to_string() }
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Fatal {}

/// Ends the process from wherever it is: nothing more is said or written.
pub(crate) fn stop(reason: Reason, text: &str) -> ! {
    logging::say_last(&format!("isonomy: {text}"));
    exit(i32::from(reason as u8))
}
