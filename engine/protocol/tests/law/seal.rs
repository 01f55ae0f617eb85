//! Section 9: the Seal ends an epoch, and the next one begins with the state at the Seal.

use crate::support::solo::{Solo, accept, ballot, commit, pre_accept, recover, upto, validate};
use crate::support::{World, answers_of, config, decide, id, key_seq, parse, read, seal};
use isonomy_protocol::contract::{ClientRef, Config, Send};
use isonomy_protocol::epoch::{Entered, RecordFound, WentBack, judge};
use isonomy_protocol::payload::Payload;
use isonomy_protocol::replica::Replica;
use isonomy_wire::answer::Answer;
use isonomy_wire::command::{Numbering, RequestBuilder};
use isonomy_wire::deps::{Deps, Frontier};
use isonomy_wire::failure::{Failure, Reason};
use isonomy_wire::id::{Ballot, Epoch, InstanceId, RecordId, ReplicaId, SessionId};
use isonomy_wire::message::{PeerMessage, Refusal, Value};

const RECORD: RecordId = RecordId(0x5ea1);
const OTHER: RecordId = RecordId(0x07e5);
const ENDED: Reason = Reason::EpochEnded { epoch: Epoch(1) };

/// Commits a batch of another replica with these deps.
fn tell_commit(solo: &mut Solo, id: InstanceId, deps: Deps, payload: &Payload) -> Vec<(u8, PeerMessage)> {
    solo.tell(4, commit(id, Ballot::ZERO, Value::Attached, deps), Some(payload))
}

/// Replica 2 of 5, where a decision and then a Seal have executed.
fn sealed() -> Solo {
    let mut solo = Solo::new(5, 2);
    tell_commit(&mut solo, id(0, 1), Deps::NONE, &decide("s", 1, 0, "a"));
    tell_commit(&mut solo, id(1, 1), upto([1]), &seal(RECORD));
    assert_eq!(solo.core.status().sealed, Some(RECORD));
    solo
}

#[test]
pub(crate) fn section_9_nothing_executes_past_a_seal() {
    let mut solo = Solo::new(5, 2);
    // What comes after the Seal is committed before it, and some behind it.
    tell_commit(&mut solo, id(0, 2), upto([1, 1]), &decide("s", 2, 0, "a"));
    tell_commit(&mut solo, id(1, 1), upto([1]), &seal(RECORD));
    assert_eq!((solo.core.executed(), solo.core.status().sealed), (&Frontier::NONE, None));
    tell_commit(&mut solo, id(0, 1), Deps::NONE, &decide("s", 1, 0, "a"));
    let hash = solo.core.state_hash();
    for _ in 0..3 {
        assert_eq!((solo.core.executed(), solo.core.state_hash()), (&upto([1, 1]), hash));
        assert_eq!(solo.core.status().sealed, Some(RECORD));
        tell_commit(&mut solo, id(3, 1), upto([1, 1]), &decide("t", 1, 0, "b"));
        solo.restart();
    }
}

#[test]
fn section_9_what_executes_with_the_seal_is_not_void() {
    let mut solo = Solo::new(5, 2);
    tell_commit(&mut solo, id(0, 1), upto([0, 1]), &seal(RECORD));
    tell_commit(&mut solo, id(1, 1), upto([1]), &decide("s", 1, 0, "a"));
    assert_eq!(solo.core.executed(), &upto([1, 1]));
    assert_eq!((solo.core.status().keys, solo.core.status().sealed), (1, Some(RECORD)));
}

#[test]
fn section_9_of_two_seals_the_first_in_the_order_counts() {
    let mut apart = Solo::new(5, 2);
    tell_commit(&mut apart, id(1, 1), upto([1]), &seal(OTHER));
    tell_commit(&mut apart, id(0, 1), Deps::NONE, &seal(RECORD));
    assert_eq!((apart.core.executed(), apart.core.status().sealed), (&upto([1]), Some(RECORD)));
    let mut together = Solo::new(5, 2);
    tell_commit(&mut together, id(1, 1), upto([1]), &seal(OTHER));
    tell_commit(&mut together, id(0, 1), upto([0, 1]), &seal(RECORD));
    assert_eq!((together.core.executed(), together.core.status().sealed), (&upto([1, 1]), Some(RECORD)));
    assert_eq!(together.core.status().barrier, 1, "the component is one place in the order");
}

