use super::{Refused, follows};
use crate::id::{ChangeId, Incarnation, MemberId, RecordId};
use crate::plan::{Change, abandon, activate, announce, claim};
use crate::record::Record;
use crate::sample::{address, living, record, stands};
use isonomy_wire::id::ClusterId;

fn changing(record: &Record) -> Record {
    announce(record, &Change::Add(address(3)), ChangeId(1), stands, &living(3)).unwrap()
}

#[test]
fn a_change_may_come_go_and_take_effect() {
    let first = record(3);
    let announced = changing(&first);
    let second = activate(&announced, RecordId(0xb));
    let third = activate(&second, RecordId(0xc));
    for (known, next) in [
        (&first, &first),
        (&first, &announced),
        (&announced, &abandon(&announced, false).unwrap()),
        (&first, &claim(&first, MemberId(1), Incarnation(5)).unwrap()),
        (&first, &second),
        (&announced, &second),
        // A replica that was away for more than an epoch.
        (&first, &third),
    ] {
        assert_eq!(follows(known, next), Ok(()), "{known} -> {next}");
    }
}

#[test]
fn a_history_that_goes_back_or_aside_is_refused() {
    let first = record(3);
    let second = activate(&first, RecordId(0xb));
    assert_eq!(follows(&second, &first), Err(Refused::Backwards { there: 1, known: 2 }));
    let other = Record { record: RecordId(0xd), ..first.clone() };
    let refused = Refused::OtherRecord { epoch: 1, there: RecordId(0xd), known: RecordId(0xa) };
    assert_eq!(follows(&first, &other), Err(refused));
    let refused = Refused::OtherPast { epoch: 2, there: RecordId(0xd), known: RecordId(0xa) };
    assert_eq!(follows(&first, &activate(&other, RecordId(0xe))), Err(refused));
}

#[test]
fn a_record_of_another_cluster_or_shape_is_refused() {
    let first = record(3);
    let other = Record { cluster_id: ClusterId(1), ..first.clone() };
    let refused = Refused::OtherCluster { there: ClusterId(1), known: ClusterId(0xc) };
    assert_eq!(follows(&first, &other), Err(refused));
    let wider = Record { shards: 3, ..activate(&first, RecordId(0xb)) };
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
    let claimed = claim(&first, MemberId(1), Incarnation(5)).unwrap();
    let elsewhere = claim(&first, MemberId(1), Incarnation(6)).unwrap();
    for other in [&first, &elsewhere] {
        let refused = Refused::OtherIncarnation { epoch: 1, id: MemberId(1), known: Incarnation(5) };
        assert_eq!(follows(&claimed, other), Err(refused));
    }
}
