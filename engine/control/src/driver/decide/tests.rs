use super::*;
use crate::driver::Held;
use crate::id::{ChangeId, Incarnation, MemberId};
use crate::plan::{Change, cancel, claim};
use crate::sample::{CHANGE, address, announced, directory, next, sealing, started};
use crate::service::Unfollowed;

const SILENT: Report = Report { is_close: false, held: None };

fn presence(id: u8) -> Presence {
    Presence { id: MemberId(id), incarnation: directory(id), address: address(id) }
}

fn mark(id: u8, fact: Fact) -> Mark {
    Mark { change: CHANGE, member: MemberId(id), incarnation: directory(id), fact }
}

/// What is known when these live and have made these marks.
fn view(record: &Record, alive: impl IntoIterator<Item = u8>, marks: &[Mark]) -> View {
    let mut view = View::new(Some(Arc::new(record.clone())), crate::tuning::Chosen::default());
    view.alive = alive.into_iter().map(|id| (directory(id), presence(id))).collect();
    view.marks = marks.iter().copied().collect();
    view
}

fn next_of(action: Option<Action>) -> Option<Record> {
    match action {
        Some(Action::Replace { next, .. }) => Some(next),
        other => panic!("{other:?}"),
    }
}

/// A fourth member has named its directory and copies the state.
fn learning(is_held: bool) -> Record {
    claim(&announced(&Change::Add(address(3)), is_held), MemberId(3), directory(3)).unwrap()
}

fn held(change: ChangeId) -> Report {
    Report { is_close: true, held: Some(Held { change, hash: 7 }) }
}

#[test]
fn a_member_tells_what_it_has_come_to_once() {
    let close = Report { is_close: true, held: None };
    for id in [0, 3] {
        let now = view(&learning(false), 0..4, &[]);
        assert_eq!(decide(&now, &SILENT, &presence(id)), None);
        let told = mark(id, Fact::Close);
        assert_eq!(decide(&now, &close, &presence(id)), Some(Action::Mark(told)));
        assert_eq!(decide(&view(&learning(false), 0..4, &[told]), &close, &presence(id)), None);
        // The seal comes second, and only when there may be one for this change.
        assert_eq!(decide(&view(&learning(false), 0..4, &[told]), &held(CHANGE), &presence(id)), None);
        let sealing = view(&sealing(), 0..4, &[told]);
        assert_eq!(decide(&sealing, &held(ChangeId(2)), &presence(id)), None);
        let holds = Action::Mark(mark(id, Fact::Holds(7)));
        assert_eq!(decide(&sealing, &held(CHANGE), &presence(id)), Some(holds));
    }
    // The mark of a directory that was lost is no mark of this one.
    let lost = Mark { incarnation: Incarnation(99), ..mark(3, Fact::Close) };
    let again = decide(&view(&learning(false), 0..4, &[lost]), &close, &presence(3));
    assert_eq!(again, Some(Action::Mark(mark(3, Fact::Close))));
}

#[test]
fn who_does_not_belong_to_the_next_epoch_tells_nothing_and_drives() {
    let removal = announced(&Change::Remove(MemberId(2)), false);
    let close = Report { is_close: true, held: None };
    assert_eq!(decide(&view(&removal, 0..3, &[]), &close, &presence(2)), None);
    let marks = [0, 1].map(|id| mark(id, Fact::Close));
    assert!(next_of(decide(&view(&removal, 0..3, &marks), &close, &presence(2))).is_some());
    // Another directory under the number of a member is nobody.
    let nobody = Presence { incarnation: Incarnation(99), ..presence(1) };
    assert_eq!(decide(&view(&removal, 0..3, &marks), &close, &nobody), None);
    assert_eq!(decide(&view(&started(3), 0..3, &marks), &close, &presence(0)), None);
}

