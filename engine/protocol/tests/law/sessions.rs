//! S1 to S5, as clients of a small cluster see them.

use crate::support::*;
use isonomy_protocol::contract::ClientRef;
use isonomy_protocol::payload::Payload;
use isonomy_wire::answer::Answer;
use isonomy_wire::command::{Numbering, RequestBuilder};
use isonomy_wire::id::{SessionId, ShardId};
use isonomy_wire::source::{Owner, SourceName, Standing};

/// Asks one replica, lets everything happen, and gives the answers.
fn asked(world: &mut World, id: u8, payload: Payload) -> Vec<Answer> {
    world.request(id, ClientRef { connection: 1, tag: 1 }, payload);
    world.run(100_000);
    world.answers(id).into_iter().map(|(_, answer)| answer).collect()
}

fn request(session: SessionId, first: u64, fill: impl FnOnce(&mut RequestBuilder)) -> Payload {
    let mut builder = RequestBuilder::default();
    fill(&mut builder);
    parse(builder.encode(session, Numbering::at(first)))
}

fn open(world: &mut World, id: u8) -> SessionId {
    match asked(world, id, request(SessionId::NONE, 0, RequestBuilder::open))[..] {
        [Answer::Opened { session }] => session,
        ref other => panic!("{other:?}"),
    }
}

fn write(session: SessionId, number: u64) -> Payload {
    request(session, number, |builder| builder.decide(b"k", b"v").expect("it fits"))
}

#[test]
pub(crate) fn s1_one_number_through_two_replicas_executes_once() {
    // B18: without the session in the footprint each of the two executes what it sees first.
    let mut world = World::new(3);
    world.decide(0, "s", 1, "a");
    world.decide(1, "s", 1, "b");
    world.run(500_000);
    let (left, right) = (world.answers(0), world.answers(1));
    assert_eq!(left, right);
    assert_eq!(world.core(2).status().keys, 1);
    world.assert_converged();
}

#[test]
fn s1_nobody_executes_a_session_before_its_open() {
    // Replica 2 misses the Open, and hears of the session's first command through another row.
    let mut world = World::new(3);
    world.settle();
    world.isolate(2);
    let session = open(&mut world, 0);
    world.rejoin();
    world.isolate(0);
    world.request(1, ClientRef { connection: 1, tag: 2 }, write(session, 1));
    world.run(5_000_000);
    let answers: Vec<u64> = world.answers(1).iter().map(|(_, answer)| key_seq(answer)).collect();
    assert_eq!(answers, [1]);
    world.rejoin();
    world.run(5_000_000);
    world.assert_converged();
}

#[test]
fn s2_a_retry_elsewhere_gets_the_same_answer() {
    let mut world = World::new(3);
    let first = asked(&mut world, 0, decide("s", 1, 0, "a"));
    assert_eq!(asked(&mut world, 1, decide("s", 1, 0, "a")), first);
    assert_eq!(asked(&mut world, 2, decide("s", 2, 0, "a")).iter().map(key_seq).collect::<Vec<_>>(), [2]);
}

#[test]
fn s2_a_retry_while_the_first_copy_is_recovered_executes_once() {
    // B20: both copies commit.
    let mut world = World::new(3);
    world.settle();
    world.decide(0, "s", 1, "a");
    world.step(0, 1);
    world.isolate(0);
    world.sync(0);
    world.decide(1, "s", 1, "a");
    world.run(5_000_000);
    let retried = world.answers(1);
    assert_eq!(retried.len(), 1);
    world.rejoin();
    world.run(5_000_000);
    assert_eq!(world.answers(0), retried);
    let copies = [id(0, 1), id(1, 1)].map(|id| world.ghost.decisions[&id].nop);
    assert_eq!(copies, [false, false], "the story is that both commit");
    assert_eq!(key_seq(&retried[0].1), 1);
    world.assert_converged();
}

#[test]
pub(crate) fn s2_a_number_ahead_of_the_next_is_refused_the_same_everywhere() {
    let mut world = World::new(3);
    assert_eq!(asked(&mut world, 0, decide("s", 2, 0, "a")), [Answer::Early]);
    assert_eq!(asked(&mut world, 1, decide("s", 1, 0, "a")).iter().map(key_seq).collect::<Vec<_>>(), [1]);
    assert_eq!(asked(&mut world, 2, decide("s", 2, 0, "a")).iter().map(key_seq).collect::<Vec<_>>(), [2]);
    world.assert_converged();
}

