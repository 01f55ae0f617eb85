//! V3: at most one value per instance and ballot is ever in an Accept.

use crate::ghost::Ghost;
use crate::view::Choice;
use isonomy_wire::message::PeerMessage;

pub(super) fn check(ghost: &Ghost, message: &PeerMessage) {
    let PeerMessage::Accept { id, ballot, value, deps, .. } = message else { return };
    let choice = Choice::of(*value, *deps);
    let known = ghost.proposed.get(&(*id, *ballot)).copied().unwrap_or(choice);
    assert_eq!(known, choice, "V3: {id:?} has two values at {ballot:?}");
}
