//! A source that numbers its commands by itself, such as the lines of a file.

use super::connection::ConnectError;
use super::discovery::discover;
use super::driver::{CALLS_MAX, Call, Command, Driver};
use super::troubles::Troubles;
use super::{CallError, Committed};
use crate::answer::Answer;
use crate::message::Welcome;
use crate::session::{Config, Session};
use bytes::Bytes;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// What became of a proposal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proposed {
    /// It decided, now or, if it has a number, when it was first proposed under it.
    Committed(Committed),
    /// It was decided under this number before, by an earlier run; the answer is no longer kept.
    Before,
}

/// A source under a name. Whoever proposes the same commands under the same name and numbers
/// again decides nothing twice. One process at a time; see [`Session::named`].
#[derive(Debug)]
pub struct Source {
    calls: mpsc::Sender<Call>,
    driver: JoinHandle<()>,
    troubles: Troubles,
}

impl Source {
    /// Connects through any of these client ports ("host:port", of shard 0). Numbers below
    /// `next` are answered or mean nothing; 1 where nothing is known.
    pub async fn connect<A: AsRef<str>>(
        addresses: &[A],
        name: &str,
        next: u64,
    ) -> Result<Source, ConnectError> {
        let welcome = discover(addresses).await?;
        let config = Config::of(&welcome);
        Ok(Source::with(&welcome, config, name, next))
    }

    /// A source of the cluster that was discovered, with settings of one's own.
    pub fn with(welcome: &Welcome, config: Config, name: &str, next: u64) -> Source {
        let (calls, queue) = mpsc::channel(CALLS_MAX);
        let driver = Driver::new(Session::named(config, name, next), welcome, queue);
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
    pub async fn close(self) {
        drop(self.calls);
        // The task only fails by a panic, which was reported where it happened.
        let _ = self.driver.await;
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
