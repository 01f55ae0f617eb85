//! The traps of the law's section 11 that begin with a replica that has forgotten something, each as
//! a script. The others are in `stories`.
//!
//! Replicas forget what a barrier covers once its snapshot is durable. Gossip is lost in most of these
//! stories, since whoever hears how far the others are pulls what it lacks and recovers nothing.

mod support;

use isonomy_wire::deps::Deps;
use isonomy_wire::id::{InstanceId, ReplicaId};
use isonomy_wire::message::PeerMessage;
use support::solo::*;
use support::*;

/// A cluster in which no gossip arrives.
fn silent(n: u8) -> World {
    let mut world = World::new(n);
    world.settle();
    world.mute = true;
    world
}

/// What was said on the way between two nodes is delivered and durable.
fn hand_over(world: &mut World, from: u8, to: u8) {
    while world.step(from, to) {}
    world.sync(to);
}

/// Whether a node has forgotten an instance.
fn has_forgotten(world: &mut World, node: u8, id: InstanceId) -> bool {
    world.core(node).status().floor.contains(id)
}

/// Whether a node has executed an instance.
fn has_executed(world: &mut World, node: u8, id: InstanceId) -> bool {
    world.core(node).executed().contains(id)
}

/// A node proposes, and these alone answer: it commits fast, and nobody else is told.
fn commits_fast(world: &mut World, id: u8, with: &[u8]) {
    let before = world.core(id).status().fast;
    world.converse(id, with);
    assert_eq!(world.core(id).status().fast, before + 1, "the story is that it commits fast");
}

/// Lets one node's clock run, alone, until it has something for another that the test looks for.
fn wait_until_it_says(world: &mut World, from: u8, to: u8, what: fn(&PeerMessage) -> bool) {
    for _ in 0..1000 {
        world.now = world.now.after(5_000);
        world.tick(from);
        world.sync(from);
        let queue = world.links.get(&(from, to));
        if queue.is_some_and(|queue| queue.iter().any(|send| what(&send.message))) {
            return;
        }
    }
    panic!("{from} never says it to {to}");
}

#[test]
fn b13_a_forgotten_id_is_not_answered_as_if_it_were_new() {
    let mut world = silent(5);
    // A = 0.1 is fast by {0, 1, 2}; the barrier 0.2 as well. 1 alone is told, and forgets them as 0 does.
    world.decide(0, "a", 1, "k");
    commits_fast(&mut world, 0, &[1, 2]);
    hand_over(&mut world, 0, 1);
    world.lose_all();
    world.propose_barrier(0);
    commits_fast(&mut world, 0, &[1, 2]);
    hand_over(&mut world, 0, 1);
    world.lose_all();
    world.forget(&[0, 1]);
    assert!(has_forgotten(&mut world, 1, id(0, 1)));
    world.crash(0);
    // 3 hears of A as a dependency only. It asks 1 and 4, and then 2 too, who has not heard that A
    // is committed: if 1 seemed never to have seen it, A would be a Nop.
    world.decide(1, "x", 1, "z");
    world.run_among(&[1, 3, 4], 2_000_000);
    world.run_among(&[1, 2, 3, 4], 2_000_000);
    assert!(!world.ghost.decisions[&id(0, 1)].nop);
    world.ends_well();
}

#[test]
fn b13_a_late_accept_is_not_taken_by_who_forgot() {
    let (s, p, t, u) = (1, 2, 3, 4);
    let mut world = silent(5);
    let asks = |message: &PeerMessage| matches!(message, PeerMessage::Recover { row: ReplicaId(0), .. });
    // A = 0.1 reached s only, and its coordinator is dead. p hears of it when s asks once.
    world.decide(0, "a", 1, "k");
    hand_over(&mut world, 0, s);
    world.crash(0);
    wait_until_it_says(&mut world, s, p, asks);
    hand_over(&mut world, s, p);
    world.lose_all();
    // p recovers A with t and u, who know nothing of it. Its Accepts of a Nop are under way when it
    // pauses.
    wait_until_it_says(&mut world, p, t, asks);
    for to in [t, u] {
        hand_over(&mut world, p, to);
        hand_over(&mut world, to, p);
    }
    let accepts = |message: &PeerMessage| matches!(message, PeerMessage::Accept { .. });
    let mut late: Vec<_> = [t, u].iter().flat_map(|to| world.links.remove(&(p, *to)).unwrap()).collect();
    late.retain(|send| accepts(&send.message));
    assert_eq!(late.len(), 2, "the story is that it proposes a Nop");
    world.lose_all();
    // s recovers A with t and u: it is executed there, and forgotten.
    world.run_among(&[s, t, u], 3_000_000);
    assert!(!world.ghost.decisions[&id(0, 1)].nop);
    world.barrier_among(s, &[s, t, u]);
    world.forget(&[s, t, u]);
    assert!(has_forgotten(&mut world, t, id(0, 1)));
    world.lose_all();
    // A fresh record there would accept the Nop, and p would commit it.
    for send in late {
        world.deliver(p, send);
    }
    world.settle_among(&[p, t, u]);
    world.ends_well();
}

