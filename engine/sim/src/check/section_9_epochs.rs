//! Section 9: an epoch ends in one way everywhere, nothing executes after its end, and the next one begins with the
//! state there.

use crate::ghost::Ghost;
use isonomy_protocol::contract::{Sealed, StateAt};
use isonomy_protocol::replica::Replica;
use isonomy_wire::deps::Frontier;

pub(super) fn check_end(node: u8, sealed: Sealed, known: Sealed) {
    assert_eq!(sealed, known, "section 9: replica {node} has ended the epoch in another way than others");
}

pub(super) fn check_frontier(ghost: &Ghost, node: u8, frontier: Frontier) {
    let end = ghost.ends[usize::from(node)];
    assert!(end.is_none_or(|end| end == frontier), "section 9: replica {node} executes past the Seal");
}

pub(super) fn check_begin(node: u8, sealed: Sealed, next: &Replica) {
    let begun = (next.state_hash(), next.last_barrier());
    let expected = (sealed.hash, Some(StateAt { barrier: sealed.barrier + 1, hash: sealed.hash }));
    assert_eq!(
        begun, expected,
        "section 9: replica {node} begins an epoch with another state than the one before had"
    );
}
