//! V1: all commits of an instance, ever, restarts included, have one value.

use crate::ghost::Ghost;
use crate::view::Choice;
use isonomy_wire::id::InstanceId;

pub(super) fn check(ghost: &Ghost, id: InstanceId, choice: Choice) {
    let first = ghost.decisions[&id].choice;
    assert_eq!(first, choice, "V1: {id:?} was committed with two values");
}
