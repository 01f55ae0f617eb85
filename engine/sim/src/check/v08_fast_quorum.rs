//! V8: what was committed fast was pre-accepted, unchanged and durably, by a fast quorum.

use crate::ghost::Ghost;
use isonomy_wire::id::InstanceId;

pub(super) fn check(ghost: &Ghost, id: InstanceId) {
    if ghost.fast.contains_key(&id) {
        let (equal, needed) = (ghost.equal_answers(id), ghost.quorum.fast());
        assert!(equal >= needed, "V8: {id:?} was committed fast with {equal} equal answers of {needed}");
    }
}
