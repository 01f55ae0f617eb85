//! C1 to C6.

use crate::support::solo::*;
use crate::support::{answers_of, decide, id, key_seq, read, timing};
use isonomy_protocol::contract::ClientRef;
use isonomy_wire::answer::Answer;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::Ballot;
use isonomy_wire::message::{Gossip, PeerMessage, Value};
use isonomy_wire::tuning::{PathMode, Tuning};

#[test]
pub(crate) fn c1_a_proposal_names_what_conflicts_and_its_whole_row() {
    let mut solo = Solo::new(3, 0);
    let (a, b) = (decide("s", 1, 0, "a"), decide("t", 1, 0, "b"));
    solo.tell(1, pre_accept(id(1, 1), Deps::NONE), Some(&a));
    solo.tell(2, pre_accept(id(2, 1), Deps::NONE), Some(&b));
    solo.ask(&decide("u", 1, 0, "a"));
    let proposal = pre_accept(id(0, 1), upto([0, 1, 0]));
    assert_eq!(solo.said(), [(1, proposal.clone()), (2, proposal)]);
    solo.ask(&decide("v", 1, 0, "c"));
    assert_eq!(solo.said_to(1), [pre_accept(id(0, 2), upto([1]))], "no conflict but the row before it");
    solo.ask(&read("b"));
    assert_eq!(solo.said_to(1), [pre_accept(id(0, 3), upto([2, 0, 1]))], "a read names writes");
}

#[test]
fn c1_announced_restart_marks_are_named_from_the_start() {
    let mut solo = Solo::new(5, 0);
    let gossip = PeerMessage::Gossip(Box::new(Gossip { restart_mark: 256, ..Gossip::default() }));
    solo.tell(1, gossip, None);
    solo.ask(&decide("s", 1, 0, "a"));
    assert_eq!(solo.said_to(2), [pre_accept(id(0, 1), upto([0, 256]))]);
}

#[test]
fn c2_the_answer_adds_conflicts_that_the_coordinator_did_not_know() {
    let mut solo = Solo::new(5, 2);
    let (a, b) = (decide("s", 1, 0, "a"), decide("t", 1, 0, "a"));
    solo.tell(1, pre_accept(id(1, 1), Deps::NONE), Some(&a));
    let answers = solo.tell(0, pre_accept(id(0, 5), upto([4, 0, 0, 2])), Some(&b));
    assert_eq!(answers, [(0, pre_accept_ok(id(0, 5), upto([4, 1, 0, 2])))]);
}

#[test]
fn c2_later_ids_of_the_same_row_do_not_come_before() {
    let mut solo = Solo::new(3, 2);
    let a = decide("s", 1, 0, "a");
    solo.tell(0, pre_accept(id(0, 2), upto([1])), Some(&decide("s", 2, 0, "a")));
    let answers = solo.tell(0, pre_accept(id(0, 1), Deps::NONE), Some(&a));
    assert_eq!(answers, [(0, pre_accept_ok(id(0, 1), Deps::NONE))]);
}

#[test]
pub(crate) fn c2_what_became_a_nop_stays_known() {
    // B8. Both where it was somebody else's and where it was the own proposal.
    let mut solo = Solo::new(5, 2);
    solo.tell(1, pre_accept(id(1, 1), Deps::NONE), Some(&decide("s", 1, 0, "a")));
    solo.tell(3, commit(id(1, 1), ballot(1, 3), Value::Nop, Deps::NONE), None);
    let answers = solo.tell(0, pre_accept(id(0, 1), Deps::NONE), Some(&decide("t", 1, 0, "a")));
    assert_eq!(answers, [(0, pre_accept_ok(id(0, 1), upto([0, 1])))]);
    solo.tell(3, commit(id(0, 1), ballot(1, 3), Value::Nop, Deps::NONE), None);
    solo.ask(&decide("u", 1, 0, "a"));
    assert_eq!(solo.said_to(0), [pre_accept(id(2, 1), upto([1, 1]))]);
}

