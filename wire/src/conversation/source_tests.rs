//! S5 as a conversation keeps it: sources that number their commands by themselves, and start again.

use super::rig::*;
use super::*;
use crate::answer::Answer;
use crate::command::Op;

fn named(owner: u64, next: u64) -> Rig {
    let conversation = Conversation::named(Config::new(3, 1), &name(), Owner(owner), next);
    let mut rig = Rig::with(conversation, 1);
    (0..3).for_each(|replica| rig.conversation.on_connected(ReplicaId(replica), ShardId(0)));
    rig
}

fn name() -> SourceName {
    "orders".parse().unwrap()
}

fn propose(rig: &mut Rig, number: u64) -> Result<(), SubmitError> {
    let value = number.to_string();
    let action = Action::Decide { key: b"k", value: value.as_bytes() };
    rig.conversation.submit_numbered(rig.now, number, &action, number)
}

#[test]
fn s5_gaps_of_a_named_source_are_skipped_in_runs() {
    let mut rig = named(1, 1);
    propose(&mut rig, 3).unwrap();
    propose(&mut rig, 4).unwrap();
    rig.attach();
    let frame = rig.one();
    let (commands, session, below) = look(&frame);
    assert_eq!(commands, [(Op::Skip, 1, 2), (Op::Decide, 3, 1), (Op::Decide, 4, 1)]);
    assert_eq!((session, below), (name().session(ShardId(0)), 1));
    rig.answer(&frame);
    assert_eq!(rig.outcomes.keys().copied().collect::<Vec<_>>(), [3, 4]);
    assert_eq!(propose(&mut rig, 4), Err(SubmitError::Order { number: 4, next: 5 }));
    // A gap as long as a frame is skipped, a longer one passed over.
    propose(&mut rig, 5 + FRAME_COMMANDS_MAX as u64).unwrap();
    rig.settle();
    propose(&mut rig, 1 << 40).unwrap();
    propose(&mut rig, (1 << 40) + 1).unwrap();
    let frame = rig.one();
    let first = 1 << 40;
    assert_eq!(look(&frame).0, [(Op::Decide, first, 1), (Op::Decide, first + 1, 1)]);
    assert_eq!(look(&frame).2, first, "all before it is done, or does not exist");
    rig.answer(&frame);
    assert!(rig.is_committed(first) && rig.is_committed(first + 1));
}

#[test]
fn s5_a_long_gap_waits_for_what_is_before_it() {
    let mut rig = named(1, 1);
    propose(&mut rig, 1).unwrap();
    rig.attach();
    let frame = rig.one();
    propose(&mut rig, 1 << 40).unwrap();
    assert!(rig.sent().is_empty(), "number 1 has no answer yet");
    rig.answer(&frame);
    rig.settle();
    assert!(rig.is_committed(1 << 40));
}

#[test]
fn s5_a_source_that_starts_again_decides_nothing_twice_and_goes_on() {
    let mut rig = named(1, 1);
    for number in [2, 3, 9] {
        propose(&mut rig, number).unwrap();
        rig.settle();
    }
    let mut again = named(2, 1);
    again.shards = rig.shards;
    for number in [2, 3, 9, 10, 11] {
        propose(&mut again, number).unwrap();
    }
    again.settle();
    assert!([2, 3, 9].iter().all(|number| again.outcomes[number] == Ok(Answer::Duplicate)));
    assert!(again.is_committed(10) && again.is_committed(11));
    assert!(again.shards[&ShardId(0)].decided.values().all(|times| *times == 1));
    assert_eq!(again.conversation.uncompared(), None);
}

/// A second process of a source whose first process has submitted so many numbers.
fn second_process(said: u64) -> Rig {
    let mut first = named(1, 1);
    (1..=said).for_each(|number| propose(&mut first, number).unwrap());
    first.settle();
    let mut second = named(2, 1);
    second.shards = first.shards;
    second
}

#[test]
fn s5_done_numbers_are_not_sent() {
    let mut again = second_process(100);
    (1..=60).for_each(|number| propose(&mut again, number).unwrap());
    again.attach();
    (61..=100).for_each(|number| propose(&mut again, number).unwrap());
    assert_eq!(again.sent().len(), 0);
    assert!((1..=100).all(|number| again.outcomes[&number] == Ok(Answer::Duplicate)));
}

#[test]
fn s5_another_command_under_a_done_number_is_told_and_nothing_new_is_sent() {
    let mut again = second_process(3);
    propose(&mut again, 1).unwrap();
    again.settle();
    let value = b"another";
    again.conversation.submit_numbered(again.now, 2, &Action::Decide { key: b"k", value }, 2).unwrap();
    assert!(again.sent().is_empty());
    assert_eq!(again.outcomes[&2], Err(Error::OtherCommand { from: 2, to: 2 }));
    assert_eq!(propose(&mut again, 4), Err(SubmitError::Stopped(2)));
}

/// The source has decided more commands than are submitted now, and its marks are further apart than that.
#[test]
fn s5_what_cannot_be_compared_is_told() {
    let mut again = second_process(1000);
    (1..=18).for_each(|number| propose(&mut again, number).unwrap());
    again.settle();
    assert_eq!(again.conversation.uncompared(), Some((17, 18)));
}

#[test]
fn s5_the_process_before_is_fenced_and_knows_it() {
    let mut old = named(1, 1);
    propose(&mut old, 1).unwrap();
    old.settle();
    propose(&mut old, 2).unwrap();
    let late = old.one();
    let mut new = named(2, 1);
    std::mem::swap(&mut new.shards, &mut old.shards);
    propose(&mut new, 1).unwrap();
    propose(&mut new, 2).unwrap();
    new.settle();
    assert!(new.is_committed(2));
    std::mem::swap(&mut new.shards, &mut old.shards);
    old.answer(&late);
    assert_eq!(old.outcomes[&2], Err(Error::Fenced));
    assert_eq!(propose(&mut old, 3), Err(SubmitError::Stopped(2)));
}

/// A late copy of an Attach does not take the source back.
#[test]
fn s5_a_late_attach_changes_nothing() {
    let mut old = named(1, 1);
    propose(&mut old, 1).unwrap();
    let attach = old.one();
    old.answer(&attach);
    let mut new = named(2, 1);
    std::mem::swap(&mut new.shards, &mut old.shards);
    propose(&mut new, 1).unwrap();
    new.attach();
    new.shards.get_mut(&ShardId(0)).unwrap().execute(&attach.payload);
    new.settle();
    assert!(new.is_committed(1));
}

#[test]
fn a_number_without_an_answer_stops_a_named_source() {
    let mut rig = named(1, 1);
    propose(&mut rig, 1).unwrap();
    rig.attach();
    rig.one();
    propose(&mut rig, 2).unwrap();
    rig.pass(10_000_000);
    assert_eq!(rig.outcomes[&1], Err(Error::TimedOut));
    assert!(matches!(rig.outcomes[&2], Err(Error::NotTaken { .. })));
    assert_eq!(propose(&mut rig, 3), Err(SubmitError::Stopped(1)));
}
