//! An HTTP service that is called for each decision.

mod body;
mod lanes;
mod post;
mod status;

pub use status::HookStatus;

use crate::file::{File, FileError, Plain, now_ms};
use crate::projection::{Batch, Failure, Look, Projection, Start};
use isonomy_kafka::decision::Decision;
use post::Poster;
use rusqlite::{Transaction, params};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// The most requests that may be under way at once.
pub const CONCURRENCY_MAX: usize = 256;

/// What becomes of a decision that the hook refuses for good: with a status of 4xx other than 408, 425 and 429, or of 3xx.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Refused {
    /// It ends the agent, and is posted again at the next start.
    #[default]
    Stop,
    /// It is written to the table `skipped`, and the next one is posted.
    Skip,
}

impl FromStr for Refused {
    type Err = BadHook;

    fn from_str(text: &str) -> Result<Refused, BadHook> {
        match text {
            "stop" => Ok(Refused::Stop),
            "skip" => Ok(Refused::Skip),
            other => Err(BadHook::Refused(other.to_owned())),
        }
    }
}

/// How a service is called.
#[derive(Clone, PartialEq, Eq)]
pub struct HookSettings {
    /// The address, `http://` or `https://`.
    pub url: String,
    /// How long one request may take, from the connection to the end of the answer.
    pub timeout: Duration,
    /// How many requests may be under way at once, at most [`CONCURRENCY_MAX`]. Those of one key follow each other.
    pub concurrency: usize,
    /// What becomes of a decision that is refused for good.
    pub refused: Refused,
    /// More headers of each request, such as `Authorization`.
    pub headers: BTreeMap<String, String>,
}

impl Default for HookSettings {
    fn default() -> HookSettings {
        HookSettings {
            url: String::new(),
            timeout: Duration::from_secs(10),
            concurrency: 8,
            refused: Refused::default(),
            headers: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for HookSettings {
    /// Without the values of the headers, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.keys().collect();
        f.debug_struct("HookSettings")
            .field("url", &self.url)
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

/// Why the settings of a hook cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadHook {
    /// No address of a service.
    #[error("'{0}' is no address of a hook; an address begins with http:// or https:// and a host")]
    Url(String),
    /// No request, or too many at once.
    #[error("{0} requests cannot be under way at once; choose 1 to {CONCURRENCY_MAX}")]
    Concurrency(usize),
    /// A request without time.
    #[error("a request cannot be answered in no time; give it some, such as 10 s")]
    NoTime,
    /// No header of a request.
    #[error("'{0}' cannot be a header of a request; a header has a name and a value in visible ASCII")]
    Header(String),
    /// An unknown policy.
    #[error("'{0}' cannot be done with what the hook refuses; choose \"stop\" or \"skip\"")]
    Refused(String),
}

/// Why the hook ends the agent.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The settings cannot be used.
    #[error("{0}")]
    Settings(#[from] BadHook),
    /// The hook has refused a decision for good.
    #[error(
        "the hook has answered {status} to decision {id} ({key_seq} of its key): {answer}; mend the hook and start again, \
         or skip what it refuses"
    )]
    Refused {
        /// The decision.
        id: String,
        /// Its `key_seq`.
        key_seq: u64,
        /// The status of the answer.
        status: u16,
        /// The beginning of the answer.
        answer: String,
    },
    /// The agent was stopped before everything was answered.
    #[error("the agent was stopped; what was not answered is posted again")]
    Stopped,
    /// The file of the positions.
    #[error("{0}")]
    File(#[from] FileError),
}

/// A decision that was refused for good, and skipped.
pub(crate) struct Skipped<'a> {
    decision: &'a Decision,
    status: u16,
    answer: String,
}

/// A projection that posts each decision to an HTTP service, at least once. Its positions lie in an SQLite file, which may be
/// that of a [`crate::Table`].
///
/// The body is a JSON object as `isonomy tail` prints it (`id`, `key`, `value`, `key_seq`, `deleted`), with `epoch` and
/// `shard`. The header `Idempotency-Key` is `TOPIC-ID/PARTITION/OFFSET/INDEX`: equal in each try of a decision, and different
/// for any two decisions of all clusters. A decision is posted until it is answered: after 2xx comes the next one of its key;
/// no answer, 5xx, 408, 425 and 429 are tried again with growing pauses, for as long as it takes.
pub struct Hook {
    file: File,
    poster: Poster,
}

impl Hook {
    /// Opens the file of the positions, which is created if there is none.
    ///
    /// # Errors
    ///
    /// [`HookError`] if the settings cannot be used, or the file.
    pub fn open(path: &Path, settings: HookSettings) -> Result<Hook, HookError> {
        let poster = Poster::new(settings)?;
        Ok(Hook { file: File::open(path, "hook")?, poster })
    }

    /// How far the hook is, from any thread.
    pub fn status(&self) -> Arc<HookStatus> {
        self.poster.status()
    }
}

impl Projection for Hook {
    fn start(&mut self) -> Result<Start, Failure> {
        Ok(self.file.start()?)
    }

    fn apply(&mut self, batch: &Batch<'_>) -> Result<(), Failure> {
        let skipped = lanes::post_all(&self.poster, batch)?;
        let write = |transaction: &Transaction<'_>| skipped.iter().try_for_each(|it| keep(transaction, it));
        Ok(self.file.write(batch, write)?)
    }

    fn on_look(&mut self, look: &Look<'_>) -> Result<(), Failure> {
        Ok(self.file.look(look)?)
    }
}

fn keep(transaction: &Transaction<'_>, skipped: &Skipped<'_>) -> rusqlite::Result<()> {
    let Decision { partition, offset, id, key, key_seq, value, .. } = skipped.decision;
    transaction
        .prepare_cached("INSERT OR IGNORE INTO skipped VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
        .execute(params![
            partition,
            offset,
            id.to_string(),
            Plain(key),
            *key_seq as i64,
            value.as_deref().map(Plain),
            skipped.status,
            skipped.answer,
            now_ms()
        ])
        .map(drop)
}
