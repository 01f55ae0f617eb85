//! P1 and P2: what is told to whoever publishes the decisions.

use super::forget::{forgetful, forgotten};
use crate::support::solo::{Solo, commit, upto};
use crate::support::{decide, id, seal};
use isonomy_protocol::contract::Executed;
use isonomy_protocol::payload::Payload;
use isonomy_wire::answer::Answers;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{Ballot, InstanceId, RecordId};
use isonomy_wire::message::{PeerMessage, Value};

fn committed(id: InstanceId, deps: Deps) -> PeerMessage {
    commit(id, Ballot::ZERO, Value::Attached, deps)
}

fn tell(solo: &mut Solo, id: InstanceId, deps: Deps, payload: &Payload) {
    solo.tell(4, committed(id, deps), Some(payload));
}

/// What was told since this was asked last, in words.
fn told(solo: &mut Solo) -> Vec<String> {
    let word = |executed| match executed {
        Executed::State { barrier, frontier } => format!("state {barrier} {frontier:?}"),
        Executed::Barrier { barrier, frontier, is_seal } => {
            format!("{} {barrier} {frontier:?}", if is_seal { "seal" } else { "barrier" })
        }
        Executed::Batch { id, payload, responses, has_more } => {
            assert_eq!(responses.len(), payload.batch().parts().len(), "each part has its response");
            let committed =
                |(_, response): &(usize, _)| Answers::parse(Clone::clone(response)).unwrap().committed();
            let decisions: usize = responses.iter().map(committed).sum();
            format!("{id:?}: {decisions}{}", if has_more { ", more" } else { "" })
        }
    };
    std::mem::take(&mut solo.executed).into_iter().map(word).collect()
}

fn first() -> String {
    format!("{:?}: 1", id(0, 1))
}

#[test]
fn p1_what_has_executed_is_told_once_its_commit_is_durable() {
    let mut solo = Solo::new(5, 2);
    solo.hear(4, committed(id(0, 1), Deps::NONE), Some(&decide("s", 1, 0, "a")));
    assert_eq!(solo.core.executed(), &upto([1]));
    assert_eq!(told(&mut solo), [""; 0], "a crash can still take the commit");
    solo.sync();
    assert_eq!(told(&mut solo), [first()]);
    // A retry in another instance has no effect there.
    tell(&mut solo, id(1, 1), upto([1]), &decide("s", 1, 0, "a"));
    assert_eq!(told(&mut solo), [format!("{:?}: 1", id(1, 1))], "the response is that of the first");
}

#[test]
fn p1_what_belongs_together_is_marked() {
    let mut solo = Solo::new(5, 2);
    tell(&mut solo, id(0, 1), upto([0, 1]), &decide("s", 1, 0, "a"));
    tell(&mut solo, id(1, 1), upto([1]), &decide("t", 1, 0, "a"));
    assert_eq!(told(&mut solo), [format!("{}, more", first()), format!("{:?}: 1", id(1, 1))]);
    // A Nop is not told, so nothing may wait for it.
    solo.tell(4, commit(id(0, 2), Ballot::ZERO, Value::Nop, Deps::NONE), None);
    assert_eq!(told(&mut solo), [""; 0]);
}

#[test]
fn p2_a_restart_tells_all_that_is_behind_its_snapshot() {
    let mut solo = forgetful();
    let at_barrier = upto::<isonomy_wire::deps::Frontier, 1>([2]);
    let barrier = format!("{:?}: 0", id(0, 2));
    assert_eq!(told(&mut solo), [first(), barrier, format!("barrier 1 {at_barrier:?}")]);
    tell(&mut solo, id(1, 1), upto([2]), &decide("u", 1, 0, "b"));
    let behind = format!("{:?}: 1", id(1, 1));
    assert_eq!(told(&mut solo), std::slice::from_ref(&behind));
    let state = format!("state 1 {at_barrier:?}");
    for _ in 0..2 {
        solo.restart();
        assert_eq!(told(&mut solo), [state.clone(), behind.clone()]);
    }
    // Another replica gets the snapshot: what is before it was never told there.
    let mut other = Solo::new(5, 3);
    other.install(&solo.snapshot.expect("it was taken"));
    other.sync();
    assert_eq!(told(&mut other), [state]);
}

#[test]
fn p2_a_restart_without_a_snapshot_tells_all() {
    let mut solo = Solo::new(5, 2);
    tell(&mut solo, id(0, 1), Deps::NONE, &decide("s", 1, 0, "a"));
    tell(&mut solo, id(0, 2), upto([1]), &seal(RecordId(5)));
    let all = told(&mut solo);
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all[2].starts_with("seal 1"), "{all:?}");
    solo.restart();
    assert_eq!(told(&mut solo), all);
}

#[test]
fn p2_a_snapshot_of_one_barrier_follows_the_other() {
    let mut solo = forgetful();
    told(&mut solo);
    tell(&mut solo, id(0, 3), upto([2]), &crate::support::barrier());
    let mut solo = forgotten(solo);
    told(&mut solo);
    solo.restart();
    assert!(told(&mut solo)[0].starts_with("state 2"));
}