/// B15: B = 1.1 is known to 1 and 2 only. A = 0.1 conflicts with it; it is executed and forgotten at
/// 3 and 4. 0 and 1 are dead.
fn one_forgotten_and_one_unheard_of() -> World {
    let mut world = silent(5);
    world.decide(1, "b", 1, "k");
    hand_over(&mut world, 1, 2);
    world.lose_all();
    world.decide(0, "a", 1, "k");
    commits_fast(&mut world, 0, &[3, 4]);
    world.settle_among(&[0, 3, 4]);
    world.barrier_among(3, &[0, 3, 4]);
    world.forget(&[3, 4]);
    assert!(has_forgotten(&mut world, 3, id(0, 1)) && has_forgotten(&mut world, 4, id(0, 1)));
    world.crash(0);
    world.crash(1);
    world
}

/// The same, and 2 has recovered B with 3 and 4, who had never heard of it.
fn behind_something_forgotten() -> World {
    let mut world = one_forgotten_and_one_unheard_of();
    world.run_among(&[2, 3, 4], 3_000_000);
    let b = &world.ghost.decisions[&id(1, 1)];
    assert!(!b.nop && !b.deps.contains(id(0, 1)), "the story is that B does not name A");
    assert!(b.after.contains(id(0, 1)), "and comes after it all the same");
    world
}

#[test]
fn b15_a_recovery_comes_after_what_its_validators_forgot() {
    let mut world = behind_something_forgotten();
    // 3 and 4 had A first. If 2 executed B before A, its state would be another.
    assert!(has_executed(&mut world, 3, id(1, 1)));
    assert!(!has_executed(&mut world, 2, id(1, 1)), "2 lags: it does not have A yet");
    world.ends_well();
}

#[test]
fn b15_the_order_outlives_a_restart() {
    let mut world = behind_something_forgotten();
    world.restart(2);
    world.run_among(&[2, 3, 4], 1_000_000);
    assert!(!has_executed(&mut world, 2, id(1, 1)), "2 lags: it does not have A yet");
    world.ends_well();
}

#[test]
fn b15_the_order_outlives_its_proposer() {
    let mut world = one_forgotten_and_one_unheard_of();
    let asks = |message: &PeerMessage| matches!(message, PeerMessage::Recover { row: ReplicaId(1), .. });
    wait_until_it_says(&mut world, 2, 3, asks);
    // 3 and 4 report, validate and accept. Nobody hears of that: 2 dies, and 1 comes back.
    for round in 0..3 {
        for to in [3, 4] {
            hand_over(&mut world, 2, to);
            if round < 2 {
                hand_over(&mut world, to, 2);
            }
        }
    }
    assert!(!world.ghost.decisions.contains_key(&id(1, 1)));
    world.crash(2);
    world.start(1);
    world.run_among(&[1, 3, 4], 3_000_000);
    assert!(!world.ghost.decisions[&id(1, 1)].nop, "it was accepted");
    assert!(!has_executed(&mut world, 1, id(1, 1)), "1 lags: it does not have A yet");
    world.ends_well();
}

#[test]
fn b15_a_client_of_the_recovered_one_hears_that_it_came_second() {
    let mut world = behind_something_forgotten();
    // B's client asks again, at the one replica that could have executed B first.
    world.decide(2, "b", 1, "k");
    world.run_among(&[2, 3, 4], 1_000_000);
    assert_eq!(world.answers(2), [], "2 lags: it does not have A yet");
    world.mute = false;
    world.catch_up(2_000_000);
    let answers = world.answers(2);
    assert_eq!(answers.iter().map(|(_, answer)| key_seq(answer)).collect::<Vec<_>>(), [2]);
    world.ends_well();
}

