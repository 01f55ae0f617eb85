use super::config::{TICK_US, UNANSWERED_MAX};
use super::rig::*;
use super::*;
use crate::answer::{Answer, Answers, ResponseBuilder};
use crate::command::{Op, VALUE_BYTES_MAX};
use crate::failure::{Failure, Reason};
use crate::id::{Epoch, InstanceId};

#[test]
fn commands_go_to_the_home_of_their_key_or_round() {
    let mut rig = Rig::with(Conversation::new(Config::new(3, 4)), 4);
    for shard in 0..4 {
        (0..3).for_each(|replica| rig.conversation.on_connected(ReplicaId(replica), ShardId(shard)));
    }
    for key in 0..200u32 {
        rig.decide(&key.to_le_bytes(), key.into());
    }
    rig.settle();
    assert_eq!(rig.outcomes.len(), 200);
    for key in 0..200u32 {
        let key = key.to_le_bytes();
        let home = home_of(hash_key(&key), 3);
        rig.decide(&key, u64::from_le_bytes([1; 8]));
        let transmit = rig.one();
        assert_eq!((transmit.replica, transmit.shard), (home, shard_of(hash_key(&key), 4)));
        rig.answer(&transmit);
        rig.outcomes.clear();
    }
    let mut rig = Rig::new(|config| config.routing = Routing::Any);
    (0..6).for_each(|token| rig.decide(b"same", token));
    let mut replicas: Vec<u8> = rig.sent().iter().map(|transmit| transmit.replica.0).collect();
    replicas.sort_unstable();
    assert_eq!(replicas, [0, 1, 2]);
}

#[test]
fn a_session_is_opened_before_its_first_command() {
    let mut rig = Rig::new(|_| ());
    rig.decide(b"k", 7);
    let open = rig.one();
    assert_eq!(ops(&open), [Op::Open]);
    rig.decide(b"k", 8);
    assert!(rig.sent().is_empty());
    rig.answer(&open);
    let frame = rig.one();
    assert_eq!(look(&frame).0, [(Op::Decide, 1, 1), (Op::Decide, 2, 1)]);
    rig.answer(&frame);
    assert!(rig.is_committed(7) && rig.is_committed(8));
    assert_eq!(rig.conversation.outstanding(), 0);
    assert_eq!(rig.conversation.next_deadline(), None);
}

#[test]
fn commands_gather_while_something_is_under_way_and_full_frames_leave_at_once() {
    let mut rig = Rig::new(|config| config.frame_commands = 4);
    rig.decide(b"k", 0);
    rig.settle();
    rig.decide(b"k", 1);
    let first = rig.one();
    (2..5).for_each(|token| rig.decide(b"k", token));
    assert!(rig.sent().is_empty(), "three of four gather");
    rig.decide(b"k", 5);
    assert_eq!(ops(&rig.one()).len(), 4);
    rig.decide(b"k", 6);
    rig.answer(&first);
    assert!(rig.sent().is_empty(), "a frame is still under way");
}

#[test]
fn s3_answered_below_is_the_oldest_number_without_an_answer() {
    let mut rig = Rig::new(|config| config.frame_commands = 1);
    rig.decide(b"k", 0);
    rig.settle();
    (1..4).for_each(|token| rig.decide(b"k", token));
    let frames = rig.sent();
    assert!(frames.iter().all(|frame| look(frame).2 == 2));
    let answer =
        |rig: &mut Rig, frame: &Transmit| rig.shards.get_mut(&frame.shard).unwrap().execute(&frame.payload);
    let answers: Vec<Bytes> = frames.iter().map(|frame| answer(&mut rig, frame)).collect();
    rig.give(&frames[1], answers[1].clone());
    rig.decide(b"k", 4);
    assert_eq!(look(&rig.one()).2, 2, "number 2 has no answer yet");
    rig.give(&frames[0], answers[0].clone());
    rig.decide(b"k", 5);
    assert_eq!(look(&rig.one()).2, 4);
}

