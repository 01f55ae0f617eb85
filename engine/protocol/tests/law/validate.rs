//! R4 to R6.

use super::recover::{ID, MINE, batch, nop, proposals, recovering};
use crate::support::solo::*;
use crate::support::{decide, id};
use isonomy_protocol::payload::Payload;
use isonomy_wire::deps::{Deps, Floor};
use isonomy_wire::id::{Ballot, InstanceId};
use isonomy_wire::message::{Conflict, PeerMessage, Value};

pub(crate) fn ok(conflicts: &[(InstanceId, bool)]) -> PeerMessage {
    let conflicts = conflicts.iter().map(|(id, committed)| Conflict { id: *id, committed: *committed });
    PeerMessage::ValidateOk { id: ID, ballot: MINE, conflicts: conflicts.collect(), floor: Floor::NONE }
}

/// A batch that conflicts with [`batch`], and one that does not.
fn rival() -> Payload {
    decide("t", 1, 0, "a")
}

fn stranger() -> Payload {
    decide("t", 1, 0, "b")
}

/// Asks a validator, replica 2, that has promised: what conflicts does it report?
fn asks(solo: &mut Solo, proposed: Deps) -> Vec<PeerMessage> {
    solo.tell(3, recover(ID, MINE), None);
    let said = solo.tell(3, validate(ID, MINE, proposed), Some(&batch()));
    said.into_iter().map(|(_, message)| message).collect()
}

#[test]
fn r4_what_conflicts_and_is_not_ordered_is_reported() {
    let mut solo = Solo::new(5, 2);
    solo.tell(1, pre_accept(id(1, 1), Deps::NONE), Some(&rival()));
    solo.tell(4, commit(id(4, 1), Ballot::ZERO, Value::Attached, Deps::NONE), Some(&rival()));
    assert_eq!(asks(&mut solo, Deps::NONE), [ok(&[(id(1, 1), false), (id(4, 1), true)])]);
}

#[test]
fn r4_what_is_ordered_or_does_not_conflict_is_not_reported() {
    let mut solo = Solo::new(5, 2);
    solo.tell(1, pre_accept(id(1, 1), Deps::NONE), Some(&rival()));
    assert_eq!(asks(&mut solo, upto([0, 1])), [ok(&[])], "it is in D");

    let mut solo = Solo::new(5, 2);
    solo.tell(1, pre_accept(id(1, 1), upto([1])), Some(&rival()));
    solo.tell(4, commit(id(4, 1), Ballot::ZERO, Value::Attached, upto([1])), Some(&rival()));
    assert_eq!(asks(&mut solo, Deps::NONE), [ok(&[])], "they come after");

    let mut solo = Solo::new(5, 2);
    solo.tell(1, pre_accept(id(1, 1), Deps::NONE), Some(&stranger()));
    solo.tell(4, pre_accept(id(4, 1), Deps::NONE), Some(&rival()));
    solo.tell(4, commit(id(4, 1), ballot(1, 1), Value::Nop, Deps::NONE), None);
    assert_eq!(asks(&mut solo, Deps::NONE), [ok(&[])], "no conflict, and a Nop");
}

#[test]
pub(crate) fn r4_what_comes_after_by_its_after_is_not_reported() {
    let mut solo = Solo::new(5, 2);
    let behind = PeerMessage::Commit {
        id: id(4, 1),
        ballot: ballot(1, 1),
        value: Value::Attached,
        deps: Deps::NONE,
        after: upto([1]),
    };
    solo.tell(1, behind, Some(&rival()));
    assert_eq!(asks(&mut solo, Deps::NONE), [ok(&[])], "B24");
}

#[test]
fn r4_initial_deps_count_not_what_was_answered() {
    let mut solo = Solo::new(5, 2);
    solo.tell(0, pre_accept(ID, Deps::NONE), Some(&batch()));
    let said = solo.tell(1, pre_accept(id(1, 1), Deps::NONE), Some(&rival()));
    assert_eq!(said, [(1, pre_accept_ok(id(1, 1), upto([1])))]);
    assert_eq!(asks(&mut solo, Deps::NONE), [ok(&[(id(1, 1), false)])]);
}

#[test]
pub(crate) fn r4_a_late_validate_is_dropped() {
    let mut solo = Solo::new(5, 2);
    solo.tell(3, recover(ID, MINE), None);
    solo.tell(3, nop(), None);
    assert_eq!(solo.tell(3, validate(ID, MINE, Deps::NONE), Some(&batch())), [], "B9");
    let said = solo.tell(4, recover(ID, ballot(2, 4)), None);
    assert_eq!(said, [(4, has_accepted(ID, ballot(2, 4), MINE, Value::Nop, Deps::NONE))]);
}

