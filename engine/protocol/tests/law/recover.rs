//! R1 to R3.

use crate::support::solo::*;
use crate::support::{decide, id};
use isonomy_protocol::payload::Payload;
use isonomy_wire::deps::{Deps, Floor};
use isonomy_wire::id::{Ballot, InstanceId, ReplicaId};
use isonomy_wire::message::{Conflict, PeerMessage, Value};
use isonomy_wire::tuning::Tuning;

/// The instance that these tests recover: replica 0 proposed it, replica 3 of five recovers it.
pub(crate) const ID: InstanceId = InstanceId { row: ReplicaId(0), seq: 1 };
pub(crate) const MINE: Ballot = Ballot { round: 1, replica: ReplicaId(3) };

pub(crate) fn batch() -> Payload {
    decide("s", 1, 0, "a")
}

/// Replica 3 has pre-accepted ID as proposed, waited in vain, and asked around.
pub(crate) fn recovering(proposed: Deps) -> Solo {
    pre_accepted_at(Solo::new(5, 3), proposed)
}

fn pre_accepted_at(mut solo: Solo, proposed: Deps) -> Solo {
    solo.tell(0, pre_accept(ID, proposed), Some(&batch()));
    asked_around(solo)
}

fn asked_around(mut solo: Solo) -> Solo {
    for _ in 0..1000 {
        solo.wait(5_000);
        let said = solo.said_to(1);
        if said.contains(&recover(ID, MINE)) {
            return solo;
        }
    }
    panic!("it never recovers");
}

/// What was proposed to replica 1 among what was said.
pub(crate) fn proposals(said: Vec<(u8, PeerMessage)>) -> Vec<PeerMessage> {
    let to_one = said.into_iter().filter(|(to, message)| *to == 1 && is_proposal(message));
    to_one.map(|(_, message)| message).collect()
}

fn is_proposal(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Accept { .. } | PeerMessage::Validate { .. } | PeerMessage::Commit { .. })
}

pub(crate) fn nop() -> PeerMessage {
    accept(ID, MINE, Value::Nop, Deps::NONE)
}

#[test]
fn r1_a_mention_is_enough() {
    let mut solo = Solo::new(3, 2);
    solo.tell(1, pre_accept(id(1, 1), upto([2])), Some(&batch()));
    solo.wait(2_000_000);
    let both = PeerMessage::Recover { row: ReplicaId(0), from: 1, to: 2, ballot: ballot(1, 2) };
    assert!(solo.said_to(1).contains(&both), "all that got stuck together, in one message");
}

#[test]
fn r1_the_ballot_is_above_all_that_was_heard_of() {
    let mut solo = recovering(Deps::NONE);
    solo.tell(1, PeerMessage::Nack { id: ID, refused: MINE, promised: ballot(7, 4) }, None);
    solo.wait(5_000_000);
    assert!(solo.said_to(1).contains(&recover(ID, ballot(8, 3))));
}

#[test]
fn r2_a_promise_refuses_what_is_below() {
    let mut solo = Solo::new(5, 3);
    assert_eq!(solo.tell(2, recover(ID, ballot(2, 2)), None), [(2, knows_nothing(ID, ballot(2, 2)))]);
    let nack = PeerMessage::Nack { id: ID, refused: ballot(2, 1), promised: ballot(2, 2) };
    assert_eq!(solo.tell(1, recover(ID, ballot(2, 1)), None), [(1, nack)]);
}

#[test]
fn r2_a_repeated_question_is_answered_while_nothing_changed() {
    let mut solo = Solo::new(5, 3);
    let question = recover(ID, ballot(1, 2));
    let first = solo.tell(2, question.clone(), None);
    assert_eq!(solo.tell(2, question.clone(), None), first);
    solo.tell(2, validate(ID, ballot(1, 2), Deps::NONE), Some(&batch()));
    assert!(matches!(solo.tell(2, question, None)[..], [(2, PeerMessage::Nack { .. })]));
}

#[test]
fn r2_the_report_shows_what_was_proposed_and_what_was_answered() {
    let mut solo = Solo::new(5, 3);
    solo.tell(1, pre_accept(id(1, 1), Deps::NONE), Some(&decide("t", 1, 0, "a")));
    solo.tell(0, pre_accept(ID, Deps::NONE), Some(&batch()));
    let said = solo.tell(2, recover(ID, ballot(1, 2)), None);
    assert_eq!(said, [(2, has_pre_accepted(ID, ballot(1, 2), upto([0, 1]), Deps::NONE))]);
}

#[test]
fn r3_nothing_is_decided_before_a_quorum_has_reported() {
    let mut solo = recovering(Deps::NONE);
    assert_eq!(proposals(solo.tell(1, knows_nothing(ID, MINE), None)), []);
    assert_eq!(proposals(solo.tell(1, knows_nothing(ID, MINE), None)), [], "counted before");
    assert_eq!(proposals(solo.tell(2, knows_nothing(ID, ballot(1, 2)), None)), [], "of another ballot");
    assert_eq!(proposals(solo.tell(2, knows_nothing(ID, MINE), None)).len(), 1);
}

