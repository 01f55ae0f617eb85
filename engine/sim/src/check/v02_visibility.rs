//! V2: of two conflicting decisions that are not Nops, one names the other in its deps or after.

use crate::ghost::Ghost;
use isonomy_wire::id::InstanceId;

pub(super) fn check(ghost: &Ghost, id: InstanceId) {
    let decision = &ghost.decisions[&id];
    if decision.choice.nop {
        return;
    }
    let touches = &ghost.touches[&id];
    for (thing, writes_too) in touches.things.iter().chain(&touches.made) {
        let Some(others) = ghost.decided.get(thing) else { continue };
        // Instances in its deps are ordered already.
        for (other, writes) in others.outside(decision.choice.deps).filter(|(other, _)| *other != id) {
            if !writes && !writes_too {
                continue;
            }
            let theirs = &ghost.decisions[&other];
            let by_deps = theirs.choice.deps.contains(id);
            let ordered = by_deps || theirs.after.contains(id) || decision.after.contains(other);
            assert!(ordered, "V2: {id:?} and {other:?} conflict and do not see each other");
            let both_fast = ghost.fast.contains_key(&id) && ghost.fast.contains_key(&other);
            assert!(!both_fast || by_deps, "V2: {id:?} and {other:?} are fast and not in each other's deps");
        }
    }
}
