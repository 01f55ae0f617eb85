//! An etcd that was set back to an old copy of its data, or written by hand.

use crate::support::server::Etcd;
use crate::support::{KEY, follow, next, record, store, until, until_follows};
use isonomy_control::id::MemberId;
use isonomy_control::service::{StartError, Unfollowed};
use isonomy_control::{BadRecord, Refused};
use isonomy_wire::epoch::WentBack;
use isonomy_wire::id::Epoch;
use std::path::Path;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn an_epoch_that_goes_backwards_is_refused() {
    let (mut etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    let first = store(&etcd.endpoints()).init(&record()).await.unwrap();
    let service = follow(&etcd.endpoints(), dir.path());
    until_follows(&service, &first.record).await;
    let (data, backup) = (etcd.data_dir(0), dir.path().join("backup"));
    etcd.kill(0);
    copy(&data, &backup);
    etcd.restart(0).await;
    let second = store(&etcd.endpoints()).replace(&first, &next(&first.record)).await.unwrap();
    until_follows(&service, &second.record).await;

    etcd.kill(0);
    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    etcd.restart(0).await;
    let refused = |back, there, known| Unfollowed::Refused(Refused::Back { back, there, known });
    let back = WentBack::Epoch { here: Epoch(2), there: Epoch(1) };
    let backwards = refused(back, first.record.record, second.record.record);
    let view = until(&service, "it is refused", |view| view.unfollowed == Some(backwards.clone())).await;
    assert_eq!(view.record.as_deref(), Some(&second.record), "what is known stays");
    drop(service);
    // So it is for a process that has only the file.
    let service = follow(&etcd.endpoints(), dir.path());
    until(&service, "it is refused again", |view| view.unfollowed == Some(backwards.clone())).await;

    // Somebody else goes on from the old record. That is another epoch 2.
    let mut store = store(&etcd.endpoints());
    let other = store.replace(&first, &next(&first.record)).await.unwrap();
    let (there, known) = (other.record.record, second.record.record);
    let refused = refused(WentBack::Record { epoch: Epoch(2) }, there, known);
    until(&service, "the other history is refused", |view| view.unfollowed == Some(refused.clone())).await;
    // The operator puts back what the replicas have.
    store.replace(&other, &second.record).await.unwrap();
    until_follows(&service, &second.record).await;
}

#[tokio::test]
async fn what_is_written_by_hand_is_not_followed_until_it_is_mended() {
    let (etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    let first = store(&etcd.endpoints()).init(&record()).await.unwrap();
    let service = follow(&etcd.endpoints(), dir.path());
    until_follows(&service, &first.record).await;
    let mut client = etcd.client().await;
    let mut twice = first.record.clone();
    twice.membership.members[1].id = MemberId(0);
    for (value, why) in [
        (br#"{"version":9}"#.to_vec(), Unfollowed::Bad(BadRecord::Newer(9))),
        (twice.to_json(), Unfollowed::Bad(BadRecord::Twice(MemberId(0)))),
    ] {
        client.put(KEY, value, None).await.unwrap();
        let view = until(&service, "it is not followed", |view| view.unfollowed == Some(why.clone())).await;
        assert_eq!(view.record.as_deref(), Some(&first.record), "what is known stays");
    }
    client.delete(KEY, None).await.unwrap();
    until(&service, "it is missing", |view| view.unfollowed == Some(Unfollowed::Removed)).await;
    client.put(KEY, first.record.to_json(), None).await.unwrap();
    until_follows(&service, &first.record).await;
}

#[tokio::test]
async fn a_record_that_cannot_be_kept_is_not_followed_until_it_can() {
    let (etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    let first = store(&etcd.endpoints()).init(&record()).await.unwrap();
    let later = dir.path().join("later");
    let service = follow(&etcd.endpoints(), &later);
    let uncached = |view: &isonomy_control::service::View| {
        view.record.is_none()
            && matches!(&view.unfollowed, Some(Unfollowed::Uncached(why)) if why.contains("later"))
    };
    until(&service, "the file cannot be written", uncached).await;
    std::fs::create_dir(&later).unwrap();
    until_follows(&service, &first.record).await;
}

#[test]
fn a_file_of_another_cluster_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let options = crate::support::options(&["http://127.0.0.1:1".into()], dir.path());
    let mut foreign = record();
    foreign.cluster = "bids".into();
    std::fs::write(&options.cache, foreign.to_json()).unwrap();
    let error = isonomy_control::service::Service::start(options).unwrap_err();
    assert!(matches!(&error, StartError::Cache(_)), "{error}");
    assert!(error.to_string().contains("it belongs to the cluster bids"), "{error}");
}