#[test]
fn anybody_lets_the_epoch_be_sealed_when_enough_are_close_and_live() {
    let close = |ids: &[u8]| ids.iter().map(|id| mark(*id, Fact::Close)).collect::<Vec<_>>();
    let decide_as = |id, alive: &[u8], marks: &[Mark]| {
        decide(&view(&learning(false), alive.iter().copied(), marks), &SILENT, &presence(id))
    };
    for id in 0..4 {
        let next = next_of(decide_as(id, &[0, 1, 2, 3], &close(&[0, 1, 3]))).unwrap();
        assert_eq!(next.change(), Some((CHANGE, Stage::Sealing)));
        assert_eq!(next.changing_to(), learning(false).changing_to());
    }
    assert_eq!(decide_as(0, &[0, 1, 2, 3], &close(&[0, 1, 2])), None, "the new member is not close");
    assert_eq!(decide_as(0, &[0, 1, 2, 3], &close(&[0, 3])), None, "too few are close");
    assert_eq!(decide_as(0, &[0, 1, 2], &close(&[0, 1, 3])), None, "the new member is gone");
    assert_eq!(decide_as(0, &[0, 3], &close(&[0, 1, 2, 3])), None, "too few live to decide the Seal");
    let mut lost = close(&[0, 1, 3]);
    lost[2].incarnation = Incarnation(99);
    assert_eq!(decide_as(0, &[0, 1, 2, 3], &lost), None, "another directory was close");
    let mut other = close(&[0, 1, 3]);
    other[1].change = ChangeId(2);
    assert_eq!(decide_as(0, &[0, 1, 2, 3], &other), None, "it was close in another change");
}

#[test]
fn a_change_that_is_held_waits_for_the_operator() {
    let marks = [0, 1, 2, 3].map(|id| mark(id, Fact::Close));
    assert_eq!(decide(&view(&learning(true), 0..4, &marks), &SILENT, &presence(0)), None);
}

#[test]
fn anybody_begins_the_next_epoch_when_enough_hold_the_state() {
    let holds = |ids: &[u8]| ids.iter().map(|id| mark(*id, Fact::Holds(7))).collect::<Vec<_>>();
    let decide_as = |id, record: &Record, marks: &[Mark]| {
        // Whoever holds the state holds it also while it is down.
        decide(&view(record, [id], marks), &SILENT, &presence(id))
    };
    let sealing = sealing();
    for id in 0..4 {
        let begun = next_of(decide_as(id, &sealing, &holds(&[0, 1, 3]))).unwrap();
        assert_eq!(begun, next(&sealing));
    }
    assert_eq!(decide_as(0, &sealing, &holds(&[0, 3])), None);
    let close = [0, 1, 2, 3].map(|id| mark(id, Fact::Close));
    assert_eq!(decide_as(0, &sealing, &close), None, "to be close is not enough");
    // After a cancellation the learner counts no more.
    let cancelled = cancel(&sealing).unwrap();
    assert_eq!(decide_as(0, &cancelled, &holds(&[0, 3])), None);
    assert_eq!(next_of(decide_as(0, &cancelled, &holds(&[0, 1]))).unwrap().membership, started(3).membership);
    let mut differ = holds(&[0, 1, 3]);
    differ[1].fact = Fact::Holds(8);
    let told = Action::Tell(Refusal::Differ(MemberId(0), MemberId(1)));
    assert_eq!(decide_as(0, &sealing, &differ), Some(told));
}

#[test]
fn nothing_is_done_on_a_record_that_is_not_followed() {
    let marks = [0, 1, 3].map(|id| mark(id, Fact::Close));
    let mut view = view(&learning(false), 0..4, &marks);
    view.unfollowed = Some(Unfollowed::Absent);
    assert_eq!(decide(&view, &Report { is_close: true, held: None }, &presence(2)), None);
}

#[test]
fn the_next_epoch_waits_a_little_for_members_that_live_and_hold_nothing_yet() {
    let record = sealing();
    let holds = |ids: &[u8]| ids.iter().map(|id| mark(*id, Fact::Holds(7))).collect::<Vec<_>>();
    assert!(is_holder_missing(&view(&record, 0..4, &holds(&[0, 1, 2]))), "member 3 lives");
    assert!(!is_holder_missing(&view(&record, 0..3, &holds(&[0, 1, 2]))), "member 3 does not live");
    assert!(!is_holder_missing(&view(&record, 0..4, &holds(&[0, 1, 2, 3]))));
    assert!(!is_holder_missing(&view(&learning(false), 0..4, &[])), "nobody holds anything before the Seal");
}
