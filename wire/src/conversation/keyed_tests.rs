//! Commands with idempotency keys (law, S6).

use super::config::KEYED_IN_FLIGHT_MAX;
use super::rig::*;
use super::*;
use crate::answer::Answer;
use crate::command::Op;
use crate::id::SessionId;

const DECIDE: Action<'_> = Action::Decide { key: b"k", value: b"v" };

fn submit(rig: &mut Rig, action: &Action<'_>, token: u64) {
    rig.conversation.submit_keyed(rig.now, b"payment 17", action, token).unwrap();
}

#[test]
fn a_command_goes_on_the_session_of_its_key_and_needs_no_other() {
    let mut rig = Rig::new(|_| ());
    submit(&mut rig, &DECIDE, 0);
    let first = rig.one();
    let (commands, session, below) = look(&first);
    assert_eq!((commands[0].0, session, below), (Op::Decide, SessionId::keyed(b"payment 17"), 0));
    // Nobody waits for anybody.
    submit(&mut rig, &DECIDE, 1);
    let second = rig.one();
    assert_eq!(first.payload, second.payload, "the same command under the same number");
    rig.answer(&second);
    rig.answer(&first);
    assert!(rig.is_committed(0) && rig.is_committed(1));
    assert_eq!(rig.outcomes[&0], rig.outcomes[&1]);
    assert_eq!(rig.shards[&ShardId(0)].decided[&b"v"[..]], 1);
}

#[test]
fn another_command_under_the_key_is_told_so() {
    let mut rig = Rig::new(|_| ());
    submit(&mut rig, &DECIDE, 0);
    rig.settle();
    let others = [
        Action::Decide { key: b"k", value: b"w" },
        Action::Decide { key: b"l", value: b"v" },
        Action::DecideIf { key: b"k", value: b"v", expected: 0 },
        Action::DecideIf { key: b"k", value: b"v", expected: 1 },
        Action::Delete { key: b"k" },
    ];
    for (token, action) in (1..).zip(&others) {
        submit(&mut rig, action, token);
        rig.settle();
        assert_eq!(rig.outcomes[&token], Err(Error::KeyReused), "{action:?}");
    }
    assert_eq!(rig.shards[&ShardId(0)].orders[&b"k"[..]], [b"v"]);
}

#[test]
fn what_has_no_answer_goes_to_another_replica_and_over_a_change_of_the_members() {
    let mut rig = Rig::new(|_| ());
    submit(&mut rig, &DECIDE, 0);
    let lost = rig.one();
    rig.conversation.on_disconnected(lost.replica, ShardId(0));
    let again = rig.one();
    assert!(again.replica != lost.replica && again.payload == lost.payload);
    // The lost copy was executed.
    rig.shards.get_mut(&ShardId(0)).unwrap().execute(&lost.payload);
    rig.change(5);
    let third = rig.one();
    assert_eq!(third.payload, lost.payload);
    rig.answer(&third);
    assert!(matches!(rig.outcomes[&0], Ok(Answer::Committed { key_seq: 1, .. })));
    assert_eq!(rig.conversation.outstanding(), 0);
}

#[test]
fn those_under_way_are_bounded_and_those_that_wait_give_up_in_time() {
    let mut rig = Rig::new(|_| ());
    let all = KEYED_IN_FLIGHT_MAX as u64 + 1;
    for token in 0..all {
        let key = token.to_le_bytes();
        rig.conversation
            .submit_keyed(rig.now, &key, &Action::Decide { key: b"k", value: &key }, token)
            .unwrap();
    }
    let sent = rig.sent();
    assert_eq!(sent.len(), KEYED_IN_FLIGHT_MAX);
    rig.answer(&sent[0]);
    assert_eq!(rig.sent().len(), 1, "the next one");
    rig.pass(rig.conversation.config.deadline_us + 1);
    rig.sent();
    assert_eq!(rig.outcomes.len() as u64, all);
    assert_eq!(rig.outcomes[&1], Err(Error::TimedOut));
}
