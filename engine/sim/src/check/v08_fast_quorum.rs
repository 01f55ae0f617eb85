//! V8: an instance that was committed fast was pre-accepted, unchanged and durably, by a fast quorum; by its
//! coordinator before it counted itself (D4). An instance that was committed otherwise was accepted durably, at its
//! ballot, by a slow quorum (C5).

use crate::ghost::Ghost;
use isonomy_protocol::log::record::Record;
use isonomy_wire::id::{Ballot, InstanceId, ReplicaId};

pub(super) fn check_append(ghost: &Ghost, node: u8, record: &Record) {
    let Record::Committed { id, ballot: Ballot::ZERO, .. } = record else { return };
    if id.row == ReplicaId(node) && !ghost.proposed.contains_key(&(*id, Ballot::ZERO)) {
        let own = ghost.books[usize::from(node)].durable.pre_accepted.get(id);
        assert!(own.is_some(), "D4: replica {node} committed {id:?} fast before its own answer was durable");
    }
}

pub(super) fn check(ghost: &Ghost, id: InstanceId, ballot: Ballot) {
    if ghost.fast.contains_key(&id) {
        let (equal, needed) = (ghost.equal_answers(id), ghost.quorum.fast);
        assert!(equal >= needed, "V8: {id:?} was committed fast with {equal} equal answers of {needed}");
    } else {
        let accepted = ghost.accepted.get(&(id, ballot)).map_or(0, |(_, by)| by.len());
        let needed = ghost.quorum.slow;
        assert!(
            accepted >= needed,
            "V8: {id:?} was committed at {ballot:?}, accepted by {accepted} of {needed}"
        );
    }
}
