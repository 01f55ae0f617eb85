//! D1 to D8.

use crate::support::solo::*;
use crate::support::*;
use isonomy_protocol::contract::Position;
use isonomy_protocol::log::SegmentHead;
use isonomy_protocol::log::chain::{Chain, Hole, Known, SegmentUse, Start};
use isonomy_protocol::log::record::Record;
use isonomy_protocol::log::scan::Remains;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{Ballot, ReplicaId};
use isonomy_wire::message::{PeerMessage, Value};

#[test]
pub(crate) fn d1_nothing_before_durable() {
    let mut solo = Solo::new(5, 3);
    let a = decide("s", 1, 0, "a");
    let promise = ballot(1, 1);
    let conversation = [
        (0, pre_accept(id(0, 1), Deps::NONE)),
        (1, recover(id(0, 1), promise)),
        (1, validate(id(0, 1), promise, Deps::NONE)),
        (1, accept(id(0, 1), promise, Value::Attached, Deps::NONE)),
        (1, commit(id(0, 1), promise, Value::Attached, Deps::NONE)),
    ];
    for (from, message) in conversation {
        let records = solo.log.len();
        solo.hear(from, message.clone(), Some(&a));
        assert_eq!(solo.log.len(), records + 1, "{message:?} is written down");
        assert_eq!(solo.said(), [], "and not answered yet");
        // A question about it waits as well: the answer would tell what may be forgotten.
        solo.hear(2, recover(id(0, 1), ballot(0, 0)), None);
        assert_eq!(solo.said(), []);
        solo.sync();
        solo.said();
    }
}

#[test]
fn d1_a_proposal_waits_for_its_block_only() {
    let mut solo = Solo::starting(3, 0);
    solo.ask(&decide("s", 1, 0, "a"));
    assert_eq!(solo.said(), [], "its block may be lost");
    solo.sync();
    assert_eq!(solo.said_to(1), [pre_accept(id(0, 1), Deps::NONE)]);
    solo.ask(&decide("s", 2, 0, "a"));
    assert_eq!(solo.said_to(1), [pre_accept(id(0, 2), upto([1]))], "the record may be lost");
}

#[test]
fn d1_a_fresh_block_keeps_nobody_waiting() {
    let mut solo = Solo::new(3, 0);
    for first in (1..400).step_by(2) {
        for number in first..first + 2 {
            solo.ask(&decide("s", number, number, "a"));
            assert_eq!(solo.said_to(1), [pre_accept(id(0, number), upto([number - 1]))], "without a sync");
        }
        solo.sync();
        for number in first..first + 2 {
            solo.tell(1, pre_accept_ok(id(0, number), upto([number - 1])), None);
        }
    }
}

#[test]
fn d1_a_reply_waits_until_its_execution_is_durable() {
    let mut solo = Solo::new(1, 0);
    solo.ask(&decide("s", 1, 0, "a"));
    assert!(solo.replies.is_empty());
    solo.sync();
    assert_eq!(solo.replies.len(), 1);
}

#[test]
fn d5_restart_counts_nothing_and_numbers_go_on() {
    let mut solo = Solo::new(5, 0);
    solo.ask(&decide("s", 1, 0, "a"));
    solo.sync();
    solo.restart();
    for from in 1..5 {
        assert_eq!(solo.tell(from, pre_accept_ok(id(0, 1), Deps::NONE), None), []);
        assert_eq!(solo.tell(from, accept_ok(id(0, 1), Ballot::ZERO), None), []);
    }
    solo.wait(5_000);
    let whole = PeerMessage::Recover { row: ReplicaId(0), from: 1, to: 64, ballot: ballot(1, 0) };
    assert!(solo.said_to(1).contains(&whole), "own leftovers are recovered at once, at a fresh ballot");

    let mut world = World::new(3);
    world.settle();
    world.decide(0, "s", 1, "a");
    world.crash(0);
    world.start(0);
    world.run(1_000_000);
    world.decide(0, "s", 1, "a");
    world.run(1_000_000);
    let decisions = &world.ghost.decisions;
    assert!((1..=256).all(|seq| decisions[&id(0, seq)].nop), "what was not used is nothing");
    assert!(!decisions[&id(0, 257)].nop);
    world.assert_converged();
}

#[test]
fn d5_ballots_are_not_used_again() {
    let mut solo = Solo::new(5, 3);
    solo.tell(0, pre_accept(id(0, 1), Deps::NONE), Some(&decide("s", 1, 0, "a")));
    solo.wait(2_000_000);
    let first = recovered_at(&mut solo);
    solo.restart();
    solo.wait(4_000_000);
    assert!(recovered_at(&mut solo) > first);
}

fn recovered_at(solo: &mut Solo) -> Ballot {
    let ballots = solo.said_to(1).into_iter().filter_map(|message| match message {
        PeerMessage::Recover { row: ReplicaId(0), ballot, .. } => Some(ballot),
        _ => None,
    });
    ballots.max().expect("it recovers")
}

