//! Section 9: learners copy the state of an epoch, and are members of the next one.

use crate::support::solo::{
    Solo, accept, accept_ok, ballot, commit, knows_nothing, pre_accept, pre_accept_ok, recover, upto,
    validate,
};
use crate::support::{World, config, decide, id, key_seq, read};
use isonomy_protocol::admission::Admission;
use isonomy_protocol::contract::{ClientRef, Config};
use isonomy_protocol::limits::CLOSE_MAX;
use isonomy_protocol::quorum::Quorum;
use isonomy_protocol::replica::Replica;
use isonomy_wire::deps::Deps;
use isonomy_wire::failure::{Failure, Reason};
use isonomy_wire::id::{Ballot, Epoch, PLACES_MAX, RecordId, ReplicaId};
use isonomy_wire::message::{Gossip, PeerMessage, Value};

const RECORD: RecordId = RecordId(0x5ea1);

fn gossip(gossip: Gossip) -> PeerMessage {
    PeerMessage::Gossip(Box::new(gossip))
}

#[test]
pub(crate) fn section_9_a_learner_answers_no_question_and_begins_nothing() {
    let mut solo = Solo::new(3, 3);
    assert!(solo.core.is_learner() && solo.core.status().is_learner);
    let (new, batch, records) = (id(0, 1), decide("s", 1, 0, "a"), solo.log.len());
    let messages = [
        pre_accept(new, Deps::NONE),
        pre_accept_ok(new, Deps::NONE),
        accept(new, ballot(1, 1), Value::Attached, Deps::NONE),
        accept_ok(new, ballot(1, 3)),
        recover(new, ballot(2, 1)),
        knows_nothing(new, ballot(1, 3)),
        validate(new, ballot(2, 1), Deps::NONE),
        PeerMessage::ValidateOk {
            id: new,
            ballot: ballot(1, 3),
            conflicts: vec![],
            floor: Default::default(),
        },
        PeerMessage::Waiting { id: new, supporters: 2 },
        PeerMessage::Nack { id: new, refused: ballot(1, 3), promised: ballot(2, 1) },
    ];
    let count = messages.len() as u64;
    for message in messages {
        assert_eq!(solo.tell(0, message, Some(&batch)), []);
    }
    assert_eq!((solo.core.status().messages_dropped.as_learner, solo.log.len()), (count, records));
    solo.ask(&batch);
    solo.ask(&read("a"));
    let refused = || Err(Failure::Unavailable(Reason::NotAMember));
    let outcomes: Vec<_> = solo.replies.drain(..).map(|reply| reply.outcome).collect();
    assert_eq!(outcomes, [refused(), refused()]);
    // An instance stays undecided, a coordinator is away, and the log grows.
    solo.tell(1, commit(id(1, 2), Ballot::ZERO, Value::Attached, upto([1, 1])), Some(&batch));
    solo.core.on_links(solo.now, &[ReplicaId(1), ReplicaId(2)]);
    solo.core.propose_barrier(solo.now);
    solo.core.propose_seal(solo.now, RECORD);
    solo.wait(60_000_000);
    assert_eq!(solo.said(), []);
    assert_eq!(solo.core.status().recoveries, 0);
}

#[test]
fn section_9_what_a_learner_says_of_an_instance_counts_for_nothing() {
    let mut solo = Solo::new(3, 0);
    solo.ask(&decide("s", 1, 0, "a"));
    solo.sync();
    let (new, before) = (id(0, 1), solo.core.status().messages_dropped.impossible);
    solo.said();
    for learner in [3, 4] {
        assert_eq!(solo.tell(learner, pre_accept_ok(new, Deps::NONE), None)[..], []);
    }
    assert_eq!((solo.core.status().fast, solo.core.status().messages_dropped.impossible), (0, before + 2));
    solo.tell(PLACES_MAX as u8, gossip(Gossip::default()), None);
    assert_eq!(solo.core.status().messages_dropped.impossible, before + 3, "there is no such place");
    solo.tell(2, pre_accept_ok(new, Deps::NONE), None);
    assert_eq!(solo.core.status().fast, 1);
}