#[test]
fn c2_a_repeated_proposal_gets_the_first_answer() {
    let mut solo = Solo::new(3, 2);
    let (a, b) = (decide("s", 1, 0, "a"), decide("t", 1, 0, "a"));
    let first = solo.tell(0, pre_accept(id(0, 1), Deps::NONE), Some(&a));
    solo.tell(1, pre_accept(id(1, 1), Deps::NONE), Some(&b));
    assert_eq!(solo.tell(0, pre_accept(id(0, 1), Deps::NONE), Some(&a)), first);
}

#[test]
fn c2_a_promise_stands_in_the_way() {
    let mut solo = Solo::new(3, 2);
    solo.tell(1, recover(id(0, 1), ballot(1, 1)), None);
    let answers = solo.tell(0, pre_accept(id(0, 1), Deps::NONE), Some(&decide("s", 1, 0, "a")));
    let nack = PeerMessage::Nack { id: id(0, 1), refused: Ballot::ZERO, promised: ballot(1, 1) };
    assert_eq!(answers, [(0, nack)]);
}

#[test]
fn c2_only_the_coordinator_proposes_and_only_with_its_row_before() {
    let mut solo = Solo::new(3, 2);
    let a = decide("s", 1, 0, "a");
    assert_eq!(solo.tell(1, pre_accept(id(0, 1), Deps::NONE), Some(&a)), []);
    assert_eq!(solo.tell(0, pre_accept(id(0, 2), Deps::NONE), Some(&a)), []);
}

/// Replica 0 of five has proposed `0.1` with empty deps, durably.
fn proposed() -> Solo {
    let mut solo = Solo::new(5, 0);
    solo.ask(&decide("s", 1, 0, "a"));
    solo.sync();
    solo.said();
    solo
}

fn committed(deps: Deps) -> PeerMessage {
    commit(id(0, 1), Ballot::ZERO, Value::Known, deps)
}

fn slow(deps: Deps) -> PeerMessage {
    accept(id(0, 1), Ballot::ZERO, Value::Known, deps)
}

#[test]
pub(crate) fn c3_fast_path_needs_equal_deps() {
    let mut solo = proposed();
    assert_eq!(solo.tell(1, pre_accept_ok(id(0, 1), Deps::NONE), None), []);
    assert_eq!(solo.tell(2, pre_accept_ok(id(0, 1), upto([0, 0, 1])), None), [], "still possible");
    let said = solo.tell(3, pre_accept_ok(id(0, 1), Deps::NONE), None);
    assert_eq!(said[0], (1, committed(Deps::NONE)));
    assert_eq!(said.len(), 4);
}

#[test]
fn c3_answers_are_compared_with_the_own_proposal_not_with_each_other() {
    let mut solo = proposed();
    for from in 1..3 {
        assert_eq!(solo.tell(from, pre_accept_ok(id(0, 1), upto([0, 7])), None), []);
    }
    assert_eq!(solo.tell(3, pre_accept_ok(id(0, 1), upto([0, 7])), None)[0], (1, slow(upto([0, 7]))));
}

#[test]
fn c3_a_doubled_answer_counts_once() {
    let mut solo = proposed();
    for _ in 0..3 {
        assert_eq!(solo.tell(1, pre_accept_ok(id(0, 1), Deps::NONE), None), []);
    }
}

#[test]
fn c3_slow_path_when_impossible_or_late() {
    let mut solo = proposed();
    assert_eq!(solo.tell(1, pre_accept_ok(id(0, 1), upto([0, 1])), None), []);
    assert_eq!(solo.tell(2, pre_accept_ok(id(0, 1), upto([0, 0, 1])), None), []);
    let said = solo.tell(3, pre_accept_ok(id(0, 1), upto([0, 0, 0, 1])), None);
    assert_eq!(said[0], (1, slow(upto([0, 1, 1, 1]))), "the union of all answers");
    assert_eq!(solo.tell(4, pre_accept_ok(id(0, 1), Deps::NONE), None), [], "exactly one of the two");

    let mut solo = proposed();
    solo.tell(1, pre_accept_ok(id(0, 1), upto([0, 1])), None);
    solo.wait(20_000);
    assert_eq!(solo.said(), [], "no slow quorum has answered");
    let said = solo.tell(2, pre_accept_ok(id(0, 1), Deps::NONE), None);
    assert_eq!(said[0], (1, slow(upto([0, 1]))));
}

