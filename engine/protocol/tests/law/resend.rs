//! Messages are lost (section 1): at every stage an attempt asks again whoever has not answered, and nobody else.

use super::recover::{ID, MINE, batch, recovering};
use super::validate::{ok, validating, waiting};
use crate::support::solo::*;
use crate::support::{World, id, timing};
use isonomy_protocol::limits::TICK_US;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::Ballot;
use isonomy_wire::message::{PeerMessage, Value};

/// Who is asked this again once it is time, each with the batch or without it.
fn asked_again(solo: &mut Solo, question: &PeerMessage) -> Vec<(u8, bool)> {
    solo.sent();
    solo.wait(timing().resend_us + TICK_US);
    let again = solo.sent().into_iter().filter(|send| send.message == *question);
    again.map(|send| (send.to.0, send.payload.is_some())).collect()
}

/// How often something was said again to each of the others, as the status tells it.
fn counted(solo: &Solo) -> Vec<(u8, u64)> {
    solo.core.status().peers.iter().map(|peer| (peer.replica.0, peer.resent)).collect()
}

#[test]
fn c1_a_pre_accept_is_said_again_to_all_who_have_not_answered() {
    let mut solo = Solo::new(5, 0);
    solo.ask(&batch());
    solo.sync();
    let question = pre_accept(ID, Deps::NONE);
    assert_eq!(asked_again(&mut solo, &question), [1, 2, 3, 4].map(|to| (to, true)));
    solo.tell(3, pre_accept_ok(ID, Deps::NONE), None);
    for _ in 0..2 {
        assert_eq!(asked_again(&mut solo, &question), [1, 2, 4].map(|to| (to, true)));
    }
    assert_eq!(counted(&solo), [(1, 3), (2, 3), (3, 1), (4, 3)]);
}

#[test]
fn c3_an_accept_is_said_again_to_all_who_have_not_answered() {
    let mut solo = Solo::new(5, 0);
    solo.ask(&batch());
    solo.sync();
    solo.tell(1, pre_accept_ok(ID, upto([0, 1])), None);
    solo.tell(2, pre_accept_ok(ID, upto([0, 0, 1])), None);
    solo.wait(timing().fast_path_us + TICK_US);
    let dep = upto([0, 1, 1]);
    assert_eq!(solo.said_to(4), [accept(ID, Ballot::ZERO, Value::Known, dep)]);
    // Whoever is silent may never have got the batch.
    let question = accept(ID, Ballot::ZERO, Value::Attached, dep);
    assert_eq!(asked_again(&mut solo, &question), [1, 2, 3, 4].map(|to| (to, true)));
    solo.tell(2, accept_ok(ID, Ballot::ZERO), None);
    for _ in 0..2 {
        assert_eq!(asked_again(&mut solo, &question), [1, 3, 4].map(|to| (to, true)));
    }
    assert_eq!(counted(&solo), [(1, 3), (2, 1), (3, 3), (4, 3)]);
}

#[test]
fn r1_a_recover_is_said_again_to_all_who_have_not_reported() {
    let mut solo = recovering(Deps::NONE);
    let question = recover(ID, MINE);
    assert_eq!(asked_again(&mut solo, &question), [0, 1, 2, 4].map(|to| (to, false)));
    solo.tell(1, knows_nothing(ID, MINE), None);
    assert_eq!(asked_again(&mut solo, &question), [0, 2, 4].map(|to| (to, false)));
    assert_eq!(counted(&solo), [(0, 2), (1, 1), (2, 2), (4, 2)]);
}

#[test]
fn r4_a_validate_is_said_again_to_all_of_the_quorum_who_have_not_answered() {
    let mut solo = validating();
    let question = validate(ID, MINE, Deps::NONE);
    assert_eq!(asked_again(&mut solo, &question), [1, 2].map(|to| (to, true)));
    solo.tell(1, ok(&[]), None);
    assert_eq!(asked_again(&mut solo, &question), [(2, true)]);
    assert_eq!(counted(&solo), [(0, 0), (1, 1), (2, 2), (4, 0)]);
}

#[test]
fn r5_4_a_waiting_is_said_again_to_all() {
    let mut solo = waiting();
    let word = PeerMessage::Waiting { id: ID, supporters: 1 };
    for _ in 0..2 {
        assert_eq!(asked_again(&mut solo, &word), [0, 1, 2, 4].map(|to| (to, false)));
    }
}

#[test]
fn nothing_is_said_again_before_its_time_or_after_the_end() {
    let mut solo = Solo::new(5, 0);
    solo.ask(&batch());
    solo.sync();
    solo.sent();
    solo.wait(timing().resend_us - TICK_US);
    solo.tell(1, pre_accept_ok(ID, Deps::NONE), None);
    solo.tell(2, pre_accept_ok(ID, Deps::NONE), None);
    assert_eq!(asked_again(&mut solo, &pre_accept(ID, Deps::NONE)), []);
    assert_eq!(counted(&solo), [(1, 0), (2, 0), (3, 0), (4, 0)]);
}

#[test]
fn c6_a_lost_commit_reaches_everybody_who_missed_it() {
    let mut world = World::new(5);
    world.decide(0, "s", 1, "a");
    world.settle_among(&[0, 1, 2]);
    assert_eq!(world.core(0).status().decisions, 1);
    world.lose_all();
    for missing in [3, 4] {
        assert_eq!(world.core(missing).status().decisions, 0);
    }
    world.run(2_000_000);
    for missing in [1, 2, 3, 4] {
        assert!(world.core(missing).executed().contains(id(0, 1)), "replica {missing}");
    }
    let recovered: u64 = (0..5).map(|id| world.core(id).status().recoveries).sum();
    assert_eq!(recovered, 0, "it is asked for, not recovered");
}
