//! The status of the replicas before and after a run.

use isonomy_wire::client::Connection;
use isonomy_wire::client::connection::CONNECT_TIMEOUT;
use isonomy_wire::id::{ClusterId, Epoch, ShardId};
use isonomy_wire::message::{Member, Role, ShardStatus};
use isonomy_wire::view::View;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

use super::members::Members;

/// How long replicas may take to report their status during a run. They are asked every second: a load generator
/// that waited longer would fall behind, and end the run late.
const STATUS_PATIENCE: Duration = Duration::from_millis(900);

/// The sums of the figures that the report needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Totals {
    /// The epoch of the replicas. Figures of other replicas cannot be compared with these.
    pub(crate) epoch: Epoch,
    pub(crate) fast: u64,
    pub(crate) slow: u64,
    pub(crate) log_bytes: u64,
    pub(crate) cpu_us: u64,
}

impl Totals {
    /// Both, if they are sums over the same replicas.
    pub(crate) fn comparable(before: Totals, after: Totals) -> Option<(Totals, Totals)> {
        (before.epoch == after.epoch).then_some((before, after))
    }

    /// The share of the fast path in between. `None` if nothing was committed, or if a replica was started anew and
    /// counts from 0 again.
    pub(crate) fn fast_path_ratio(before: &Totals, after: &Totals) -> Option<f64> {
        let (fast, slow) = (after.fast.checked_sub(before.fast)?, after.slow.checked_sub(before.slow)?);
        (fast + slow > 0).then(|| fast as f64 / (fast + slow) as f64)
    }
}

/// A connection to every shard of every member.
pub(crate) struct Probes {
    members: Arc<Members>,
    /// The members to which the connections lead.
    view: View,
    /// The connections for shard 0, then for shard 1 and so on; `None` where there is none.
    connections: Vec<Option<Connection>>,
}

impl Probes {
    /// Connects to all at once, so that replicas that do not answer cost no more time than one of them.
    pub(crate) async fn connect(members: &Arc<Members>) -> Probes {
        let mut probes = Probes { members: members.clone(), view: members.view(), connections: Vec::new() };
        probes.ask(CONNECT_TIMEOUT).await;
        probes
    }

    /// The sums over all replicas; `None` if one does not answer in time, since a sum without it would be wrong.
    pub(crate) async fn totals(&mut self) -> Option<Totals> {
        let all: Option<Vec<ShardStatus>> = self.ask(STATUS_PATIENCE).await.into_iter().collect();
        Some(Totals { epoch: self.view.epoch(), ..add(&all?, self.view.members().len()) })
    }

    /// Asks all at once. A replica that does not answer in time gets a new connection the next time, since its late
    /// answer would be taken for the answer to another question.
    async fn ask(&mut self, patience: Duration) -> Vec<Option<ShardStatus>> {
        let view = self.members.view();
        if view != self.view {
            (self.view, self.connections) = (view, Vec::new());
        }
        let (members, shards) = (self.view.members().iter(), self.members.shards);
        self.connections.resize_with(members.len() * usize::from(shards), || None);
        let places = (0..shards).flat_map(|shard| members.clone().map(move |member| (member, shard)));
        let mut asked = Vec::new();
        for (slot, (member, shard)) in self.connections.iter_mut().zip(places) {
            let (connection, member) = (slot.take(), member.clone());
            asked.push(tokio::spawn(timeout(
                patience,
                status(connection, member, ShardId(shard), self.members.cluster),
            )));
        }
        let mut all = Vec::new();
        for (slot, asked) in self.connections.iter_mut().zip(asked) {
            let answer = asked.await.expect("asking does not panic").ok().flatten();
            let (connection, status) = answer.unzip();
            *slot = connection;
            all.push(status);
        }
        all
    }
}

/// Asks a shard of a replica, over this connection or a new one.
async fn status(
    connection: Option<Connection>,
    member: Member,
    shard: ShardId,
    cluster: ClusterId,
) -> Option<(Connection, ShardStatus)> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => Connection::open(&member, shard, Some(cluster), Role::Operator).await.ok()?,
    };
    let status = connection.status().await.ok()?;
    Some((connection, status))
}

/// Statuses of all replicas for shard 0, then for shard 1 and so on.
fn add(all: &[ShardStatus], replicas: usize) -> Totals {
    let mut totals = Totals::default();
    for status in all {
        totals.fast += status.fast;
        totals.slow += status.slow;
        totals.log_bytes += status.log_bytes;
    }
    // The CPU time is the whole process's, whichever shard tells it.
    totals.cpu_us = all.iter().take(replicas).map(|status| status.process_cpu_us).sum();
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_add_up_but_a_process_counts_once() {
        let one = ShardStatus { fast: 1, slow: 2, log_bytes: 3, process_cpu_us: 4, ..Default::default() };
        let totals = add(&[one.clone(), one.clone(), one.clone(), one], 2);
        assert_eq!(totals, Totals { fast: 4, slow: 8, log_bytes: 12, cpu_us: 8, ..Totals::default() });
    }
}
