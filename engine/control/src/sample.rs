//! Records for unit tests.

use crate::id::{MemberId, RecordId};
use crate::plan::{Founding, Stands, found};
use crate::record::{Address, Record};
use isonomy_wire::id::ClusterId;
use std::collections::BTreeSet;

/// The address of the host `h<n>`.
pub(crate) fn address(n: u8) -> Address {
    Address { host: format!("h{n}"), peer_base: 7100, client_base: 7400 }
}

/// As the law's table has it, for 1 to 5 members.
pub(crate) fn stands(n: usize) -> Stands {
    let (f, e) = [(0, 0), (0, 0), (1, 1), (1, 1), (2, 2)][n - 1];
    Stands { f, e }
}

/// The first record of a cluster of two shards.
pub(crate) fn record(n: u8) -> Record {
    let founding = Founding {
        cluster: "orders".into(),
        cluster_id: ClusterId(0xc),
        shards: 2,
        addresses: (0..n).map(address).collect(),
        stands: stands(n.into()),
    };
    found(founding, RecordId(0xa)).unwrap()
}

/// The first members are alive.
pub(crate) fn living(n: u8) -> BTreeSet<MemberId> {
    (0..n).map(MemberId).collect()
}