#[test]
fn r4_only_the_ballot_promised_is_validated() {
    let mut solo = Solo::new(5, 2);
    assert_eq!(solo.tell(3, validate(ID, MINE, Deps::NONE), Some(&batch())), []);
    solo.tell(4, recover(ID, ballot(2, 4)), None);
    assert_eq!(solo.tell(3, validate(ID, MINE, Deps::NONE), Some(&batch())), []);
}

#[test]
pub(crate) fn r4_the_validator_remembers_and_names_the_instance_from_then_on() {
    let mut solo = Solo::new(5, 2);
    asks(&mut solo, upto([0, 0, 0, 4]));
    solo.restart();
    let said = solo.tell(1, pre_accept(id(1, 1), Deps::NONE), Some(&rival()));
    assert_eq!(said[0], (1, pre_accept_ok(id(1, 1), upto([1, 0, 256]))), "D8 adds the own block");
    let said = solo.tell(4, recover(ID, ballot(2, 4)), None);
    let PeerMessage::RecoverOk { init_deps, init_value, .. } = said[0].1 else { panic!("{said:?}") };
    assert_eq!((init_value, init_deps), (Value::Attached, upto([0, 0, 0, 4])));
}

/// Replica 3 validates ID with {1, 2, 3}, of whom it alone has pre-accepted it: k = 1 = |Q| - e.
pub(crate) fn validating() -> Solo {
    let mut solo = recovering(Deps::NONE);
    solo.tell(1, knows_nothing(ID, MINE), None);
    solo.tell(2, knows_nothing(ID, MINE), None);
    solo
}

fn candidate() -> PeerMessage {
    accept(ID, MINE, Value::Attached, Deps::NONE)
}

#[test]
fn r5_every_member_of_the_quorum_must_answer() {
    let mut solo = validating();
    assert_eq!(proposals(solo.tell(1, ok(&[]), None)), []);
    assert_eq!(proposals(solo.tell(1, ok(&[]), None)), []);
    assert_eq!(proposals(solo.tell(4, ok(&[]), None)), [], "not of the quorum");
    assert_eq!(proposals(solo.tell(2, ok(&[]), None)), [candidate()]);
}

#[test]
fn r5_1_without_conflicts_the_candidate_is_proposed_behind_the_floors() {
    let mut solo = validating();
    // Both were settled meanwhile: nobody has to be asked about them.
    solo.tell(1, ok(&[(id(2, 1), true)]), None);
    let with_floor =
        PeerMessage::ValidateOk { id: ID, ballot: MINE, conflicts: Vec::new(), floor: upto([0, 0, 1]) };
    let expected = PeerMessage::Accept {
        id: ID,
        ballot: MINE,
        value: Value::Attached,
        deps: Deps::NONE,
        after: upto([0, 0, 1]),
    };
    assert_eq!(proposals(solo.tell(2, with_floor, None)), [expected]);
}

#[test]
fn r5_2_a_committed_conflict_rules_it_out() {
    let mut solo = validating();
    solo.tell(1, ok(&[(id(2, 1), true)]), None);
    assert_eq!(proposals(solo.tell(2, ok(&[(id(2, 1), false)]), None)), [nop()]);
}

#[test]
fn r5_3_a_conflict_whose_coordinator_would_have_had_to_take_part_rules_it_out() {
    let mut solo = validating();
    solo.tell(1, ok(&[(id(4, 1), false)]), None);
    assert_eq!(proposals(solo.tell(2, ok(&[]), None)), [nop()]);
}

/// R5.4: the conflict `2.1` is open, and its coordinator is of the quorum.
pub(crate) fn waiting() -> Solo {
    let mut solo = validating();
    solo.tell(1, ok(&[(id(2, 1), false)]), None);
    let said = solo.tell(2, ok(&[]), None);
    let waiting = PeerMessage::Waiting { id: ID, supporters: 1 };
    assert!((0..5).filter(|to| *to != 3).all(|to| said.contains(&(to, waiting.clone()))), "{said:?}");
    assert!(said.contains(&(4, recover(id(2, 1), MINE))), "R5.4 recovers what it waits for: {said:?}");
    solo
}

#[test]
fn r6a_a_conflict_committed_without_it_makes_it_a_nop() {
    let mut solo = waiting();
    let said = solo.tell(2, commit(id(2, 1), Ballot::ZERO, Value::Attached, Deps::NONE), Some(&rival()));
    assert!(proposals(said).contains(&nop()));
}