#[test]
fn section_9_the_end_is_told_when_it_is_durable_and_again_after_a_restart() {
    let mut solo = Solo::new(5, 2);
    solo.hear(0, commit(id(1, 1), Ballot::ZERO, Value::Attached, Deps::NONE), Some(&seal(RECORD)));
    assert_eq!((solo.core.status().sealed, &solo.sealed[..]), (Some(RECORD), &[][..]), "a crash can undo it");
    solo.sync();
    solo.wait(100_000);
    let [told] = solo.sealed[..] else { panic!("{:?}", solo.sealed) };
    assert_eq!((told.record, told.barrier, told.hash), (RECORD, 1, solo.core.state_hash()));
    solo.restart();
    assert_eq!(solo.sealed, [told, told]);
}

#[test]
fn section_9_who_waits_at_the_end_may_ask_again() {
    let mut solo = Solo::new(5, 0);
    solo.ask(&decide("s", 1, 0, "a"));
    solo.sync();
    tell_commit(&mut solo, id(1, 1), Deps::NONE, &seal(RECORD));
    solo.ask(&decide("s", 2, 0, "a"));
    solo.ask(&read("a"));
    let outcomes: Vec<_> = solo.replies.drain(..).map(|reply| reply.outcome).collect();
    // A crash may still undo an end that is not durable, so what was proposed is not said to be void for good.
    let not_taken = || Err(Failure::Unavailable(ENDED));
    assert_eq!(outcomes, [Err(Failure::Unknown(ENDED)), not_taken(), not_taken()]);
    solo.core.on_stop(solo.now);
    solo.sync();
    assert!(solo.core.is_idle(), "void instances keep nobody from stopping");
}

#[test]
fn section_9_a_sealed_replica_helps_others_to_catch_up_and_does_nothing_else() {
    let mut solo = sealed();
    solo.wait(1_000_000);
    let (records, before) = (solo.log.len(), solo.core.status().messages_dropped.sealed);
    let (new, deps, batch) = (id(3, 1), upto([1, 1]), decide("t", 1, 0, "b"));
    for message in [
        pre_accept(new, deps),
        accept(new, ballot(1, 3), Value::Attached, deps),
        recover(id(3, 1), ballot(1, 4)),
        validate(new, ballot(1, 3), deps),
        commit(new, Ballot::ZERO, Value::Attached, deps),
    ] {
        assert_eq!(solo.tell(3, message, Some(&batch)), []);
    }
    assert_eq!(solo.core.status().messages_dropped.sealed - before, 5);
    assert_eq!(solo.log.len(), records, "nothing is promised, taken or decided");
    solo.restart();
    let pulled = solo.tell(3, PeerMessage::Pull { row: ReplicaId(1), from: 1, to: 9 }, None);
    assert_eq!(pulled, [(3, commit(id(1, 1), Ballot::ZERO, Value::Attached, upto([1])))]);
    solo.core.propose_seal(solo.now, OTHER);
    solo.core.propose_barrier(solo.now);
    solo.sync();
    assert_eq!(solo.said(), []);
}

#[test]
fn section_9_a_replay_that_stops_at_the_seal_below_its_floor() {
    let mut solo = Solo::new(5, 2);
    // The Seal waits for a barrier, and a Nop that does not come after the Seal is executed everywhere meanwhile.
    tell_commit(&mut solo, id(0, 2), upto([1]), &seal(RECORD));
    solo.tell(0, commit(id(1, 1), ballot(1, 0), Value::Nop, Deps::NONE), None);
    let gossip = isonomy_wire::message::Gossip { executed: upto([0, 1]), ..Default::default() };
    [0, 1, 3, 4]
        .into_iter()
        .for_each(|from| drop(solo.tell(from, PeerMessage::Gossip(Box::new(gossip.clone())), None)));
    solo.wait(100_000);
    assert_eq!(solo.core.status().floor, upto([0, 1]), "the story is that it is forgotten");
    tell_commit(&mut solo, id(0, 1), Deps::NONE, &crate::support::barrier());
    let executed = *solo.core.executed();
    assert_eq!((executed, solo.core.status().sealed), (upto([2, 1]), Some(RECORD)));
    // The snapshot of the barrier counts, so the Seal executes earlier than it did.
    solo.keep_snapshot();
    solo.sync();
    solo.restart();
    assert_eq!((*solo.core.executed(), solo.core.status().sealed), (executed, Some(RECORD)));
}

