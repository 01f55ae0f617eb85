use super::*;
use crate::sample::{
    CHANGE, address, announced, directories, directory, next, record, sealing, stands, started,
};

fn plan(record: &Record, change: &Change, living: impl IntoIterator<Item = u8>) -> Result<Record, Refusal> {
    announce(record, change, CHANGE, false, stands, &directories(living))
}

fn ids(membership: &Membership) -> Vec<u8> {
    membership.members.iter().map(|member| member.id.0).collect()
}

/// Promotes a change when these are close, and all live.
fn promoted(record: &Record, close: impl IntoIterator<Item = u8>) -> Result<Record, Refusal> {
    promote(record, &directories(close), &directories(0..9))
}

#[test]
fn a_member_joins_under_the_smallest_free_number() {
    let plan_to_add = plan(&started(3), &Change::Add(address(3)), 0..3).unwrap();
    assert_eq!(plan_to_add.membership, started(3).membership);
    let to = plan_to_add.changing_to().unwrap();
    assert_eq!((ids(to), to.f, to.e), (vec![0, 1, 2, 3], 1, 1));
    assert_eq!(to.members[3], Member { id: MemberId(3), incarnation: None, address: address(3) });
    let learners: Vec<_> = plan_to_add.learners().map(|member| member.id).collect();
    assert_eq!(learners, [MemberId(3)]);
    let two = next(&promoted(&announced(&Change::Remove(MemberId(1)), false), [0, 2]).unwrap());
    let again = plan(&two, &Change::Add(address(4)), [0, 2]).unwrap();
    assert_eq!(ids(again.changing_to().unwrap()), [0, 1, 2]);
    assert_eq!(again.learners().next(), Some(&again.changing_to().unwrap().members[1]));
}

#[test]
fn a_member_is_replaced_in_its_place() {
    for (address_asked, expected) in [(None, address(1)), (Some(address(7)), address(7))] {
        let change = Change::Replace(MemberId(1), address_asked);
        let next = plan(&started(3), &change, [0, 2]).unwrap();
        let member = &next.changing_to().unwrap().members[1];
        assert_eq!(*member, Member { id: MemberId(1), incarnation: None, address: expected });
        assert_eq!(next.learners().collect::<Vec<_>>(), [member]);
        // The directory to come gets the name, and the lost one keeps its own.
        let next = claim(&next, MemberId(1), Incarnation(9)).unwrap();
        assert_eq!(next.membership.members[1].incarnation, Some(directory(1)));
        assert_eq!(next.changing_to().unwrap().members[1].incarnation, Some(Incarnation(9)));
        assert!(next.has(MemberId(1), Incarnation(9)) && next.has(MemberId(1), directory(1)));
        assert!(!next.has(MemberId(1), directory(2)));
    }
    assert_eq!(
        plan(&record(3), &Change::Replace(MemberId(1), None), 0..3),
        Err(Refusal::NeverStarted(MemberId(1)))
    );
}

#[test]
fn the_epoch_is_sealed_when_all_who_are_new_and_enough_of_all_are_close() {
    for is_held in [false, true] {
        let learning = announced(&Change::Add(address(3)), is_held);
        let stage = if is_held { Stage::Held } else { Stage::Learning };
        assert_eq!(learning.change(), Some((CHANGE, stage)));
        let behind = |there| Refusal::NotClose { behind: vec![MemberId(3)], there, needed: 3 };
        assert_eq!(promoted(&learning, 0..4), Err(behind(3)), "nobody has taken the place yet");
        let learning = claim(&learning, MemberId(3), directory(3)).unwrap();
        assert_eq!(promoted(&learning, 0..3), Err(behind(3)));
        let few = Refusal::NotClose { behind: vec![], there: 2, needed: 3 };
        assert_eq!(promoted(&learning, [0, 3]), Err(few));
        let sealing = promoted(&learning, [0, 2, 3]).unwrap();
        assert_eq!(sealing.change(), Some((CHANGE, Stage::Sealing)));
        assert_eq!(sealing.changing_to(), learning.changing_to());
        // Whoever was close and is gone decides nothing.
        let living = |living| promote(&learning, &directories(0..4), &directories(living));
        assert_eq!(living(vec![0, 1, 2]), Err(behind(3)));
        assert_eq!(living(vec![0, 3]), Err(Refusal::TooFew { there: 1, needed: 2 }));
        assert_eq!(promoted(&sealing, 0..4), Err(Refusal::Sealing(CHANGE)));
    }
    assert_eq!(promoted(&started(3), 0..3), Err(Refusal::NoChange));
}