#[test]
fn section_9_learners_are_in_no_quorum() {
    let mut solo = Solo::new(3, 0);
    solo.core.on_links(solo.now, &[3, 4, 5].map(ReplicaId));
    solo.wait(2_000_000);
    solo.ask(&decide("s", 1, 0, "a"));
    let outcome = solo.replies.pop().expect("it is answered").outcome;
    let none = Reason::NoQuorum { linked: 1, replicas: 3, needed: 2 };
    assert_eq!(outcome, Err(Failure::Unavailable(none)));
    // G6: they vouch for nobody.
    let mut admission = Admission::new(Quorum::new(3), ReplicaId(0));
    [3, 4, 5].map(ReplicaId).into_iter().for_each(|learner| admission.on_welcome(learner));
    admission.on_patience_over();
    assert!(!admission.has_quorum() && !admission.is_open());
    // A learner asks as many members as would do without it.
    let mut admission = Admission::new(Quorum::new(3), ReplicaId(3));
    admission.on_welcome(ReplicaId(0));
    assert!(!admission.has_quorum());
    admission.on_welcome(ReplicaId(2));
    admission.on_patience_over();
    assert!(admission.is_open());
}

#[test]
fn section_9_a_learner_holds_back_no_snapshot_and_its_word_is_compared_with_no_member() {
    let mut world = World::new(3);
    let learner = world.join();
    world.decide(0, "s", 1, "a");
    world.run(500_000);
    assert_eq!(world.core(0).status().floor, upto([0]), "it may need them");
    world.barrier(1);
    world.forget(&[0, 1, 2]);
    assert_eq!(world.core(0).status().floor, upto([1, 1]));
    // Two that have gone wrong stop no member.
    let wrong =
        Gossip { executed: upto([1, 1]), barrier: 1, barrier_hash: 7, state_hash: 7, ..Gossip::default() };
    let now = world.now;
    for from in [learner, learner + 1] {
        world.core(0).on_message(now, ReplicaId(from), gossip(wrong.clone()), None);
    }
    // Without learners what all members have executed is forgotten as before.
    world.isolate(learner);
    world.decide(0, "s", 2, "a");
    world.run(500_000);
    assert_eq!(world.core(0).status().floor, upto([2, 1]));
    world.announce(true);
    world.decide(0, "s", 3, "a");
    world.run(500_000);
    assert_eq!(world.core(0).status().floor, upto([2, 1]), "one that is away now may need them");
}

#[test]
fn section_9_a_learner_pulls_what_the_members_decide() {
    let mut world = World::new(3);
    world.announce(true);
    let learner = world.join();
    assert!(!world.core(learner).is_close(), "nobody has said anything");
    for number in 1..=700 {
        world.decide((number % 3) as u8, &format!("s{}", number % 3), 1 + number / 3, "a");
        world.run(5_000);
    }
    world.run(200_000);
    world.assert_converged();
    let status = world.core(learner).status();
    assert_eq!((status.keys, world.core(learner).is_close()), (1, true));
    let voted = world.nodes[3].log.iter().any(|(record, _)| {
        use isonomy_protocol::log::record::Record;
        !matches!(
            record,
            Record::Committed { .. }
                | Record::Reserve { end: 0 }
                | Record::Heard { .. }
                | Record::Floor { .. }
                | Record::Begin { .. }
        )
    });
    assert!(!voted, "it promises and takes nothing");
}

/// Three members that have decided and forgotten, with a snapshot or without.
fn with_a_past(has_snapshot: bool) -> World {
    let mut world = World::new(3);
    for number in 1..=20 {
        world.decide(0, "s", number, "a");
        world.run(10_000);
    }
    if has_snapshot {
        world.barrier(1);
        world.forget(&[0, 1, 2]);
    }
    world.decide(2, "t", 1, "b");
    world.run(500_000);
    assert_eq!(world.core(0).status().floor.0[0], 20);
    world
}

