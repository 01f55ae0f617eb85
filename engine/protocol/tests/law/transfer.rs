//! G5: snapshots that cannot be had, and those who keep asking for one.

use super::forget::{forgetful, forgotten, proposes_a_barrier};
use crate::support::solo::*;
use crate::support::{barrier, decide, id};
use isonomy_protocol::limits::{HOLD_BARRIERS, HOLD_RESTARTS_MAX, HOLD_US, RETRY_US, VERIFY_AGAIN_US};
use isonomy_protocol::transfer::{Fetch, FetchFailure};
use isonomy_wire::id::{Ballot, ReplicaId};
use isonomy_wire::message::{Gossip, PeerMessage, Value};

const PEER: ReplicaId = ReplicaId(3);

/// Replica 3 of five needs the snapshot that 1 and 2 have.
fn lacking() -> Solo {
    let mut solo = Solo::new(5, 3);
    for peer in [1, 2] {
        let gossip = Gossip { committed: upto([2]), floor: upto([2]), snapshot: 1, ..Gossip::default() };
        solo.tell(peer, PeerMessage::Gossip(Box::new(gossip)), None);
    }
    solo.wait(100_000);
    solo.said();
    solo
}

/// Whose snapshot it fetches.
fn source(solo: &Solo) -> Option<u8> {
    solo.core.wants_snapshot().map(|(source, _)| source.0)
}

fn fail(solo: &mut Solo, source: u8, why: FetchFailure) -> Vec<(u8, PeerMessage)> {
    solo.core.on_fetch_failed(solo.now, ReplicaId(source), 1, why);
    solo.sync();
    solo.said()
}

#[test]
pub(crate) fn g5_after_a_failure_another_source_is_asked_and_the_first_hears_of_it() {
    let mut solo = lacking();
    let first = source(&solo).expect("it needs one");
    let second = 3 - first;
    assert_eq!(
        fail(&mut solo, first, FetchFailure::Damaged),
        [(first, PeerMessage::Unreadable { barrier: 1 })]
    );
    assert_eq!(source(&solo), Some(second));
    assert_eq!(fail(&mut solo, second, FetchFailure::Source), [], "nobody read anything of it");
    solo.wait(RETRY_US / 2);
    assert_eq!(source(&solo), None, "not at once");
    solo.wait(RETRY_US);
    let third = source(&solo).expect("after a while");
    fail(&mut solo, third, FetchFailure::Source);
    fail(&mut solo, 3 - third, FetchFailure::Source);
    assert_eq!(source(&solo), None);
    // Whoever has a newer one has not failed with it.
    let gossip = Gossip { snapshot: 2, floor: upto([3]), ..Gossip::default() };
    solo.tell(third, PeerMessage::Gossip(Box::new(gossip)), None);
    solo.wait(5_000);
    assert_eq!(solo.core.wants_snapshot(), Some((ReplicaId(third), 2)));
}

#[test]
fn g5_want_of_room_lets_all_sources_wait() {
    let mut solo = lacking();
    let first = source(&solo).expect("it needs one");
    assert_eq!(fail(&mut solo, first, FetchFailure::Own), [], "it is not the source's fault");
    assert_eq!(source(&solo), None);
    solo.wait(2 * RETRY_US);
    assert!(source(&solo).is_some());
}

/// Another barrier executes, at which a snapshot would be taken.
fn next_barrier(solo: &mut Solo, seq: u64) {
    solo.tell(0, commit(id(0, seq), Ballot::ZERO, Value::Attached, upto([seq - 1])), Some(&barrier()));
}

#[test]
fn g5_no_other_snapshot_is_taken_while_somebody_gets_on() {
    let mut solo = forgetful();
    for piece in 0..20 {
        assert!(solo.core.on_fetch(solo.now, PEER, Fetch { barrier: 1, from: piece }));
        solo.wait(HOLD_US / 2);
        next_barrier(&mut solo, 3 + piece);
        assert_eq!(solo.core.taking(), None);
    }
    solo.wait(HOLD_US);
    next_barrier(&mut solo, 23);
    assert!(solo.core.taking().is_some(), "it has had enough time to ask for more");
    assert!(
        !solo.core.on_fetch(solo.now, PEER, Fetch { barrier: 2, from: 0 }),
        "that is none of its snapshots"
    );
}

#[test]
fn g5_a_snapshot_that_was_begun_before_somebody_fetches_takes_the_place_of_the_last() {
    let mut solo = forgetful();
    next_barrier(&mut solo, 3);
    assert!(
        solo.core.on_fetch(solo.now, PEER, Fetch { barrier: 1, from: 0 }),
        "the next one is not durable yet"
    );
    solo.take_snapshot();
    assert!(!solo.core.on_fetch(solo.now, PEER, Fetch { barrier: 1, from: 1 }), "it begins anew");
    assert!(solo.core.on_fetch(solo.now, PEER, Fetch { barrier: 2, from: 0 }));
    // The peer had bytes of the first one. It is sent to the second, of the same source.
    let mut sink = Solo::new(5, 3);
    for snapshot in [1, 2] {
        let gossip = Gossip { committed: upto([3]), floor: upto([2]), snapshot, ..Gossip::default() };
        sink.tell(2, PeerMessage::Gossip(Box::new(gossip)), None);
        sink.wait(100_000);
        assert_eq!(sink.core.wants_snapshot(), Some((ReplicaId(2), snapshot)));
    }
    sink.core.on_fetch_failed(sink.now, ReplicaId(2), 1, FetchFailure::Source);
    assert_eq!(sink.core.wants_snapshot(), Some((ReplicaId(2), 2)), "no fault of the second");
    sink.install(&solo.snapshot.expect("it took one"));
    assert_eq!(sink.core.executed(), &upto([3]));
}