#[test]
fn frames_in_flight_and_unanswered_numbers_are_bounded() {
    let mut rig = Rig::new(|config| (config.frame_commands, config.frames_in_flight) = (1, 3));
    rig.decide(b"k", 0);
    rig.settle();
    (1..10).for_each(|token| rig.decide(b"k", token));
    let frames = rig.sent();
    assert_eq!(frames.len(), 3);
    rig.answer(&frames[0]);
    assert_eq!(rig.sent().len(), 1);

    let mut rig = Rig::new(|config| {
        config.frame_commands = FRAME_COMMANDS_MAX;
        config.frame_bytes = 1 << 22;
        config.commands_max = 1 << 20;
    });
    rig.decide(b"k", 0);
    rig.settle();
    (1..=4 * FRAME_COMMANDS_MAX as u64).for_each(|token| rig.decide(b"k", token));
    let frames = rig.sent();
    assert_eq!(frames.len(), (UNANSWERED_MAX / FRAME_COMMANDS_MAX as u64) as usize);
    frames.iter().for_each(|frame| rig.answer(frame));
    rig.settle();
    assert_eq!(rig.outcomes.len(), 4 * FRAME_COMMANDS_MAX + 1);
}

#[test]
fn what_is_outstanding_is_bounded_until_outcomes_are_polled() {
    let mut rig = Rig::new(|config| config.commands_max = 2);
    rig.decide(b"k", 0);
    rig.decide(b"k", 1);
    let third = Action::Read { key: b"k" };
    assert_eq!(rig.conversation.submit(1, &third, 2), Err(SubmitError::Full));
    rig.settle();
    assert_eq!(rig.conversation.submit(1, &third, 2), Ok(()));
    let mut rig = Rig::new(|config| config.bytes_max = 1000);
    let large = vec![0; 2000];
    let large = Action::Decide { key: b"k", value: &large };
    assert_eq!(rig.conversation.submit(1, &large, 0), Ok(()), "one command of any legal size");
    assert_eq!(rig.conversation.submit(1, &large, 1), Err(SubmitError::Full));
}

#[test]
fn wrong_commands_are_refused_and_leave_nothing_behind() {
    let mut rig = Rig::new(|_| ());
    let value = vec![0; VALUE_BYTES_MAX + 1];
    let wrong = [Action::Read { key: b"" }, Action::Decide { key: b"k", value: &value }];
    for action in wrong {
        assert!(matches!(rig.conversation.submit(1, &action, 0), Err(SubmitError::Invalid(_))));
    }
    assert_eq!(rig.conversation.outstanding(), 0);
    assert!(rig.sent().is_empty());
    let largest = Action::Decide { key: b"k", value: &value[1..] };
    (0..3).for_each(|token| rig.conversation.submit(1, &largest, token).unwrap());
    rig.settle();
    assert!((0..3).all(|token| rig.is_committed(token)));
}

#[test]
fn reads_travel_alone_and_wait_for_no_session() {
    let mut rig = Rig::new(|_| ());
    rig.conversation.submit(1, &Action::Read { key: b"k" }, 0).unwrap();
    rig.decide(b"k", 1);
    let sent = rig.sent();
    assert_eq!(sent.iter().map(ops).collect::<Vec<_>>(), [[Op::Open], [Op::Read]]);
    sent.iter().for_each(|transmit| rig.answer(transmit));
    rig.settle();
    assert_eq!(rig.outcomes[&0], Ok(Answer::Missing));
    rig.conversation.submit(1, &Action::DecideIf { key: b"k", value: b"2", expected: 1 }, 2).unwrap();
    rig.conversation.submit(1, &Action::Delete { key: b"k" }, 3).unwrap();
    rig.settle();
    assert!(rig.is_committed(2));
    assert!(matches!(rig.outcomes[&3], Ok(Answer::Deleted { key_seq: 2, .. })));
}

#[test]
fn values_that_did_not_fit_are_asked_for_again() {
    let mut rig = Rig::new(|config| config.frames_in_flight = 1);
    let value = vec![b'v'; VALUE_BYTES_MAX];
    let keys: Vec<Vec<u8>> = (0..20u8).map(|n| vec![n]).collect();
    for (token, key) in (0..).zip(&keys) {
        rig.conversation.submit(1, &Action::Decide { key, value: &value }, token).unwrap();
        rig.settle();
    }
    // All reads but the first of a home share one frame.
    for (token, key) in (100..).zip(&keys) {
        rig.conversation.submit(1, &Action::Read { key }, token).unwrap();
    }
    rig.settle();
    for token in 100..120 {
        let found =
            matches!(&rig.outcomes[&token], Ok(Answer::Found { value: found, .. }) if *found == value);
        assert!(found, "token {token}");
    }
    assert_eq!(rig.conversation.outstanding(), 0);
}

