//! The traps of the law's section 11 that random schedules seldom find, each as a script.
//!
//! Those that one rule alone avoids are told where it is tested, in `law`: B9, B10 in `validate`,
//! B18 and B20 in `sessions`, B21 in `durable`; B12 where footprints and the handshake are. Those
//! that begin with something forgotten are told in `forgetting`.

mod support;

use isonomy_wire::deps::Deps;
use isonomy_wire::id::{Ballot, ReplicaId};
use isonomy_wire::message::{PeerMessage, Value};
use support::solo::*;
use support::*;

#[test]
fn b1_a_promise_does_not_make_an_accepted_value_younger() {
    // R2 accepted v1 at ballot 1 and promised 3 since; Nop was accepted at 2 elsewhere. R5 asks
    // at 4 and has to choose the Nop.
    let (a, v1) = (id(0, 1), decide("s", 1, 0, "a"));
    let mut r2 = Solo::new(5, 1);
    r2.tell(2, accept(a, ballot(1, 2), Value::Attached, Deps::NONE), Some(&v1));
    r2.tell(2, recover(a, ballot(3, 2)), None);
    for _ in 0..2 {
        let question = recover(a, ballot(4, 4));
        let report = has_accepted(a, ballot(4, 4), ballot(1, 2), Value::Attached, Deps::NONE);
        assert_eq!(r2.tell(4, question, None), [(4, report)]);
        r2.restart();
    }
    let mut r5 = Solo::new(5, 4);
    r5.tell(3, recover(a, ballot(3, 3)), None);
    r5.wait(5_000_000);
    let asked = r5.said_to(1);
    let last = asked.iter().rev().find_map(|message| match message {
        PeerMessage::Recover { row: ReplicaId(0), ballot, .. } => Some(*ballot),
        _ => None,
    });
    let mine = last.expect("it recovers what it promised for");
    r5.tell(1, has_accepted(a, mine, ballot(1, 2), Value::Attached, Deps::NONE), Some(&v1));
    let said = r5.tell(3, has_accepted(a, mine, ballot(2, 2), Value::Nop, Deps::NONE), None);
    assert!(said.contains(&(1, accept(a, mine, Value::Nop, Deps::NONE))));
}

/// a by 0 reached 2 only, b by 1 reached 3 only, and both are dead.
fn two_orphans() -> World {
    let mut world = World::new(5);
    world.settle();
    world.decide(0, "p", 1, "k");
    world.decide(1, "q", 1, "k");
    world.step(0, 2);
    world.step(1, 3);
    world.sync(2);
    world.sync(3);
    world.crash(0);
    world.crash(1);
    world.lose_all();
    world
}

#[test]
fn b2_recoveries_that_wait_for_each_other_both_end() {
    let mut world = two_orphans();
    world.run_among(&[2, 3, 4], 10_000_000);
    world.assert_converged();
    assert!([id(0, 1), id(1, 1)].iter().all(|id| world.ghost.decisions.contains_key(id)));
    world.ends_well();
}

#[test]
fn b2_recoveries_of_one_replica_both_end() {
    let mut world = two_orphans();
    // 4 knows neither: it hears of both when somebody else asks, once.
    for _ in 0..400 {
        world.now = world.now.after(5_000);
        world.tick(2);
        world.tick(3);
        world.sync(2);
        world.sync(3);
    }
    for from in [2, 3] {
        while world.step(from, 4) {}
    }
    world.lose_all();
    world.run_alone(4, &[2, 3, 4], 20_000_000);
    assert!([id(0, 1), id(1, 1)].iter().all(|id| world.ghost.decisions.contains_key(id)));
    world.ends_well();
}