/// B27: the coordinator of the earlier command is lost before anybody else has it; the later one is sent
/// to another replica.
#[test]
fn s2_a_later_command_does_not_pass_one_that_is_lost() {
    let mut world = World::new(3);
    world.settle();
    world.isolate(0);
    world.decide(0, "s", 1, "a");
    world.sync(0);
    assert_eq!(asked(&mut world, 1, decide("s", 2, 0, "a")), [Answer::Early]);
    world.rejoin();
    world.run(5_000_000);
    assert_eq!(world.answers(0).iter().map(|(_, answer)| key_seq(answer)).collect::<Vec<_>>(), [1]);
    assert_eq!(asked(&mut world, 2, decide("s", 2, 0, "a")).iter().map(key_seq).collect::<Vec<_>>(), [2]);
    world.assert_converged();
}

#[test]
fn s4_an_end_says_where_its_session_stood() {
    let mut world = World::new(3);
    let session = open(&mut world, 1);
    asked(&mut world, 1, write(session, 1));
    assert_eq!(asked(&mut world, 2, request(session, 7, RequestBuilder::end)), [Answer::Ended { low: 2 }]);
    assert_eq!(asked(&mut world, 1, write(session, 2)), [Answer::Expired], "it never happens any more");
    world.assert_converged();
}

#[test]
fn s3_answers_that_arrived_are_dropped() {
    let mut world = World::new(3);
    asked(&mut world, 0, decide("s", 1, 0, "a"));
    asked(&mut world, 0, decide("s", 2, 2, "a"));
    assert_eq!(asked(&mut world, 1, decide("s", 1, 0, "a")), [Answer::Duplicate]);
    world.assert_converged();
}

#[test]
fn s4_a_session_is_named_by_its_open_and_ends_for_good() {
    let mut world = World::new(3);
    let session = open(&mut world, 1);
    assert_ne!(session, open(&mut world, 1), "a doubled Open makes a second session");
    assert_eq!(asked(&mut world, 1, write(session, 1)).iter().map(key_seq).collect::<Vec<_>>(), [1]);
    assert_eq!(asked(&mut world, 1, request(session, 2, RequestBuilder::end)), [Answer::Ended { low: 2 }]);
    assert_eq!(asked(&mut world, 2, write(session, 1)), [Answer::Expired], "B20, against an End");
    assert_eq!(asked(&mut world, 1, write(session, 3)), [Answer::Expired]);
    world.assert_converged();
}

#[test]
pub(crate) fn s4_an_idle_session_ends_and_a_used_one_does_not() {
    let mut world = World::new(3);
    let (idle, used) = (open(&mut world, 0), open(&mut world, 0));
    for number in 1..14 {
        for _ in 0..50 {
            world.pass(1_000_000);
            world.settle();
        }
        asked(&mut world, 0, write(used, number));
    }
    assert_eq!(asked(&mut world, 0, write(idle, 1)), [Answer::Expired]);
    assert!(matches!(asked(&mut world, 0, write(used, 14))[..], [Answer::Committed { key_seq: 14, .. }]));
    world.assert_converged();
}

#[test]
fn s5_named_sessions_need_no_open_and_may_skip() {
    let mut world = World::new(3);
    let session = SessionId::named("topic/0");
    let skipping = request(session, 1, |builder| {
        builder.skip(1000).expect("it is short");
        builder.decide(b"k", b"v").expect("it fits");
    });
    let answers = asked(&mut world, 0, skipping);
    assert!(matches!(answers[..], [Answer::Done, Answer::Committed { key_seq: 1, .. }]));
    assert_eq!(asked(&mut world, 2, write(session, 1002)).iter().map(key_seq).collect::<Vec<_>>(), [2]);
    world.assert_converged();
}

fn daily() -> SourceName {
    "daily".parse().expect("it is a name")
}

fn attach(world: &mut World, id: u8, expected: u64, owner: u64) -> Standing {
    let name = daily();
    let asks = request(name.session(ShardId(0)), 0, |builder| {
        builder.attach(Owner(expected), Owner(owner), &name);
    });
    match &asked(world, id, asks)[..] {
        [Answer::Standing(standing)] => (**standing).clone(),
        other => panic!("{other:?}"),
    }
}

