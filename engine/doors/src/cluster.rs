//! The way to the shards, which is every client's: over their ports for clients, to whichever member answers.

use crate::identity::IdempotencyKey;
use crate::limits::{DEADLINE_GRACE, DEADLINE_MAX, RETRY_AFTER};
use crate::problem::{Problem, Refusal};
use crate::proposal::Order;
use isonomy_wire::client::{CallError, Client, Committed, Decided, Deleted, Found, contact};
use isonomy_wire::conversation::{Config, Error, NotTaken, SubmitError};
use isonomy_wire::failure::{Failure, Reason};
use isonomy_wire::id::{ClusterId, ShardId};
use isonomy_wire::message::Role;
use isonomy_wire::route::{hash_key, shard_of};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// The outcome of a proposal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Done {
    Committed(Committed),
    /// The key has another number of decisions than was expected, and this value, unless it is too large.
    Rejected {
        shard: ShardId,
        key_seq: u64,
        value: Option<Vec<u8>>,
    },
}

/// What is asked of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asking {
    Read,
    Write,
}

/// The cluster of this replica.
#[derive(Debug)]
pub(crate) struct Cluster {
    id: ClusterId,
    addresses: Vec<String>,
    client: OnceCell<Client>,
}

impl Cluster {
    /// The cluster with this id, whose members clients find at these addresses. Nothing is connected yet.
    pub(crate) fn new(id: ClusterId, addresses: Vec<String>) -> Cluster {
        Cluster { id, addresses, client: OnceCell::new() }
    }

    /// Does what a sender proposes. This is the only place that submits proposals.
    pub(crate) async fn submit(&self, order: Order, deadline: Duration) -> Result<Done, Refusal> {
        let submitted = async {
            let client = self.client().await?;
            match order {
                Order::Decide { key, value, name } => {
                    let decided = match name {
                        None => client.decide(key, value).await,
                        Some(name) => client.once(name.to_key()).decide(key, value).await,
                    };
                    decided.map(Done::Committed).map_err(of_write)
                }
                Order::DecideIf { key, value, expected, name } => {
                    let shard = shard_of(hash_key(&key), client.welcome().shards);
                    let decided = match name {
                        None => client.decide_if(key, value, expected).await,
                        Some(name) => client.once(name.to_key()).decide_if(key, value, expected).await,
                    };
                    match decided.map_err(of_write)? {
                        Decided::Committed(committed) => Ok(Done::Committed(committed)),
                        Decided::Rejected { key_seq, value } => {
                            Ok(Done::Rejected { shard, key_seq, value: value.map(Into::into) })
                        }
                    }
                }
                Order::DecideOnce { key, value } => {
                    decide_once(client, key, value).await.map(Done::Committed)
                }
            }
        };
        self.within(deadline, Asking::Write, submitted).await
    }

    /// The latest decision of a key, linearizable.
    pub(crate) async fn read(&self, key: Vec<u8>, deadline: Duration) -> Result<Option<Found>, Refusal> {
        let read = async { self.client().await?.read(key).await.map_err(of_read) };
        self.within(deadline, Asking::Read, read).await
    }

    /// Ends the life of a key.
    pub(crate) async fn delete(
        &self,
        key: Vec<u8>,
        name: Option<IdempotencyKey>,
        deadline: Duration,
    ) -> Result<Option<Deleted>, Refusal> {
        let deleted = async {
            let client = self.client().await?;
            let deleted = match name {
                None => client.delete(key).await,
                Some(name) => client.once(name.to_key()).delete(key).await,
            };
            deleted.map_err(of_write)
        };
        self.within(deadline, Asking::Write, deleted).await
    }

    /// Waits for the cluster, but no longer than the sender wants to.
    async fn within<T>(
        &self,
        deadline: Duration,
        asking: Asking,
        asked: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        // Where the sender waits as long as the client, the client tells why it gives up.
        let patience = if deadline < DEADLINE_MAX { deadline } else { deadline + DEADLINE_GRACE };
        timeout(patience, asked).await.unwrap_or_else(|_| {
            let why = format!("no answer came in {} ms", deadline.as_millis());
            Err(match asking {
                _ if !self.client.initialized() => no_quorum("no member has answered yet".into()),
                Asking::Write => Problem::UnknownOutcome.because(why),
                Asking::Read => Problem::NoAnswer.because(why),
            })
        })
    }

    /// The client, once a member has answered.
    async fn client(&self) -> Result<&Client, Refusal> {
        let connect = || async {
            let found = contact(&self.addresses, Some(self.id), Role::Client).await;
            let welcome = found.map_err(|error| no_quorum(error.to_string()))?.welcome;
            let deadline_us = DEADLINE_MAX.as_micros() as u64;
            let config = Config { deadline_us, ..Config::of(&welcome) };
            Ok(Client::with(welcome, config))
        };
        self.client.get_or_try_init(connect).await
    }
}

/// Decides a key of one request alone. Whoever finds the decision there has decided it before.
async fn decide_once(client: &Client, key: String, value: Vec<u8>) -> Result<Committed, Refusal> {
    loop {
        match client.decide_if(key.clone(), value.clone(), 0).await.map_err(of_write)? {
            Decided::Committed(committed) => return Ok(committed),
            Decided::Rejected { key_seq: 1, .. } => {}
            Decided::Rejected { key_seq, .. } => return Err(other_contents(&key, key_seq)),
        }
        // The rejection does not name the command that decided.
        match client.read(key.clone()).await.map_err(of_write)? {
            Some(Found { key_seq: 1, value: found, id }) if found == value => {
                return Ok(Committed { id, key_seq: 1 });
            }
            Some(Found { key_seq, .. }) => return Err(other_contents(&key, key_seq)),
            // Somebody has deleted the decision in between, and the request is new again.
            None => {}
        }
    }
}