#[test]
fn the_next_epoch_begins_when_enough_of_its_members_hold_the_same_state() {
    let held = |ids: &[u8]| ids.iter().map(|id| (directory(*id), 7)).collect();
    assert_eq!(activate(&started(3), &held(&[0, 1, 2])), Err(Refusal::NoChange));
    let learning = announced(&Change::Add(address(3)), false);
    assert_eq!(activate(&learning, &held(&[0, 1, 2])), Err(Refusal::NotSealing(CHANGE)));
    let sealing = sealing();
    assert_eq!(activate(&sealing, &held(&[0, 3, 8])), Err(Refusal::NotHeld { there: 2, needed: 3 }));
    let second = activate(&sealing, &held(&[0, 2, 3])).unwrap();
    assert_eq!((second.epoch, second.record), (2, RecordId(CHANGE.0)));
    assert_eq!((second.predecessor, second.state), (Some(RecordId(0xa)), State::Active));
    assert_eq!(Some(&second.membership), sealing.changing_to());
    let mut differs: BTreeMap<_, _> = held(&[0, 1, 2, 3]);
    differs.insert(directory(2), 8);
    assert_eq!(activate(&sealing, &differs), Err(Refusal::Differ(MemberId(1), MemberId(2))));
}

#[test]
fn a_change_is_taken_back_or_the_epoch_ends_with_the_same_members() {
    assert_eq!(cancel(&started(3)), Err(Refusal::NoChange));
    for is_held in [false, true] {
        assert_eq!(cancel(&announced(&Change::Add(address(3)), is_held)), Ok(started(3)));
    }
    let cancelled = cancel(&sealing()).unwrap();
    assert_eq!(cancelled.change(), Some((CHANGE, Stage::Sealing)));
    assert_eq!(cancelled.changing_to(), Some(&started(3).membership));
    assert_eq!(cancelled.learners().count(), 0);
    assert_eq!(cancel(&cancelled), Err(Refusal::Cancelled(CHANGE)));
    let second = next(&cancelled);
    assert_eq!((second.epoch, second.membership), (2, started(3).membership));
}

#[test]
fn one_change_at_a_time() {
    let known = announced(&Change::Add(address(3)), false);
    for known in [known, sealing(), cancel(&sealing()).unwrap()] {
        assert_eq!(plan(&known, &Change::Remove(MemberId(0)), 0..4), Err(Refusal::UnderWay(CHANGE)));
    }
}

#[test]
fn a_change_that_leaves_too_few_is_refused() {
    let (too_few, after) =
        (Refusal::TooFew { there: 1, needed: 2 }, |there, needed| Refusal::TooFewAfter { there, needed });
    let remove = Change::Remove(MemberId(0));
    assert_eq!(plan(&started(3), &remove, [0]), Err(too_few.clone()));
    // Two of three decide, but without one of them two of two would not.
    assert_eq!(plan(&started(3), &remove, [0, 1]), Err(after(1, 2)));
    assert!(plan(&started(3), &Change::Remove(MemberId(2)), [0, 1]).is_ok());
    // Whoever is to be started counts in the next epoch, but decides nothing in this one.
    let replace = Change::Replace(MemberId(2), None);
    assert!(plan(&started(3), &replace, [0, 1]).is_ok());
    assert_eq!(plan(&started(3), &replace, [0]), Err(too_few.clone()));
    assert_eq!(plan(&started(3), &Change::Replace(MemberId(0), None), [0, 8]), Err(too_few));
    // A member that was never started decides nothing in either.
    assert_eq!(plan(&record(3), &remove, 0..3), Err(Refusal::TooFew { there: 0, needed: 2 }));
    assert_eq!(plan(&started(1), &remove, [0]), Err(Refusal::Nobody));
    assert!(plan(&started(1), &Change::Add(address(1)), [0]).is_ok());
}