#[test]
fn section_9_a_seal_is_proposed_as_a_barrier_is() {
    let mut world = World::new(3);
    world.decide(0, "s", 1, "a");
    world.propose_seal(0, RECORD);
    world.settle();
    for id in 0..3 {
        let [told] = world.nodes[id as usize].sealed[..] else { panic!("{id} says that it is over, once") };
        assert_eq!((told.record, told.hash), (RECORD, world.core(0).state_hash()));
    }
    assert_eq!(world.answers(0).len(), 1, "what came before was answered");
    let asks =
        Payload::parse(seal(OTHER).batch().payload().clone(), seal(OTHER).batch().crc()).expect("it parses");
    let mut solo = Solo::new(3, 0);
    solo.ask(&asks);
    assert!(matches!(solo.replies[0].outcome, Err(Failure::Invalid { .. })), "clients propose none");
}

/// Three replicas, of which the last was away while the others ended the epoch.
fn ended_without_one(forgets: bool) -> World {
    let mut world = World::new(3);
    world.decide(0, "s", 1, "a");
    world.settle();
    world.isolate(2);
    world.decide(0, "s", 2, "a");
    world.settle_among(&[0, 1]);
    if forgets {
        world.barrier_among(0, &[0, 1]);
        world.forget(&[0, 1]);
        world.decide(1, "t", 1, "b");
        world.settle_among(&[0, 1]);
    }
    world.propose_seal(1, RECORD);
    world.settle_among(&[0, 1]);
    assert!((0..2).all(|id| world.core(id).sealed().is_some()) && world.core(2).sealed().is_none());
    world
}

#[test]
fn section_9_who_was_away_catches_up_to_the_seal_when_all_others_are_sealed() {
    for forgets in [false, true] {
        for restarts in [false, true] {
            let mut world = ended_without_one(forgets);
            if restarts {
                (0..2).for_each(|id| world.restart(id));
            }
            world.rejoin();
            world.catch_up(3_000_000);
            let ends: Vec<_> = (0..3).map(|id| world.core(id).sealed()).collect();
            assert!(ends[2].is_some() && ends[2] == ends[0] && ends[2] == ends[1], "{ends:?}");
            assert_eq!(world.nodes[2].sealed.len(), 1);
        }
    }
}

/// Three members that have decided under a session, and ended the epoch.
fn ended() -> World {
    let mut world = World::new(3);
    world.decide(0, "s", 1, "a");
    world.decide(1, "t", 1, "b");
    world.settle();
    world.propose_seal(1, RECORD);
    world.settle();
    world
}

#[test]
pub(crate) fn section_9_sessions_come_along() {
    let mut old = ended();
    let told = old.answers(0);
    let mut next = old.succeed(&[Some(2), Some(0), Some(1)]);
    assert_eq!(next.hashes(), vec![(Frontier::NONE, old.core(0).state_hash()); 3]);
    // The answer was lost, and the client asks again; then it goes on.
    next.decide(0, "s", 1, "a");
    next.settle();
    assert_eq!(next.answers(0), told, "with the id that it had in its epoch");
    next.decide(1, "s", 2, "a");
    next.settle();
    assert_eq!(key_seq(&next.answers(1)[0].1), 2);
    next.assert_converged();
}

#[test]
fn section_9_a_session_that_was_opened_in_another_epoch_names_no_instance_of_this_one() {
    let mut world = World::new(3);
    let mut builder = RequestBuilder::default();
    builder.open();
    let client = ClientRef { connection: 1, tag: 7 };
    let open = parse(builder.encode(SessionId::NONE, Numbering::NONE));
    world.request(2, client, open);
    world.settle();
    let [(_, Answer::Opened { session })] = world.answers(2)[..] else { panic!("it is opened") };
    world.propose_seal(1, RECORD);
    world.settle();
    // Row 2 has no instance in the next epoch, nor has that epoch a row 2.
    let mut next = world.succeed(&[Some(0), Some(1)]);
    builder.decide(b"a", b"v").expect("it fits");
    let decision = parse(builder.encode(session, Numbering::at(1)));
    next.request(0, client, decision);
    next.settle();
    assert_eq!(key_seq(&next.answers(0)[0].1), 1);
}