/// Replica 0 of seven (FQ = 5, SQ = 4) has proposed `0.1` with empty deps, durably, under these settings.
fn proposed_of_seven(tuning: Tuning, is_slow_agreed: bool) -> Solo {
    let mut solo = Solo::new(7, 0);
    solo.core.apply(solo.now, tuning, is_slow_agreed);
    solo.ask(&decide("s", 1, 0, "a"));
    solo.sync();
    solo.said();
    solo
}

const SLOW: Tuning = Tuning { path: PathMode::Slow, ..Tuning::DEFAULT };

#[test]
pub(crate) fn c3_in_slow_mode_a_slow_quorum_of_answers_is_enough_and_needed() {
    let mut solo = proposed_of_seven(SLOW, false);
    assert_eq!(solo.tell(1, pre_accept_ok(id(0, 1), Deps::NONE), None), []);
    assert_eq!(solo.tell(2, pre_accept_ok(id(0, 1), upto([0, 1])), None), []);
    solo.wait(8_000);
    assert_eq!(solo.said(), [], "three are no slow quorum");
    let said = solo.tell(3, pre_accept_ok(id(0, 1), upto([0, 0, 1])), None);
    assert_eq!(said[0], (1, slow(upto([0, 1, 1]))), "the union of all answers");
    for from in 4..7 {
        assert_eq!(solo.tell(from, pre_accept_ok(id(0, 1), Deps::NONE), None), [], "exactly one of the two");
    }
    let status = solo.core.status();
    assert_eq!((status.fast, status.slow, status.waited_in_vain), (0, 1, 0));
}

#[test]
fn c3_in_slow_mode_equal_answers_of_a_fast_quorum_still_commit() {
    // Of five, slow and fast quorums are equally large.
    let mut solo = proposed();
    solo.core.apply(solo.now, SLOW, false);
    solo.tell(1, pre_accept_ok(id(0, 1), Deps::NONE), None);
    assert_eq!(solo.tell(2, pre_accept_ok(id(0, 1), Deps::NONE), None)[0], (1, committed(Deps::NONE)));
}

#[test]
fn c3_the_settings_say_how_long_the_fast_path_is_waited_for() {
    let patient = Tuning { fast_path_us: 300_000, ..Tuning::DEFAULT };
    let mut solo = proposed_of_seven(patient, false);
    (1..4).for_each(|from| drop(solo.tell(from, pre_accept_ok(id(0, 1), Deps::NONE), None)));
    solo.wait(290_000);
    assert_eq!(solo.core.status().slow, 0);
    solo.wait(20_000);
    assert_eq!((solo.core.status().slow, solo.core.status().waited_in_vain), (1, 1));
}

#[test]
fn c3_what_is_under_way_follows_new_settings() {
    let mut solo = proposed_of_seven(Tuning { fast_path_us: 300_000, ..Tuning::DEFAULT }, false);
    (1..4).for_each(|from| drop(solo.tell(from, pre_accept_ok(id(0, 1), Deps::NONE), None)));
    assert_eq!(solo.said(), []);
    solo.core.apply(solo.now, SLOW, false);
    solo.wait(6_000);
    assert_eq!(solo.said_to(1), [slow(Deps::NONE)]);
    assert_eq!(solo.core.status().waited_in_vain, 0);
    assert_eq!(solo.tell(4, pre_accept_ok(id(0, 1), Deps::NONE), None), [], "exactly one of the two");
}

#[test]
pub(crate) fn c3_the_own_answer_counts_and_only_when_durable() {
    let mut solo = Solo::new(3, 0);
    solo.ask(&decide("s", 1, 0, "a"));
    solo.said();
    solo.hear(1, pre_accept_ok(id(0, 1), Deps::NONE), None);
    solo.hear(2, pre_accept_ok(id(0, 1), Deps::NONE), None);
    assert!(!solo.log.iter().any(|(record, _)| format!("{record:?}").starts_with("Committed")));
    solo.sync();
    assert_eq!(solo.said_to(1), [committed(Deps::NONE)]);
}

