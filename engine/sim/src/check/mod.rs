//! The assertions of the law's section 10, each in a file of its own. An assertion that fails panics with its number;
//! the run ends, and its seed is reported.

mod section_9_epochs;
mod status;
mod v01_agreement;
mod v02_visibility;
mod v03_one_value_per_ballot;
mod v04_ballots_and_phases;
mod v05_initial_deps;
mod v06_deps_of_phases;
mod v07_pre_acceptances_are_ordered;
mod v08_fast_quorum;
mod v09_fast_commits_stand;
mod v10_chosen_values_stand;
mod v11_nops_are_justified;
mod v12_ids;
mod v13_execution;
mod v15_said_is_durable;
mod v16_liveness;

use crate::ghost::Ghost;
use crate::view::Choice;
use isonomy_protocol::contract::{Append, Sealed, Send};
use isonomy_protocol::replica::Replica;
use isonomy_wire::deps::Frontier;
use isonomy_wire::id::{Ballot, InstanceId};

// V14 is asserted in `crate::history`, over what clients were told.
pub use v12_ids::rows_have_no_gaps;
pub use v16_liveness::{assert_all_executed, assert_components_are_bounded};

/// A replica is about to write a record; the ghost does not have it yet.
pub fn on_append(ghost: &Ghost, node: u8, append: &Append) {
    v04_ballots_and_phases::check(ghost, node, append);
    v05_initial_deps::check(ghost, append);
    v06_deps_of_phases::check(ghost, &append.record);
    v07_pre_acceptances_are_ordered::check(ghost, node, append);
    v08_fast_quorum::check_append(ghost, node, &append.record);
    v12_ids::check(ghost, append);
    v15_said_is_durable::check_record(ghost, node, append);
}

/// A process has replayed its log.
pub fn on_replayed(ghost: &Ghost, node: u8, core: &Replica) {
    v15_said_is_durable::check_replayed(ghost, node, core);
}

/// A replica that runs reports its status.
pub fn on_status(ghost: &Ghost, node: u8, core: &Replica) {
    status::check(ghost, node, core);
}

/// A log was cut, and the ghost knows the records that it still has.
pub fn on_cut(ghost: &Ghost, node: u8) {
    v15_said_is_durable::check_cut(ghost, node);
}

/// An answer of this instance leaves. `rests_on` is an error if an instance on which the answer rests is not durable.
pub fn on_answer(node: u8, id: InstanceId, rests_on: Result<(), InstanceId>) {
    v15_said_is_durable::check_answer(node, id, rests_on);
}

/// A value was accepted by a quorum, durably.
pub fn on_chosen(ghost: &Ghost, id: InstanceId) {
    v10_chosen_values_stand::check_all(ghost, id);
}

/// A commit is durable at a replica; the ghost has it.
pub fn on_decision(ghost: &Ghost, id: InstanceId, ballot: Ballot, choice: Choice) {
    v01_agreement::check(ghost, id, choice);
    v02_visibility::check(ghost, id);
    v08_fast_quorum::check(ghost, id, ballot);
    v09_fast_commits_stand::check_all(ghost, id);
    v10_chosen_values_stand::check_decision(ghost, id);
}

/// A message leaves; the ghost does not have it yet.
pub fn on_send(ghost: &Ghost, node: u8, send: &Send) {
    v03_one_value_per_ballot::check(ghost, &send.message);
    v05_initial_deps::check_said(ghost, &send.message);
    v09_fast_commits_stand::check(ghost, &send.message);
    v10_chosen_values_stand::check(ghost, &send.message);
    v11_nops_are_justified::check(ghost, node, &send.message);
    v15_said_is_durable::check(ghost, node, &send.message);
}

/// A replica has ended its epoch; `known` is how the first one did.
pub fn on_end(node: u8, sealed: Sealed, known: Sealed) {
    section_9_epochs::check_end(node, sealed, known);
}

/// The core of the next epoch begins with the state of a sealed one.
pub fn on_begin(node: u8, sealed: Sealed, next: &Replica) {
    section_9_epochs::check_begin(node, sealed, next);
}

/// A replica has executed so far.
pub fn on_executed(ghost: &Ghost, node: u8, frontier: Frontier) {
    section_9_epochs::check_frontier(ghost, node, frontier);
    v13_execution::check_frontier(ghost, node, frontier);
}

/// The state that a replica has executed rests on nothing that a crash can take.
pub fn on_durable_state(ghost: &Ghost, node: u8, frontier: Frontier, hash: u64) {
    v13_execution::check_state(ghost, node, frontier, hash);
}

/// The state at a barrier rests on nothing that a crash can take. At other replicas it was `known` there.
pub fn on_durable_barrier(node: u8, barrier: u64, hash: u64, known: u64) {
    v13_execution::check_barrier(node, barrier, hash, known);
}
