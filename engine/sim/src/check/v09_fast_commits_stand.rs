//! V9: an instance that was committed fast is never proposed with another value.

use crate::ghost::Ghost;
use crate::view::Choice;
use isonomy_wire::id::{Ballot, InstanceId};
use isonomy_wire::message::PeerMessage;

pub(super) fn check(ghost: &Ghost, message: &PeerMessage) {
    let PeerMessage::Accept { id, ballot, value, deps, .. } = message else { return };
    if let Some(fast) = ghost.fast.get(id) {
        let choice = Choice::of(*value, *deps);
        assert_eq!(
            choice,
            Choice { nop: false, deps: *fast },
            "V9: {id:?} was fast, and proposed at {ballot:?}"
        );
    }
}

/// Checks the proposals that were made before the instance was known to be fast.
pub(super) fn check_all(ghost: &Ghost, id: InstanceId) {
    let Some(fast) = ghost.fast.get(&id) else { return };
    let end = Ballot { round: u32::MAX, replica: isonomy_wire::id::ReplicaId(u8::MAX) };
    for ((_, ballot), choice) in ghost.proposed.range((id, Ballot::ZERO)..=(id, end)) {
        assert_eq!(
            *choice,
            Choice { nop: false, deps: *fast },
            "V9: {id:?} is fast, and proposed at {ballot:?}"
        );
    }
}