/// Time passes, whoever takes a snapshot finishes it, and whoever needs one gets it.
fn learn(world: &mut World) {
    for _ in 0..4 {
        let up: Vec<u8> = (0..world.n).filter(|id| world.is_up(*id)).collect();
        for id in up.iter().copied().filter(|id| world.core(*id).taking().is_some()).collect::<Vec<_>>() {
            world.take_snapshot(id);
        }
        // It is told by gossip that is repeated now and then.
        world.run(500_000);
        up.iter().for_each(|id| _ = world.fetch_snapshot(*id));
    }
    world.settle();
}

#[test]
fn section_9_a_learner_begins_with_a_snapshot_and_pulls_what_follows() {
    for has_snapshot in [true, false] {
        let mut world = with_a_past(has_snapshot);
        let barriers = world.core(0).status().barrier;
        let learner = world.join();
        world.run(300_000);
        assert!(!world.core(learner).is_close(), "the members have forgotten what it lacks");
        // What they forgot behind the last snapshot is in none, so a member proposes a barrier.
        learn(&mut world);
        world.decide(1, "u", 1, "c");
        world.run(300_000);
        world.assert_converged();
        assert!(world.core(learner).is_close());
        assert_eq!(world.core(learner).status().keys, 3);
        world.run(3_000_000);
        assert_eq!(world.core(0).status().barrier, barriers + 1, "one is enough");
    }
}

/// The first member does not reach etcd.
#[test]
fn g2_another_member_makes_up_for_what_was_forgotten_if_the_first_knows_of_no_change() {
    let mut world = with_a_past(false);
    let barriers = world.core(0).status().barrier;
    world.run(3_000_000);
    assert_eq!(world.core(0).status().barrier, barriers, "nobody needs one");
    [1, 2].into_iter().for_each(|id| world.core(id).on_change(true));
    (0..3).for_each(|_| learn(&mut world));
    assert_eq!(world.core(0).status().barrier, barriers + 1, "one is enough");
}

#[test]
fn section_9_who_is_far_behind_or_hears_no_quorum_is_not_close() {
    let mut solo = Solo::new(3, 3);
    solo.wait(100_000);
    let ahead = |instances| {
        gossip(Gossip { committed: upto([instances]), executed: upto([instances]), ..Gossip::default() })
    };
    solo.tell(0, ahead(CLOSE_MAX), None);
    assert!(!solo.core.is_close(), "one is no quorum");
    solo.tell(1, ahead(0), None);
    assert!(solo.core.is_close());
    solo.tell(1, ahead(CLOSE_MAX + 1), None);
    assert!(!solo.core.is_close());
    let mut member = Solo::new(3, 0);
    assert!(!member.core.is_close(), "it has not heard of itself");
    member.wait(100_000);
    assert!(!member.core.is_close(), "one is no quorum");
    member.tell(2, ahead(0), None);
    assert!(member.core.is_close());
    member.core.on_links(member.now, &[]);
    member.core.on_links(member.now, &[1, 2].map(ReplicaId));
    assert!(!member.core.is_close(), "what was heard before the link was lost is old");
}

#[test]
fn section_9_a_learner_that_starts_again_goes_on() {
    let mut world = with_a_past(true);
    world.announce(true);
    let learner = world.join();
    world.restart(learner);
    learn(&mut world);
    world.restart(learner);
    assert_eq!(world.core(learner).status().keys, 2, "from its snapshot");
    world.crash(learner);
    for number in 21..=30 {
        world.decide(0, "s", number, "a");
        world.run(100_000);
    }
    world.start(learner);
    world.run(500_000);
    world.barrier(0);
    learn(&mut world);
    assert_eq!(world.core(learner).status().snapshot, world.core(0).status().barrier, "it takes its own");
    world.restart(learner);
    world.decide(0, "s", 31, "a");
    world.run(300_000);
    world.assert_converged();
    assert!(world.core(learner).is_close());
}

