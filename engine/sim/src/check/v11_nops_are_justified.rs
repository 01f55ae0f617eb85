//! V11: a Nop is proposed only where no fast commit can stand against it, and every proposal above ballot 0 rests on
//! promises of a quorum, all durable.
//!
//! The check states independently of R3 to R6 what may justify a Nop: a Nop that was accepted before, a coordinator
//! that has promised, too few equal answers among the replicas that have promised, or a conflict that is ordered in
//! neither direction.

use crate::ghost::{Book, Ghost};
use crate::view::Choice;
use isonomy_wire::id::{Ballot, InstanceId};
use isonomy_wire::message::PeerMessage;

pub(super) fn check(ghost: &Ghost, node: u8, message: &PeerMessage) {
    let PeerMessage::Accept { id, ballot, value, deps, .. } = message else { return };
    let choice = Choice::of(*value, *deps);
    if ghost.proposed.contains_key(&(*id, *ballot)) || (*ballot == Ballot::ZERO && !choice.nop) {
        return;
    }
    assert!(*ballot > Ballot::ZERO, "V11: a coordinator proposes its batch, not a Nop: {id:?}");
    let promised: Vec<&Book> =
        ghost.members().iter().filter(|book| book.durable.of(*id).bal >= *ballot).collect();
    let needed = ghost.quorum.slow;
    assert!(promised.len() >= needed, "V11: {id:?} at {ballot:?} with {} promises", promised.len());
    if !choice.nop {
        return;
    }
    let justified = was_accepted(ghost, *id, *ballot)
        || ghost.books[id.row.index()].durable.of(*id).bal >= *ballot
        || too_few_equal(ghost, *id, &promised)
        || has_open_conflict(ghost, *id);
    assert!(justified, "V11: replica {node} makes {id:?} a Nop at {ballot:?} for no reason");
}

/// R3.2: a Nop was accepted before.
fn was_accepted(ghost: &Ghost, id: InstanceId, ballot: Ballot) -> bool {
    ghost.accepted.range((id, Ballot::ZERO)..(id, ballot)).any(|(_, (choice, _))| choice.nop)
}

/// R3.4, for the quorum of replicas that promised with the fewest equal answers.
fn too_few_equal(ghost: &Ghost, id: InstanceId, promised: &[&Book]) -> bool {
    let init = ghost.init_deps.get(&id);
    let equal = |book: &&&Book| init.is_some() && book.durable.pre_accepted.get(&id) == init;
    let unequal = promised.len() - promised.iter().filter(equal).count();
    unequal > ghost.quorum.e
}

/// R5 and R6: some other proposal conflicts, is not ordered before this one, and does not come after it.
fn has_open_conflict(ghost: &Ghost, id: InstanceId) -> bool {
    let Some(init) = ghost.init_deps.get(&id) else { return true };
    ghost.init_deps.iter().any(|(other, theirs)| {
        *other != id && !init.contains(*other) && !theirs.contains(id) && ghost.conflict(id, *other)
    })
}