fn line(number: u64, owner: u64) -> Payload {
    request(daily().session(ShardId(0)), number, |builder| {
        builder.decide(b"k", format!("{number} by {owner}").as_bytes()).expect("it fits");
        builder.owned_by(Owner(owner));
    })
}

/// B28: the process before was cut off, not dead.
#[test]
pub(crate) fn s5_whoever_attaches_fences_who_was_there() {
    let mut world = World::new(3);
    assert_eq!(attach(&mut world, 0, 0, 1).low(), 1);
    assert_eq!(asked(&mut world, 0, line(1, 1)).iter().map(key_seq).collect::<Vec<_>>(), [1]);
    // What the old process sends last is under way at one replica while the new one attaches at another.
    world.settle();
    world.isolate(0);
    world.request(0, ClientRef { connection: 1, tag: 1 }, line(2, 1));
    let standing = attach(&mut world, 1, 1, 2);
    assert_eq!((standing.owner, standing.low()), (Owner(2), 2));
    world.rejoin();
    world.run(5_000_000);
    let late: Vec<Answer> = world.answers(0).into_iter().map(|(_, answer)| answer).collect();
    assert_eq!(late, [Answer::Fenced]);
    assert_eq!(asked(&mut world, 2, line(2, 2)).iter().map(key_seq).collect::<Vec<_>>(), [2]);
    assert_eq!(asked(&mut world, 2, line(3, 1)), [Answer::Fenced]);
    world.assert_converged();
}

fn paid(number: u64, value: &[u8]) -> Payload {
    request(SessionId::keyed(b"payment 17"), number, |builder| builder.decide(b"k", value).expect("it fits"))
}

/// S6: copies at all replicas, one of which is cut off with its own.
#[test]
fn s6_a_command_with_an_idempotency_key_takes_effect_once_wherever_it_is_repeated() {
    let mut world = World::new(3);
    world.settle();
    world.isolate(0);
    world.request(0, ClientRef { connection: 1, tag: 1 }, paid(40, b"v"));
    let first = asked(&mut world, 1, paid(40, b"v"));
    assert!(matches!(first[..], [Answer::Committed { key_seq: 1, .. }]), "{first:?}");
    assert_eq!(asked(&mut world, 2, paid(40, b"v")), first);
    world.rejoin();
    world.run(5_000_000);
    let late: Vec<Answer> = world.answers(0).into_iter().map(|(_, answer)| answer).collect();
    assert_eq!(late, first, "the copy that was cut off has the first answer");
    assert_eq!(asked(&mut world, 0, paid(39, b"w")), [Answer::Duplicate]);
    assert_eq!(asked(&mut world, 0, paid(41, b"x")), [Answer::Duplicate]);
    world.assert_converged();
}

#[test]
fn s6_an_idempotency_key_is_forgotten_an_hour_after_its_last_use() {
    let mut world = World::new(3);
    let quarters = |world: &mut World, count: u32| {
        for _ in 0..count {
            world.pass(900_000_000);
            world.settle();
        }
    };
    let first = asked(&mut world, 0, paid(40, b"v"));
    quarters(&mut world, 3);
    assert_eq!(asked(&mut world, 1, paid(40, b"v")), first);
    quarters(&mut world, 3);
    assert_eq!(asked(&mut world, 2, paid(40, b"v")), first, "its hour begins with each use");
    quarters(&mut world, 6);
    let anew = asked(&mut world, 0, paid(40, b"v"));
    // The home's own End has its answer, too.
    assert!(matches!(anew[..], [.., Answer::Committed { key_seq: 2, .. }]), "{anew:?}");
    world.assert_converged();
}

#[test]
fn s5_a_source_is_ended_when_it_was_idle_for_long() {
    let mut world = World::new(3);
    attach(&mut world, 0, 0, 1);
    asked(&mut world, 0, line(1, 1));
    let month = 30 * 24 * 3_600_000_000u64;
    for _ in 0..40 {
        world.pass(month / 32);
        world.settle();
    }
    assert_eq!(world.core(1).status().sources, 0);
    assert_eq!(asked(&mut world, 1, line(2, 1)), [Answer::Expired]);
    world.assert_converged();
}