#[test]
fn section_9_a_learner_that_is_away_at_the_seal_is_sealed_when_it_is_back() {
    let mut world = with_a_past(true);
    world.announce(true);
    let learner = world.join();
    learn(&mut world);
    assert!(world.core(learner).is_close());
    world.crash(learner);
    world.decide(0, "s", 21, "a");
    world.run(1_000_000);
    world.propose_seal(1, RECORD);
    world.run(1_000_000);
    (0..3).for_each(|id| world.restart(id));
    world.start(learner);
    world.catch_up(1_000_000);
    let ends: Vec<_> = (0..4).map(|id| world.core(id).sealed()).collect();
    assert!(ends[0].is_some() && ends.iter().all(|end| *end == ends[0]), "{ends:?}");
    assert_eq!(world.nodes[3].sealed.len(), 1, "it says so once it is durable");
    world.request(learner, ClientRef::default(), read("a"));
    let refused = world.nodes[3].replies.pop().expect("it is answered").outcome;
    assert_eq!(refused, Err(Failure::Unavailable(Reason::EpochEnded { epoch: Epoch(1) })));
}

/// Learners copy the state, the epoch ends, and the next one has these places.
fn change(world: &mut World, learners: u8, places: &[Option<u8>]) -> World {
    world.announce(true);
    let joined: Vec<u8> = (0..learners).map(|_| world.join()).collect();
    learn(world);
    assert!(joined.iter().all(|id| world.core(*id).is_close()));
    world.propose_seal(0, RECORD);
    world.run(500_000);
    let ends: Vec<_> = (0..world.n).map(|id| world.core(id).sealed()).collect();
    assert!(ends[0].is_some() && ends.iter().all(|end| *end == ends[0]), "{ends:?}");
    world.succeed(places)
}

#[test]
fn section_9_learners_are_members_of_the_next_epoch() {
    let mut three = with_a_past(true);
    let mut five = change(&mut three, 2, &[0, 1, 2, 3, 4].map(Some));
    // The members that were learners take part at once: three of five are enough for a decision.
    five.isolate(0);
    five.isolate(1);
    for (id, number) in [(3, 21), (4, 22)] {
        five.decide(id, "s", number, "a");
        five.run(300_000);
        assert_eq!(key_seq(&five.answers(id)[0].1), number);
    }
    five.rejoin();
    five.run(500_000);
    // One of three is replaced.
    let mut three = with_a_past(true);
    let mut replaced = change(&mut three, 1, &[Some(3), Some(1), Some(2)]);
    replaced.decide(0, "s", 21, "a");
    replaced.settle();
    assert_eq!(key_seq(&replaced.answers(0)[0].1), 21);
    (0..3).for_each(|id| replaced.take_snapshot(id));
    replaced.restart(0);
    replaced.ends_well();
    // In the next change, of an epoch behind the first, a learner has nothing at first.
    replaced.announce(true);
    let learner = replaced.join();
    assert!(replaced.core(learner).lacks_state() && !replaced.core(learner).is_close());
    replaced.restart(learner);
    learn(&mut replaced);
    assert!(replaced.core(learner).is_close());
    replaced.assert_converged();
}

#[test]
fn section_9_a_learner_may_have_any_place_behind_nine_members() {
    for place in [9, PLACES_MAX as u8 - 1] {
        let mut solo = Solo::new(9, place);
        let batch = decide("s", 1, 0, "a");
        solo.tell(4, commit(id(8, 1), Ballot::ZERO, Value::Attached, Deps::NONE), Some(&batch));
        solo.restart();
        assert_eq!((solo.core.status().keys, solo.core.executed().of(ReplicaId(8))), (1, 1));
        solo.core.on_stop(solo.now);
        solo.sync();
        assert!(solo.core.is_idle());
        solo.restart();
        assert_eq!(solo.core.status().keys, 1);
    }
    let beyond = || Replica::new(Config { replica: ReplicaId(PLACES_MAX as u8), ..config(9, 0) }, 1);
    assert!(std::panic::catch_unwind(beyond).is_err(), "there is no such place");
}
