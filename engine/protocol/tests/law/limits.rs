//! What is bounded, what is refused, and all sizes of clusters.

use crate::support::solo::Solo;
use crate::support::*;
use isonomy_protocol::contract::{Busy, ClientRef, Room};
use isonomy_protocol::limits::{BEHIND_MAX, KEYED_MAX, PENDING_REQUESTS_MAX, ROOM_RETRY_MS, SOURCES_MAX};
use isonomy_protocol::log::record::Record;
use isonomy_protocol::payload::Payload;
use isonomy_wire::command::{Numbering, RequestBuilder};
use isonomy_wire::deps::Frontier;
use isonomy_wire::failure::{Failure, Reason};
use isonomy_wire::id::{ReplicaId, SessionId};
use isonomy_wire::message::{Gossip, PeerMessage};
use isonomy_wire::tuning::{Tuning, WINDOW_MAX};

const WINDOW: usize = Tuning::DEFAULT.window as usize;

#[test]
fn a_replica_submits_no_more_than_its_window() {
    let mut solo = Solo::new(3, 0);
    for number in 1..100 {
        solo.ask(&decide("s", number, 0, "a"));
        solo.sync();
    }
    let proposals = solo.said_to(1);
    assert_eq!(proposals.len(), WINDOW);
    assert!(proposals.iter().all(|message| matches!(message, PeerMessage::PreAccept { .. })));
    // G4: a barrier comes on top, and only one.
    for more in [1, 0] {
        let now = solo.now;
        solo.core.propose_barrier(now);
        solo.sync();
        assert_eq!(solo.said_to(1).len(), more);
    }
}

#[test]
fn section_6_the_settings_say_how_large_the_window_is() {
    let mut solo = Solo::new(3, 0);
    let mut number = 0;
    for (window, proposed) in [(5, 5), (WINDOW_MAX, 58), (1, 0)] {
        let tuning = Tuning { window, ..Tuning::DEFAULT };
        solo.core.apply(solo.now, tuning, false);
        for _ in 0..100 {
            number += 1;
            solo.ask(&decide("s", number, 0, "a"));
            solo.sync();
        }
        assert_eq!(solo.said_to(1).len(), proposed, "window {window}");
    }
}

#[test]
fn a_replica_that_is_far_behind_sends_clients_elsewhere() {
    let mut solo = Solo::new(3, 0);
    let mut gossip = |executed: u64| {
        let mut frontier = Frontier::NONE;
        frontier.set(ReplicaId(1), executed);
        let said = Gossip { committed: frontier, executed: frontier, ..Gossip::default() };
        solo.hear(1, PeerMessage::Gossip(Box::new(said)), None);
        refusal(&mut solo)
    };
    assert_eq!(gossip(BEHIND_MAX), None);
    assert!(matches!(gossip(BEHIND_MAX + 1), Some(Failure::Unavailable(_))));
}

#[test]
fn requests_beyond_the_queue_are_given_back() {
    let mut solo = Solo::new(3, 0);
    let payload = decide("s", 1, 0, "a");
    for tag in 0..PENDING_REQUESTS_MAX as u64 {
        solo.core.on_request(solo.now, ClientRef { connection: 1, tag }, payload.clone()).expect("room");
    }
    let beyond = ClientRef { connection: 1, tag: u64::MAX };
    assert_eq!(solo.core.on_request(solo.now, beyond, payload), Err(Busy));
}

fn refusal(solo: &mut Solo) -> Option<Failure> {
    solo.ask(&decide("s", 1, 0, "a"));
    solo.sync();
    solo.replies.pop().and_then(|reply| reply.outcome.err())
}

#[test]
fn without_a_quorum_requests_are_refused_after_a_while() {
    let mut solo = Solo::new(3, 0);
    let now = solo.now;
    solo.core.on_links(now, &[]);
    assert_eq!(refusal(&mut solo), None, "it may come back at once");
    solo.wait(1_100_000);
    assert!(matches!(refusal(&mut solo), Some(Failure::Unavailable(_))));
    let now = solo.now;
    solo.core.on_links(now, &[isonomy_wire::id::ReplicaId(2)]);
    assert_eq!(refusal(&mut solo), None);
}

