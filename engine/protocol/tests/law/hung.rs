//! D9: a disk that hangs.

use crate::support::solo::*;
use crate::support::*;
use isonomy_protocol::contract::{ClientRef, Room};
use isonomy_protocol::limits::{STALLED_PERIODS, UNAVAILABLE_AFTER_US};
use isonomy_wire::deps::Deps;
use isonomy_wire::failure::{Failure, Reason};
use isonomy_wire::id::ReplicaId;
use isonomy_wire::message::PeerMessage;

fn hung() -> Room {
    Room::Hung(Reason::DiskHung { for_ms: 700 })
}

fn refused(solo: &mut Solo) -> Vec<u64> {
    let replies = std::mem::take(&mut solo.replies).into_iter();
    let is_unavailable = |outcome: &_| matches!(outcome, Err(Failure::Unavailable(_)));
    replies.filter(|reply| is_unavailable(&reply.outcome)).map(|reply| reply.client.tag).collect()
}

/// Who is told that what was proposed may still be decided.
fn left_open(solo: &mut Solo) -> Vec<u64> {
    let open = solo.replies.extract_if(.., |reply| matches!(reply.outcome, Err(Failure::Unknown(_))));
    open.map(|reply| reply.client.tag).collect()
}

fn offer(solo: &mut Solo, tag: u64) {
    let client = ClientRef { connection: 1, tag };
    solo.core.on_request(solo.now, client, decide("s", tag, 0, "a")).expect("the queue is not full");
}

#[test]
pub(crate) fn d9_a_replica_whose_disk_hangs_sends_all_elsewhere_and_proposes_nothing() {
    let mut solo = Solo::new(3, 0);
    solo.ask(&decide("s", 1, 0, "a"));
    assert_eq!(solo.said_to(1), [pre_accept(id(0, 1), Deps::NONE)]);
    offer(&mut solo, 2);
    solo.core.on_room(hung());
    offer(&mut solo, 3);
    let now = solo.now;
    solo.core.propose_barrier(now);
    solo.hear(1, pre_accept(id(1, 1), Deps::NONE), Some(&decide("t", 1, 0, "b")));
    assert_eq!(left_open(&mut solo), [1], "it was proposed, and others may decide it");
    assert_eq!(refused(&mut solo), [2, 3], "each is told, though nothing has become durable");
    assert_eq!(solo.said(), [], "and nothing is proposed");

    // What was decided meanwhile is nobody's to answer; then it goes on.
    solo.core.on_room(Room::Enough);
    solo.sync();
    solo.tell(1, pre_accept_ok(id(0, 1), Deps::NONE), None);
    assert!(solo.replies.is_empty());
    offer(&mut solo, 4);
    solo.sync();
    assert!(matches!(solo.said_to(1)[..], [PeerMessage::PreAccept { .. }]));
}

#[test]
fn d9_an_answer_that_waits_for_the_disk_is_asked_for_elsewhere() {
    let mut solo = Solo::new(3, 0);
    solo.ask(&decide("s", 1, 0, "a"));
    solo.sync();
    solo.hear(1, pre_accept_ok(id(0, 1), Deps::NONE), None);
    assert!(solo.replies.is_empty(), "it is decided, and its record is not durable");
    solo.core.on_room(hung());
    solo.hear(1, PeerMessage::Stalled, None);
    assert_eq!(left_open(&mut solo), [1]);
    solo.sync();
    assert!(solo.replies.is_empty(), "no client is answered twice");
}

#[test]
fn d9_it_says_so_for_as_long_as_it_lasts() {
    let mut solo = Solo::new(3, 0);
    let stalled = |said: Vec<PeerMessage>| said.iter().filter(|it| **it == PeerMessage::Stalled).count();
    solo.core.on_room(hung());
    solo.wait(10 * timing().gossip_us);
    let said = stalled(solo.said_to(2));
    assert!((5..=10).contains(&said), "{said} times in 10 periods");
    solo.core.on_room(Room::Enough);
    solo.wait(10 * timing().gossip_us);
    assert_eq!(stalled(solo.said_to(2)), 0);
}

#[test]
pub(crate) fn d9_whoever_says_that_its_disk_hangs_counts_as_not_reached_for_a_while() {
    let mut solo = Solo::new(3, 1);
    let refuses = |solo: &mut Solo| {
        offer(solo, 1);
        solo.sync();
        !refused(solo).is_empty()
    };
    let mut waited = 0;
    while waited < 2 * UNAVAILABLE_AFTER_US {
        [0, 2].into_iter().for_each(|peer| solo.hear(peer, PeerMessage::Stalled, None));
        // That their links work says nothing of their disks.
        solo.core.on_links(solo.now, &[ReplicaId(0), ReplicaId(2)]);
        solo.wait(timing().gossip_us);
        waited += timing().gossip_us;
    }
    assert!(refuses(&mut solo), "no quorum is reached");
    solo.wait((STALLED_PERIODS + 1) * timing().gossip_us);
    assert!(!refuses(&mut solo), "they no longer say so");
}

#[test]
fn d9_its_row_is_recovered_as_soon_as_that_of_one_that_is_gone() {
    let mut solo = Solo::new(3, 1);
    let proposal = pre_accept(id(0, 1), Deps::NONE);
    solo.tell(0, proposal, Some(&decide("s", 1, 0, "a")));
    solo.hear(0, PeerMessage::Stalled, None);
    solo.said();
    for _ in 0..4 * timing().suspect_us / timing().gossip_us {
        solo.hear(0, PeerMessage::Stalled, None);
        solo.wait(timing().gossip_us);
    }
    let said = solo.said_to(2);
    assert!(said.iter().any(|message| matches!(message, PeerMessage::Recover { .. })), "{said:?}");
}

#[test]
fn d9_what_was_undecided_gets_its_time_anew_when_the_disk_answers() {
    let mut solo = Solo::new(3, 1);
    solo.tell(0, pre_accept(id(0, 1), Deps::NONE), Some(&decide("s", 1, 0, "a")));
    solo.core.on_room(hung());
    solo.wait(10 * timing().recover_us);
    solo.core.on_room(Room::Enough);
    solo.said();
    let recovers = |message: &PeerMessage| matches!(message, PeerMessage::Recover { .. });
    solo.wait(timing().recover_us / 2);
    assert!(!solo.said_to(2).iter().any(recovers), "others were at work on it");
    solo.wait(4 * timing().recover_us);
    assert!(solo.said_to(2).iter().any(recovers));
}