#[test]
fn a_change_of_nobody_or_onto_a_taken_port_or_of_too_many_is_refused() {
    let nobody = MemberId(7);
    for change in [Change::Remove(nobody), Change::Replace(nobody, None)] {
        assert_eq!(plan(&started(3), &change, 0..3), Err(Refusal::NoMember(nobody)));
    }
    let onto = |change| plan(&started(3), &change, 0..3).unwrap_err();
    let taken = |between| BadRecord::PortInUse { between, host: "h1".into(), port: 7100 };
    assert_eq!(onto(Change::Add(address(1))), taken((MemberId(1), MemberId(3))).into());
    assert_eq!(
        onto(Change::Replace(MemberId(2), Some(address(1)))),
        taken((MemberId(1), MemberId(2))).into()
    );
    let mut nine = started(3);
    let member = nine.membership.members[2].clone();
    nine.membership.members.extend((3..9).map(|id| Member { id: MemberId(id), ..member.clone() }));
    assert_eq!(plan(&nine, &Change::Add(address(9)), 0..9), Err(Refusal::Full));
}

#[test]
fn a_directory_is_claimed_once() {
    let first = claim(&record(3), MemberId(1), Incarnation(5)).unwrap();
    assert_eq!(claim(&first, MemberId(1), Incarnation(5)), Ok(first.clone()), "a claim may be repeated");
    assert_eq!(claim(&first, MemberId(1), Incarnation(6)), Err(Refusal::Claimed(MemberId(1))));
    let copied = BadRecord::SameIncarnation(MemberId(1), MemberId(2));
    assert_eq!(claim(&first, MemberId(2), Incarnation(5)), Err(copied.into()));
    assert_eq!(claim(&first, MemberId(7), Incarnation(7)), Err(Refusal::NoMember(MemberId(7))));
    // A learner takes its place once, too, and loses it with the change.
    let learning = claim(&announced(&Change::Add(address(3)), false), MemberId(3), Incarnation(8)).unwrap();
    assert_eq!(learning.changing_to().unwrap().members[3].incarnation, Some(Incarnation(8)));
    assert_eq!(claim(&learning, MemberId(3), Incarnation(9)), Err(Refusal::Claimed(MemberId(3))));
    let cancelled = cancel(&sealing()).unwrap();
    assert_eq!(claim(&cancelled, MemberId(3), directory(3)), Err(Refusal::NoMember(MemberId(3))));
    // A member that stays has one directory in both epochs.
    let two = (0..2).fold(record(3), |record, id| claim(&record, MemberId(id), directory(id)).unwrap());
    let growing = plan(&two, &Change::Add(address(3)), 0..2).unwrap();
    let growing = claim(&growing, MemberId(2), directory(2)).unwrap();
    assert_eq!(growing.membership.members[2].incarnation, Some(directory(2)));
    assert_eq!(growing.changing_to().unwrap().members[2].incarnation, Some(directory(2)));
    assert_eq!(growing.learners().count(), 1);
}

#[test]
fn a_cluster_that_cannot_be_is_not_founded() {
    let founding = |n: u8, stands| Founding {
        cluster: "orders".into(),
        cluster_id: ClusterId(0xc),
        shards: 2,
        addresses: (0..n).map(address).collect(),
        stands,
        epoch: 1,
    };
    let refused = |n, f, e| found(founding(n, Stands { f, e }), RecordId(1)).unwrap_err();
    assert_eq!(refused(3, 2, 1), BadRecord::Quorums { n: 3, f: 2, e: 1 });
    assert_eq!((refused(0, 0, 0), refused(10, 0, 0)), (BadRecord::Members(0), BadRecord::Members(10)));
}

#[test]
fn a_restored_cluster_begins_in_the_epoch_of_its_backup() {
    let founding = |epoch| Founding {
        cluster: "orders".into(),
        cluster_id: ClusterId(1),
        shards: 1,
        addresses: vec![address(0)],
        stands: Stands { f: 0, e: 0 },
        epoch,
    };
    let record = found(founding(4), RecordId(9)).unwrap();
    assert_eq!((record.epoch, Record::parse(&record.to_json(), "orders")), (4, Ok(record.clone())));
    assert_eq!(found(founding(0), RecordId(9)), Err(BadRecord::Epoch(0)));
}
