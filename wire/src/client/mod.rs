//! An asynchronous client on tokio, for services that decide and read.
//!
//! A [`Client`] is a handle to a task that owns a [`Conversation`] and one connection per replica
//! and shard. Handles are cheap to clone; calls from many tasks share request frames.
//!
//! When the members of the cluster change, the client follows: it hears of the new members from those that it knows,
//! sends what has no answer to them, under the same numbers, and no call fails because of the change.
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

#[cfg(test)]
mod change_tests;
mod clock;
pub mod connection;
mod discovery;
mod driver;
mod links;
mod once;
#[cfg(test)]
mod rig;
mod scout;
mod source;
mod sources;
#[cfg(test)]
mod tests;
mod troubles;

pub use clock::{Patience, sleep_running};
pub use connection::{ConnectError, Connection, parse_address, status};
pub use discovery::{ClusterAt, Contact, contact, discover};
pub use links::{RECONNECT_PAUSE_MAX, RECONNECT_PAUSE_MIN};
pub use once::Once;
pub use source::{Proposal, Proposed, Source, Uncompared};
pub use sources::{EndError, end_source, sources};

use crate::answer::Answer;
use crate::conversation::{Config, Conversation, Error, SubmitError};
use crate::id::{ClusterId, CommandId};
use crate::message::{Role, Welcome};
use bytes::Bytes;
use driver::{CALLS_MAX, Call, Driver, OwnedCommand, Way};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use troubles::Troubles;

/// Why a call has no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallError {
    /// The command was not accepted and has no effect.
    #[error(transparent)]
    NotAccepted(#[from] SubmitError),
    /// The command was submitted and failed; the error says whether it may still have an effect.
    #[error(transparent)]
    Failed(#[from] Error),
    /// The command was executed before, and the cluster no longer keeps its answer.
    #[error(
        "the command was executed before, and its answer is no longer kept; read the key to see the result"
    )]
    Duplicate,
    /// The replica's answer is of a kind that does not fit the command.
    #[error("the answer is of the wrong kind; run the same release on both sides")]
    WrongAnswer,
    /// The client's task has ended.
    #[error("the client is closed; connect again")]
    Closed,
}

impl CallError {
    /// The error for an answer that does not fit the command.
    fn of(answer: &Answer) -> CallError {
        match answer {
            Answer::Expired => CallError::Failed(Error::Expired),
            Answer::Duplicate => CallError::Duplicate,
            _ => CallError::WrongAnswer,
        }
    }
}

/// A decision that was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Committed {
    /// The id of the command that decided.
    pub id: CommandId,
    /// The number of this decision in the key's present life, from 1.
    pub key_seq: u64,
}

/// The answer to a conditional decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decided {
    /// The key had the expected key_seq, and the value is now its latest decision.
    Committed(Committed),
    /// The key had another key_seq and is unchanged.
    Rejected {
        /// The key_seq of the key; 0 if the key has no decision.
        key_seq: u64,
        /// The key's latest decision. `None` if the key has no decision (`key_seq` is 0), or if the value was too
        /// large for the answer; read the key in that case.
        value: Option<Bytes>,
    },
}

/// The latest decision of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The number of this decision in the key's present life, from 1.
    pub key_seq: u64,
    /// The value that was decided.
    pub value: Bytes,
    /// The id of the command that decided.
    pub id: CommandId,
}

/// The end of a key's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deleted {
    /// The id of the command that ended the key's life.
    pub id: CommandId,
    /// The number of the key's last decision.
    pub key_seq: u64,
}

/// A handle to a cluster. When the last handle is dropped, the client ends its sessions in the background.
///
/// A call that is dropped before its answer does not withdraw its command, which may still be decided.
#[derive(Clone, Debug)]
pub struct Client {
    calls: mpsc::Sender<Call>,
    driver: Arc<JoinHandle<Conversation>>,
    welcome: Arc<Welcome>,
    troubles: Troubles,
}

impl Client {
    /// Connects to the cluster of the replicas at these client ports ("host:port", of shard 0). One address is
    /// enough, since each replica names all members, even one that is not a member any more. The client then talks to
    /// members of this cluster only, and follows when they change.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Address`] if a text is not HOST:PORT, [`ConnectError::Nobody`] if no replica answers, with
    /// the reason for each address, and [`ConnectError::Mixed`] if the addresses are of several clusters.
    ///
    /// # Panics
    ///
    /// When the caller does not run on a tokio runtime with I/O and time enabled.
    pub async fn connect<A: AsRef<str>>(addresses: &[A]) -> Result<Client, ConnectError> {
        Ok(Client::of(discover(addresses).await?))
    }

    /// Connects to this cluster only, through any of its members at these client ports ("host:port", of shard 0).
    /// The id of a cluster follows from its name ([`ClusterId::of_name`]), except for a cluster that was restored
    /// from a backup; `isonomy status` shows the id of either.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Address`] if a text is not HOST:PORT, and [`ConnectError::Nobody`] if no member of the
    /// cluster answers, with the reason for each address.
    ///
    /// # Panics
    ///
    /// When the caller does not run on a tokio runtime with I/O and time enabled.
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

    /// A client of the cluster that [`discover`] or [`contact`] has found, with the caller's settings.
    ///
    /// # Panics
    ///
    /// When `welcome` names no members that are possible, when a setting of `config` is out of range, or when the
    /// caller does not run on a tokio runtime with I/O and time enabled.
    pub fn with(welcome: Welcome, config: Config) -> Client {
        let (calls, queue) = mpsc::channel(CALLS_MAX);
        let driver = Driver::new(Conversation::new(config), &welcome, queue);
        let (troubles, welcome) = (driver.troubles(), Arc::new(welcome));
        Client { calls, driver: Arc::new(tokio::spawn(driver.run())), welcome, troubles }
    }