#[test]
fn r6b_conflicts_that_come_after_or_are_nops_let_it_pass() {
    let mut solo = waiting();
    let said = solo.tell(2, commit(id(2, 1), Ballot::ZERO, Value::Attached, upto([1])), Some(&rival()));
    assert!(proposals(said).contains(&candidate()));
    let mut solo = waiting();
    let said = solo.tell(2, commit(id(2, 1), ballot(1, 1), Value::Nop, Deps::NONE), None);
    assert!(proposals(said).contains(&candidate()));
    let mut solo = waiting();
    let behind = PeerMessage::Commit {
        id: id(2, 1),
        ballot: ballot(1, 1),
        value: Value::Attached,
        deps: Deps::NONE,
        after: upto([1]),
    };
    assert!(proposals(solo.tell(2, behind, Some(&rival()))).contains(&candidate()), "B24");
}

#[test]
pub(crate) fn r6c_of_two_that_wait_for_each_other_one_gives_way() {
    let mut solo = waiting();
    let weak = PeerMessage::Waiting { id: id(2, 1), supporters: 1 };
    assert_eq!(proposals(solo.tell(4, weak, None)), [], "k' = 1 = n - f - e");
    let strong = PeerMessage::Waiting { id: id(2, 1), supporters: 2 };
    assert_eq!(proposals(solo.tell(4, strong, None)), [nop()]);
}

#[test]
fn r6c_a_waiting_heard_before_counts() {
    let mut solo = validating();
    solo.tell(4, PeerMessage::Waiting { id: id(2, 1), supporters: 2 }, None);
    solo.tell(1, ok(&[(id(2, 1), false)]), None);
    assert_eq!(proposals(solo.tell(2, ok(&[]), None)), [nop()]);
}

#[test]
fn r6d_a_report_from_outside_decides() {
    let mut solo = waiting();
    let accepted = has_accepted(ID, MINE, ballot(0, 0), Value::Attached, upto([0, 3]));
    let said = solo.tell(4, accepted, Some(&batch()));
    assert_eq!(proposals(said), [accept(ID, MINE, Value::Attached, upto([0, 3]))]);
    let mut solo = waiting();
    let coordinator = has_pre_accepted(ID, MINE, Deps::NONE, Deps::NONE);
    assert_eq!(proposals(solo.tell(0, coordinator, Some(&batch()))), [nop()]);
    let mut solo = waiting();
    let said = solo.tell(4, commit(ID, Ballot::ZERO, Value::Attached, Deps::NONE), Some(&batch()));
    assert_eq!(proposals(said), [commit(ID, Ballot::ZERO, Value::Attached, Deps::NONE)]);
    let mut solo = waiting();
    assert_eq!(proposals(solo.tell(4, knows_nothing(ID, MINE), None)), [], "says nothing new");
}

#[test]
fn r6d_a_report_that_came_during_validation_is_kept() {
    let mut solo = validating();
    solo.tell(0, has_pre_accepted(ID, MINE, Deps::NONE, Deps::NONE), Some(&batch()));
    solo.tell(1, ok(&[(id(2, 1), false)]), None);
    assert_eq!(proposals(solo.tell(2, ok(&[]), None)), [nop()]);
}

#[test]
fn r6e_whoever_waits_too_long_starts_over() {
    for mut solo in [waiting(), validating()] {
        solo.wait(5_000_000);
        assert!(solo.said_to(1).contains(&recover(ID, ballot(2, 3))));
    }
}

#[test]
pub(crate) fn r6c_waiting_is_told_to_oneself_too() {
    // B10: replica 3 recovers both, and hears of the second wait from nobody else.
    let mut solo = waiting();
    let (other, theirs) = (id(2, 1), rival());
    let first = ballot(1, 3);
    solo.tell(1, has_pre_accepted(other, first, Deps::NONE, Deps::NONE), Some(&theirs));
    solo.tell(4, has_pre_accepted(other, first, Deps::NONE, Deps::NONE), Some(&theirs));
    let ok = PeerMessage::ValidateOk { id: other, ballot: first, conflicts: Vec::new(), floor: Floor::NONE };
    assert_eq!(proposals(solo.tell(1, ok.clone(), None)), []);
    let said = solo.tell(4, ok, None);
    assert!(said.contains(&(1, PeerMessage::Waiting { id: other, supporters: 2 })), "{said:?}");
    assert_eq!(proposals(said), [nop()]);
}
