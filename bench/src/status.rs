//! What the replicas say of themselves before and after.

use isonomy_wire::client::Connection;
use isonomy_wire::id::ShardId;
use isonomy_wire::message::{ShardStatus, Welcome};

/// The sums of the figures that the report needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) fast: u64,
    pub(crate) slow: u64,
    pub(crate) log_bytes: u64,
    pub(crate) cpu_us: u64,
}

impl Totals {
    /// The share of the fast path in between; none if nothing was committed, or if a replica was
    /// started anew and counts from 0 again.
    pub(crate) fn fast_path_ratio(before: &Totals, after: &Totals) -> Option<f64> {
        let (fast, slow) = (after.fast.checked_sub(before.fast)?, after.slow.checked_sub(before.slow)?);
        (fast + slow > 0).then(|| fast as f64 / (fast + slow) as f64)
    }
}

/// A connection to every shard of every replica.
pub(crate) struct Probes {
    replicas: usize,
    /// `None` where there is none.
    connections: Vec<Option<Connection>>,
}

impl Probes {
    pub(crate) async fn connect(welcome: &Welcome) -> Probes {
        let mut connections = Vec::new();
        for shard in 0..welcome.shards {
            for member in &welcome.members {
                connections.push(Connection::open(member, ShardId(shard)).await.ok());
            }
        }
        Probes { replicas: welcome.members.len(), connections }
    }

    /// What all of them say; `None` if one does not: a sum without it would be wrong.
    pub(crate) async fn totals(&mut self) -> Option<Totals> {
        let mut all = Vec::new();
        for connection in &mut self.connections {
            all.push(connection.as_mut()?.status().await.ok()?);
        }
        Some(add(&all, self.replicas))
    }
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
        assert_eq!(totals, Totals { fast: 4, slow: 8, log_bytes: 12, cpu_us: 8 });
    }
}