#[test]
fn a_lost_connection_sends_the_same_bytes_to_the_next_replica() {
    let mut rig = Rig::new(|_| ());
    let key = key_of_home(1);
    rig.decide(&key, 0);
    rig.settle();
    rig.decide(&key, 1);
    let first = rig.one();
    assert_eq!(first.replica, ReplicaId(1));
    rig.conversation.on_disconnected(ReplicaId(1), ShardId(0));
    let second = rig.one();
    assert_eq!(second.replica, ReplicaId(2));
    assert_eq!((second.tag, &second.payload), (first.tag, &first.payload));
    rig.conversation.on_disconnected(ReplicaId(2), ShardId(0));
    rig.conversation.on_disconnected(ReplicaId(0), ShardId(0));
    assert!(rig.sent().is_empty());
    rig.conversation.on_connected(ReplicaId(0), ShardId(0));
    let third = rig.one();
    assert_eq!((third.replica, &third.payload), (ReplicaId(0), &first.payload));
    rig.answer(&third);
    rig.answer(&first);
    assert!(rig.is_committed(1));
    assert_eq!(rig.shards[&ShardId(0)].decided[&b"1"[..]], 1);
    rig.conversation.on_connected(ReplicaId(1), ShardId(0));
    rig.decide(&key, 2);
    assert_eq!(rig.one().replica, ReplicaId(1), "new commands return to the home");
}

#[test]
fn a_connection_that_made_room_is_made_again_when_it_is_wanted() {
    let mut rig = Rig::new(|_| ());
    let shard = ShardId(0);
    let woken = |rig: &mut Rig| -> Vec<u8> {
        std::iter::from_fn(|| rig.conversation.poll_wake()).map(|(replica, _)| replica.0).collect()
    };
    rig.decide(&key_of_home(1), 0);
    rig.settle();
    (0..3).for_each(|replica| rig.conversation.on_yielded(ReplicaId(replica), shard));
    assert!(rig.sent().is_empty() && woken(&mut rig).is_empty(), "nobody has anything to ask");
    // The replica that takes the place of the home is asked until the home is back, and no other replica is.
    rig.conversation.on_connected(ReplicaId(2), shard);
    rig.decide(&key_of_home(1), 1);
    let elsewhere = rig.one();
    assert_eq!((elsewhere.replica, woken(&mut rig)), (ReplicaId(2), vec![1]));
    rig.decide(&key_of_home(1), 2);
    rig.answer(&elsewhere);
    assert_eq!((rig.one().replica, woken(&mut rig)), (ReplicaId(2), vec![]), "each is named once");
    // Requests under way when the replica left go elsewhere. Where no replica is connected, all are wanted.
    rig.conversation.on_yielded(ReplicaId(2), shard);
    assert!(rig.sent().is_empty());
    assert_eq!(woken(&mut rig), [2, 0]);
    rig.conversation.on_connected(ReplicaId(0), shard);
    rig.settle();
    assert!(rig.is_committed(1) && rig.is_committed(2));
}

#[test]
fn a_silent_replica_is_avoided_until_it_speaks() {
    let mut rig = Rig::new(|_| ());
    let key = key_of_home(0);
    rig.decide(&key, 0);
    rig.settle();
    rig.decide(&key, 1);
    let first = rig.one();
    rig.pass(999_999);
    assert!(rig.sent().is_empty());
    rig.pass(TICK_US);
    let second = rig.one();
    assert_eq!((second.replica, &second.payload), (ReplicaId(1), &first.payload));
    rig.answer(&second);
    rig.decide(&key, 2);
    let third = rig.one();
    assert_eq!(third.replica, ReplicaId(1));
    // Its late answer changes only the opinion of this replica.
    rig.decide(&key, 3);
    rig.answer(&third);
    rig.conversation.on_disconnected(ReplicaId(1), ShardId(0));
    assert_eq!(rig.one().replica, ReplicaId(2));
    assert_eq!(rig.outcomes.len(), 3);
}

fn overloaded(retry_after_ms: u32) -> Failure {
    Failure::Overloaded { retry_after_ms, reason: Reason::SessionsFull { max: 1 } }
}

