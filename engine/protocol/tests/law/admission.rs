//! G6, as far as it is the core's.

use crate::support::solo::*;
use crate::support::*;
use isonomy_protocol::contract::{ClientRef, Config, Output, Position, Reply, Time};
use isonomy_protocol::log::record::Record;
use isonomy_protocol::replica::Replica;
use isonomy_wire::deps::Deps;
use isonomy_wire::failure::{Failure, Reason};
use isonomy_wire::id::ReplicaId;
use isonomy_wire::message::{Gossip, PeerMessage};

const BEGAN: Time = Time(1_000_000);

/// A core whose log had some records, with links to all others.
fn started(config: Config) -> Replica {
    let mut core = Replica::new(config, 3);
    core.start(BEGAN, Position(7));
    core.on_links(BEGAN, &[ReplicaId(1), ReplicaId(2)]);
    core
}

/// What it says in the next two seconds; everything is durable at once.
fn says(core: &mut Replica, from: Time) -> Vec<PeerMessage> {
    let mut said = Vec::new();
    for step in 1..=400 {
        let now = from.after(step * 5_000);
        core.on_timeout(now);
        core.end_turn(now);
        while let Some(output) = core.poll() {
            match output {
                Output::Append(append) => core.on_durable(now, append.position),
                Output::Send(send) => said.push(send.message),
                Output::Reply(_) | Output::Executed(_) | Output::Cut(_) | Output::Sealed(_) => {}
            }
        }
    }
    said
}

fn gossip(position: u64) -> PeerMessage {
    PeerMessage::Gossip(Box::new(Gossip { position, ..Gossip::default() }))
}

/// The positions that it tells.
fn positions(said: &[PeerMessage]) -> Vec<u64> {
    let position = |message: &PeerMessage| match message {
        PeerMessage::Gossip(gossip) => Some(gossip.position),
        _ => None,
    };
    said.iter().filter_map(position).collect()
}

#[test]
fn g6_before_it_is_admitted_a_replica_says_nothing_and_takes_nothing() {
    let mut core = started(config(3, 0));
    core.on_message(BEGAN, ReplicaId(1), pre_accept(id(1, 1), Deps::NONE), Some(decide("s", 1, 0, "a")));
    core.on_request(BEGAN, ClientRef::default(), decide("t", 1, 0, "b")).unwrap();
    core.propose_barrier(BEGAN);
    let Some(Output::Append(reserve)) = core.poll() else { panic!("it reserves its numbers") };
    let Some(Output::Reply(Reply { outcome: Err(refused), .. })) = core.poll() else { panic!("it answers") };
    assert_eq!(refused, Failure::Unavailable(Reason::NotConfirmed));
    core.on_durable(BEGAN, reserve.position);
    assert_eq!(says(&mut core, BEGAN), []);
    assert_eq!(core.position(), Some(8), "it has reserved its numbers and written nothing else");
    let now = BEGAN.after(3_000_000);
    assert_eq!(core.status().messages_dropped.not_admitted, 1);
    core.admit(now);
    assert!(!says(&mut core, now).is_empty());
    core.on_message(now, ReplicaId(1), pre_accept(id(1, 1), Deps::NONE), Some(decide("s", 1, 0, "a")));
    core.end_turn(now);
    let Some(Output::Append(append)) = core.poll() else { panic!("it writes") };
    assert!(matches!(append.record, Record::PreAccepted { .. }), "{append:?}");
}

#[test]
fn g6_gossip_tells_how_far_the_log_reaches_unless_a_power_failure_could_take_some() {
    for outlives_power in [true, false] {
        let mut core = started(Config { outlives_power, ..config(3, 0) });
        assert_eq!(core.position(), outlives_power.then_some(7), "the next record is not durable");
        core.admit(BEGAN);
        let told = positions(&says(&mut core, BEGAN));
        assert!(!told.is_empty());
        let expected = if outlives_power { 8 } else { 0 };
        assert!(told.iter().all(|position| *position == expected), "{told:?}");
    }
}

#[test]
fn g6_what_was_heard_is_written_down_and_outlives_a_restart() {
    let mut solo = Solo::new(3, 0);
    solo.hear(1, gossip(50), None);
    solo.wait(2_000_000);
    solo.hear(2, gossip(60), None);
    solo.core.on_links(solo.now, &[ReplicaId(1)]);
    solo.sync();
    solo.restart();
    assert_eq!((solo.core.heard(ReplicaId(1)), solo.core.heard(ReplicaId(2))), (50, 60));
    solo.hear(1, gossip(40), None);
    assert_eq!(solo.core.heard(ReplicaId(1)), 50, "an old word is no news");
}

#[test]
fn g6_idle_replicas_do_not_write_of_each_other_for_ever() {
    let mut solo = Solo::new(3, 0);
    solo.wait(2_000_000);
    let (records, position) = (solo.log.len(), solo.core.position());
    solo.hear(1, gossip(50), None);
    solo.wait(2_000_000);
    assert_eq!(solo.log.len(), records + 1);
    assert_eq!(solo.core.position(), position, "nothing that is said rests on it");
    solo.hear(1, gossip(50), None);
    solo.wait(2_000_000);
    assert_eq!(solo.log.len(), records + 1);
}
