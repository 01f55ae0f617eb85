//! The first contact: finds the cluster behind the addresses that a user names, also when they are those of replicas
//! that are not members any more.

use super::connection::{ConnectError, Connection, parse_address};
use crate::address::with_port;
use crate::id::{ClusterId, ShardId};
use crate::message::{Member, Role, Welcome};
use crate::view::View;
use std::fmt;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// How long the other addresses may take after the first answer to show their cluster. Replicas that run answer
/// within milliseconds. A replica that stands still, or a name that is still looked up, delays the caller by no
/// more than this.
const OTHERS_PATIENCE: Duration = Duration::from_millis(500);
/// How often a first contact goes on to members that another replica has named.
pub(super) const REFERRALS_MAX: u32 = 8;
/// The pause before members are asked that were asked before, or that an earlier epoch has; it doubles at each referral.
/// A replica that has just left the members can know of an epoch that the next members are about to enter.
const REFERRAL_PAUSE: Duration = Duration::from_millis(10);

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

/// A member that answered, and its description of its cluster.
#[derive(Clone, Debug)]
pub struct Contact {
    /// The address at which the member was reached.
    pub member: Member,
    /// The member's description of its cluster.
    pub welcome: Welcome,
}

/// Asks all these addresses at once ("host:port", of shard 0) for their cluster: its members and its number of
/// shards. An address that takes long to answer after the first answer is not waited for. If only replicas answer
/// that are not members any more, the members that they name are asked.
///
/// # Errors
///
/// [`ConnectError::Address`] if a text is not HOST:PORT, [`ConnectError::Nobody`] if no member answers, and
/// [`ConnectError::Mixed`] if the addresses are of several clusters.
///
/// # Panics
///
/// When the caller does not run on a tokio runtime with I/O and time enabled.
pub async fn discover<A: AsRef<str>>(addresses: &[A]) -> Result<Welcome, ConnectError> {
    Ok(contact(addresses, None, Role::Client).await?.welcome)
}

/// Asks all these addresses at once ("host:port", of shard 0) and returns a member that answered. With `None` all
/// addresses must lead to one cluster; with a cluster only its replicas answer, and the first member is taken. If only
/// replicas answer that are not members any more, the members that they name are asked. A replica whose places are all
/// taken by clients still answers operators.
///
/// # Errors
///
/// [`ConnectError::Address`] if a text is not HOST:PORT, [`ConnectError::Nobody`] if no member answers, and
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
    let mut asked = Vec::new();
    for address in addresses {
        let address = address.as_ref();
        asked.push((address.to_owned(), parse_address(address)?));
    }
    let mut errors = Vec::new();
    let (mut known, mut pause): (Option<View>, _) = (None, REFERRAL_PAUSE);
    for _ in 0..=REFERRALS_MAX {
        let round = ask(asked, cluster, role).await;
        let found = by_cluster(&round.welcomes);
        if found.len() > 1 {
            return Err(ConnectError::Mixed(found));
        }
        // Among members of several epochs, the newest one knows best where the others are.
        let newest = round.welcomes.into_iter().rev().max_by_key(|(_, contact)| contact.welcome.epoch);
        if let Some((_, contact)) = newest {
            return Ok(contact);
        }
        // The addresses that the caller named are explained, and those that were asked last.
        errors.truncate(addresses.len());
        errors.extend(round.errors);
        let newer = round.told.filter(|told| known.as_ref().is_none_or(|known| told.epoch() > known.epoch()));
        if newer.is_none() && known.is_some() {
            sleep(pause).await;
            pause *= 2;
        }
        known = newer.or(known);
        let Some(view) = &known else { break };
        let address = |member: &Member| (with_port(&member.host, member.client_base), member.clone());
        asked = view.members().iter().map(address).collect();
    }
    Err(ConnectError::Nobody(errors))
}

/// The answers of one round of questions, in the order of the questions.
#[derive(Default)]
struct Round {
    /// The members that answered, by the addresses that were asked.
    welcomes: Vec<(String, Contact)>,
    /// The newest members that replicas named which are no members themselves.
    told: Option<View>,
    errors: Vec<ConnectError>,
}

/// Asks all these addresses at once.
async fn ask(addresses: Vec<(String, Member)>, cluster: Option<ClusterId>, role: Role) -> Round {
    let mut asked = JoinSet::new();
    for (place, (address, member)) in addresses.into_iter().enumerate() {
        asked.spawn(async move {
            let opened = Connection::open(&member, ShardId(0), cluster, role).await;
            let answer = opened.map(|connection| Contact { member, welcome: connection.into_parts().2 });
            (place, address, answer)
        });
    }
    let (mut welcomes, mut errors, mut views) = (Vec::new(), Vec::new(), Vec::new());
    let mut until = None;
    loop {
        let others = sleep_until(until.unwrap_or_else(Instant::now));
        tokio::select! {
            answer = asked.join_next() => match answer {
                Some(answer) => match answer.expect("connecting does not panic, and nobody ends it") {
                    (place, address, Ok(contact)) if contact.welcome.is_member() => {
                        welcomes.push((place, (address, contact)));
                    }
                    (_, _, Ok(contact)) => views.extend(View::of(&contact.welcome)),
                    (place, _, Err(error)) => {
                        views.extend(error.referral());
                        errors.push((place, error));
                    }
                },
                None => break,
            },
            () = others, if until.is_some() => break,
        }
        if !welcomes.is_empty() && cluster.is_some() {
            break;
        }
        if !welcomes.is_empty() || !views.is_empty() {
            until.get_or_insert_with(|| Instant::now() + OTHERS_PATIENCE);
        }
    }
    let told = views.into_iter().max_by_key(View::epoch);
    Round { welcomes: in_order(welcomes), told, errors: in_order(errors) }
}

/// Answers come in any order, and are listed in that in which the caller named the addresses.
fn in_order<T>(mut answers: Vec<(usize, T)>) -> Vec<T> {
    answers.sort_by_key(|(place, _)| *place);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn by_cluster(welcomes: &[(String, Contact)]) -> Vec<ClusterAt> {
    let mut found: Vec<ClusterAt> = Vec::new();
    for (address, contact) in welcomes {
        let (address, cluster) = (address.clone(), contact.welcome.cluster);
        match found.iter_mut().find(|found| found.cluster == cluster) {
            Some(found) => found.addresses.push(address),
            None => found.push(ClusterAt { cluster, addresses: vec![address] }),
        }
    }
    found
}
