//! An asynchronous client on tokio, for services that decide and read.
//!
//! A [`Client`] is a handle to a task that owns a [`Session`] and one connection per replica
//! and shard. Handles are cheap to clone; calls from many tasks share request frames.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = isonomy_wire::client::Client::connect(&["127.0.0.1:7200"]).await?;
//! let first = client.decide("order/17", "accepted").await?;
//! let now = client.read("order/17").await?.expect("it was just decided");
//! assert!(now.key_seq >= first.key_seq);
//! client.close().await;
//! # Ok(())
//! # }
//! ```

mod clock;
pub mod connection;
mod discovery;
mod driver;
mod links;
mod source;
mod sources;
#[cfg(test)]
mod tests;
mod troubles;

pub use clock::{Patience, sleep_running};
pub use connection::{ConnectError, Connection, parse_address, status};
pub use discovery::{ClusterAt, Contact, contact, discover};
pub use source::{Proposal, Proposed, Source, Uncompared};
pub use sources::{EndError, end_source, sources};

use crate::answer::Answer;
use crate::id::{ClusterId, CommandId};
use crate::message::{Role, Welcome};
use crate::session::{Config, Error, Session, SubmitError};
use bytes::Bytes;
use driver::{CALLS_MAX, Call, Command, Driver};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use troubles::Troubles;

/// Why a call has no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallError {
    /// It was not accepted; it has no effect.
    #[error(transparent)]
    NotAccepted(#[from] SubmitError),
    /// It was submitted; the text says what is known of its effect.
    #[error(transparent)]
    Failed(#[from] Error),
    /// Its number was executed before.
    #[error("it was executed before and the answer is no longer kept; read the key")]
    Duplicate,
    /// The replica answers something that does not fit the question.
    #[error("the answer is of the wrong kind; run the same release on both sides")]
    WrongAnswer,
    /// The client's task has ended.
    #[error("the client is closed; connect again")]
    Closed,
}

impl CallError {
    /// For an answer that is none to the question.
    fn of(answer: &Answer) -> CallError {
        match answer {
            Answer::Expired => CallError::Failed(Error::Expired),
            Answer::Duplicate => CallError::Duplicate,
            _ => CallError::WrongAnswer,
        }
    }
}

/// A decision was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Committed {
    /// The command that decided.
    pub id: CommandId,
    /// Counts the decisions in the key's present life, from 1.
    pub key_seq: u64,
}

/// The answer to a conditional decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decided {
    /// The key was as expected, and the value is its latest decision now.
    Committed(Committed),
    /// The key is not as expected, and unchanged.
    Rejected {
        /// The key_seq that it has; 0 without a decision.
        key_seq: u64,
        /// Its latest decision; `None` if there is none (`key_seq` is 0), and if it was too large to be sent
        /// along: then read the key.
        value: Option<Bytes>,
    },
}

/// The latest decision of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Counts the decisions in the key's present life, from 1.
    pub key_seq: u64,
    /// What was decided.
    pub value: Bytes,
    /// The command that decided.
    pub id: CommandId,
}

/// A key's life has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deleted {
    /// The command that ended it.
    pub id: CommandId,
    /// The number of its last decision.
    pub key_seq: u64,
}

/// A handle to a cluster. Dropping the last one ends its streams in the background.
#[derive(Clone, Debug)]
pub struct Client {
    calls: mpsc::Sender<Call>,
    driver: Arc<JoinHandle<Session>>,
    welcome: Arc<Welcome>,
    troubles: Troubles,
}

impl Client {
    /// Connects through any of these client ports ("host:port", of shard 0), which name all
    /// other replicas. From then on only members of the cluster that was found there are spoken to.
    pub async fn connect<A: AsRef<str>>(addresses: &[A]) -> Result<Client, ConnectError> {
        Ok(Client::of(discover(addresses).await?))
    }