/// B16: 2 has a snapshot that covers A = 1.1 and nothing else that names it, and 1 is gone. 0 has
/// never heard of A and submits X, which conflicts.
fn proposes_to_who_has_only_a_snapshot(mut world: World) {
    assert!(has_forgotten(&mut world, 2, id(1, 1)) && world.nodes[2].cut > 0);
    world.lose_all();
    world.crash(1);
    world.restart(2);
    world.decide(0, "x", 1, "k");
    world.run_among(&[0, 2], 1_000_000);
    let x = world.ghost.decisions.iter().find(|(id, _)| id.row == ReplicaId(0));
    let (_, x) = x.expect("the two are a quorum");
    assert!(!x.nop && x.deps.contains(id(1, 1)), "X names A");
    world.ends_well();
}

#[test]
fn b16_what_an_installed_snapshot_covers_is_named() {
    // A and a barrier are fast by {1, 2}; 2 is not told, and 1 forgets them.
    let mut world = silent(3);
    world.decide(1, "a", 1, "k");
    commits_fast(&mut world, 1, &[2]);
    world.lose_all();
    world.propose_barrier(1);
    commits_fast(&mut world, 1, &[2]);
    world.forget(&[1]);
    assert!(has_forgotten(&mut world, 1, id(1, 1)));
    world.lose_all();
    // 2 was away, and has to install 1's snapshot. Its index goes with its next restart: if it took
    // the floor that 1 had, it would not name A, and X would be fast without it.
    world.restart(2);
    world.mute = false;
    for _ in 0..100 {
        world.run_among(&[1, 2], 20_000);
        world.lose(1, 0);
        world.lose(2, 0);
        if world.fetch_snapshot(2) {
            break;
        }
    }
    world.mute = true;
    world.sync(2);
    proposes_to_who_has_only_a_snapshot(world);
}

#[test]
fn b16_what_an_own_snapshot_covers_is_named_after_a_restart() {
    let mut world = silent(3);
    world.decide(1, "a", 1, "k");
    world.settle_among(&[1, 2]);
    world.barrier_among(1, &[1, 2]);
    world.forget(&[1, 2]);
    proposes_to_who_has_only_a_snapshot(world);
}

/// What the law tells of a floor that was lost cannot happen here that way: the floor is the frontier
/// of the snapshot, in the same file, so whoever has the state knows what it covers. The story asks
/// what would become of it otherwise. That nothing is cut before the floor is durable is a rule of
/// its own, G1.
#[test]
fn b22_three_that_restart_have_forgotten_no_conflict() {
    let (p, q, r, s, t) = (0, 1, 2, 3, 4);
    let mut world = silent(5);
    // A is executed by all of p, q, r and s. The first three forget it.
    world.decide(s, "a", 1, "k");
    world.settle_among(&[p, q, r, s]);
    world.barrier_among(p, &[p, q, r]);
    world.forget(&[p, q, r]);
    world.lose_all();
    for node in [p, q, r] {
        assert!(has_forgotten(&mut world, node, id(s, 1)) && world.nodes[node as usize].cut > 0);
        world.restart(node);
    }
    // They make Nops of what they had reserved, and tell each other what they may have forgotten.
    world.mute = false;
    world.run_among(&[p, q, r], 1_000_000);
    world.mute = true;
    world.lose_all();
    // X conflicts with A and is fast by {p, q, r}, who are not told; p dies. s has A, without X: if
    // X did not name A, s would make a Nop of it.
    world.decide(p, "x", 1, "k");
    commits_fast(&mut world, p, &[q, r]);
    assert!(world.ghost.decisions[&id(p, 257)].deps.contains(id(s, 1)), "fast ones are in each other's deps");
    world.lose_all();
    world.crash(p);
    world.run_among(&[q, r, s, t], 5_000_000);
    world.ends_well();
}

/// n = 3: x = 0 and p = 2 executed a barrier. Since then x has executed `a` with r = 1, and p has
/// executed `b` with r. Both finish their snapshots of the barrier now.
fn each_lacks_what_the_other_has() -> World {
    let (x, r, p) = (0, 1, 2);
    let mut world = silent(3);
    world.barrier(x);
    world.decide(x, "a", 1, "a");
    world.settle_among(&[x, r]);
    world.lose_all();
    world.decide(p, "b", 1, "b");
    world.settle_among(&[r, p]);
    world.lose_all();
    world
}

