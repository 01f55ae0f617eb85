//! Lists the sources that a cluster knows, and ends them (law, S4 and S5).

use super::clock::Patience;
use super::connection::{ConnectError, Connection};
use super::discovery::Contact;
use crate::answer::Answer;
use crate::command::{Numbering, RequestBuilder};
use crate::conversation::Received;
use crate::failure::Failure;
use crate::id::{SessionId, ShardId};
use crate::message::{Member, Role, SourceStatus, Welcome};
use crate::source::SourceName;
use std::time::Duration;
use tokio::time::sleep;

/// How long ending a source in one shard may take.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause between two tries.
const END_PAUSE: Duration = Duration::from_millis(100);
/// The tag of a request; a connection carries only one.
const TAG: u64 = 1;

/// Why a source was not ended everywhere.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// No replica could be asked.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A replica refused the request.
    #[error("shard {}: replica {replica} is {failure}; try again", shard.0)]
    Refused {
        /// The replica.
        replica: crate::id::ReplicaId,
        /// The shard in which the source was to end.
        shard: ShardId,
        /// The replica's reason.
        failure: Failure,
    },
    /// The source was used between each look at it and the try to end it.
    #[error("shard {}: the source is in use; stop the process that uses it, and try again", shard.0)]
    InUse {
        /// The shard in which the source was to end.
        shard: ShardId,
    },
}

/// The sources that each shard knows at the replica of this contact, by shard.
///
/// # Errors
///
/// The errors of [`Connection::open`] and [`Connection::sources`], for the first shard that fails.
pub async fn sources(contact: &Contact) -> Result<Vec<Vec<SourceStatus>>, ConnectError> {
    let mut shards = Vec::new();
    for shard in (0..contact.welcome.shards).map(ShardId) {
        let cluster = Some(contact.welcome.cluster);
        shards
            .push(Connection::open(&contact.member, shard, cluster, Role::Operator).await?.sources().await?);
    }
    Ok(shards)
}

/// Ends a source in all shards. The cluster forgets the source, and a process that uses its name again begins anew.
/// Returns the last status of the source in each shard that knew it.
///
/// # Errors
///
/// [`EndError`] for the first shard in which no try succeeds within 10 s. In the shards before that one the source
/// has ended.
pub async fn end_source(contact: &Contact, name: &SourceName) -> Result<Vec<SourceStatus>, EndError> {
    let mut ended = Vec::new();
    for shard in (0..contact.welcome.shards).map(ShardId) {
        ended.extend(end_in(&contact.welcome, shard, name).await?);
    }
    Ok(ended)
}

/// The outcome of one try.
enum Tried {
    Ended,
    /// The source was used after its status was read.
    Changed,
    /// The shard does not know the source.
    Unknown,
}

async fn end_in(
    welcome: &Welcome,
    shard: ShardId,
    name: &SourceName,
) -> Result<Option<SourceStatus>, EndError> {
    let patience = Patience::of(Some(END_TIMEOUT));
    let (mut seen, mut newest) = (None, welcome.clone());
    for turn in 0.. {
        let member = newest.members[turn % newest.members.len()].clone();
        let error = match try_end(&member, &mut newest, shard, name.session(shard), &mut seen).await {
            Ok(Tried::Ended) => return Ok(seen),
            Ok(Tried::Unknown) => return Ok(None),
            Ok(Tried::Changed) => EndError::InUse { shard },
            Err(error) => error,
        };
        if patience.is_over() {
            return Err(error);
        }
        sleep(END_PAUSE).await;
    }
    unreachable!("it is tried until the patience is over")
}

/// Looks at a source and ends it if it still stands as it was seen. An earlier try, whose answer was lost, may have
/// ended it already. `newest` becomes the replica's welcome if that is of a later epoch.
async fn try_end(
    member: &Member,
    newest: &mut Welcome,
    shard: ShardId,
    session: SessionId,
    seen: &mut Option<SourceStatus>,
) -> Result<Tried, EndError> {
    let mut connection = Connection::open(member, shard, Some(newest.cluster), Role::Operator).await?;
    if connection.welcome().epoch > newest.epoch {
        newest.clone_from(connection.welcome());
    }
    let found = connection.sources().await?.into_iter().find(|source| source.session == session);
    let Some(source) = found.or(seen.clone()) else { return Ok(Tried::Unknown) };
    let mut builder = RequestBuilder::default();
    builder.end_idle(source.low, source.owner);
    connection.request(TAG, &builder.encode(session, Numbering::NONE));
    *seen = Some(source);
    let replica = connection.welcome().replica;
    match connection.receive_soon().await? {
        Received::Response { answers, .. } => Ok(match answers.first() {
            Some(Answer::Ended { .. } | Answer::Expired) => Tried::Ended,
            _ => Tried::Changed,
        }),
        Received::Failed { failure, .. } => Err(EndError::Refused { replica, shard, failure }),
        _ => Ok(Tried::Changed),
    }
}