/// Replica 3 has waited in vain, and asks around at a ballot above that of its first try.
fn asking_again(solo: Solo) -> (Solo, Ballot) {
    asking_again_above(solo, MINE)
}

/// The same at a ballot above this one.
fn asking_again_above(mut solo: Solo, last: Ballot) -> (Solo, Ballot) {
    for _ in 0..1000 {
        solo.wait(5_000);
        let is_again = |message: &PeerMessage| match message {
            PeerMessage::Recover { row: ReplicaId(0), ballot, .. } if *ballot > last => Some(*ballot),
            _ => None,
        };
        if let Some(ballot) = solo.said_to(1).iter().find_map(is_again) {
            return (solo, ballot);
        }
    }
    panic!("it does not try again");
}

#[test]
fn section_5_the_time_between_two_tries_doubles() {
    let (mut solo, mut ballot) = asking_again(recovering(Deps::NONE));
    let mut waits = Vec::new();
    for _ in 0..3 {
        let began = solo.now;
        let next;
        (solo, next) = asking_again_above(solo, ballot);
        ballot = next;
        waits.push(solo.now.since(began));
    }
    // Each is spread by a quarter.
    assert!(waits.windows(2).all(|two| two[1] * 4 > two[0] * 6), "{waits:?}");
    assert_eq!(solo.core.status().recoveries, 5, "each try is counted");
}

/// What replica 1 or 2 has promised or accepted at the first ballot it may have taken back since: for
/// another ballot, or in an answer to the second.
#[test]
pub(crate) fn c5_r3_r5_an_answer_to_an_earlier_ballot_of_ones_own_does_not_count() {
    // R3: replica 2 reported nothing to the first try.
    let (mut solo, second) = asking_again(recovering(Deps::NONE));
    assert_eq!(proposals(solo.tell(1, knows_nothing(ID, second), None)), []);
    assert_eq!(proposals(solo.tell(2, knows_nothing(ID, MINE), None)), [], "R3");
    let said = proposals(solo.tell(2, knows_nothing(ID, second), None));
    assert_eq!(said, [validate(ID, second, Deps::NONE)]);

    // R5: replica 2 validated for the first try.
    let ok = |ballot| PeerMessage::ValidateOk { id: ID, ballot, conflicts: Vec::new(), floor: Floor::NONE };
    assert_eq!(proposals(solo.tell(1, ok(second), None)), []);
    assert_eq!(proposals(solo.tell(2, ok(MINE), None)), [], "R5");
    let said = proposals(solo.tell(2, ok(second), None));
    assert_eq!(said, [accept(ID, second, Value::Attached, Deps::NONE)]);

    // C5: replica 2 accepted at the first ballot.
    assert_eq!(proposals(solo.tell(1, accept_ok(ID, second), None)), []);
    assert_eq!(proposals(solo.tell(2, accept_ok(ID, MINE), None)), [], "C5");
    let said = proposals(solo.tell(2, accept_ok(ID, second), None));
    assert_eq!(said, [commit(ID, second, Value::Known, Deps::NONE)]);
}

/// Replica 4, from outside the quorum, may have accepted something else since it answered the first try.
#[test]
fn r6d_a_report_to_an_earlier_ballot_of_ones_own_does_not_count() {
    let (mut solo, second) = asking_again(recovering(Deps::NONE));
    [1, 2].iter().for_each(|from| drop(solo.tell(*from, knows_nothing(ID, second), None)));
    let conflicts = vec![Conflict { id: id(2, 1), committed: false }];
    for from in [1, 2] {
        let (conflicts, floor) = (conflicts.clone(), Floor::NONE);
        solo.tell(from, PeerMessage::ValidateOk { id: ID, ballot: second, conflicts, floor }, None);
    }
    let accepted = |at| has_accepted(ID, at, ballot(0, 0), Value::Nop, Deps::NONE);
    assert_eq!(proposals(solo.tell(4, accepted(MINE), None)), []);
    let said = proposals(solo.tell(4, accepted(second), None));
    assert_eq!(said, [accept(ID, second, Value::Nop, Deps::NONE)]);
}

#[test]
fn r3_1_a_committed_value_is_taken_and_told() {
    let mut solo = recovering(Deps::NONE);
    let said = solo.tell(2, commit(ID, Ballot::ZERO, Value::Attached, Deps::NONE), Some(&batch()));
    assert_eq!(proposals(said), [commit(ID, Ballot::ZERO, Value::Attached, Deps::NONE)]);
}