#[test]
pub(crate) fn g5_who_does_not_get_on_is_not_waited_for() {
    for from in [0, 7] {
        let mut solo = forgetful();
        for _ in 0..2 * (HOLD_RESTARTS_MAX + 2) {
            assert!(
                solo.core.on_fetch(solo.now, PEER, Fetch { barrier: 1, from }),
                "it is given what it asks for"
            );
            solo.wait(HOLD_US / 2);
        }
        solo.core.on_fetch(solo.now, PEER, Fetch { barrier: 1, from });
        next_barrier(&mut solo, 3);
        assert!(solo.core.taking().is_some(), "from {from}");
    }
}

#[test]
fn g5_nobody_is_waited_for_beyond_the_room_of_the_log() {
    let barrier_bytes = 10_000;
    let mut solo = Solo::with_barriers(3, 2, barrier_bytes);
    solo.tell(0, commit(id(0, 1), Ballot::ZERO, Value::Attached, upto([])), Some(&barrier()));
    let mut solo = forgotten(solo);
    let (mut seq, mut barriers) = (2, 0);
    while solo.core.taking().is_none() {
        // Its log grows by a little more than from one barrier to the next.
        for _ in 0..barrier_bytes / 200 + 1 {
            let decided = decide("s", seq, 0, "a");
            solo.tell(0, commit(id(0, seq), Ballot::ZERO, Value::Attached, upto([seq - 1])), Some(&decided));
            seq += 1;
        }
        assert!(solo.core.on_fetch(solo.now, ReplicaId(1), Fetch { barrier: 1, from: seq }), "it gets on");
        next_barrier(&mut solo, seq);
        (seq, barriers) = (seq + 1, barriers + 1);
    }
    assert!(barriers <= HOLD_BARRIERS, "{barriers}");
    assert!(barriers > 1, "it is waited for at first");
}

#[test]
fn g5_a_snapshot_that_somebody_cannot_read_is_verified() {
    let mut solo = forgetful();
    solo.tell(3, PeerMessage::Unreadable { barrier: 9 }, None);
    assert_eq!(solo.core.doubted_snapshot(), None, "that is none of its snapshots");
    solo.tell(3, PeerMessage::Unreadable { barrier: 1 }, None);
    assert_eq!(solo.core.doubted_snapshot(), Some(1));
    solo.core.on_snapshot_verified(solo.now, 1, true);
    solo.tell(3, PeerMessage::Unreadable { barrier: 1 }, None);
    assert_eq!(solo.core.doubted_snapshot(), None, "not all the time");
    assert!(solo.core.on_fetch(solo.now, PEER, Fetch { barrier: 1, from: 0 }), "it is whole");
    solo.wait(VERIFY_AGAIN_US);
    solo.tell(3, PeerMessage::Unreadable { barrier: 1 }, None);
    assert_eq!(solo.core.doubted_snapshot(), Some(1));
}

#[test]
fn g5_a_damaged_snapshot_is_given_to_nobody_and_another_is_taken() {
    let mut solo = forgetful();
    assert!(solo.core.on_fetch(solo.now, PEER, Fetch { barrier: 1, from: 0 }));
    solo.tell(3, PeerMessage::Unreadable { barrier: 1 }, None);
    solo.core.on_snapshot_verified(solo.now, 1, false);
    assert!(
        !solo.core.on_fetch(solo.now, PEER, Fetch { barrier: 1, from: 1 }) && solo.core.is_snapshot_damaged()
    );
    assert_eq!(solo.core.status().snapshots_damaged, 1);
    solo.wait(5_000);
    assert!(proposes_a_barrier(&mut solo), "however little the log has grown");
    solo.wait(100_000);
    // Whoever fetched the damaged one is not waited for.
    next_barrier(&mut solo, 3);
    solo.take_snapshot();
    assert!(!solo.core.is_snapshot_damaged());
    assert!(solo.core.on_fetch(solo.now, PEER, Fetch { barrier: 2, from: 0 }));
}

#[test]
fn g5_who_has_a_floor_beyond_its_snapshot_and_takes_none_proposes_a_barrier() {
    let mut solo = forgetful();
    next_barrier(&mut solo, 3);
    // A peer has forgotten two Nops that this replica lacks, at the barrier whose snapshot is being taken here.
    let (committed, floor) = (upto([3, 2]), upto([3, 2]));
    solo.tell(3, PeerMessage::Gossip(Box::new(Gossip { committed, snapshot: 2, ..Gossip::default() })), None);
    solo.tell(3, PeerMessage::Gone { floor, floor_barrier: 2, snapshot: 2 }, None);
    solo.wait(100_000);
    assert_eq!(solo.core.status().floor, upto([3, 2]), "the story is that it has taken the floor over");
    assert!(!proposes_a_barrier(&mut solo), "the snapshot at that barrier is on its way");
    solo.core.on_snapshot_failed(solo.now);
    solo.wait(RETRY_US);
    assert!(proposes_a_barrier(&mut solo), "nobody could catch up from a floor that no snapshot covers");
}

#[test]
fn g4_after_a_snapshot_that_could_not_be_written_the_next_is_not_tried_at_once() {
    let mut solo = forgetful();
    next_barrier(&mut solo, 3);
    solo.core.on_snapshot_failed(solo.now);
    next_barrier(&mut solo, 4);
    assert_eq!(solo.core.taking(), None);
    solo.wait(RETRY_US);
    next_barrier(&mut solo, 5);
    assert!(solo.core.taking().is_some());
}
