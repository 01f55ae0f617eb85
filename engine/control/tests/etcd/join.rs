//! Who may take the place of a member.

use crate::support::server::Etcd;
use crate::support::{address, announced, directory, next, record, settings, store};
use isonomy_control::id::{Incarnation, MemberId};
use isonomy_control::join::{JoinError, first_record, take_place};
use isonomy_control::plan::{Change, Refusal};
use isonomy_control::record::Record;
use std::path::{Path, PathBuf};

/// Takes a place as a process that starts does, on a thread of its own.
async fn take(etcd: &Etcd, cache: &Path, id: u8, incarnation: Incarnation) -> Result<(), JoinError> {
    let (settings, cache) = (settings(&etcd.endpoints()), PathBuf::from(cache));
    let take = move || {
        let record = first_record(&settings, "orders", &cache, || false)?;
        take_place(&settings, &record, &cache, MemberId(id), incarnation, || false)
    };
    tokio::task::spawn_blocking(take).await.unwrap()
}

async fn there(etcd: &Etcd) -> Record {
    store(&etcd.endpoints()).get().await.unwrap().record
}

#[tokio::test]
async fn a_new_directory_takes_the_place_of_one_that_is_replaced_and_no_other() {
    let (etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    let cache = dir.path().join("none.json");
    let first = store(&etcd.endpoints()).init(&record()).await.unwrap();
    let refused = take(&etcd, &cache, 1, Incarnation(99)).await.unwrap_err();
    assert!(matches!(refused, JoinError::Refusal(Refusal::Claimed(MemberId(1)))), "{refused}");
    assert!(refused.to_string().contains("isonomy member replace 1"), "{refused}");
    let replacing = announced(&first.record, &Change::Replace(MemberId(1), None), false);
    store(&etcd.endpoints()).replace(&first, &replacing).await.unwrap();
    take(&etcd, &cache, 1, Incarnation(99)).await.unwrap();
    let now = there(&etcd).await;
    assert_eq!(now.changing_to().unwrap().members[1].incarnation, Some(Incarnation(99)));
    assert_eq!(now.membership, first.record.membership);
    take(&etcd, &cache, 1, Incarnation(99)).await.unwrap();
    take(&etcd, &cache, 1, directory(1)).await.unwrap();
    let refused = take(&etcd, &cache, 1, Incarnation(98)).await.unwrap_err();
    assert!(matches!(refused, JoinError::Refusal(Refusal::Claimed(MemberId(1)))), "{refused}");
    assert_eq!(there(&etcd).await, now);
}

#[tokio::test]
async fn a_directory_that_was_removed_does_not_take_the_place_of_a_new_member() {
    let (etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    let cache = dir.path().join("membership.json");
    let first = store(&etcd.endpoints()).init(&record()).await.unwrap();
    // What the removed member has followed last.
    std::fs::write(&cache, first.record.to_json()).unwrap();
    let second = next(&announced(&first.record, &Change::Remove(MemberId(1)), false));
    let second = store(&etcd.endpoints()).replace(&first, &second).await.unwrap();
    let refused = take(&etcd, &cache, 1, directory(1)).await.unwrap_err();
    assert!(matches!(refused, JoinError::Refusal(Refusal::NoMember(MemberId(1)))), "{refused}");
    // Another member joins, under the number that is free.
    let growing = announced(&second.record, &Change::Add(address(4)), false);
    store(&etcd.endpoints()).replace(&second, &growing).await.unwrap();
    let refused = take(&etcd, &cache, 1, directory(1)).await.unwrap_err();
    assert!(matches!(refused, JoinError::Refusal(Refusal::Former(MemberId(1)))), "{refused}");
    assert_eq!(there(&etcd).await, growing, "nothing has changed");
    take(&etcd, &dir.path().join("none.json"), 1, directory(4)).await.unwrap();
}