#[test]
fn an_overloaded_replica_is_left_for_the_next_one_and_asked_again_after_its_pause() {
    let mut rig = Rig::new(|_| ());
    let key = key_of_home(1);
    rig.decide(&key, 0);
    rig.settle();
    rig.decide(&key, 1);
    let first = rig.one();
    rig.fail(&first, overloaded(20));
    let second = rig.one();
    assert_eq!((second.replica, second.tag, &second.payload), (ReplicaId(2), first.tag, &first.payload));
    rig.answer(&second);
    assert!(rig.is_committed(1), "nothing but another replica was needed");
    rig.conversation.submit(rig.now, &Action::Read { key: &key }, 2).unwrap();
    let read = rig.one();
    assert_eq!(read.replica, ReplicaId(1), "reads make no log grow");
    rig.answer(&read);
    rig.decide(&key, 3);
    let third = rig.one();
    assert_eq!(third.replica, ReplicaId(2), "the pause goes on");
    rig.answer(&third);
    rig.pass(20_000);
    rig.decide(&key, 4);
    let home = rig.one();
    assert_eq!(home.replica, ReplicaId(1), "new commands return to the home");
    rig.answer(&home);
    assert_eq!(rig.outcomes.len(), 5);
}

#[test]
fn when_all_replicas_are_overloaded_the_first_whose_pause_ends_is_asked() {
    let mut rig = Rig::new(|_| ());
    let key = key_of_home(0);
    rig.decide(&key, 0);
    rig.settle();
    rig.decide(&key, 1);
    for retry_after_ms in [60_000, 20, 60_000] {
        let sent = rig.one();
        rig.fail(&sent, overloaded(retry_after_ms));
    }
    rig.pass(19_999);
    assert!(rig.sent().is_empty());
    rig.pass(TICK_US);
    let again = rig.one();
    assert_eq!(again.replica, ReplicaId(1));
    rig.fail(&again, overloaded(60_000));
    rig.pass(10_000_000);
    let Err(Error::NotTaken { why: NotTaken::Refused { failure, .. }, .. }) = &rig.outcomes[&1] else {
        panic!("{:?}", rig.outcomes)
    };
    assert!(matches!(failure, Failure::Overloaded { reason: Reason::SessionsFull { .. }, .. }), "{failure}");
}

#[test]
fn a_cluster_that_is_overloaded_as_a_whole_is_asked_no_more_often_for_that() {
    let mut rig = Rig::new(|config| config.frame_commands = 1);
    (0..3).for_each(|home| rig.decide(&key_of_home(home), home.into()));
    rig.settle();
    for token in 10..40 {
        rig.decide(&key_of_home((token % 3) as u8), token);
    }
    let mut frames = 0;
    for _ in 0..600 {
        for sent in rig.sent() {
            frames += 1;
            rig.fail(&sent, overloaded(100));
        }
        rig.pass(TICK_US);
    }
    // 900 frames would come if each of the 30 went to its home alone, every 100 ms for 3 s.
    assert!(frames < 900 / 5, "{frames} frames");
    rig.settle();
    (0..3).for_each(|_| {
        rig.pass(1_000_000);
        rig.settle();
    });
    assert!((10..40).all(|token| rig.is_committed(token)));
}

#[test]
fn a_session_that_one_replica_has_no_room_for_is_opened_at_another() {
    let mut rig = Rig::new(|_| ());
    let key = key_of_home(0);
    rig.decide(&key, 0);
    let open = rig.one();
    rig.fail(&open, overloaded(1000));
    let open = rig.one();
    assert_eq!((open.replica, ops(&open)), (ReplicaId(1), vec![Op::Open]));
    rig.answer(&open);
    assert_eq!(rig.one().replica, ReplicaId(0), "what limits sessions does not limit the rest");
}

/// Ticks for so long. Returns the connections that were given up meanwhile.
fn tick(rig: &mut Rig, micros: u64) -> Vec<ReplicaId> {
    let mut resets = Vec::new();
    for _ in 0..micros / TICK_US {
        rig.pass(TICK_US);
        resets.extend(std::iter::from_fn(|| rig.conversation.poll_reset()).map(|(replica, _)| replica));
    }
    resets
}

#[test]
fn a_connection_that_died_in_silence_costs_one_stall_and_is_made_anew() {
    let mut rig = Rig::new(|_| ());
    let (key, shard) = (key_of_home(0), ShardId(0));
    rig.decide(&key, 0);
    rig.settle();
    rig.decide(&key, 1);
    assert_eq!(rig.one().replica, ReplicaId(0));
    assert_eq!(tick(&mut rig, 1_010_000), []);
    let second = rig.one();
    assert_eq!(second.replica, ReplicaId(1), "the one stall");
    rig.answer(&second);
    assert!(rig.conversation.next_deadline().is_some(), "somebody has to notice");
    let mut token = 2;
    let mut resets = Vec::new();
    for _ in 0..900 {
        rig.decide(&key, token);
        let sent = rig.one();
        assert_ne!(sent.replica, ReplicaId(0), "nothing came from it since");
        rig.answer(&sent);
        assert!(rig.is_committed(token));
        resets.extend(tick(&mut rig, 1_000_000));
        token += 1;
    }
    assert_eq!(resets, [ReplicaId(0)]);
    // The loss of the connection is reported as well, and then the connection is there again.
    rig.conversation.on_disconnected(ReplicaId(0), shard);
    rig.conversation.on_connected(ReplicaId(0), shard);
    rig.decide(&key, token);
    let home = rig.one();
    assert_eq!(home.replica, ReplicaId(0));
    rig.answer(&home);
    assert_eq!(tick(&mut rig, 10_000_000), []);
    assert_eq!(rig.conversation.next_deadline(), None);
}

