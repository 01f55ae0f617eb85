use super::*;
use crate::sample::{address, living, record, stands};

const CHANGE: ChangeId = ChangeId(1);

fn plan(record: &Record, change: &Change, alive: &BTreeSet<MemberId>) -> Result<Record, Refusal> {
    announce(record, change, CHANGE, stands, alive)
}

fn ids(membership: &Membership) -> Vec<u8> {
    membership.members.iter().map(|member| member.id.0).collect()
}

/// Three members with a data directory each.
fn started() -> Record {
    let claim = |record, id| claim(&record, MemberId(id), Incarnation(u128::from(id) + 1)).unwrap();
    (0..3).fold(record(3), claim)
}

#[test]
fn a_member_joins_under_the_smallest_free_number() {
    let next = plan(&started(), &Change::Add(address(3)), &living(3)).unwrap();
    assert_eq!(next.membership, started().membership);
    let to = next.changing_to().unwrap();
    assert_eq!((ids(to), to.f, to.e), (vec![0, 1, 2, 3], 1, 1));
    assert_eq!(to.members[3], Member { id: MemberId(3), incarnation: None, address: address(3) });
    let two = activate(&plan(&started(), &Change::Remove(MemberId(1)), &living(3)).unwrap(), RecordId(2));
    let again = plan(&two, &Change::Add(address(4)), &living(3)).unwrap();
    assert_eq!(ids(again.changing_to().unwrap()), [0, 1, 2]);
}

#[test]
fn a_member_is_replaced_in_its_place() {
    for (address_asked, expected) in [(None, address(1)), (Some(address(7)), address(7))] {
        let change = Change::Replace(MemberId(1), address_asked);
        let next = plan(&started(), &change, &[0, 2].map(MemberId).into()).unwrap();
        let member = &next.changing_to().unwrap().members[1];
        assert_eq!(*member, Member { id: MemberId(1), incarnation: None, address: expected });
        // The directory to come gets the name, and the lost one keeps its own.
        let next = claim(&next, MemberId(1), Incarnation(9)).unwrap();
        assert_eq!(next.membership.members[1].incarnation, Some(Incarnation(2)));
        assert_eq!(next.changing_to().unwrap().members[1].incarnation, Some(Incarnation(9)));
    }
}

#[test]
fn the_next_epoch_has_the_members_of_the_change() {
    let next = plan(&started(), &Change::Remove(MemberId(0)), &living(3)).unwrap();
    let second = activate(&next, RecordId(2));
    assert_eq!(
        (second.epoch, second.predecessor, ids(&second.membership)),
        (2, Some(RecordId(0xa)), vec![1, 2])
    );
    assert_eq!(second.state, State::Active);
    let third = activate(&second, RecordId(3));
    assert_eq!((third.epoch, ids(&third.membership)), (3, vec![1, 2]));
}

#[test]
fn one_change_at_a_time_which_a_seal_makes_final() {
    let next = plan(&started(), &Change::Add(address(3)), &living(3)).unwrap();
    assert_eq!(plan(&next, &Change::Remove(MemberId(0)), &living(3)), Err(Refusal::UnderWay(CHANGE)));
    assert_eq!(abandon(&next, false), Ok(started()));
    assert_eq!(abandon(&next, true), Err(Refusal::Sealed(CHANGE)));
    assert_eq!(abandon(&started(), false), Err(Refusal::NoChange));
}

#[test]
fn a_change_that_leaves_too_few_is_refused() {
    let remove = Change::Remove(MemberId(0));
    assert_eq!(plan(&started(), &remove, &living(1)), Err(Refusal::NoQuorum { there: 1, needed: 2 }));
    // Two of three decide, but without one of them two of two would not.
    assert_eq!(plan(&started(), &remove, &living(2)), Err(Refusal::NoQuorum { there: 1, needed: 2 }));
    assert!(plan(&started(), &Change::Remove(MemberId(2)), &living(2)).is_ok());
    // Whoever is to be started counts in the next epoch, but decides nothing in this one.
    let replace = Change::Replace(MemberId(2), None);
    assert!(plan(&started(), &replace, &living(2)).is_ok());
    assert_eq!(plan(&started(), &replace, &living(1)), Err(Refusal::NoQuorum { there: 1, needed: 2 }));
    assert_eq!(plan(&record(1), &remove, &living(1)), Err(Refusal::Nobody));
}

#[test]
fn a_change_of_nobody_or_onto_a_taken_port_is_refused() {
    let nobody = MemberId(7);
    for change in [Change::Remove(nobody), Change::Replace(nobody, None)] {
        assert_eq!(plan(&started(), &change, &living(3)), Err(Refusal::NoMember(nobody)));
    }
    let onto = |change| plan(&started(), &change, &living(3)).unwrap_err();
    let taken = |between| BadRecord::PortInUse { between, host: "h1".into(), port: 7100 };
    assert_eq!(onto(Change::Add(address(1))), taken((MemberId(1), MemberId(3))).into());
    assert_eq!(
        onto(Change::Replace(MemberId(2), Some(address(1)))),
        taken((MemberId(1), MemberId(2))).into()
    );
}

#[test]
fn a_directory_is_claimed_once() {
    let first = claim(&record(3), MemberId(1), Incarnation(5)).unwrap();
    assert_eq!(claim(&first, MemberId(1), Incarnation(5)), Ok(first.clone()), "a claim may be repeated");
    assert_eq!(claim(&first, MemberId(1), Incarnation(6)), Err(Refusal::Claimed(MemberId(1))));
    let copied = BadRecord::SameIncarnation(MemberId(1), MemberId(2));
    assert_eq!(claim(&first, MemberId(2), Incarnation(5)), Err(copied.into()));
    assert_eq!(claim(&first, MemberId(7), Incarnation(7)), Err(Refusal::NoMember(MemberId(7))));
    // A member that stays has one directory in both epochs.
    let next = plan(&record(3), &Change::Add(address(3)), &living(3)).unwrap();
    let next = claim(&next, MemberId(0), Incarnation(8)).unwrap();
    assert_eq!(next.membership.members[0].incarnation, Some(Incarnation(8)));
    assert_eq!(next.changing_to().unwrap().members[0].incarnation, Some(Incarnation(8)));
}

#[test]
fn a_cluster_that_cannot_be_is_not_founded() {
    let founding = |n: u8, stands| Founding {
        cluster: "orders".into(),
        cluster_id: ClusterId(0xc),
        shards: 2,
        addresses: (0..n).map(address).collect(),
        stands,
    };
    let refused = |n, f, e| found(founding(n, Stands { f, e }), RecordId(1)).unwrap_err();
    assert_eq!(refused(3, 2, 1), BadRecord::Quorums { n: 3, f: 2, e: 1 });
    assert_eq!((refused(0, 0, 0), refused(10, 0, 0)), (BadRecord::Members(0), BadRecord::Members(10)));
}