fn other_contents(key: &str, key_seq: u64) -> Refusal {
    let why = match key_seq {
        1 => format!("another payload was decided under this name, see the key {key}"),
        _ => format!("{key_seq} decisions were made under this name, see the key {key}"),
    };
    Problem::OtherContents.because(why)
}

fn no_quorum(why: String) -> Refusal {
    Problem::NoQuorum.for_now(RETRY_AFTER, why)
}

fn of_read(error: CallError) -> Refusal {
    of(error, Asking::Read)
}

fn of_write(error: CallError) -> Refusal {
    of(error, Asking::Write)
}

/// Why the cluster did not do what it was asked for.
fn of(error: CallError, asking: Asking) -> Refusal {
    let why = match &error {
        CallError::Failed(Error::NotTaken { why, .. }) => why.to_string(),
        CallError::Failed(Error::TimedOut) => format!("no answer came in {} ms", DEADLINE_MAX.as_millis()),
        CallError::Failed(Error::Expired) => "the session of the command has ended".into(),
        other => other.to_string(),
    };
    match error {
        CallError::NotAccepted(SubmitError::Invalid(_)) => Problem::BadField.because(why),
        CallError::NotAccepted(_) => Problem::Overloaded.for_now(RETRY_AFTER, why),
        CallError::Failed(Error::NotTaken { why: NotTaken::Refused { failure, .. }, .. }) => {
            of_failure(&failure, why)
        }
        CallError::Failed(Error::NotTaken { .. }) => no_quorum(why),
        CallError::Failed(Error::KeyReused) => Problem::OtherContents.because(why),
        CallError::Failed(Error::Invalid(_)) | CallError::WrongAnswer => Problem::WrongRelease.because(why),
        CallError::Closed => Problem::Unavailable.for_now(RETRY_AFTER, "this replica is shutting down"),
        CallError::Failed(_) | CallError::Duplicate => match asking {
            Asking::Write => Problem::UnknownOutcome.because(why),
            Asking::Read => Problem::NoAnswer.because(why),
        },
    }
}

/// Why all replicas that were asked have refused.
fn of_failure(failure: &Failure, why: String) -> Refusal {
    match failure {
        Failure::Overloaded { retry_after_ms, .. } => {
            Problem::Overloaded.for_now(Duration::from_millis((*retry_after_ms).into()), why)
        }
        Failure::Unavailable(Reason::NoQuorum { .. }) => no_quorum(why),
        Failure::Unavailable(_) => Problem::Unavailable.for_now(RETRY_AFTER, why),
        Failure::Unknown(_) => Problem::UnknownOutcome.because(why),
        Failure::Invalid { .. } => Problem::WrongRelease.because(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::id::ReplicaId;

    fn refused(failure: Failure) -> CallError {
        let why = NotTaken::Refused { replica: ReplicaId(1), failure };
        CallError::Failed(Error::NotTaken { why, troubles: Vec::new() })
    }

    #[test]
    fn what_is_certain_to_have_no_effect_is_told_from_what_is_not() {
        let kind = |error: CallError| of_write(error).problem;
        let reason = Reason::NoQuorum { linked: 1, replicas: 3, needed: 2 };
        assert_eq!(kind(refused(Failure::Unavailable(reason))), Problem::NoQuorum);
        assert_eq!(kind(refused(Failure::Unavailable(Reason::CatchingUp))), Problem::Unavailable);
        let overloaded = Failure::Overloaded { retry_after_ms: 70, reason: Reason::DiskFull };
        assert_eq!(of_write(refused(overloaded)).retry_after, Some(Duration::from_millis(70)));
        let silent = Error::NotTaken { why: NotTaken::Silent, troubles: Vec::new() };
        assert_eq!(kind(CallError::Failed(silent)), Problem::NoQuorum);
        for unsure in [Error::TimedOut, Error::Expired] {
            assert_eq!(kind(CallError::Failed(unsure.clone())), Problem::UnknownOutcome);
            assert_eq!(of_read(CallError::Failed(unsure)).problem, Problem::NoAnswer);
        }
        assert_eq!(kind(CallError::Duplicate), Problem::UnknownOutcome);
        assert_eq!(kind(CallError::Failed(Error::KeyReused)), Problem::OtherContents);
        assert_eq!(kind(CallError::WrongAnswer), Problem::WrongRelease);
    }

    #[tokio::test]
    async fn a_cluster_that_cannot_be_reached_is_no_unknown_outcome() {
        // The port is the discard service's, where nobody listens.
        let cluster = Cluster::new(ClusterId(1), vec!["127.0.0.1:9".into()]);
        let order = Order::Decide { key: b"k".to_vec(), value: b"0".to_vec(), name: None };
        let refusal = cluster.submit(order, DEADLINE_MAX).await.unwrap_err();
        assert_eq!(refusal.problem, Problem::NoQuorum, "{}", refusal.why);
        assert!(refusal.why.contains("127.0.0.1:9"), "{}", refusal.why);
    }
}
