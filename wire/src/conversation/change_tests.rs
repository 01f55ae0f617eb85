//! The change of the members, as a conversation keeps S1 and S2 through it.

use super::config::{EPOCH_PAUSE_US, EPOCH_PAUSE_US_MAX, TICK_US};
use super::rig::*;
use super::*;
use crate::answer::{Answer, Answers};
use crate::command::Op;
use crate::failure::{Failure, Reason};
use crate::id::Epoch;

const ENDED: Reason = Reason::EpochEnded { epoch: Epoch(1) };

/// A key that moves from member 0 of three to member 4 of five.
fn moving_key() -> Vec<u8> {
    key_of_homes(&[(3, 0), (5, 4)])
}

/// A rig with the sessions of these keys open, and nothing under way.
fn opened(keys: &[&[u8]]) -> Rig {
    let mut rig = Rig::new(|config| config.frame_commands = 1);
    for (token, key) in (1000..).zip(keys) {
        rig.decide(key, token);
    }
    rig.settle();
    rig
}

fn payloads(frames: &[Transmit]) -> Vec<&Bytes> {
    frames.iter().map(|frame| &frame.payload).collect()
}

#[test]
fn s2_what_is_under_way_at_a_change_goes_to_the_new_members_under_its_numbers() {
    let key = key_of_home(2);
    let mut rig = opened(&[&key]);
    (1..=3).for_each(|token| rig.decide(&key, token));
    let sent = rig.sent();
    // The first was executed in the old epoch, and its answer is lost.
    rig.shards.get_mut(&ShardId(0)).unwrap().execute(&sent[0].payload);
    rig.change(3);
    let again = rig.sent();
    assert_eq!(payloads(&again), payloads(&sent), "in their order, and before any tick");
    assert!(again.iter().all(|frame| frame.replica == ReplicaId(2)));
    again.iter().for_each(|frame| rig.answer(frame));
    let id = |token| match &rig.outcomes[&token] {
        Ok(Answer::Committed { id, .. }) => *id,
        other => panic!("{other:?}"),
    };
    assert_eq!([id(1).epoch, id(2).epoch], [Epoch(1), Epoch(2)], "an answer that is repeated keeps its id");
    assert!(rig.shards[&ShardId(0)].decided.values().all(|times| *times == 1));
}

#[test]
fn s2_a_key_that_moves_to_a_new_member_waits_for_its_earlier_commands() {
    let key = moving_key();
    let mut rig = opened(&[&key]);
    rig.decide(&key, 1);
    let first = rig.one();
    rig.change(5);
    rig.decide(&key, 2);
    let again = rig.sent();
    assert_eq!(again[0].payload, first.payload);
    assert!(again[1..].iter().all(|frame| ops(frame) == [Op::Open]), "the second waits: {again:?}");
    again[1..].iter().for_each(|open| rig.answer(open));
    assert!(rig.sent().is_empty());
    rig.answer(&again[0]);
    let second = rig.one();
    assert_eq!(second.replica, ReplicaId(4), "it goes to the key's new home");
    rig.answer(&second);
    assert!(rig.is_committed(1) && rig.is_committed(2));
    assert_eq!(rig.shards[&ShardId(0)].value(&key).unwrap(), &b"2"[..]);
}

#[test]
fn s2_a_key_waits_for_the_end_of_a_session_in_which_a_command_was_given_up() {
    let key = moving_key();
    let mut rig = opened(&[&key]);
    rig.decide(&key, 1);
    let late = rig.one();
    rig.pass(10_000_000);
    assert_eq!(rig.outcomes[&1], Err(Error::TimedOut));
    rig.change(5);
    rig.decide(&key, 2);
    let sent = rig.sent();
    let (ends, opens): (Vec<_>, Vec<_>) = sent.iter().partition(|frame| ops(frame) == [Op::End]);
    opens.iter().for_each(|open| rig.answer(open));
    assert!(rig.sent().is_empty(), "the first may still be executed");
    rig.answer(ends[0]);
    rig.settle();
    rig.shards.get_mut(&ShardId(0)).unwrap().execute(&late.payload);
    assert_eq!(rig.shards[&ShardId(0)].value(&key).unwrap(), &b"2"[..]);
}

#[test]
fn the_homes_that_an_epoch_lacks_end_their_sessions_and_all_their_commands_are_answered() {
    let key = moving_key();
    let mut rig = opened(&[&key]);
    rig.change(5);
    rig.decide(&key, 1);
    rig.settle();
    rig.decide(&key, 2);
    let sent = rig.one();
    assert_eq!((sent.replica, rig.shards[&ShardId(0)].sessions()), (ReplicaId(4), 2));
    rig.change(3);
    rig.decide(&key, 3);
    rig.settle();
    assert!((1..=3).all(|token| rig.is_committed(token)));
    assert_eq!(rig.shards[&ShardId(0)].value(&key).unwrap(), &b"3"[..]);
    assert_eq!(rig.shards[&ShardId(0)].sessions(), 1, "a home without keys needs no session");
    // It is a home again.
    rig.change(5);
    rig.decide(&key, 4);
    rig.settle();
    assert!(rig.is_committed(4));
    rig.conversation.close();
    rig.settle();
    assert!(rig.conversation.is_closed() && rig.shards[&ShardId(0)].sessions() == 0);
}

