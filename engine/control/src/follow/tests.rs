use super::{Refused, follows};
use crate::id::{Incarnation, MemberId, RecordId};
use crate::plan::{Change, cancel, claim};
use crate::record::{Record, Stage, State};
use crate::sample::{CHANGE, address, announced, directory, next, record, sealing, started};
use isonomy_wire::epoch::WentBack;
use isonomy_wire::id::{ClusterId, Epoch};

/// An epoch that a second change of the members is to end.
fn next_but_one(record: &Record) -> Record {
    let mut second = next(record);
    second.state = State::Changing {
        change: crate::id::ChangeId(2),
        to: second.membership.clone(),
        stage: Stage::Sealing,
    };
    next(&second)
}

fn add(is_held: bool) -> Record {
    announced(&Change::Add(address(3)), is_held)
}

/// The record with another change.
fn other_change(record: &Record) -> Record {
    let mut other = record.clone();
    if let State::Changing { change, .. } = &mut other.state {
        change.0 += 1;
    }
    other
}

/// The record with the change at another stage.
fn at(record: &Record, now: Stage) -> Record {
    let mut other = record.clone();
    if let State::Changing { stage, .. } = &mut other.state {
        *stage = now;
    }
    other
}

#[test]
fn a_change_may_come_go_and_take_effect() {
    let first = started(3);
    let (announced, held, sealing) = (add(false), add(true), sealing());
    let cancelled = cancel(&sealing).unwrap();
    let second = next(&sealing);
    for (known, next) in [
        (&first, &first),
        (&first, &announced),
        (&announced, &cancel(&announced).unwrap()),
        (&announced, &other_change(&held)),
        (&announced, &claim(&announced, MemberId(3), Incarnation(9)).unwrap()),
        (&record(3), &claim(&record(3), MemberId(1), Incarnation(5)).unwrap()),
        (&announced, &sealing),
        (&held, &sealing),
        (&sealing, &cancelled),
        (&sealing, &second),
        (&cancelled, &next(&cancelled)),
        // A replica that was away for some steps.
        (&first, &sealing),
        (&first, &second),
        (&announced, &second),
        (&announced, &cancelled),
        (&sealing, &next(&cancelled)),
        (&announced, &next(&other_change(&sealing))),
        (&first, &next_but_one(&sealing)),
    ] {
        assert_eq!(follows(known, next), Ok(()), "{known} -> {next}");
    }
}

#[test]
fn a_change_never_goes_back_once_the_epoch_is_being_sealed() {
    let (announced, held, sealing) = (add(false), add(true), sealing());
    let cancelled = cancel(&sealing).unwrap();
    let refused = |stage| Refused::OtherChange { epoch: 1, change: CHANGE, stage };
    for there in
        [&started(3), &at(&sealing, Stage::Learning), &at(&sealing, Stage::Held), &other_change(&sealing)]
    {
        assert_eq!(follows(&sealing, there), Err(refused(Stage::Sealing)), "{there}");
        assert_eq!(follows(&cancelled, there), Err(refused(Stage::Sealing)), "{there}");
    }
    assert_eq!(follows(&cancelled, &sealing), Err(refused(Stage::Sealing)), "it is cancelled for good");
    // Nobody writes these, either.
    assert_eq!(follows(&announced, &held), Err(refused(Stage::Learning)));
    assert_eq!(follows(&held, &announced), Err(refused(Stage::Held)));
    let elsewhere = crate::plan::announce(
        &started(3),
        &Change::Add(address(4)),
        CHANGE,
        false,
        crate::sample::stands,
        &crate::sample::directories(0..3),
    );
    assert_eq!(follows(&announced, &elsewhere.unwrap()), Err(refused(Stage::Learning)));
    let claimed = claim(&announced, MemberId(3), Incarnation(9)).unwrap();
    assert_eq!(follows(&claimed, &announced), Err(refused(Stage::Learning)));
    assert_eq!(follows(&announced, &at(&cancelled, Stage::Learning)), Err(refused(Stage::Learning)));
}

#[test]
fn a_sealed_epoch_has_one_successor() {
    let sealing = sealing();
    let refused = Refused::OtherSuccessor { epoch: 2, change: CHANGE };
    assert_eq!(follows(&sealing, &next(&other_change(&sealing))), Err(refused.clone()));
    let mut fewer = next(&sealing);
    fewer.membership.members.remove(0);
    assert_eq!(follows(&sealing, &fewer), Err(refused.clone()));
    // A change that was cancelled does not come about.
    assert_eq!(follows(&cancel(&sealing).unwrap(), &next(&sealing)), Err(refused));
}

#[test]
fn a_history_that_goes_back_or_aside_is_refused() {
    let first = started(3);
    let second = next(&sealing());
    let refused = |known: &Record, there: &Record, back| {
        let expected = Refused::Back { back, there: there.record, known: known.record };
        assert_eq!(follows(known, there), Err(expected));
    };
    let of = |there| WentBack::Epoch { here: Epoch(2), there: Epoch(there) };
    refused(&second, &first, of(1));
    let other = Record { record: RecordId(0xd), ..first.clone() };
    refused(&first, &other, WentBack::Record { epoch: Epoch(1) });
    let aside = Record { predecessor: Some(RecordId(0xd)), ..second };
    refused(&first, &aside, WentBack::Predecessor { next: Epoch(2) });
}

#[test]
fn a_record_of_another_cluster_or_shape_is_refused() {
    let first = started(3);
    let other = Record { cluster_id: ClusterId(1), ..first.clone() };
    let refused = Refused::OtherCluster { there: ClusterId(1), known: ClusterId(0xc) };
    assert_eq!(follows(&first, &other), Err(refused));
    let wider = Record { shards: 3, ..next(&sealing()) };
    assert_eq!(follows(&first, &wider), Err(Refused::Shards { there: 3, known: 2 }));
}

#[test]
fn an_epoch_keeps_its_members_and_their_directories() {
    let first = record(3);
    let mut moved = first.clone();
    moved.membership.members[0].address = address(9);
    let mut fewer = first.clone();
    fewer.membership.members.pop();
    let mut stands_less = first.clone();
    stands_less.membership.e = 0;
    for other in [moved, fewer, stands_less] {
        assert_eq!(follows(&first, &other), Err(Refused::OtherMembers { epoch: 1 }));
    }
    let claimed = claim(&first, MemberId(1), directory(1)).unwrap();
    let elsewhere = claim(&first, MemberId(1), Incarnation(6)).unwrap();
    for other in [&first, &elsewhere] {
        let refused = Refused::OtherIncarnation { epoch: 1, id: MemberId(1), known: directory(1) };
        assert_eq!(follows(&claimed, other), Err(refused));
    }
}