#[test]
fn b3_cycles_execute_in_one_order_and_what_is_asked_later_comes_later() {
    for n in [3, 5] {
        let mut world = World::new(n);
        world.settle();
        (0..n).for_each(|id| world.decide(id, &format!("{id}"), 1, "k"));
        for from in 0..n {
            world.step(from, (from + 1) % n);
        }
        world.run(1_000_000);
        let mut seqs: Vec<u64> =
            (0..n).flat_map(|id| world.answers(id)).map(|(_, answer)| key_seq(&answer)).collect();
        seqs.sort_unstable();
        assert_eq!(seqs, (1..=u64::from(n)).collect::<Vec<_>>());
        let deps = |row: u8| world.ghost.decisions[&id(row, 1)].deps;
        let mutual = |a: u8, b: u8| deps(a).contains(id(b, 1)) && deps(b).contains(id(a, 1));
        assert!((0..n).any(|a| (0..a).any(|b| mutual(a, b))), "the story has a cycle");
        world.decide(1, "late", 1, "k");
        world.run(1_000_000);
        assert_eq!(key_seq(&world.answers(1)[0].1), u64::from(n) + 1, "V14");
        world.ends_well();
    }
}

#[test]
fn b4_a_recoverer_with_the_poorest_deps_loses_no_conflict() {
    let mut world = World::new(5);
    world.settle();
    // b is known to 1 and 2 only when a comes by: they name it, 3 does not.
    world.decide(1, "q", 1, "k");
    world.step(1, 2);
    world.decide(0, "p", 1, "k");
    for to in 1..4 {
        world.step(0, to);
        world.sync(to);
    }
    world.crash(0);
    world.lose_all();
    // 3 hears of nothing else and takes a over; b goes on meanwhile.
    world.run_alone(3, &[1, 2, 3, 4], 3_000_000);
    assert!(world.ghost.decisions.contains_key(&id(0, 1)));
    world.ends_well();
}

#[test]
fn b5_what_a_crash_takes_back_was_not_said() {
    let mut world = World::new(3);
    world.settle();
    world.decide(0, "p", 1, "k");
    world.sync(0);
    // 1 takes it and crashes before that is durable; whatever it said arrives.
    world.step(0, 1);
    while world.step(1, 0) {}
    world.sync(0);
    world.crash(1);
    world.lose_all();
    world.start(1);
    world.mute = true;
    world.decide(1, "q", 1, "k");
    world.settle_among(&[1, 2]);
    world.run_among(&[1, 2], 15_000);
    assert_eq!(world.answers(1).len(), 1, "the story is that 1 and 2 decide without it");
    world.ends_well();
}

#[test]
fn b6_what_comes_late_changes_nothing() {
    let (a, batch) = (id(0, 1), decide("s", 1, 0, "a"));
    let committed = commit(a, Ballot::ZERO, Value::Attached, Deps::NONE);
    let mut solo = Solo::new(3, 1);
    solo.tell(0, committed.clone(), Some(&batch));
    let executed = solo.core.status();
    assert_eq!((executed.decisions, executed.unexecuted), (1, 0), "the story is about what was executed");
    for _ in 0..2 {
        let answer = [(2, committed.clone())];
        assert_eq!(solo.tell(2, accept(a, ballot(9, 2), Value::Nop, Deps::NONE), None), answer);
        assert_eq!(solo.tell(2, recover(a, ballot(9, 2)), None), answer);
        assert_eq!(solo.tell(2, committed.clone(), Some(&batch)), []);
        assert_eq!(solo.core.status().state_hash, executed.state_hash);
        solo.restart();
    }
}

#[test]
fn b7_what_nobody_has_becomes_a_nop_and_holds_nobody_up() {
    let mut world = World::new(3);
    world.settle();
    world.decide(0, "p", 1, "k");
    world.lose_all();
    // 1 hears of 0.1 as a dependency only, and builds on it.
    world.decide(1, "q", 1, "k");
    world.settle_among(&[0, 1]);
    world.run_among(&[0, 1], 15_000);
    world.crash(0);
    world.run(5_000_000);
    assert_eq!(world.answers(1).len(), 1);
    assert!(world.ghost.decisions[&id(0, 1)].nop);
    assert!(world.ghost.decisions[&id(1, 1)].deps.contains(id(0, 1)), "the story is that it names it");
    world.assert_converged();
}