#[test]
fn a_stopping_replica_refuses() {
    let mut solo = Solo::new(3, 0);
    let now = solo.now;
    solo.core.on_stop(now);
    assert!(matches!(refusal(&mut solo), Some(Failure::Unavailable(_))));
}

/// G4: the log is cut at barriers, so only replicas say when.
#[test]
fn a_barrier_of_a_client_is_refused_and_not_proposed() {
    let mut solo = Solo::new(3, 0);
    solo.ask(&barrier());
    solo.sync();
    let refused = solo.replies.pop().and_then(|reply| reply.outcome.err());
    assert!(
        matches!(&refused, Some(Failure::Invalid { why }) if why.contains("snapshot take")),
        "{refused:?}"
    );
    assert!(solo.said_to(1).is_empty());
}

#[test]
fn a_log_at_its_budget_refuses_writes_and_a_full_disk_everything() {
    let mut solo = Solo::new(3, 0);
    let reason = Reason::LogFull { held_bytes: 2, budget_bytes: 1 };
    solo.core.on_room(Room::Short(reason));
    assert_eq!(refusal(&mut solo), Some(Failure::Overloaded { retry_after_ms: ROOM_RETRY_MS, reason }));
    solo.ask(&read("a"));
    solo.sync();
    assert!(solo.replies.is_empty(), "a read waits for its quorum");
    assert!(!solo.said_to(1).is_empty(), "it was proposed");
    solo.core.on_room(Room::Gone(Reason::DiskFull));
    solo.ask(&read("a"));
    solo.sync();
    assert_eq!(
        solo.replies.pop().and_then(|reply| reply.outcome.err()),
        Some(Failure::Unavailable(Reason::DiskFull))
    );
    solo.core.on_room(Room::Enough);
    assert_eq!(refusal(&mut solo), None);
}

/// S5: a name that is never used again takes nobody's place.
#[test]
fn sources_have_a_bound_of_their_own() {
    let mut solo = Solo::new(1, 0);
    let names: Vec<String> = (0..SOURCES_MAX).map(|each| each.to_string()).collect();
    for some in names.chunks(PENDING_REQUESTS_MAX / 2) {
        for name in some {
            let client = ClientRef { connection: 1, tag: 1 };
            solo.core.on_request(solo.now, client, decide(name, 1, 0, "a")).expect("room");
        }
        solo.sync();
    }
    assert_eq!(solo.core.status().sources, SOURCES_MAX as u64);
    solo.replies.clear();
    let mut ask = |payload: &Payload| {
        solo.ask(payload);
        solo.sync();
        solo.replies.pop().expect("it is answered").outcome
    };
    let refused = ask(&decide("one more", 1, 0, "a"));
    assert!(
        matches!(&refused, Err(Failure::Overloaded { reason: Reason::SourcesFull { .. }, .. })),
        "{refused:?}"
    );
    assert!(ask(&decide("0", 2, 0, "a")).is_ok(), "those that are known go on");
    let mut builder = RequestBuilder::default();
    builder.open();
    assert!(ask(&parse(builder.encode(SessionId::NONE, Numbering::NONE))).is_ok(), "and so do all others");
}

