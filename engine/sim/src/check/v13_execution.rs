//! V13: the state is equal at equal frontiers, and a frontier never goes back.

use crate::ghost::Ghost;
use isonomy_wire::deps::Frontier;

pub(super) fn check_frontier(ghost: &Ghost, node: u8, frontier: Frontier) {
    let before = ghost.frontiers[usize::from(node)];
    assert!(frontier.covers(&before), "V13: replica {node} went back from {before:?} to {frontier:?}");
}

pub(super) fn check_state(ghost: &Ghost, node: u8, frontier: Frontier, hash: u64) {
    let known = ghost.states.get(&frontier).copied().unwrap_or(hash);
    assert_eq!(known, hash, "V13: replica {node} has another state than others had at {frontier:?}");
}

pub(super) fn check_barrier(node: u8, barrier: u64, hash: u64, known: u64) {
    assert_eq!(known, hash, "V13: replica {node} has another state than others had at barrier {barrier}");
}
