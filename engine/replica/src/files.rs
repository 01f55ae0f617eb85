//! How the open files that this process may have are shared out. What the log, snapshots and peers need
//! is set aside; clients and strangers get the rest, and never more.

use crate::checks::raise;
use crate::config::Config;
use crate::fatal::Fatal;
use isonomy_doors::{GRPC_FILES_MAX, HTTP_FILES_MAX};
use isonomy_shard::limits::{ARRIVING_MAX, OPERATORS_MAX, STRANGERS_MAX};
use isonomy_tuning::limits::{Resource, UNLIMITED};
use isonomy_wire::id::PLACES_MAX;

/// Open files of a process besides those of its shards: the standard streams, the lock, and files that are read or
/// written now and then.
const FILES_PER_PROCESS: u64 = 32;
/// Open files of a shard besides connections: eight for its rings, listeners, directory and log, and the files that
/// it opens to prepare a segment, to take a snapshot and to read a piece of a snapshot for a peer.
const FILES_PER_SHARD: u64 = 24;
/// Open files for each peer of a shard: a link in each direction, the link that takes its place, and a link that is
/// being opened.
const FILES_PER_PEER: u64 = 4;
/// A closed connection keeps its file for a moment: what comes after it has a file of its own.
const CLOSING_MAX: u32 = 16;
/// With fewer connections for clients per shard a replica does not start.
const CLIENTS_MIN: u64 = 8;

/// The configured numbers that decide how many files a replica needs.
#[derive(Clone, Copy)]
struct Demand {
    shards: u64,
    peers: u64,
    /// Per shard.
    clients: u64,
    doors: u64,
}

/// Raises the limit of open files as far as it goes, and says how many clients each shard may have.
pub(crate) fn share_out(config: &Config) -> Result<u32, Fatal> {
    let limit = raise(Resource::NOFILE, UNLIMITED)?;
    let demand = Demand {
        shards: config.shards.into(),
        // Members in etcd can become more while the process runs.
        peers: if config.etcd.is_some() { PLACES_MAX } else { config.members.len() } as u64 - 1,
        clients: config.connections_max.into(),
        doors: config.http.iter().len() as u64 * HTTP_FILES_MAX
            + config.grpc.iter().len() as u64 * GRPC_FILES_MAX,
    };
    let clients = demand.clients_within(limit)?;
    if clients < demand.clients {
        log::warn!(
            "{limit} open files are allowed, so each shard serves {clients} clients, not {} \
             (`connections_max`); raise the limit (`ulimit -Hn`, LimitNOFILE= in a systemd unit) to {}",
            demand.clients,
            demand.files()
        );
    }
    Ok(clients as u32)
}

impl Demand {
    /// The open files that it takes.
    fn files(self) -> u64 {
        let others = u64::from(STRANGERS_MAX + ARRIVING_MAX + OPERATORS_MAX + CLOSING_MAX);
        let per_shard = FILES_PER_SHARD + FILES_PER_PEER * self.peers + others + self.clients;
        FILES_PER_PROCESS + self.shards * per_shard + self.doors
    }

    /// The clients that each shard may have with so many open files.
    fn clients_within(self, limit: u64) -> Result<u64, Fatal> {
        let fewest = Demand { clients: self.clients.min(CLIENTS_MIN), ..self }.files();
        if limit < fewest {
            return Err(Fatal::machine(format!(
                "{limit} open files are allowed, and {} shard(s) need {fewest} open files even for a few \
                 clients; raise the limit (`ulimit -Hn`, LimitNOFILE= in a systemd unit)",
                self.shards
            )));
        }
        let without = Demand { clients: 0, ..self }.files();
        Ok(self.clients.min((limit - without) / self.shards))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(shards: u64, clients: u64) -> Demand {
        Demand { shards, peers: 2, clients, doors: 0 }
    }

    #[test]
    fn clients_get_what_the_replica_does_not_need() {
        let wanted = demand(1, 1024);
        assert_eq!(wanted.clients_within(wanted.files()).unwrap(), 1024);
        assert_eq!(wanted.clients_within(wanted.files() - 1).unwrap(), 1023);
        assert_eq!(demand(256, 1024).clients_within(1 << 20).unwrap(), 1024);
        let within = demand(2, demand(2, 1024).clients_within(1024).unwrap());
        assert!(within.clients >= 300 && within.files() <= 1024, "{} clients", within.clients);
    }

    #[test]
    fn too_few_even_for_a_few_clients_are_refused() {
        let error = demand(16, 1024).clients_within(1024).unwrap_err().to_string();
        assert!(error.contains("1024 open files") && error.contains("16 shard"), "{error}");
        // Who wants fewer clients than that gets them.
        assert_eq!(demand(1, 2).clients_within(demand(1, 2).files()).unwrap(), 2);
    }
}