/// S6: idempotency keys take nobody's place, and those that are known go on.
#[test]
fn idempotency_keys_have_a_bound_of_their_own() {
    let mut solo = Solo::new(1, 0);
    let keyed = |id: usize| {
        let mut builder = RequestBuilder::default();
        builder.decide(b"a", b"v").unwrap();
        parse(builder.encode(SessionId::keyed(&id.to_le_bytes()), Numbering::at(9)))
    };
    for ids in (0..KEYED_MAX).collect::<Vec<_>>().chunks(PENDING_REQUESTS_MAX / 2) {
        for id in ids {
            let client = ClientRef { connection: 1, tag: 1 };
            solo.core.on_request(solo.now, client, keyed(*id)).expect("room");
        }
        solo.sync();
    }
    solo.replies.clear();
    let mut ask = |payload: &Payload| {
        solo.ask(payload);
        solo.sync();
        solo.replies.pop().expect("it is answered").outcome
    };
    let refused = ask(&keyed(KEYED_MAX));
    assert!(
        matches!(&refused, Err(Failure::Overloaded { reason: Reason::IdempotencyKeysFull { .. }, .. })),
        "{refused:?}"
    );
    assert!(ask(&keyed(0)).is_ok(), "those that are known go on");
    assert!(ask(&decide("a source", 1, 0, "a")).is_ok(), "and so do all others");
}

#[test]
fn clusters_of_all_sizes_commit_and_agree() {
    for n in 1..=9 {
        let mut world = World::new(n);
        world.run(100_000);
        for round in 1..=3 {
            for replica in 0..n {
                world.decide(replica, &format!("own {replica}"), 2 * round - 1, &format!("own {replica}"));
                world.decide(replica, &format!("own {replica}"), 2 * round, "common");
            }
            world.run(100_000);
        }
        world.run(1_000_000);
        world.assert_converged();
        world.ghost.assert_visibility();
        let answered: usize = (0..n).map(|replica| world.answers(replica).len()).sum();
        assert_eq!(answered, 6 * n as usize, "n = {n}");
    }
}

#[test]
fn a_minority_that_is_down_stops_nobody() {
    for n in [3, 5, 7] {
        let mut world = World::new(n);
        world.run(100_000);
        let down = (n - 1) / 2;
        (0..down).for_each(|id| world.crash(id));
        for replica in down..n {
            world.decide(replica, &format!("{replica}"), 1, "k");
        }
        world.run(3_000_000);
        let answered: usize = (down..n).map(|replica| world.answers(replica).len()).sum();
        assert_eq!(answered, (n - down) as usize, "n = {n}");
        world.assert_converged();
        (0..down).for_each(|id| world.start(id));
        world.run(3_000_000);
        world.assert_converged();
    }
}

/// Section 6: all replicas coordinate, every command is on one key, for thousands of instances.
#[test]
fn contention_makes_steady_progress_with_a_bounded_backlog() {
    let mut world = World::new(5);
    world.check_every = 500;
    let mut numbers = [0u64; 5];
    let mut answered = 0;
    let mut slowest = usize::MAX;
    for round in 0..60 {
        for _ in 0..12 {
            for replica in 0..5u8 {
                let number = &mut numbers[replica as usize];
                *number += 1;
                let client = ClientRef { connection: 1, tag: *number };
                let payload = decide(&format!("{replica}"), *number, number.saturating_sub(100), "hot");
                world.request(replica, client, payload);
            }
        }
        // Half of the messages of the round are delivered in one order, half in another.
        for replica in 0..5 {
            world.sync((replica + round) % 5);
        }
        world.run(10_000);
        for replica in 0..5 {
            let status = world.core(replica).status();
            let bound = (5 * WINDOW + 5 * 256) as u64;
            assert!(status.unexecuted <= bound, "replica {replica} has {} unexecuted", status.unexecuted);
        }
        let now: usize = (0..5).map(|replica| world.answers(replica).len()).sum();
        slowest = slowest.min(now);
        answered += now;
    }
    world.run(1_000_000);
    answered += (0..5).map(|replica| world.answers(replica).len()).sum::<usize>();
    assert_eq!(answered, 60 * 12 * 5);
    assert!(slowest > 0, "some round answered nobody");
    world.assert_converged();
    // What all have executed is forgotten: memory does not grow with the number of instances.
    let frontier = world.core(0).status().frontier;
    let forgotten = Record::Floor { upto: frontier.to_floor() };
    assert!(world.nodes[0].log.iter().any(|(record, _)| *record == forgotten));
}