#[test]
fn section_5_what_is_not_answered_is_said_again_once_in_a_period() {
    let mut solo = proposed();
    solo.wait(10 * timing().resend_us);
    assert_eq!(solo.said_to(1), vec![pre_accept(id(0, 1), Deps::NONE); 10]);
}

#[test]
fn each_client_of_a_batch_gets_its_own_answer() {
    let mut solo = Solo::new(1, 0);
    for (tag, payload) in [(7, decide("s", 1, 0, "a")), (8, read("b")), (9, decide("t", 1, 0, "a"))] {
        let client = ClientRef { connection: 1, tag };
        solo.core.on_request(solo.now, client, payload).expect("the queue is not full");
    }
    solo.sync();
    assert_eq!(solo.core.executed(), &upto([1]), "they are one batch");
    let answers: Vec<_> = solo.replies.into_iter().flat_map(answers_of).collect();
    let tags: Vec<u64> = answers.iter().map(|(client, _)| client.tag).collect();
    assert_eq!(tags, [7, 8, 9]);
    assert_eq!((key_seq(&answers[0].1), &answers[1].1, key_seq(&answers[2].1)), (1, &Answer::Missing, 2));
}

#[test]
fn c3_each_instance_is_counted_once() {
    let counted = |solo: &Solo| (solo.core.status().fast, solo.core.status().slow);
    let mut solo = proposed();
    (1..5).for_each(|from| drop(solo.tell(from, pre_accept_ok(id(0, 1), Deps::NONE), None)));
    assert_eq!(counted(&solo), (1, 0));
    solo.ask(&decide("s", 2, 0, "a"));
    solo.sync();
    (1..5).for_each(|from| drop(solo.tell(from, pre_accept_ok(id(0, 2), upto([1, from.into()])), None)));
    (1..5).for_each(|from| drop(solo.tell(from, accept_ok(id(0, 2), Ballot::ZERO), None)));
    assert_eq!(counted(&solo), (1, 1));
    assert_eq!(solo.core.status().recoveries, 0);
}

#[test]
fn c4_an_accepted_value_and_its_ballot_are_kept() {
    let mut solo = Solo::new(5, 3);
    let a = decide("s", 1, 0, "a");
    let taken = solo.tell(1, accept(id(0, 1), ballot(2, 1), Value::Attached, upto([0, 4])), Some(&a));
    assert_eq!(taken, [(1, accept_ok(id(0, 1), ballot(2, 1)))]);
    let said = solo.tell(2, recover(id(0, 1), ballot(3, 2)), None);
    let report = has_accepted(id(0, 1), ballot(3, 2), ballot(2, 1), Value::Attached, upto([0, 4]));
    assert_eq!(said, [(2, report)], "abal is not moved by the promise");
}

#[test]
fn c4_nothing_is_accepted_below_a_promise() {
    let mut solo = Solo::new(5, 3);
    solo.tell(2, recover(id(0, 1), ballot(2, 2)), None);
    let said = solo.tell(1, accept(id(0, 1), ballot(2, 1), Value::Nop, Deps::NONE), None);
    let nack = PeerMessage::Nack { id: id(0, 1), refused: ballot(2, 1), promised: ballot(2, 2) };
    assert_eq!(said, [(1, nack)]);
    let said = solo.tell(2, accept(id(0, 1), ballot(2, 2), Value::Nop, Deps::NONE), None);
    assert_eq!(said, [(2, accept_ok(id(0, 1), ballot(2, 2)))]);
}

#[test]
fn c4_whoever_lacks_the_batch_says_so_and_accepts_nothing() {
    let mut solo = Solo::new(5, 3);
    let said = solo.tell(0, accept(id(0, 1), Ballot::ZERO, Value::Known, Deps::NONE), None);
    assert_eq!(said, [(0, PeerMessage::Lacking { id: id(0, 1), ballot: Ballot::ZERO })]);
    assert_eq!(
        solo.tell(1, recover(id(0, 1), ballot(1, 1)), None),
        [(1, knows_nothing(id(0, 1), ballot(1, 1)))]
    );
}