#[test]
fn s2_changes_on_the_heels_of_each_other_keep_the_order_of_a_key() {
    let key = moving_key();
    let mut rig = opened(&[&key]);
    let mut first = Vec::new();
    for (token, replicas) in [(1, 5), (2, 3), (3, 5), (4, 2)] {
        rig.decide(&key, token);
        first.extend(rig.sent().into_iter().filter(|frame| ops(frame) == [Op::Decide]));
        rig.change(replicas);
    }
    let payload = &first[0].payload;
    assert!(first.iter().all(|frame| frame.payload == *payload), "only the first may leave");
    rig.settle();
    assert!((1..=4).all(|token| rig.is_committed(token)));
    let order = &rig.shards[&ShardId(0)].orders[&key];
    assert_eq!(order[1..], ["1", "2", "3", "4"].map(|value| value.as_bytes().to_vec()));
}

#[test]
fn requests_of_an_epoch_that_has_ended_are_tried_again_soon_and_then_less_often() {
    let key = key_of_home(0);
    let mut rig = opened(&[&key]);
    let began = rig.now;
    rig.decide(&key, 1);
    // Each time all three say in turn that the epoch has ended.
    let mut tries = Vec::new();
    while rig.now < began + 1_000_000 {
        let sent = rig.sent();
        for frame in &sent {
            tries.push(rig.now - began);
            let failure =
                if tries.len() % 2 == 0 { Failure::Unavailable(ENDED) } else { Failure::Unknown(ENDED) };
            rig.fail(frame, failure);
        }
        if sent.is_empty() {
            rig.pass(TICK_US);
        }
    }
    assert_eq!(tries[..3], [0; 3], "each replica is asked at once");
    assert_eq!(tries[3..6], [EPOCH_PAUSE_US; 3]);
    let longest = tries.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert_eq!(longest, Some(EPOCH_PAUSE_US_MAX));
    // A new connection shows that the next epoch has begun, and nobody waits for the end of a pause.
    rig.change(3);
    rig.settle();
    assert!(rig.is_committed(1));
}

#[test]
fn a_late_answer_counts_and_says_nothing_about_the_present_members() {
    let key = moving_key();
    let mut rig = opened(&[&key]);
    rig.change(5);
    rig.settle();
    rig.decide(&key, 1);
    rig.settle();
    rig.decide(&key, 2);
    let sent = rig.one();
    let response = rig.shards.get_mut(&ShardId(0)).unwrap().execute(&sent.payload);
    // The epoch has ended before the answer comes, and the next one has no member 4.
    rig.change(3);
    let answers = Answers::parse(response).unwrap();
    rig.conversation.on_late_response(sent.tag, answers).unwrap();
    rig.collect();
    assert!(rig.is_committed(2));
    rig.settle();
    assert_eq!(rig.shards[&ShardId(0)].decided[&b"2"[..]], 1);
}

#[test]
fn a_source_goes_on_at_its_new_home_under_its_numbers() {
    let session_of = |name: &SourceName| hash_session(name.session(ShardId(0)));
    let mut names = (0..).map(|n| format!("orders {n}").parse().unwrap());
    let name = names.find(|name| home_of(session_of(name), 9).0 > 2).expect("six of nine homes are new ones");
    let session = session_of(&name);
    let owner = Owner(7);
    let mut rig = Rig::with(Conversation::named(Config::new(3, 1), &name, owner, 1), 1);
    (0..3).for_each(|replica| rig.conversation.on_connected(ReplicaId(replica), ShardId(0)));
    for (number, replicas) in (1..).zip([9, 5, 1, 4]) {
        let action = Action::Decide { key: b"k", value: &[number as u8] };
        rig.conversation.submit_numbered(rig.now, number, &action, number).unwrap();
        rig.attach();
        let sent = rig.one();
        // The answer is lost with the epoch.
        rig.shards.get_mut(&ShardId(0)).unwrap().execute(&sent.payload);
        rig.change(replicas);
        let again = rig.one();
        assert_eq!((again.replica, &again.payload), (home_of(session, replicas), &sent.payload));
        rig.answer(&again);
        assert!(rig.is_committed(number));
    }
    assert!(rig.shards[&ShardId(0)].decided.values().all(|times| *times == 1));
}