#[test]
fn a_connection_on_which_bytes_come_is_slow_and_not_dead() {
    let mut rig = Rig::new(|_| ());
    let key = key_of_home(0);
    rig.decide(&key, 0);
    rig.settle();
    rig.decide(&key, 1);
    let slow = rig.one();
    for _ in 0..20 {
        assert_eq!(tick(&mut rig, 400_000), []);
        rig.conversation.on_heard(ReplicaId(0), ShardId(0));
        // The other replicas lose all requests that they are sent, and their connections do not last.
        rig.sent();
        (1..3).for_each(|replica| rig.conversation.on_disconnected(ReplicaId(replica), ShardId(0)));
        (1..3).for_each(|replica| rig.conversation.on_connected(ReplicaId(replica), ShardId(0)));
    }
    rig.answer(&slow);
    assert!(rig.is_committed(1));
}

#[test]
fn a_conversation_that_stood_still_itself_blames_nobody() {
    let mut rig = Rig::new(|_| ());
    rig.decide(b"k", 0);
    let open = rig.one();
    rig.pass(5_000_000);
    assert_eq!(rig.conversation.poll_reset(), None);
    rig.answer(&open);
    rig.settle();
    assert!(rig.is_committed(0));
}

#[test]
fn an_unavailable_replica_is_left_for_the_next_one() {
    let mut rig = Rig::new(|_| ());
    rig.decide(b"k", 0);
    rig.settle();
    rig.decide(b"k", 1);
    let first = rig.one();
    let failure = Failure::Unavailable(Reason::CatchingUp);
    rig.fail(&first, failure.clone());
    let second = rig.one();
    assert_ne!(second.replica, first.replica);
    assert_eq!(second.payload, first.payload);
    // A late failure of the first is about a copy that nobody waits for.
    rig.fail(&first, failure);
    assert!(rig.sent().is_empty());
    rig.answer(&second);
    assert!(rig.is_committed(1));
}

/// A request that every replica refused before it proposed anything was not decided, and its client may know that.
#[test]
fn a_definite_refusal_is_told_as_one_and_an_open_one_is_not() {
    for (failure, is_definite) in
        [(Failure::Unavailable(Reason::Stopping), true), (Failure::Unknown(Reason::StateReplaced), false)]
    {
        let mut rig = Rig::new(|_| ());
        rig.decide(b"k", 0);
        rig.settle();
        rig.decide(b"k", 1);
        while !rig.outcomes.contains_key(&1) {
            rig.sent().iter().for_each(|sent| rig.fail(sent, failure.clone()));
            rig.pass(TICK_US);
        }
        match &rig.outcomes[&1] {
            Err(Error::NotTaken { why: NotTaken::Refused { failure: told, .. }, .. }) if is_definite => {
                assert_eq!(*told, failure);
            }
            Err(Error::TimedOut) if !is_definite => {}
            other => panic!("{failure}: {other:?}"),
        }
    }
}

#[test]
fn a_command_without_an_answer_is_given_up_and_its_session_replaced() {
    let mut rig = Rig::new(|_| ());
    rig.decide(b"k", 0);
    rig.settle();
    rig.decide(b"k", 1);
    let lost = rig.one();
    rig.pass(10_000_000);
    assert_eq!(rig.outcomes[&1], Err(Error::TimedOut));
    rig.pass(1_000_000);
    rig.decide(b"k", 2);
    let end = rig.one();
    assert_eq!(look(&end).0, [(Op::End, 3, 1)]);
    assert!(rig.sent().is_empty(), "what comes later waits until the lost one can no longer happen");
    rig.answer(&end);
    let open = rig.one();
    assert_eq!(ops(&open), [Op::Open]);
    rig.answer(&open);
    rig.settle();
    assert!(rig.is_committed(2));
    assert_eq!(rig.shards[&ShardId(0)].sessions(), 1);
    let late = rig.shards.get_mut(&ShardId(0)).unwrap().execute(&lost.payload);
    assert!(Answers::parse(late).unwrap().are_expired(), "it can no longer happen");
}

