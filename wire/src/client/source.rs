//! A source that numbers its commands by itself, such as the lines of a file.

use super::connection::ConnectError;
use super::discovery::discover;
use super::driver::{CALLS_MAX, Call, Command, Driver};
use super::troubles::Troubles;
use super::{CallError, Committed};
use crate::answer::Answer;
use crate::message::Welcome;
use crate::session::{Config, Session};
use crate::source::{Owner, SourceName};
use bytes::Bytes;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// What became of a proposal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proposed {
    /// It decided.
    Committed(Committed),
    /// Its number was done before this process attached to the source. What it said is compared with what was
    /// said then at the next [mark](crate::source::Mark), at the latest before a new number is sent: then a
    /// later proposal has [`Error::OtherCommand`](crate::session::Error::OtherCommand).
    Before,
}

/// Numbers that are done, and of which it is not known whether they said the same: the source has said more
/// than this process submitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the source has said more before than was submitted now, and numbers {from} to {to} cannot be compared with \
     it; submit all that was submitted before, or use another name for other input"
)]
pub struct Uncompared {
    /// The lowest of them.
    pub from: u64,
    /// The highest.
    pub to: u64,
}

/// A source under a name. A number decides once, whatever process submits it how often. One process at a
/// time: a later one takes the source over, and this one is told
/// [`Error::Fenced`](crate::session::Error::Fenced). See [`Session::named`].
#[derive(Debug)]
pub struct Source {
    calls: mpsc::Sender<Call>,
    driver: JoinHandle<Session>,
    troubles: Troubles,
}

impl Source {
    /// Connects through any of these client ports ("host:port", of shard 0). Numbers below
    /// `next` are done or mean nothing; 1 where nothing is known.
    pub async fn connect<A: AsRef<str>>(
        addresses: &[A],
        name: &SourceName,
        next: u64,
    ) -> Result<Source, ConnectError> {
        let welcome = discover(addresses).await?;
        let config = Config::of(&welcome);
        Ok(Source::with(&welcome, config, name, next))
    }

    /// A source of the cluster that was discovered, with settings of one's own.
    pub fn with(welcome: &Welcome, config: Config, name: &SourceName, next: u64) -> Source {
        let (calls, queue) = mpsc::channel(CALLS_MAX);
        let owner = Owner(rand::random_range(1..=u64::MAX));
        let driver = Driver::new(Session::named(config, name, owner, next), welcome, queue);
        let troubles = driver.troubles();
        Source { calls, driver: tokio::spawn(driver.run()), troubles }
    }

    /// Why answers may be missing now: replicas that take nothing or are not connected, each with what it said.
    pub fn troubles(&self) -> Vec<String> {
        self.troubles.list()
    }

    /// Proposes the command with this number; numbers ascend. Returns once it is queued, so that
    /// many can be under way; the proposal says what became of it.
    pub async fn propose(
        &self,
        number: u64,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Proposal, CallError> {
        Proposal::send(&self.calls, Some(number), key.into(), value.into()).await
    }

    /// Waits until everything proposed has its outcome.
    pub async fn close(self) -> Result<(), Uncompared> {
        drop(self.calls);
        // The task only fails by a panic, which was reported where it happened.
        let Ok(session) = self.driver.await else { return Ok(()) };
        session.uncompared().map_or(Ok(()), |(from, to)| Err(Uncompared { from, to }))
    }
}

/// A decision on its way: a future of what became of it.
#[derive(Debug)]
pub struct Proposal {
    answer: oneshot::Receiver<Result<Answer, CallError>>,
}

impl Proposal {
    /// Queues the decision, numbered or not.
    pub(super) async fn send(
        calls: &mpsc::Sender<Call>,
        number: Option<u64>,
        key: Bytes,
        value: Bytes,
    ) -> Result<Proposal, CallError> {
        let (reply, answer) = oneshot::channel();
        let call = Call { command: Command::Decide { key, value }, number, reply };
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
            Answer::Duplicate => Ok(Proposed::Before),
            other => Err(CallError::of(&other)),
        })
    }
}
