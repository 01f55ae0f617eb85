//! Why bytes are no membership record.

use crate::id::MemberId;
use crate::record::{RECORD_BYTES_MAX, VERSION};
use isonomy_wire::id::{REPLICAS_MAX, SHARDS_MAX};

/// What to do about a record that somebody has damaged.
const PUT_BACK: &str = "put back what was there before (`etcdctl get --rev` reads it), and change records with \
                        `isonomy member` only";

/// Why bytes are no membership record of the expected cluster. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadRecord {
    /// The bytes are more than any record has.
    #[error("it has {0} bytes, but a record has at most {RECORD_BYTES_MAX}; {PUT_BACK}")]
    Long(usize),
    /// The bytes are not the JSON of a record; what is wrong, and where.
    #[error("it does not parse: {0}; {PUT_BACK}")]
    NoJson(String),
    /// A newer release has written the record.
    #[error(
        "it has version {0}, but this release reads version {VERSION}; install the newer release here, too"
    )]
    Newer(u32),
    /// The record is older than any that a release wrote.
    #[error("it has version {0}, which no release wrote; {PUT_BACK}")]
    NoVersion(u32),
    /// The prefix belongs to another cluster.
    #[error(
        "it belongs to the cluster {there}, not to {expected}; give each cluster a prefix of its own, or name the \
             cluster {there}"
    )]
    OtherCluster {
        /// The name in the record.
        there: String,
        /// The name that was asked for.
        expected: String,
    },
    /// The cluster has no name.
    #[error("its cluster has no name; {PUT_BACK}")]
    NoCluster,
    /// The epoch and the predecessor contradict each other.
    #[error(
        "epoch {0} and its predecessor do not fit together: epochs count from 1, and only epoch 1 has no \
             predecessor; {PUT_BACK}"
    )]
    Epoch(u32),
    /// No cluster has so many shards.
    #[error("it has {0} shards, but a cluster has 1 to {SHARDS_MAX}; {PUT_BACK}")]
    Shards(u16),
    /// No cluster has so many members.
    #[error("it has {0} members, but a cluster has 1 to {REPLICAS_MAX}; {PUT_BACK}")]
    Members(usize),
    /// A member is there twice.
    #[error("member {0} is there twice; {PUT_BACK}")]
    Twice(MemberId),
    /// The members are out of order.
    #[error("member {0} is out of order: members are listed by their ids; {PUT_BACK}")]
    Order(MemberId),
    /// Two members have the same data directory.
    #[error(
        "the members {0} and {1} have the same incarnation, so one has a copy of the other's data directory; \
             {PUT_BACK}"
    )]
    SameIncarnation(MemberId, MemberId),
    /// A member's host is not a name or an address.
    #[error(
        "the host '{host}' of member {id} is neither a name nor an address; give it without a port, a scheme or \
             a path"
    )]
    Host {
        /// The member.
        id: MemberId,
        /// Its host.
        host: String,
    },
    /// A member's ports do not fit below 65536.
    #[error(
        "member {id} has no room for {shards} ports from {base}: ports are 1 to 65535; choose a lower base"
    )]
    Ports {
        /// The member.
        id: MemberId,
        /// The base of the ports.
        base: u16,
        /// How many ports are needed.
        shards: u16,
    },
    /// Two ranges of ports overlap on one host.
    #[error("the members {0} and {1} would both listen on port {port} of {host}; give each range of ports room for \
             all shards", .between.0, .between.1)]
    PortInUse {
        /// The members, which may be one and the same.
        between: (MemberId, MemberId),
        /// The host.
        host: String,
        /// The first port that both have.
        port: u16,
    },
    /// The quorums would not intersect as they must.
    #[error(
        "{n} members cannot stand f = {f} failures, e = {e} of them with two message delays: a cluster needs at \
             least max(2e + f - 1, 2f + 1) members, and e is at most f; add members, or choose smaller f and e"
    )]
    Quorums {
        /// How many members there are.
        n: usize,
        /// How many may be down.
        f: u8,
        /// How many may be down while two message delays suffice.
        e: u8,
    },
}

impl BadRecord {
    pub(crate) fn no_json(error: serde_json::Error) -> BadRecord {
        BadRecord::NoJson(error.to_string())
    }
}