#[test]
fn b23_what_was_executed_since_the_barrier_is_not_forgotten_with_it() {
    let mut world = each_lacks_what_the_other_has();
    world.forget(&[0, 2]);
    world.crash(1);
    // Each has what the other lacks, and says so instead of having cut it.
    world.mute = false;
    world.run(3_000_000);
    for node in [0, 2] {
        assert_eq!(world.core(node).status().keys, 2, "{node} has both");
    }
    world.ends_well();
}

#[test]
fn b23_who_cut_at_a_later_barrier_has_what_the_other_forgot() {
    let mut world = each_lacks_what_the_other_has();
    // x forgets the first barrier, p the second, which names `a` because r knows it.
    world.take_snapshot(0);
    world.take_snapshot(2);
    world.mute = false;
    world.run_among(&[1, 2], 1_000_000);
    world.mute = true;
    world.barrier_among(2, &[1, 2]);
    world.run_among(&[1, 2], 1_000_000);
    world.take_snapshot(2);
    assert_eq!(world.core(2).status().keys, 2, "the story is that p has both");
    world.lose_all();
    world.crash(1);
    // Only p's snapshot can help x, and it covers all that x has.
    assert!(has_forgotten(&mut world, 2, id(2, 1)) && !has_executed(&mut world, 0, id(2, 1)));
    world.mute = false;
    world.catch_up(3_000_000);
    assert_eq!((world.core(0).status().keys, world.core(0).status().snapshot), (2, 2));
    world.ends_well();
}

#[test]
fn b24_what_comes_after_by_its_after_alone_comes_after() {
    let (s, q, v, p, t) = (0, 1, 2, 3, 4);
    let mut world = silent(5);
    // A reaches t only.
    world.decide(s, "a", 1, "k");
    hand_over(&mut world, s, t);
    world.lose_all();
    // B conflicts and is fast by {q, v, p}; v executes and forgets it with a barrier that only v knows
    // to be committed.
    world.decide(q, "b", 1, "k");
    commits_fast(&mut world, q, &[v, p]);
    hand_over(&mut world, q, v);
    world.lose_all();
    world.propose_barrier(v);
    commits_fast(&mut world, v, &[q, p]);
    world.lose_all();
    world.forget(&[v]);
    assert!(has_forgotten(&mut world, v, id(q, 1)));
    world.crash(q);
    world.crash(s);
    // t recovers A with v and p: A comes after what v forgot.
    world.run_alone(t, &[t, v, p], 1_500_000);
    let a = &world.ghost.decisions[&id(s, 1)];
    assert!(!a.nop && a.after.contains(id(q, 1)) && !a.deps.contains(id(q, 1)), "the story is {a:?}");
    world.lose_all();
    world.crash(v);
    // t recovers B with p and s. A is committed without B in its deps: who looked at those alone
    // would make a Nop of what was committed fast.
    world.start(s);
    world.run_among(&[s, p, t], 5_000_000);
    assert!(!world.ghost.decisions[&id(q, 1)].nop);
    world.ends_well();
}

/// Two instances that come after each other and do not conflict.
///
/// Recoveries give no such pair here. For `A after B` and `B after A` there would have to be a floor
/// that covers A and not B, and one that covers B and not A; floors end at barriers, and barriers are
/// ordered: the later one covers both, and whoever has it answers `Gone` about either. (What all have
/// executed is a floor as well, and nobody waits for that.) The gate keeps its second half for floors
/// of any other kind, so the pair is given to it as the law has it.
fn after_each_other(n: u8, node: u8, rows: [u8; 2]) -> Solo {
    let [a, b] = rows.map(|row| id(row, 1));
    let mut solo = Solo::new(n, node);
    for (it, other) in [(a, b), (b, a)] {
        let mut after = Deps::NONE;
        after.add(other);
        let (ballot, value) = (ballot(1, it.row.0), isonomy_wire::message::Value::Attached);
        let commit = PeerMessage::Commit { id: it, ballot, value, deps: upto([]), after };
        let key = it.row.0.to_string();
        solo.tell(it.row.0, commit, Some(&decide(&key, 1, 0, &key)));
    }
    solo
}

#[test]
fn b25_two_that_come_after_each_other_without_conflict_both_execute() {
    for (n, node, rows) in [(5, 2, [0, 1]), (5, 4, [1, 0]), (3, 2, [0, 1])] {
        let mut solo = after_each_other(n, node, rows);
        assert_eq!(solo.core.status().decisions, 2, "n = {n}");
        solo.restart();
        assert_eq!(solo.core.status().keys, 2, "n = {n}, after a restart");
    }
}