#[test]
fn d5_what_others_had_under_way_keeps_its_time() {
    let mut solo = Solo::new(5, 3);
    solo.tell(0, pre_accept(id(0, 1), Deps::NONE), Some(&decide("s", 1, 0, "a")));
    solo.restart();
    solo.wait(100_000);
    let early = |message: &PeerMessage| matches!(message, PeerMessage::Recover { row: ReplicaId(0), .. });
    assert!(!solo.said_to(1).iter().any(early), "the coordinator lives and is at work");
}

/// A segment whose head says that it begins with this record.
fn begins(segment: u64, first: u64) -> Start {
    Start::Head(SegmentHead { segment, first })
}

#[test]
pub(crate) fn d6_a_log_that_has_lost_its_end_is_not_a_shorter_one() {
    let known = Known { reached: Position(4), ..Known::default() };
    let read = |known, last: u64| {
        let mut chain = Chain::new(known)?;
        assert_eq!(chain.enter(1, begins(1, 1))?, SegmentUse::Begun(Position(1)));
        chain.leave(Position(last + 1))?;
        Ok(chain)
    };
    // All that was noted is there, and more.
    assert_eq!(read(known, 4).and_then(Chain::finish), Ok(()));
    assert_eq!(read(known, 5).and_then(Chain::finish), Ok(()));
    assert_eq!(read(known, 3).and_then(Chain::finish), Err(Hole::End { last: 3, reached: 4 }));
    // A segment that is prepared says how far the log had come.
    let mut chain = read(known, 5).unwrap();
    let later = Remains { durable: Position(6), ..Remains::default() };
    assert_eq!(chain.enter(2, Start::Empty(later)), Ok(SegmentUse::Prepared));
    assert_eq!(chain.finish(), Err(Hole::End { last: 5, reached: 6 }));
    // One without a head that holds records is not prepared.
    let group = Remains { group: Some(4096), ..Remains::default() };
    assert_eq!(read(known, 5).unwrap().enter(2, Start::Empty(group)), Err(Hole::Head(4096)));
    // Nothing is missing of a log that never began, unless there is a snapshot of its own.
    let fresh = |known| Chain::new(known).and_then(Chain::finish);
    assert_eq!(fresh(Known::default()), Ok(()));
    assert_eq!(fresh(Known { snapshot: 3, ..Known::default() }), Err(Hole::Log(3)));
    assert_eq!(fresh(Known { snapshot: 3, restored: true, ..Known::default() }), Ok(()));
    assert_eq!(fresh(Known { restored: true, ..Known::default() }), Err(Hole::Restored));
}

#[test]
pub(crate) fn d8_a_restarted_replica_names_what_it_may_have_forgotten() {
    // B21: replica 0's proposal reached replica 2 only; its own record of it was lost.
    let mut world = World::new(5);
    world.settle();
    world.decide(0, "p", 1, "a");
    world.step(0, 2);
    world.sync(2);
    world.crash(0);
    world.start(0);
    world.sync(0);
    world.lose_all();
    // Replica 1 proposes a conflicting one to 0 and 3, who know nothing of the first. What comes
    // of it is lost.
    world.mute = true;
    world.decide(1, "q", 1, "a");
    world.converse(1, &[0, 3]);
    world.crash(1);
    world.lose_all();
    // Replica 3 recovers it with 2, who knows of the first only.
    world.run_alone(3, &[2, 3, 4], 5_000_000);
    assert!(world.ghost.decisions[&id(1, 1)].nop, "the story is that it becomes a Nop");
    world.mute = false;
    world.start(1);
    world.run(10_000_000);
    world.assert_converged();
    world.ghost.assert_visibility();
}

#[test]
fn restart_by_replay_keeps_everything() {
    let mut world = World::new(3);
    for number in 1..=20 {
        world.decide((number % 3) as u8, "s", number, "a");
        world.run(20_000);
    }
    world.run(1_000_000);
    let before = world.hashes();
    let first: Vec<_> = (0..3).flat_map(|id| world.answers(id)).collect();
    for round in 0..2 {
        (0..3).for_each(|id| world.crash(id));
        (0..3).for_each(|id| world.start(id));
        let after = world.hashes();
        assert_eq!(after[0].1, before[0].1, "round {round}");
        world.run(3_000_000);
        world.assert_converged();
    }
    for number in 1..=20 {
        world.decide(0, "s", number, "a");
    }
    world.run(1_000_000);
    for (from, answer) in world.answers(0) {
        assert!(first.contains(&(from, answer)), "a retry after the restart gets the first answer");
    }
}

#[test]
fn a_graceful_stop_leaves_no_numbers_unused() {
    let mut world = World::new(3);
    for number in 1..=3 {
        world.decide(0, "s", number, "a");
    }
    let now = world.now;
    world.core(0).on_stop(now);
    world.pump(0);
    assert!(!world.core(0).is_idle(), "what was taken is finished first");
    world.run(1_000_000);
    assert!(world.core(0).is_idle());
    assert_eq!(world.answers(0).len(), 3);
    assert!(world.nodes[0].log.iter().any(|(record, _)| *record == Record::Stopped { used: 3 }));
    world.crash(0);
    world.start(0);
    world.run(1_000_000);
    world.decide(0, "s", 4, "a");
    world.run(1_000_000);
    assert_eq!(world.ghost.decisions.keys().filter(|id| id.row.0 == 0).count(), 4);
    world.assert_converged();
}
