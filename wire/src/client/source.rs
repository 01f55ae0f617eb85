//! A source that numbers its commands by itself, such as the lines of a file.

use super::connection::ConnectError;
use super::discovery::discover;
use super::driver::{CALLS_MAX, Call, Driver, OwnedCommand, Way};
use super::troubles::Troubles;
use super::{CallError, Committed, Deleted};
use crate::answer::Answer;
use crate::conversation::{Config, Conversation};
use crate::message::Welcome;
use crate::source::{Owner, SourceName};
use bytes::Bytes;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// The outcome of a proposal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proposed {
    /// The command was decided.
    Committed(Committed),
    /// The number was done before this process attached to the source. The command is compared with the one of that
    /// time at the next [mark](crate::source::Mark), at the latest before a new number is sent. If they differ, a
    /// later proposal has [`Error::OtherCommand`](crate::conversation::Error::OtherCommand).
    Before,
    /// The key's life was ended; `None` if the key had no decision.
    Deleted(Option<Deleted>),
}

/// Numbers that are done and whose commands could not be compared with those of this process, because this process
/// submitted fewer than the source has decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "this run submitted fewer numbers than the source had submitted before, so numbers {from} to {to} cannot \
     be compared with the earlier commands; submit the whole earlier input again, or use another name for \
     other input"
)]
pub struct Uncompared {
    /// The lowest such number.
    pub from: u64,
    /// The highest such number.
    pub to: u64,
}

/// A handle to a named source. Each number is decided once, however often and by whatever process it is submitted.
/// One process at a time owns the source: a later process takes it over, and the calls of this one then fail with
/// [`Error::Fenced`](crate::conversation::Error::Fenced). See [`Conversation::named`].
#[derive(Debug)]
pub struct Source {
    calls: mpsc::Sender<Call>,
    driver: JoinHandle<Conversation>,
    troubles: Troubles,
}

impl Source {
    /// Connects through any of these client ports ("host:port", of shard 0). Numbers below `next` are done or left
    /// out; `next` is 1 if nothing is known of the source.
    ///
    /// # Errors
    ///
    /// The errors of [`Client::connect`](super::Client::connect).
    ///
    /// # Panics
    ///
    /// When `next` is not from 1 to [`NUMBER_MAX`](crate::command::NUMBER_MAX), or when the caller does not run on a
    /// tokio runtime with I/O and time enabled.
    pub async fn connect<A: AsRef<str>>(
        addresses: &[A],
        name: &SourceName,
        next: u64,
    ) -> Result<Source, ConnectError> {
        let welcome = discover(addresses).await?;
        let config = Config::of(&welcome);
        Ok(Source::with(&welcome, config, name, next))
    }

    /// A source of the cluster that [`discover`] has found, with the caller's settings.
    ///
    /// # Panics
    ///
    /// As [`Source::connect`], and when `welcome` names no members that are possible or a setting of `config` is out of
    /// range.
    pub fn with(welcome: &Welcome, config: Config, name: &SourceName, next: u64) -> Source {
        let (calls, queue) = mpsc::channel(CALLS_MAX);
        let owner = Owner(rand::random_range(1..=u64::MAX));
        let driver = Driver::new(Conversation::named(config, name, owner, next), welcome, queue);
        let troubles = driver.troubles();
        Source { calls, driver: tokio::spawn(driver.run()), troubles }
    }

    /// Reasons why answers may be missing now: a text for each replica that refuses requests or is not connected.
    pub fn troubles(&self) -> Vec<String> {
        self.troubles.list()
    }

    /// Queues the decision with this number, and returns before it is decided, so that many can be under way. Numbers
    /// must ascend. Await the [`Proposal`] for the outcome.
    ///
    /// # Errors
    ///
    /// [`CallError::Closed`] if the source's task has ended. The proposal itself has the errors of
    /// [`Client::decide`](super::Client::decide), and besides [`SubmitError::Order`](crate::conversation::SubmitError) for
    /// a number that does not ascend, [`SubmitError::Stopped`](crate::conversation::SubmitError) behind a number that
    /// failed, and [`Error::OtherCommand`](crate::conversation::Error) and [`Error::Fenced`](crate::conversation::Error).
    pub async fn propose(
        &self,
        number: u64,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Proposal, CallError> {
        let command = OwnedCommand::Decide { key: key.into(), value: value.into() };
        Proposal::send(&self.calls, Way::Numbered(number), command).await
    }

    /// Queues the end of a key's life with this number, as [`Source::propose`] queues a decision.
    ///
    /// # Errors
    ///
    /// The errors of [`Source::propose`].
    pub async fn delete(&self, number: u64, key: impl Into<Bytes>) -> Result<Proposal, CallError> {
        Proposal::send(&self.calls, Way::Numbered(number), OwnedCommand::Delete { key: key.into() }).await
    }

    /// Ends at once, with commands under way or not. Whoever submits their numbers again finds out what has become of
    /// them.
    pub fn abandon(self) {
        self.driver.abort();
    }

    /// Waits until every proposal has its outcome.
    ///
    /// # Errors
    ///
    /// [`Uncompared`] if the source has decided more numbers than this process submitted, so that some of its
    /// submitted commands could not be compared.
    pub async fn close(self) -> Result<(), Uncompared> {
        drop(self.calls);
        // The task only fails by a panic, which was reported where it happened.
        let Ok(conversation) = self.driver.await else { return Ok(()) };
        conversation.uncompared().map_or(Ok(()), |(from, to)| Err(Uncompared { from, to }))
    }
}

/// A command under way: a future of its outcome.
#[derive(Debug)]
pub struct Proposal {
    answer: oneshot::Receiver<Result<Answer, CallError>>,
}

impl Proposal {
    /// Queues the command.
    pub(super) async fn send(
        calls: &mpsc::Sender<Call>,
        way: Way,
        command: OwnedCommand,
    ) -> Result<Proposal, CallError> {
        let (reply, answer) = oneshot::channel();
        let call = Call { command, way, reply };
        calls.send(call).await.map_err(|_| CallError::Closed)?;
        Ok(Proposal { answer })
    }
}

impl Future for Proposal {
    type Output = Result<Proposed, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        Poll::Ready(match answer.map_err(|_| CallError::Closed).flatten()? {
            Answer::Committed { id, key_seq } => Ok(Proposed::Committed(Committed { id, key_seq })),
            Answer::Deleted { id, key_seq } => Ok(Proposed::Deleted(Some(Deleted { id, key_seq }))),
            Answer::Missing => Ok(Proposed::Deleted(None)),
            Answer::Duplicate => Ok(Proposed::Before),
            other => Err(CallError::of(&other)),
        })
    }
}
