//! Section 4b: settings that change at run time, and the guardrail.

use crate::support::solo::*;
use crate::support::{World, decide, id, timing};
use isonomy_protocol::contract::Room;
use isonomy_protocol::limits::TICK_US;
use isonomy_wire::deps::Deps;
use isonomy_wire::failure::Reason;
use isonomy_wire::id::{RecordId, ReplicaId};
use isonomy_wire::message::PeerMessage;
use isonomy_wire::tuning::{Loss, PathMode, PathReason, Tuning};

const GUARDRAIL_US: u64 = 200_000;

/// Replica 0 of seven (FQ = 5, SQ = 4) with a guardrail that judges soon.
fn of_seven(path: PathMode, is_slow_agreed: bool) -> Solo {
    let mut solo = Solo::new(7, 0);
    let tuning = Tuning { guardrail_us: GUARDRAIL_US, path, ..Tuning::DEFAULT };
    solo.core.apply(solo.now, tuning, is_slow_agreed);
    solo
}

/// It reaches all up to here.
fn link(solo: &mut Solo, last: u8) {
    let linked: Vec<ReplicaId> = (1..=last).map(ReplicaId).collect();
    solo.core.on_links(solo.now, &linked);
}

fn stands(solo: &Solo) -> (bool, PathReason) {
    let path = solo.core.status().path;
    (path.is_slow, path.reason)
}

#[test]
fn section_4b_slow_mode_has_a_reason_and_a_choice_overrules_the_judgement() {
    let lost = PathReason::Judged(Loss::Unreached);
    for (path, usual, agreed, judged) in [
        (PathMode::Auto, (false, PathReason::Usual), (true, PathReason::Agreed), (true, lost)),
        (PathMode::Fast, (false, PathReason::Set), (false, PathReason::Set), (false, PathReason::Set)),
        (PathMode::Slow, (true, PathReason::Set), (true, PathReason::Set), (true, PathReason::Set)),
    ] {
        assert_eq!(stands(&of_seven(path, false)), usual);
        assert_eq!(stands(&of_seven(path, true)), agreed);
        let mut solo = of_seven(path, false);
        link(&mut solo, 3);
        solo.wait(GUARDRAIL_US + TICK_US);
        assert_eq!((stands(&solo), solo.core.status().path.loss), (judged, Some(Loss::Unreached)));
        link(&mut solo, 6);
        solo.wait(2 * GUARDRAIL_US);
        assert_eq!((stands(&solo), solo.core.status().path.loss), (usual, None));
    }
}

#[test]
fn section_4b_status_tells_since_when() {
    let mut solo = of_seven(PathMode::Auto, false);
    solo.wait(50_000);
    let (tuning, _) = solo.core.settings();
    solo.core.apply(solo.now, tuning, true);
    let since = solo.now;
    solo.wait(50_000);
    solo.core.apply(solo.now, Tuning { window: 5, ..tuning }, true);
    assert_eq!(solo.core.path_since(), since, "neither mode nor reason has changed");
    solo.core.apply(solo.now, tuning, false);
    assert_eq!(solo.core.path_since(), solo.now);
}

#[test]
fn section_4b_waits_in_vain_end_by_the_own_judgement() {
    let mut solo = of_seven(PathMode::Auto, false);
    let mut number = 0;
    let mut decide_by_four = |solo: &mut Solo| {
        number += 1;
        solo.ask(&decide("s", number, 0, "a"));
        solo.sync();
        let deps = upto([number - 1]);
        (1..4).for_each(|from| drop(solo.tell(from, pre_accept_ok(id(0, number), deps), None)));
        solo.wait(timing().fast_path_us + TICK_US);
        let ballot = isonomy_wire::id::Ballot::ZERO;
        (1..4).for_each(|from| drop(solo.tell(from, accept_ok(id(0, number), ballot), None)));
        solo.core.status()
    };
    let waited = (0..40).map(|_| decide_by_four(&mut solo)).find(|status| status.path.is_slow);
    let waited = waited.expect("all waits are in vain");
    assert_eq!(waited.path.reason, PathReason::Judged(Loss::InVain));
    assert!(waited.slow - waited.waited_in_vain <= 1, "only what was under way then was let go: {waited:?}");
    let later = (0..10).map(|_| decide_by_four(&mut solo)).last().expect("there are ten");
    assert_eq!((later.waited_in_vain, later.slow), (waited.waited_in_vain, waited.slow + 10));
}

#[test]
fn section_4b_the_settings_say_when_messages_are_sent_again() {
    let mut solo = Solo::new(5, 0);
    solo.core.apply(solo.now, Tuning { resend_us: 25_000, ..Tuning::DEFAULT }, false);
    solo.ask(&decide("s", 1, 0, "a"));
    solo.sync();
    solo.said();
    solo.wait(100_000);
    assert_eq!(solo.said_to(1), vec![pre_accept(id(0, 1), Deps::NONE); 4]);
}

/// How long replica 1 leaves an instance of replica 0 undecided before it recovers the instance.
fn patience_us(tuning: Tuning, is_reached: bool) -> u64 {
    let mut solo = Solo::new(3, 1);
    solo.core.apply(solo.now, tuning, false);
    if !is_reached {
        solo.core.on_links(solo.now, &[ReplicaId(2)]);
    }
    solo.tell(0, pre_accept(id(0, 1), Deps::NONE), Some(&decide("s", 1, 0, "a")));
    let began = solo.now;
    let is_recovery = |message: &PeerMessage| matches!(message, PeerMessage::Recover { .. });
    while !solo.said_to(2).iter().any(is_recovery) {
        solo.wait(TICK_US);
    }
    solo.now.since(began)
}

#[test]
fn section_4b_the_settings_say_when_instances_are_recovered() {
    // The second in line waits twice as long, and everybody up to a quarter of the time longer.
    let tuning = |recover_us, suspect_us| Tuning { recover_us, suspect_us, ..Tuning::DEFAULT };
    assert!((200_000..=230_000).contains(&patience_us(tuning(100_000, 20_000), true)));
    assert!((2_000_000..=2_255_000).contains(&patience_us(tuning(1_000_000, 20_000), true)));
    assert!((20_000..=30_000).contains(&patience_us(tuning(1_000_000, 20_000), false)));
}

#[test]
fn section_4b_a_replica_whose_disk_hung_judges_by_what_it_sees_afterwards() {
    let mut solo = of_seven(PathMode::Auto, false);
    solo.core.on_room(Room::Hung(Reason::DiskHung { for_ms: 700 }));
    solo.wait(2 * GUARDRAIL_US);
    solo.core.on_room(Room::Enough);
    link(&mut solo, 3);
    solo.wait(GUARDRAIL_US - TICK_US);
    assert_eq!(stands(&solo), (false, PathReason::Usual));
    solo.wait(2 * TICK_US);
    assert_eq!(stands(&solo), (true, PathReason::Judged(Loss::Unreached)));
}

#[test]
fn section_4b_the_next_epoch_goes_on_with_the_settings() {
    let mut world = World::new(3);
    let chosen = Tuning { window: 7, ..Tuning::DEFAULT };
    let now = world.now;
    world.core(0).apply(now, chosen, true);
    world.propose_seal(1, RecordId(7));
    world.settle();
    let mut next = world.succeed(&[Some(0), Some(1), Some(2)]);
    assert_eq!(next.core(0).settings(), (chosen, true));
    assert!(!next.core(1).settings().1, "each goes on with its own");
}