#[test]
fn section_9_a_member_without_the_state_votes_and_neither_executes_nor_answers() {
    let mut old = ended();
    let mut next = old.succeed(&[Some(0), None, None]);
    assert!(next.core(1).lacks_state() && !next.core(0).lacks_state());
    next.decide(0, "s", 2, "a");
    next.run(500_000);
    assert_eq!(key_seq(&next.answers(0)[0].1), 2, "two that lack the state are in its quorum");
    assert_eq!((*next.core(1).executed(), next.core(1).status().keys), (Frontier::NONE, 0));
    next.request(1, ClientRef::default(), read("a"));
    let refused = next.nodes[1].replies.pop().expect("it is answered").outcome;
    assert_eq!(refused, Err(Failure::Unavailable(Reason::CatchingUp)));
    // The state comes as a snapshot of the new epoch at its beginning.
    next.take_snapshot(0);
    next.restart(2);
    next.ends_well();
    assert!((0..3).all(|id| !next.core(id).lacks_state()));
    assert_eq!(next.core(1).status().keys, 2);
}

#[test]
fn section_9_what_a_member_said_before_it_had_the_state_is_not_held_against_it() {
    let mut old = ended();
    let mut next = old.succeed(&[Some(0), None, None]);
    next.take_snapshot(0);
    next.ends_well();
    assert!((0..3).all(|id| !next.core(id).lacks_state() && next.core(id).executed() == &Frontier::NONE));
    // It comes late, and names the frontier that they all have still (V13).
    for peer in [1, 2] {
        let gossip = PeerMessage::Gossip(Box::default());
        next.deliver(peer, Send { to: ReplicaId(0), message: gossip, payload: None, lazy: false });
    }
    next.ends_well();
}

#[test]
fn section_9_three_members_become_five_and_three_again() {
    let mut three = ended();
    let mut five = three.succeed(&[Some(0), Some(1), Some(2), None, None]);
    // Two lack the state. Their hash is another one at the same frontier, and that says nothing (V13).
    five.run(300_000);
    five.decide(4, "s", 2, "a");
    five.run(300_000);
    let refused = five.nodes[4].replies.pop().expect("it is answered").outcome;
    assert_eq!(refused, Err(Failure::Unavailable(Reason::CatchingUp)));
    (0..3).for_each(|id| five.take_snapshot(id));
    five.ends_well();
    five.decide(4, "s", 2, "a");
    five.settle();
    assert_eq!(key_seq(&five.answers(4)[0].1), 2);
    five.propose_seal(3, OTHER);
    five.settle();
    let ends: Vec<_> = (0..5).map(|id| five.core(id).sealed()).collect();
    assert!(
        ends[0].is_some_and(|end| end.record == OTHER) && ends.iter().all(|end| *end == ends[0]),
        "{ends:?}"
    );
    let mut again = five.succeed(&[Some(4), Some(3), Some(1)]);
    again.decide(0, "s", 2, "a");
    again.settle();
    let [(_, Answer::Committed { id, key_seq: 2 })] = again.answers(0)[..] else { panic!("it was decided") };
    assert_eq!(id.epoch, Epoch(2), "in the epoch before");
    again.ends_well();
}

#[test]
fn section_9_the_next_epoch_outlives_a_crash_before_and_behind_its_first_snapshot() {
    let mut old = ended();
    let mut next = old.succeed(&[Some(0), Some(1), Some(2)]);
    next.decide(0, "s", 2, "a");
    next.settle();
    let hash = next.core(0).state_hash();
    // Its snapshot was not durable: the sealed core is made again from the log of its epoch.
    next.crash(0);
    old.restart(0);
    let core = old.core(0).succeed(Config { epoch: Epoch(2), ..config(3, 0) }, 7);
    next.start_with(0, Some(core));
    assert_eq!(next.core(0).state_hash(), hash);
    next.take_snapshot(0);
    next.restart(0);
    next.settle();
    assert_eq!(next.core(0).state_hash(), hash);
    assert_eq!(next.core(0).status().barrier, old.core(0).status().barrier + 1);
    next.ends_well();
}

#[test]
fn section_9_a_first_snapshot_that_could_not_be_written_is_made_up_for_at_a_barrier() {
    let mut old = ended();
    let mut next = old.succeed(&[Some(0), Some(1), Some(2)]);
    let now = next.now;
    (0..3).for_each(|id| next.core(id).on_snapshot_failed(now));
    next.run(3_000_000);
    let barrier = next.core(0).status().barrier;
    assert!(barrier > old.core(0).status().barrier + 1, "a barrier is proposed: {barrier}");
    next.take_snapshot(0);
    next.restart(0);
    next.ends_well();
}