#[test]
fn c5_a_slow_quorum_of_the_ballot_commits() {
    let mut solo = proposed();
    for from in 1..4 {
        solo.tell(from, pre_accept_ok(id(0, 1), upto([0, 1])), None);
    }
    assert_eq!(solo.tell(1, accept_ok(id(0, 1), ballot(1, 1)), None), [], "of another ballot");
    assert_eq!(solo.tell(1, accept_ok(id(0, 1), Ballot::ZERO), None), []);
    assert_eq!(solo.tell(1, accept_ok(id(0, 1), Ballot::ZERO), None), [], "counted before");
    let said = solo.tell(2, accept_ok(id(0, 1), Ballot::ZERO), None);
    assert_eq!(said[0], (1, committed(upto([0, 1]))));
}

#[test]
fn c5_an_overtaken_attempt_commits_nothing() {
    let mut solo = proposed();
    for from in 1..4 {
        solo.tell(from, pre_accept_ok(id(0, 1), upto([0, 1])), None);
    }
    solo.tell(3, recover(id(0, 1), ballot(1, 3)), None);
    for from in 1..5 {
        assert_eq!(solo.tell(from, accept_ok(id(0, 1), Ballot::ZERO), None), []);
    }
}

/// Whether the Commit of `0.seq`, which was proposed, is lazy.
fn commits_lazily(solo: &mut Solo, seq: u64) -> bool {
    solo.sync();
    solo.said();
    solo.hear(2, pre_accept_ok(id(0, seq), upto([seq - 1])), None);
    solo.sync();
    solo.said_lazily()
}

#[test]
fn c6_a_commit_is_lazy_unless_something_of_another_row_comes_after_it() {
    let mut solo = Solo::new(3, 0);
    solo.ask(&decide("s", 1, 0, "a"));
    assert!(commits_lazily(&mut solo, 1));
    solo.ask(&decide("s", 2, 0, "b"));
    solo.hear(1, pre_accept(id(1, 1), Deps::NONE), Some(&decide("t", 1, 0, "b")));
    assert!(!commits_lazily(&mut solo, 2), "its own answer named it");
    solo.ask(&decide("s", 3, 0, "c"));
    assert!(commits_lazily(&mut solo, 3));
    solo.ask(&decide("s", 4, 0, "d"));
    let slow = accept(id(1, 2), Ballot::ZERO, Value::Attached, upto([4, 1]));
    solo.hear(1, slow, Some(&decide("t", 2, 0, "e")));
    assert!(!commits_lazily(&mut solo, 4), "another's answer named it");
}

#[test]
fn c6_a_commit_is_taken_whatever_was_promised_and_ends_all_questions() {
    let mut solo = Solo::new(5, 3);
    let a = decide("s", 1, 0, "a");
    solo.tell(2, recover(id(0, 1), ballot(9, 2)), None);
    let final_value = commit(id(0, 1), Ballot::ZERO, Value::Attached, Deps::NONE);
    solo.tell(0, final_value.clone(), Some(&a));
    for question in [
        pre_accept(id(0, 1), Deps::NONE),
        accept(id(0, 1), ballot(10, 1), Value::Nop, Deps::NONE),
        recover(id(0, 1), ballot(11, 1)),
        validate(id(0, 1), ballot(9, 2), Deps::NONE),
    ] {
        assert_eq!(solo.tell(0, question, Some(&a)), [(0, final_value.clone())]);
    }
    assert_eq!(solo.tell(1, final_value, Some(&a)), [], "once more changes nothing");
}

#[test]
#[should_panic(expected = "V1")]
fn c6_two_values_of_one_instance_stop_the_replica() {
    let mut solo = Solo::new(5, 3);
    let a = decide("s", 1, 0, "a");
    solo.tell(0, commit(id(0, 1), Ballot::ZERO, Value::Attached, Deps::NONE), Some(&a));
    solo.tell(0, commit(id(0, 1), ballot(1, 2), Value::Nop, Deps::NONE), None);
}
