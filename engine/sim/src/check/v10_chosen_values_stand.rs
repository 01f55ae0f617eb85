//! V10: once a quorum has accepted a value, every later ballot carries it, and nothing else is
//! committed.

use crate::ghost::Ghost;
use crate::view::Choice;
use isonomy_wire::id::{Ballot, InstanceId, ReplicaId};
use isonomy_wire::message::PeerMessage;

pub(super) fn check(ghost: &Ghost, message: &PeerMessage) {
    let PeerMessage::Accept { id, ballot, value, deps, .. } = message else { return };
    if let Some((at, chosen)) = ghost.chosen.get(id).filter(|(at, _)| ballot > at) {
        let choice = Choice::of(*value, *deps);
        assert_eq!(choice, *chosen, "V10: {id:?} was chosen at {at:?}, and proposed at {ballot:?}");
    }
}

/// Checks the proposals above that were made before the value was known to be chosen.
pub(super) fn check_all(ghost: &Ghost, id: InstanceId) {
    let (at, chosen) = ghost.chosen[&id];
    let end = Ballot { round: u32::MAX, replica: ReplicaId(u8::MAX) };
    for ((_, ballot), choice) in ghost.proposed.range((id, at)..=(id, end)) {
        assert_eq!(*choice, chosen, "V10: {id:?} was chosen at {at:?}, and proposed at {ballot:?}");
    }
}

pub(super) fn check_decision(ghost: &Ghost, id: InstanceId) {
    if let Some((at, chosen)) = ghost.chosen.get(&id) {
        let decided = ghost.decisions[&id].choice;
        assert_eq!(decided, *chosen, "V10: {id:?} was chosen at {at:?}, and committed otherwise");
    }
}