    /// Reasons why answers may be missing now: a text for each replica that refuses requests or is not connected.
    pub fn troubles(&self) -> Vec<String> {
        self.troubles.list()
    }

    /// The cluster's description of itself, from the first contact.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Makes the value the key's latest decision. The key has 1 to 1024 bytes, the value at most 1 MiB.
    ///
    /// # Errors
    ///
    /// [`CallError::NotAccepted`] if key or value break a limit. [`CallError::Failed`] if no answer came before the
    /// deadline, if no replica took the command, or if its outcome is unknown; [`Error::NotTaken`] is certain that
    /// the command has no effect. [`CallError::Duplicate`] if an earlier try was executed whose answer is gone.
    /// [`CallError::WrongAnswer`] if the replica runs another release, and [`CallError::Closed`] if the client's
    /// task has ended.
    pub async fn decide(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Committed, CallError> {
        committed(self.call(Way::Plain, decide(key, value)).await?)
    }

    /// Queues a decision as [`Client::decide`] makes it, and returns before it is decided, so that many decisions
    /// can be under way. Await the [`Proposal`] for the outcome.
    ///
    /// # Errors
    ///
    /// [`CallError::Closed`] if the client's task has ended. The proposal itself has the errors of
    /// [`Client::decide`].
    pub async fn propose(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Proposal, CallError> {
        let command = decide(key, value);
        Proposal::send(&self.calls, Way::Plain, command).await
    }

    /// Makes the value the key's latest decision if the key's key_seq is `expected`. With 0 the key must have no
    /// decision, so the first writer wins. The key_seq counts decisions within the key's present life, which a
    /// Delete ends.
    ///
    /// # Errors
    ///
    /// The errors of [`Client::decide`]. Another key_seq is no error but [`Decided::Rejected`].
    pub async fn decide_if(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        expected: u64,
    ) -> Result<Decided, CallError> {
        decided(self.call(Way::Plain, decide_if(key, value, expected)).await?)
    }

    /// Reads the key's latest decision, linearizable; `None` if the key has no decision.
    ///
    /// # Errors
    ///
    /// The errors of [`Client::decide`]. A read never changes the key.
    pub async fn read(&self, key: impl Into<Bytes>) -> Result<Option<Found>, CallError> {
        match self.call(Way::Plain, OwnedCommand::Read { key: key.into() }).await? {
            Answer::Found { key_seq, value, id } => Ok(Some(Found { key_seq, value: own(&value), id })),
            Answer::Missing => Ok(None),
            other => Err(CallError::of(&other)),
        }
    }

    /// Ends the key's life, so that its next decision has number 1; `None` if the key had no decision.
    ///
    /// # Errors
    ///
    /// The errors of [`Client::decide`].
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Option<Deleted>, CallError> {
        deleted(self.call(Way::Plain, OwnedCommand::Delete { key: key.into() }).await?)
    }

    /// The commands that follow take effect once, however often, by whomever and through whichever client they are called
    /// with this idempotency key, as long as the cluster keeps the key's answer (an hour after the last use).
    pub fn once(&self, idempotency_key: impl Into<Bytes>) -> Once<'_> {
        Once { client: self, idempotency_key: idempotency_key.into() }
    }

    async fn call(&self, way: Way, command: OwnedCommand) -> Result<Answer, CallError> {
        let (reply, answer) = oneshot::channel();
        let call = Call { command, way, reply };
        self.calls.send(call).await.map_err(|_| CallError::Closed)?;
        answer.await.map_err(|_| CallError::Closed)?
    }

    /// Drops this handle. The last handle also waits until all commands have their outcome and the cluster knows
    /// that the client has left.
    pub async fn close(self) {
        let Client { calls, driver, .. } = self;
        drop(calls);
        if let Some(task) = Arc::into_inner(driver) {
            // The task only fails by a panic, which was reported where it happened.
            let _ = task.await;
        }
    }
}

fn decide(key: impl Into<Bytes>, value: impl Into<Bytes>) -> OwnedCommand {
    OwnedCommand::Decide { key: key.into(), value: value.into() }
}

fn decide_if(key: impl Into<Bytes>, value: impl Into<Bytes>, expected: u64) -> OwnedCommand {
    OwnedCommand::DecideIf { key: key.into(), value: value.into(), expected }
}

fn committed(answer: Answer) -> Result<Committed, CallError> {
    match answer {
        Answer::Committed { id, key_seq } => Ok(Committed { id, key_seq }),
        other => Err(CallError::of(&other)),
    }
}

fn decided(answer: Answer) -> Result<Decided, CallError> {
    match answer {
        Answer::Committed { id, key_seq } => Ok(Decided::Committed(Committed { id, key_seq })),
        Answer::Rejected { key_seq, value } => {
            Ok(Decided::Rejected { key_seq, value: value.as_ref().map(own) })
        }
        other => Err(CallError::of(&other)),
    }
}

fn deleted(answer: Answer) -> Result<Option<Deleted>, CallError> {
    match answer {
        Answer::Deleted { id, key_seq } => Ok(Some(Deleted { id, key_seq })),
        Answer::Missing => Ok(None),
        other => Err(CallError::of(&other)),
    }
}

/// Copies a value out of the receive buffer, which a caller should not keep alive.
fn own(value: &Bytes) -> Bytes {
    Bytes::copy_from_slice(value)
}