/// The index itself is looked at in the tests of C2: here 1 submits the batch of its Nop again, which
/// is one more conflict that it knows of.
#[test]
fn b8_a_nop_stays_in_the_index() {
    let mut world = World::new(5);
    world.settle();
    world.mute = true;
    // id0 = 1.1 reaches 0 only.
    world.decide(1, "p", 1, "k");
    world.step(1, 0);
    world.sync(0);
    world.lose_all();
    // 0 asks about it once; 3 and 4 hear that, and their answers are lost.
    while world.links.get(&(0, 3)).is_none_or(|queue| queue.is_empty()) {
        world.now = world.now.after(5_000);
        world.tick(0);
        world.sync(0);
    }
    for to in [3, 4] {
        while world.step(0, to) {}
        world.sync(to);
    }
    world.lose_all();
    // Without 0 it becomes a Nop, and 0 is not told.
    world.run_among(&[1, 3, 4], 5_000_000);
    assert!(world.ghost.decisions[&id(1, 1)].nop, "the story begins with a Nop");
    world.lose_all();
    // id1 = 2.1 conflicts with it; 1, 2 and 3 would be a fast quorum.
    world.decide(2, "q", 1, "k");
    world.converse(2, &[1, 3]);
    world.crash(2);
    world.lose_all();
    // 3 recovers id1 with 0, who does not know that id0 is a Nop.
    world.run_alone(3, &[0, 3], 300_000);
    world.run_alone(3, &[0, 3, 4], 5_000_000);
    assert!(world.ghost.decisions[&id(2, 1)].nop, "the story is that it becomes a Nop");
    world.ends_well();
}

#[test]
fn b11_a_fast_commit_that_was_not_durable_was_not_told() {
    let mut world = World::new(5);
    world.settle();
    world.decide(0, "s", 1, "k");
    world.sync(0);
    for to in 1..3 {
        world.step(0, to);
        world.sync(to);
        world.step(to, 0);
    }
    assert_eq!(world.core(0).status().fast, 1, "the story begins with a fast commit");
    let told = |world: &World| {
        let sends = world.links.iter().filter(|((from, _), _)| *from == 0).flat_map(|(_, queue)| queue);
        sends.filter(|send| matches!(send.message, PeerMessage::Commit { .. })).count()
    };
    assert_eq!((told(&world), world.answers(0).len()), (0, 0));
    world.crash(0);
    world.start(0);
    world.run_among(&[0, 3, 4], 2_000_000);
    world.ends_well();
}

#[test]
fn b14_what_is_executed_here_is_named_all_the_same() {
    let mut world = World::new(3);
    world.settle();
    world.mute = true;
    world.decide(0, "p", 1, "k");
    world.settle_among(&[0, 1]);
    world.run_among(&[0, 1], 15_000);
    world.lose_all();
    assert_eq!(world.core(1).status().decisions, 1, "1 has executed it, and 2 has not heard of it");
    world.decide(1, "q", 1, "k");
    world.settle_among(&[1, 2]);
    world.run_among(&[1, 2], 15_000);
    assert!(world.ghost.decisions[&id(1, 1)].deps.contains(id(0, 1)));
    world.ends_well();
}

#[test]
fn who_missed_the_very_last_commit_hears_of_it() {
    let mut world = World::new(3);
    world.run(500_000);
    world.decide(0, "s", 1, "k");
    // Nothing of it reaches 2, the gossip about it neither; and then nothing more happens.
    for _ in 0..60 {
        world.settle_among(&[0, 1]);
        world.now = world.now.after(5_000);
        world.tick(0);
        world.tick(1);
        world.lose(0, 2);
        world.lose(1, 2);
    }
    assert_eq!(world.answers(0).len(), 1);
    world.run(2_000_000);
    world.assert_converged();
}

#[cfg(feature = "mutants")]
#[test]
fn stories_notice_what_they_were_written_for() {
    use isonomy_protocol::mutant::{Mutant, is_noticed};
    let pairs: [(Mutant, fn()); 4] = [
        (Mutant::DropAbal, b1_a_promise_does_not_make_an_accepted_value_younger),
        (Mutant::SpeakBeforeSync, b5_what_a_crash_takes_back_was_not_said),
        (Mutant::SpeakBeforeSync, b11_a_fast_commit_that_was_not_durable_was_not_told),
        (Mutant::ReplyAtCommit, b3_cycles_execute_in_one_order_and_what_is_asked_later_comes_later),
    ];
    for (mutant, story) in pairs {
        assert!(is_noticed(mutant, story), "nobody noticed {mutant:?}");
    }
}
