//! The first contact: finds the cluster behind the addresses that a user names.

use super::connection::{ConnectError, Connection, parse_address};
use crate::id::{ClusterId, ShardId};
use crate::message::{Member, Role, Welcome};
use std::fmt;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// How long the other addresses may take after the first answer to show their cluster. Replicas that run answer
/// within milliseconds. A replica that stands still, or a name that is still looked up, delays the caller by no
/// more than this.
const OTHERS_PATIENCE: Duration = Duration::from_millis(500);

/// The addresses that led to one cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterAt {
    /// The cluster.
    pub cluster: ClusterId,
    /// The addresses, as the caller named them.
    pub addresses: Vec<String>,
}

impl fmt::Display for ClusterAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.addresses.join(", "), self.cluster)
    }
}

/// A replica that answered, and its description of its cluster.
#[derive(Clone, Debug)]
pub struct Contact {
    /// The address at which the replica was reached.
    pub member: Member,
    /// The replica's description of its cluster.
    pub welcome: Welcome,
}

/// Asks all these addresses at once ("host:port", of shard 0) for their cluster: its members and its number of
/// shards. An address that takes long to answer after the first answer is not waited for.
///
/// # Errors
///
/// [`ConnectError::Address`] if a text is not HOST:PORT, [`ConnectError::Nobody`] if no replica answers, and
/// [`ConnectError::Mixed`] if the addresses are of several clusters.
///
/// # Panics
///
/// When the caller does not run on a tokio runtime with I/O and time enabled.
pub async fn discover<A: AsRef<str>>(addresses: &[A]) -> Result<Welcome, ConnectError> {
    Ok(contact(addresses, None, Role::Client).await?.welcome)
}

/// Asks all these addresses at once ("host:port", of shard 0) and returns a replica that answered. With `None` all
/// addresses must lead to one cluster; with a cluster only its members answer, and the first answer is taken. A
/// replica whose places are all taken by clients still answers operators.
///
/// # Errors
///
/// [`ConnectError::Address`] if a text is not HOST:PORT, [`ConnectError::Nobody`] if no replica answers, and
/// [`ConnectError::Mixed`] if no cluster was given and the addresses are of several.
///
/// # Panics
///
/// When the caller does not run on a tokio runtime with I/O and time enabled.
pub async fn contact<A: AsRef<str>>(
    addresses: &[A],
    cluster: Option<ClusterId>,
    role: Role,
) -> Result<Contact, ConnectError> {
    let mut asked = JoinSet::new();
    let mut members = Vec::new();
    for address in addresses {
        members.push(parse_address(address.as_ref())?);
    }
    for (place, member) in members.iter().cloned().enumerate() {
        asked.spawn(async move { (place, Connection::open(&member, ShardId(0), cluster, role).await) });
    }
    let (mut answers, mut errors) = (Vec::new(), Vec::new());
    let mut until = None;
    loop {
        let others = sleep_until(until.unwrap_or_else(Instant::now));
        tokio::select! {
            answer = asked.join_next() => match answer {
                Some(answer) => match answer.expect("connecting does not panic, and nobody ends it") {
                    (place, Ok(connection)) => answers.push((place, connection.into_parts().2)),
                    (place, Err(error)) => errors.push((place, error)),
                },
                None => break,
            },
            () = others, if until.is_some() => break,
        }
        if !answers.is_empty() {
            if cluster.is_some() {
                break;
            }
            until.get_or_insert_with(|| Instant::now() + OTHERS_PATIENCE);
        }
    }
    // Errors and clusters are listed in the order in which the caller named the addresses.
    answers.sort_by_key(|(place, _)| *place);
    errors.sort_by_key(|(place, _)| *place);
    let found = by_cluster(&answers, addresses);
    if found.len() > 1 {
        return Err(ConnectError::Mixed(found));
    }
    let nobody = || ConnectError::Nobody(errors.into_iter().map(|(_, error)| error).collect());
    let (place, welcome) = answers.into_iter().next().ok_or_else(nobody)?;
    Ok(Contact { member: members.swap_remove(place), welcome })
}

fn by_cluster<A: AsRef<str>>(answers: &[(usize, Welcome)], addresses: &[A]) -> Vec<ClusterAt> {
    let mut found: Vec<ClusterAt> = Vec::new();
    for (place, Welcome { cluster, .. }) in answers {
        let address = addresses[*place].as_ref().to_owned();
        match found.iter_mut().find(|found| found.cluster == *cluster) {
            Some(found) => found.addresses.push(address),
            None => found.push(ClusterAt { cluster: *cluster, addresses: vec![address] }),
        }
    }
    found
}
