//! What is known of sources, and their end (law, S4 and S5).

use super::clock::Patience;
use super::connection::{ConnectError, Connection};
use super::discovery::Contact;
use crate::answer::Answer;
use crate::command::RequestBuilder;
use crate::failure::Failure;
use crate::id::{ShardId, StreamId};
use crate::message::{Member, Role, SourceStatus, Welcome};
use crate::session::Received;
use crate::source::SourceName;
use std::time::Duration;
use tokio::time::sleep;

/// How long an end may take.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries.
const END_PAUSE: Duration = Duration::from_millis(100);
/// A connection carries one request.
const TAG: u64 = 1;

/// Why a source was not ended everywhere.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// Nobody could be asked.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A replica did not take it.
    #[error("shard {}: replica {replica} is {failure}; try again", shard.0)]
    Refused {
        /// Who.
        replica: crate::id::ReplicaId,
        /// In which shard.
        shard: ShardId,
        /// What it says.
        failure: Failure,
    },
    /// It has gone on whenever it was to be ended.
    #[error("shard {}: the source is in use; stop the process that uses it, and try again", shard.0)]
    InUse {
        /// In which shard.
        shard: ShardId,
    },
}

/// The sources that each shard knows at the replica that was reached.
pub async fn sources(contact: &Contact) -> Result<Vec<Vec<SourceStatus>>, ConnectError> {
    let mut shards = Vec::new();
    for shard in (0..contact.welcome.shards).map(ShardId) {
        let cluster = Some(contact.welcome.cluster);
        shards
            .push(Connection::open(&contact.member, shard, cluster, Role::Operator).await?.sources().await?);
    }
    Ok(shards)
}

/// Ends a source in all shards: what it said is forgotten, and whoever uses its name again begins anew. How it stood
/// in each shard that knew it.
pub async fn end_source(contact: &Contact, name: &SourceName) -> Result<Vec<SourceStatus>, EndError> {
    let mut ended = Vec::new();
    for shard in (0..contact.welcome.shards).map(ShardId) {
        ended.extend(end_in(&contact.welcome, shard, name).await?);
    }
    Ok(ended)
}

/// What came of one try.
enum Tried {
    Ended,
    /// It has gone on since it was looked at.
    Changed,
    /// It was never there.
    Unknown,
}

async fn end_in(
    welcome: &Welcome,
    shard: ShardId,
    name: &SourceName,
) -> Result<Option<SourceStatus>, EndError> {
    let patience = Patience::of(Some(END_TIMEOUT));
    let (mut seen, mut members) = (None, welcome.members.iter().cycle());
    loop {
        let member = members.next().expect("a cluster has members");
        let error = match try_end(member, welcome, shard, name.stream(shard), &mut seen).await {
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
}

/// Looks at a source and ends it as it was seen. A copy of an earlier try may be faster.
async fn try_end(
    member: &Member,
    welcome: &Welcome,
    shard: ShardId,
    stream: StreamId,
    seen: &mut Option<SourceStatus>,
) -> Result<Tried, EndError> {
    let mut connection = Connection::open(member, shard, Some(welcome.cluster), Role::Operator).await?;
    let found = connection.sources().await?.into_iter().find(|source| source.stream == stream);
    let Some(source) = found.or(seen.clone()) else { return Ok(Tried::Unknown) };
    let mut builder = RequestBuilder::default();
    builder.end_idle(source.low, source.owner);
    connection.request(TAG, &builder.encode(stream, 0, 0));
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