#[test]
pub(crate) fn b17_a_message_of_another_epoch_is_refused_with_a_hint() {
    let core = Replica::new(Config { epoch: Epoch(4), ..config(3, 0) }, 1);
    assert_eq!(core.check_epoch(Epoch(4)), Ok(()));
    for there in [Epoch(3), Epoch(5)] {
        let hint = core.check_epoch(there).expect_err("it counts for nothing");
        assert!(
            matches!(hint, Refusal::WrongEpoch { here: Epoch(4), there: told } if told == there),
            "{hint}"
        );
    }
}

#[test]
pub(crate) fn section_9_a_record_that_goes_back_is_refused() {
    let of = |epoch, record| Entered { epoch: Epoch(epoch), record };
    let (entered, before) = (of(4, RECORD), RecordId(3));
    assert_eq!(judge(entered, of(4, RECORD), before), Ok(RecordFound::Same));
    assert_eq!(judge(entered, of(5, OTHER), RECORD), Ok(RecordFound::Later));
    assert_eq!(judge(entered, of(7, OTHER), before), Ok(RecordFound::Later), "others lie between");
    let lower = WentBack::Epoch { here: Epoch(4), there: Epoch(3) };
    assert_eq!(judge(entered, of(3, before), before), Err(lower));
    assert_eq!(judge(entered, of(4, OTHER), before), Err(WentBack::Record { epoch: Epoch(4) }));
    assert_eq!(judge(entered, of(5, OTHER), before), Err(WentBack::Predecessor { next: Epoch(5) }));
}

#[test]
fn the_answer_of_a_sealed_request_is_kept_for_its_client() {
    let mut old = ended();
    let reply = old.nodes[1].replies.pop().expect("it was answered");
    let [(_, Answer::Committed { id, .. })] = answers_of(reply)[..] else { panic!("it was decided") };
    assert_eq!(id.epoch, Epoch(1));
}

#[test]
fn b19_what_races_with_a_seal_is_executed_everywhere_or_nowhere() {
    let links = [(0, 1), (0, 2), (1, 0), (1, 2)];
    let mut outcomes = std::collections::BTreeSet::new();
    for heard_first in 0..links.len() {
        for heard_next in (0..links.len()).filter(|link| *link != heard_first) {
            let mut world = World::new(3);
            world.settle();
            world.propose_seal(0, RECORD);
            world.decide(1, "s", 1, "a");
            for link in [heard_first, heard_next] {
                let (from, to) = links[link];
                assert!(world.step(from, to), "each has told the others of its own");
            }
            world.run(1_000_000);
            let ends: Vec<_> = (0..3).map(|id| world.core(id).sealed()).collect();
            assert!(ends[0].is_some() && ends.iter().all(|end| *end == ends[0]), "{ends:?}");
            let reply = world.nodes[1].replies.pop().expect("the client is told something").outcome;
            assert!(reply.is_ok() || reply == Err(Failure::Unknown(ENDED)), "{reply:?}");
            outcomes.insert(reply.is_ok());
            // Whatever became of it, a client that asks again has its decision once.
            let mut next = world.succeed(&[Some(0), Some(1), Some(2)]);
            next.decide(2, "s", 1, "a");
            next.settle();
            assert_eq!(key_seq(&next.answers(2)[0].1), 1);
            let status = next.core(0).status();
            assert_eq!((status.keys, next.hashes().len()), (1, 3));
            next.assert_converged();
        }
    }
    assert_eq!(outcomes.len(), 2, "one order executes it, another makes it void");
}

#[test]
fn b19_the_seal_of_an_abandoned_change_is_told_from_that_of_the_next() {
    let mut world = World::new(3);
    // The change of OTHER was abandoned when its Seal was under way, and the one of RECORD was announced.
    world.propose_seal(0, OTHER);
    world.propose_seal(2, RECORD);
    world.run(1_000_000);
    let first = world.core(0).sealed().expect("the epoch has ended").record;
    assert!((0..3).all(|id| world.core(id).sealed().is_some_and(|end| end.record == first)));
    assert!(first == OTHER || first == RECORD);
    let told: Vec<_> = (0..3).map(|id| world.nodes[id].sealed.len()).collect();
    assert_eq!(told, [1, 1, 1], "the second Seal ends nothing");
}