#[test]
fn r3_2_the_value_accepted_last_is_proposed() {
    let mut solo = recovering(Deps::NONE);
    solo.tell(1, has_accepted(ID, MINE, ballot(0, 0), Value::Attached, upto([0, 9])), Some(&batch()));
    let said = solo.tell(2, has_accepted(ID, MINE, ballot(1, 1), Value::Nop, Deps::NONE), None);
    assert_eq!(proposals(said), [nop()]);

    let mut solo = recovering(Deps::NONE);
    solo.tell(1, has_accepted(ID, MINE, ballot(1, 1), Value::Attached, upto([0, 9])), Some(&batch()));
    let said = solo.tell(0, has_pre_accepted(ID, MINE, Deps::NONE, Deps::NONE), Some(&batch()));
    assert_eq!(
        proposals(said),
        [accept(ID, MINE, Value::Attached, upto([0, 9]))],
        "before R3.3: the coordinator answered too"
    );
}

#[test]
fn r3_3_a_coordinator_that_has_not_committed_never_will() {
    let mut solo = recovering(Deps::NONE);
    solo.tell(1, has_pre_accepted(ID, MINE, Deps::NONE, Deps::NONE), Some(&batch()));
    let said = solo.tell(0, has_pre_accepted(ID, MINE, Deps::NONE, Deps::NONE), Some(&batch()));
    assert_eq!(proposals(said), [nop()]);
}

#[test]
fn r3_4_too_few_could_have_made_it_fast() {
    let mut solo = Solo::new(5, 3);
    solo.tell(1, pre_accept(id(1, 1), Deps::NONE), Some(&decide("t", 1, 0, "a")));
    solo.tell(1, commit(id(1, 1), Ballot::ZERO, Value::Known, Deps::NONE), None);
    solo.tell(0, pre_accept(ID, Deps::NONE), Some(&batch()));
    let mut solo = asked_around(solo);
    solo.tell(1, has_pre_accepted(ID, MINE, upto([0, 1]), Deps::NONE), Some(&batch()));
    let said = solo.tell(2, knows_nothing(ID, MINE), None);
    assert_eq!(proposals(said), [nop()], "nobody answered with the deps that were proposed");
}

#[test]
pub(crate) fn r3_5_what_may_have_been_fast_is_validated_by_all_who_reported() {
    let mut solo = recovering(upto([0, 0, 5]));
    solo.tell(2, knows_nothing(ID, MINE), None);
    let said = solo.tell(1, knows_nothing(ID, MINE), None);
    let validate = validate(ID, MINE, upto([0, 0, 5]));
    let asked: Vec<_> = said.into_iter().filter(|(_, message)| is_proposal(message)).collect();
    assert_eq!(asked, [(1, validate.clone()), (2, validate)]);
}

/// Replica 3 recovers ID with Rescue, and replica 1 has pre-accepted it with one more.
fn rescuing() -> Solo {
    with_one_more(Solo::rescuing(5, 3))
}

fn with_one_more(solo: Solo) -> Solo {
    let mut solo = pre_accepted_at(solo, Deps::NONE);
    solo.tell(1, has_pre_accepted(ID, MINE, upto([0, 1]), Deps::NONE), Some(&batch()));
    solo
}

#[test]
fn rescue_proposes_what_the_coordinator_could_have() {
    let rescued = [accept(ID, MINE, Value::Attached, upto([0, 1]))];
    let took_it = has_pre_accepted(ID, MINE, Deps::NONE, Deps::NONE);
    let said = rescuing().tell(0, took_it.clone(), Some(&batch()));
    assert_eq!(proposals(said), rescued, "where R3.3 says Nop");

    let mut solo = rescuing();
    solo.tell(2, took_it, Some(&batch()));
    let conflicts = vec![Conflict { id: id(1, 1), committed: true }];
    for from in [1, 2] {
        let floor = Floor::NONE;
        let ok = PeerMessage::ValidateOk { id: ID, ballot: MINE, conflicts: conflicts.clone(), floor };
        let said = proposals(solo.tell(from, ok, None));
        assert_eq!(said, rescued[..if from == 2 { 1 } else { 0 }], "where R5.2 says Nop");
    }
}

#[test]
fn section_4b_rescue_is_a_setting() {
    let took_it = has_pre_accepted(ID, MINE, Deps::NONE, Deps::NONE);
    for (mut solo, rescue) in [(with_one_more(Solo::new(5, 3)), true), (rescuing(), false)] {
        let (tuning, _) = solo.core.settings();
        solo.core.apply(solo.now, Tuning { rescue, ..tuning }, false);
        let proposed = proposals(solo.tell(0, took_it.clone(), Some(&batch())));
        let rescued = accept(ID, MINE, Value::Attached, upto([0, 1]));
        assert_eq!(proposed, [if rescue { rescued } else { nop() }]);
    }
}

#[test]
fn rescue_needs_a_quorum_that_pre_accepted_and_none_that_accepted() {
    let mut solo = pre_accepted_at(Solo::rescuing(5, 3), Deps::NONE);
    solo.tell(0, has_pre_accepted(ID, MINE, Deps::NONE, Deps::NONE), Some(&batch()));
    assert_eq!(proposals(solo.tell(1, knows_nothing(ID, MINE), None)), [nop()]);
    let accepted = has_accepted(ID, MINE, ballot(1, 1), Value::Nop, Deps::NONE);
    assert_eq!(proposals(rescuing().tell(2, accepted, None)), [nop()]);
}
