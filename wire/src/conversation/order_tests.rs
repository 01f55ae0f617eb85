//! S2 and S4 as a conversation keeps them: the order of commands when replicas fall silent.

use super::config::TICK_US;
use super::rig::*;
use super::*;
use crate::answer::Answers;
use crate::command::Op;
use crate::failure::{Failure, Reason};

/// A rig whose session is open, and frames under way with one command of a key each.
fn in_flight(count: u64) -> (Rig, Vec<Transmit>) {
    let mut rig = Rig::new(|config| config.frame_commands = 1);
    let key = key_of_home(0);
    rig.decide(&key, 0);
    rig.settle();
    (1..=count).for_each(|token| rig.decide(&key, token));
    let frames = rig.sent();
    assert_eq!(frames.len() as u64, count);
    (rig, frames)
}

fn last_value(rig: &Rig) -> String {
    let value = rig.shards[&ShardId(0)].value(&key_of_home(0));
    String::from_utf8(value.expect("it was decided").to_vec()).unwrap()
}

#[test]
fn s2_what_was_sent_to_a_silent_replica_goes_elsewhere_in_its_order_and_nothing_passes_it() {
    let (mut rig, frames) = in_flight(3);
    // The home has only answered the first of them.
    rig.answer(&frames[0]);
    rig.pass(1_000_000 + TICK_US);
    rig.decide(&key_of_home(0), 4);
    let again = rig.sent();
    assert!(again.iter().all(|frame| frame.replica == ReplicaId(1)));
    let payloads: Vec<&Bytes> = again.iter().map(|frame| &frame.payload).collect();
    assert_eq!(payloads[..2], [&frames[1].payload, &frames[2].payload]);
    assert_eq!(again.len(), 3, "the new one comes last");
    again.iter().for_each(|frame| rig.answer(frame));
    assert!((1..=4).all(|token| rig.is_committed(token)));
    // The home wakes up, and its copies come late.
    frames[1..].iter().for_each(|frame| rig.answer(frame));
    assert_eq!(last_value(&rig), "4");
}

#[test]
fn s2_a_request_that_comes_early_goes_again_behind_the_one_before_it() {
    let (mut rig, frames) = in_flight(3);
    rig.answer(&frames[1]);
    rig.answer(&frames[2]);
    assert!(rig.outcomes.len() == 1 && rig.sent().is_empty(), "they wait for the first");
    rig.answer(&frames[0]);
    let again = rig.sent();
    assert_eq!(again.len(), 2);
    again.iter().for_each(|frame| rig.answer(frame));
    assert!((1..=3).all(|token| rig.is_committed(token)));
    assert_eq!(last_value(&rig), "3");
}

#[test]
fn s2_a_refused_request_takes_those_behind_it_along() {
    let (mut rig, frames) = in_flight(3);
    rig.fail(&frames[1], Failure::Unavailable(Reason::CatchingUp));
    assert!(rig.sent().is_empty(), "the first is still under way at the other replica");
    rig.answer(&frames[0]);
    let again = rig.sent();
    let payloads: Vec<&Bytes> = again.iter().map(|frame| &frame.payload).collect();
    assert_eq!(payloads, [&frames[1].payload, &frames[2].payload]);
    again.iter().for_each(|frame| rig.answer(frame));
    assert_eq!(last_value(&rig), "3");
}

#[test]
fn s4_the_end_of_a_session_tells_what_became_of_the_rest() {
    let (mut rig, frames) = in_flight(1);
    rig.pass(2_000_000);
    let key = key_of_home(0);
    // The second goes behind the first, whose answer is lost.
    rig.decide(&key, 2);
    let second = rig.sent().into_iter().find(|frame| look(frame).0[0].1 == 3).unwrap();
    let model = rig.shards.get_mut(&ShardId(0)).unwrap();
    model.execute(&frames[0].payload);
    rig.pass(8_000_000);
    assert_eq!(rig.outcomes[&1], Err(Error::TimedOut));
    let end = rig.sent().into_iter().find(|frame| ops(frame) == [Op::End]).unwrap();
    rig.answer(&end);
    rig.settle();
    assert!(rig.is_committed(2), "it was not executed before the end, so it goes on another session");
    let late = rig.shards.get_mut(&ShardId(0)).unwrap().execute(&second.payload);
    assert!(Answers::parse(late).unwrap().are_expired());
    assert_eq!(rig.shards[&ShardId(0)].decided[&b"2"[..]], 1);
    assert_eq!(last_value(&rig), "2");
}