    /// The same if the cluster is known before. A cluster is known by its name, [`ClusterId::of_name`], or by
    /// the id that `isonomy status` shows; one that was restored from a backup only by its id.
    pub async fn connect_to<A: AsRef<str>>(
        cluster: ClusterId,
        addresses: &[A],
    ) -> Result<Client, ConnectError> {
        Ok(Client::of(contact(addresses, Some(cluster), Role::Client).await?.welcome))
    }

    fn of(welcome: Welcome) -> Client {
        let config = Config::of(&welcome);
        Client::with(welcome, config)
    }

    /// A client of the cluster that was discovered, with settings of one's own.
    pub fn with(welcome: Welcome, config: Config) -> Client {
        let (calls, queue) = mpsc::channel(CALLS_MAX);
        let driver = Driver::new(Session::new(config), &welcome, queue);
        let (troubles, welcome) = (driver.troubles(), Arc::new(welcome));
        Client { calls, driver: Arc::new(tokio::spawn(driver.run())), welcome, troubles }
    }

    /// Why answers may be missing now: replicas that take nothing or are not connected, each with what it said.
    pub fn troubles(&self) -> Vec<String> {
        self.troubles.list()
    }

    /// What the cluster said of itself.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Makes the value the key's latest decision.
    pub async fn decide(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Committed, CallError> {
        match self.call(Command::Decide { key: key.into(), value: value.into() }).await? {
            Answer::Committed { id, key_seq } => Ok(Committed { id, key_seq }),
            other => Err(CallError::of(&other)),
        }
    }

    /// The same, but returns once it is queued, so that many can be under way; the proposal says what
    /// became of it.
    pub async fn propose(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Proposal, CallError> {
        Proposal::send(&self.calls, None, key.into(), value.into()).await
    }

    /// Makes the value the key's latest decision if the key has this key_seq; 0 for a key without
    /// decisions: the first writer wins. Counted within the key's present life, which a Delete ends.
    pub async fn decide_if(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        expected: u64,
    ) -> Result<Decided, CallError> {
        match self.call(Command::DecideIf { key: key.into(), value: value.into(), expected }).await? {
            Answer::Committed { id, key_seq } => Ok(Decided::Committed(Committed { id, key_seq })),
            Answer::Rejected { key_seq, value } => {
                Ok(Decided::Rejected { key_seq, value: value.as_ref().map(own) })
            }
            other => Err(CallError::of(&other)),
        }
    }

    /// The key's latest decision, linearizable.
    pub async fn read(&self, key: impl Into<Bytes>) -> Result<Option<Found>, CallError> {
        match self.call(Command::Read { key: key.into() }).await? {
            Answer::Found { key_seq, value, id } => Ok(Some(Found { key_seq, value: own(&value), id })),
            Answer::Missing => Ok(None),
            other => Err(CallError::of(&other)),
        }
    }

    /// Ends the key's life; `None` if it had no decision.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Option<Deleted>, CallError> {
        match self.call(Command::Delete { key: key.into() }).await? {
            Answer::Deleted { id, key_seq } => Ok(Some(Deleted { id, key_seq })),
            Answer::Missing => Ok(None),
            other => Err(CallError::of(&other)),
        }
    }

    async fn call(&self, command: Command) -> Result<Answer, CallError> {
        let (reply, answer) = oneshot::channel();
        let call = Call { command, number: None, reply };
        self.calls.send(call).await.map_err(|_| CallError::Closed)?;
        answer.await.map_err(|_| CallError::Closed)?
    }

    /// Gives this handle back. With the last one, waits until the cluster was told that the
    /// client is gone.
    pub async fn close(self) {
        let Client { calls, driver, .. } = self;
        drop(calls);
        if let Some(task) = Arc::into_inner(driver) {
            // The task only fails by a panic, which was reported where it happened.
            let _ = task.await;
        }
    }
}

/// A copy: the answer lies in a receive buffer, which a caller should not hold on to.
fn own(value: &Bytes) -> Bytes {
    Bytes::copy_from_slice(value)
}
