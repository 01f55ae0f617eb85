//! V5: initCmd and initDep are equal wherever they are known.

use crate::ghost::Ghost;
use isonomy_protocol::contract::Append;
use isonomy_protocol::log::record::Record;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::InstanceId;
use isonomy_wire::message::PeerMessage;

pub(super) fn check(ghost: &Ghost, append: &Append) {
    if let Record::PreAccepted { id, init_deps, .. } | Record::Validated { id, init_deps, .. } = append.record
    {
        check_known(ghost, id, init_deps);
    }
}

pub(super) fn check_said(ghost: &Ghost, message: &PeerMessage) {
    if let PeerMessage::PreAccept { id, deps } | PeerMessage::Validate { id, deps, .. } = message {
        check_known(ghost, *id, *deps);
    }
}

fn check_known(ghost: &Ghost, id: InstanceId, init_deps: Deps) {
    let known = ghost.init_deps.get(&id).copied().unwrap_or(init_deps);
    assert_eq!(known, init_deps, "V5: {id:?} has two initDeps");
}
