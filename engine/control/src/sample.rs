//! Records for unit tests.

use crate::id::{ChangeId, Incarnation, MemberId, RecordId};
use crate::plan::{Change, Founding, Stands, activate, announce, claim, found, promote};
use crate::record::{Address, Record};
use isonomy_wire::id::ClusterId;
use std::collections::BTreeSet;

/// The id of the change in these records.
pub(crate) const CHANGE: ChangeId = ChangeId(1);

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
        epoch: 1,
    };
    found(founding, RecordId(0xa)).unwrap()
}

/// The same with a data directory each.
pub(crate) fn started(n: u8) -> Record {
    (0..n).fold(record(n), |record, id| claim(&record, MemberId(id), directory(id)).unwrap())
}

/// The data directory of a member that has started.
pub(crate) fn directory(id: u8) -> Incarnation {
    Incarnation(u128::from(id) + 1)
}

/// The data directories of these members.
pub(crate) fn directories(ids: impl IntoIterator<Item = u8>) -> BTreeSet<Incarnation> {
    ids.into_iter().map(directory).collect()
}

/// A change of a started cluster of three, all of whose members live, is announced.
pub(crate) fn announced(change: &Change, is_held: bool) -> Record {
    announce(&started(3), change, CHANGE, is_held, stands, &directories(0..3)).unwrap()
}

/// A fourth member joins the cluster and has named its directory; the epoch is being sealed for it.
pub(crate) fn sealing() -> Record {
    let learning = claim(&announced(&Change::Add(address(3)), false), MemberId(3), directory(3)).unwrap();
    promote(&learning, &directories(0..4), &directories(0..4)).unwrap()
}

/// The epoch after one that is being sealed.
pub(crate) fn next(record: &Record) -> Record {
    let to = record.changing_to().unwrap();
    activate(record, &to.members.iter().filter_map(|it| Some((it.incarnation?, 7))).collect()).unwrap()
}