/// What makes B25 a thing of the past: of two barriers that forget A at one replica and B at another,
/// the later one names the earlier.
#[test]
fn b25_of_two_floors_one_covers_the_other() {
    let (s, p) = (0, 1);
    let mut world = silent(5);
    world.decide(s, "a", 1, "a");
    commits_fast(&mut world, s, &[2, 3]);
    world.lose_all();
    world.propose_barrier(s);
    commits_fast(&mut world, s, &[2, 3]);
    world.lose_all();
    world.forget(&[s]);
    // Whatever quorum p asks, somebody there knows the barrier of s.
    world.decide(p, "b", 1, "b");
    world.propose_barrier(p);
    world.settle_among(&[p, 3, 4]);
    world.run_among(&[p, 3, 4], 100_000);
    assert!(has_forgotten(&mut world, s, id(s, 1)) && !has_forgotten(&mut world, s, id(p, 1)));
    let barrier = &world.ghost.decisions[&id(p, 2)];
    assert!(barrier.deps.contains(id(s, 2)), "p cannot forget B before it has A");
    assert!(!has_executed(&mut world, p, id(p, 1)));
    world.crash(s);
    world.crash(p);
    world.run_among(&[2, 3, 4], 5_000_000);
    for node in [3, 4] {
        assert_eq!(world.core(node).status().keys, 2, "{node} has executed both");
    }
    world.ends_well();
}

#[test]
fn b26_a_nop_beyond_the_barrier_stays_in_the_log() {
    let (p0, p1, p2) = (0, 1, 2);
    let mut world = silent(3);
    // What p1 had reserved before a restart becomes Nops, and p0 does not hear of it.
    world.restart(p1);
    world.run_among(&[p1, p2], 1_000_000);
    let nop = id(p1, 1);
    assert!(world.ghost.decisions[&nop].nop && has_executed(&mut world, p2, nop));
    world.lose_all();
    // The barrier does not name them: p0 executes it without, p1 and p2 behind them.
    world.propose_barrier(p0);
    commits_fast(&mut world, p0, &[p2]);
    hand_over(&mut world, p0, p1);
    hand_over(&mut world, p0, p2);
    world.lose_all();
    world.decide(p0, "later", 1, "k");
    world.settle_among(&[p0, p2]);
    world.run_among(&[p0, p2], 15_000);
    assert!(!world.ghost.decisions[&id(p0, 1)].deps.contains(nop));
    world.forget(&[p1, p2]);
    for node in [p1, p2] {
        assert!(has_forgotten(&mut world, node, id(p0, 1)) && !has_forgotten(&mut world, node, nop));
    }
    world.ends_well();
    assert_eq!(world.core(p0).status().keys, 1, "what it executed after the barrier is there");
}

#[cfg(feature = "mutants")]
#[test]
fn stories_notice_what_they_were_written_for() {
    use isonomy_protocol::mutant::{Mutant, is_noticed};
    let pairs: [(Mutant, fn()); 14] = [
        (Mutant::ForgottenIsNew, b13_a_forgotten_id_is_not_answered_as_if_it_were_new),
        (Mutant::ForgottenAccepts, b13_a_late_accept_is_not_taken_by_who_forgot),
        (Mutant::NoAfter, b15_a_recovery_comes_after_what_its_validators_forgot),
        (Mutant::NoAfter, b15_a_client_of_the_recovered_one_hears_that_it_came_second),
        (Mutant::AfterLostInReplay, b15_the_order_outlives_a_restart),
        (Mutant::AfterLostInAccept, b15_the_order_outlives_its_proposer),
        (Mutant::NoFloorInDeps, b16_what_an_installed_snapshot_covers_is_named),
        (Mutant::NoFloorInDeps, b16_what_an_own_snapshot_covers_is_named_after_a_restart),
        (Mutant::FrontierUnnamed, b16_what_an_installed_snapshot_covers_is_named),
        (Mutant::FrontierUnnamed, b22_three_that_restart_have_forgotten_no_conflict),
        (Mutant::CutBetweenBarriers, b23_what_was_executed_since_the_barrier_is_not_forgotten_with_it),
        (Mutant::AfterIsNoOrder, b24_what_comes_after_by_its_after_alone_comes_after),
        (Mutant::StrictGate, b25_two_that_come_after_each_other_without_conflict_both_execute),
        (Mutant::CutAtE, b26_a_nop_beyond_the_barrier_stays_in_the_log),
    ];
    for (mutant, story) in pairs {
        assert!(is_noticed(mutant, story), "nobody noticed {mutant:?}");
    }
}