#[test]
fn nothing_sent_means_nothing_decided() {
    let mut rig = Rig::with(Conversation::new(Config::new(3, 1)), 1);
    rig.decide(b"k", 0);
    assert!(rig.sent().is_empty());
    rig.pass(10_000_000);
    let Err(Error::NotTaken { why, .. }) = &rig.outcomes[&0] else { panic!() };
    assert_eq!(*why, NotTaken::Unconnected(ShardId(0)));
}

#[test]
fn expired_is_retried_if_sent_once_and_told_if_sent_twice() {
    let mut rig = Rig::new(|_| ());
    rig.decide(b"k", 0);
    rig.settle();
    rig.shards.get_mut(&ShardId(0)).unwrap().end_all();
    rig.decide(b"k", 1);
    let once = rig.one();
    rig.answer(&once);
    let open = rig.one();
    assert_eq!(ops(&open), [Op::Open]);
    rig.answer(&open);
    rig.settle();
    assert!(rig.is_committed(1), "it had no effect, so it was sent again on a fresh session");

    rig.decide(b"k", 2);
    let first = rig.one();
    rig.conversation.on_disconnected(first.replica, ShardId(0));
    let second = rig.one();
    rig.shards.get_mut(&ShardId(0)).unwrap().end_all();
    rig.answer(&second);
    assert_eq!(rig.outcomes[&2], Err(Error::Expired));
    rig.decide(b"k", 3);
    rig.settle();
    assert!(rig.is_committed(3));
}

#[test]
fn an_invalid_request_is_told_and_blocks_nothing() {
    let mut rig = Rig::new(|_| ());
    rig.decide(b"k", 0);
    let open = rig.one();
    rig.fail(&open, Failure::Invalid { why: "no".into() });
    assert_eq!(rig.outcomes[&0], Err(Error::Invalid("no".into())));
    rig.decide(b"k", 1);
    rig.settle();
    rig.decide(b"k", 2);
    let frame = rig.one();
    rig.fail(&frame, Failure::Invalid { why: "no".into() });
    assert_eq!(rig.outcomes[&2], Err(Error::Invalid("no".into())));
    rig.decide(b"k", 3);
    rig.settle();
    assert!(rig.is_committed(3));
}

#[test]
fn a_response_that_does_not_fit_its_request_is_refused() {
    let mut rig = Rig::new(|_| ());
    rig.decide(b"k", 0);
    let open = rig.one();
    let mut response = ResponseBuilder::new(Epoch(1), ShardId(0));
    response.committed(InstanceId::new(ReplicaId(0), 1), 0, 1);
    let answers = Answers::parse(response.encode()).unwrap();
    assert!(rig.conversation.on_response(open.replica, open.tag, answers.clone()).is_err());
    assert!(rig.conversation.on_response(open.replica, u64::MAX, answers).is_ok(), "an unknown tag is late");
    rig.answer(&open);
    rig.decide(b"k", 1);
    let frame = rig.one();
    let answers = Answers::parse(response.encode()).unwrap();
    assert!(rig.conversation.on_response(frame.replica, frame.tag, answers).is_err());
    rig.answer(&frame);
    assert!(rig.is_committed(0) && rig.is_committed(1));
}

#[test]
fn close_sees_commands_through_and_ends_the_sessions() {
    let mut rig = Rig::new(|_| ());
    rig.decide(b"a", 0);
    rig.settle();
    rig.decide(b"a", 1);
    rig.conversation.close();
    assert_eq!(rig.conversation.submit(1, &Action::Read { key: b"k" }, 2), Err(SubmitError::Closed));
    assert!(!rig.conversation.is_closed());
    rig.settle();
    assert!(rig.conversation.is_closed() && rig.is_committed(1));
    assert_eq!(rig.shards[&ShardId(0)].sessions(), 0);
}

#[test]
fn close_ends_even_when_nobody_answers() {
    let mut rig = Rig::new(|_| ());
    rig.decide(b"a", 0);
    rig.settle();
    (0..3).for_each(|replica| rig.conversation.on_disconnected(ReplicaId(replica), ShardId(0)));
    rig.conversation.close();
    rig.pass(TICK_US);
    rig.pass(10_000_000);
    rig.pass(10_000_000);
    assert!(rig.conversation.is_closed());
}
