//! An etcd that is gone for a while, in part or whole, and what has happened meanwhile.

use crate::support::proxy::{Mode, Proxy};
use crate::support::server::Etcd;
use crate::support::{changing, follow, next, patiently, record, store, until, until_follows};
use isonomy_control::service::{Etcd as Link, View};
use isonomy_control::{Error, service};

fn is_gone(view: &View) -> bool {
    matches!(&view.etcd, Link::Gone { why: Some(why), .. } if matches!(**why, Error::Unreachable(_)))
}

#[tokio::test]
async fn a_service_that_is_there_before_the_cluster_follows_it() {
    let (etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    let service = follow(&etcd.endpoints(), dir.path());
    until(&service, "nothing is there", |view| view.unfollowed == Some(service::Unfollowed::Absent)).await;
    let mut store = store(&etcd.endpoints());
    let first = store.init(&record()).await.unwrap();
    until_follows(&service, &first.record).await;
    let announced = store.replace(&first, &changing(&first.record)).await.unwrap();
    until_follows(&service, &announced.record).await;
    let second = store.replace(&announced, &next(&announced.record)).await.unwrap();
    let view = until_follows(&service, &second.record).await;
    assert!(matches!(view.etcd, Link::Reached), "{view:?}");
}

#[tokio::test]
async fn a_service_outlives_an_outage() {
    let (mut etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    let first = store(&etcd.endpoints()).init(&record()).await.unwrap();
    let service = follow(&etcd.endpoints(), dir.path());
    until_follows(&service, &first.record).await;
    etcd.kill(0);
    let view = until(&service, "etcd is gone", is_gone).await;
    assert_eq!(view.record.as_deref(), Some(&first.record), "what is known stays");
    let Link::Gone { since, .. } = view.etcd else { unreachable!("it is gone") };
    let later = until(&service, "etcd was tried again", |now| {
        let why = |view: &View| match &view.etcd {
            Link::Gone { why: Some(why), .. } => std::sync::Arc::as_ptr(why),
            _ => std::ptr::null(),
        };
        why(now) != why(&view)
    })
    .await;
    assert!(matches!(later.etcd, Link::Gone { since: still, .. } if still == since), "{later:?}");
    etcd.restart(0).await;
    let mut store = store(&etcd.endpoints());
    let second = store.replace(&first, &next(&first.record)).await.unwrap();
    let view = until_follows(&service, &second.record).await;
    assert!(matches!(view.etcd, Link::Reached), "{view:?}");
}

#[tokio::test]
async fn a_service_that_starts_without_etcd_has_the_record_in_its_file() {
    let (mut etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    let first = store(&etcd.endpoints()).init(&record()).await.unwrap();
    until_follows(&follow(&etcd.endpoints(), dir.path()), &first.record).await;
    etcd.kill(0);
    let service = follow(&etcd.endpoints(), dir.path());
    assert_eq!(service.view().record.as_deref(), Some(&first.record));
    assert!(matches!(service.view().etcd, Link::Gone { .. }));
    until(&service, "etcd is gone", is_gone).await;
    etcd.restart(0).await;
    let view = until(&service, "etcd is back", |view| matches!(view.etcd, Link::Reached)).await;
    assert_eq!(view.record.as_deref(), Some(&first.record));
}

#[tokio::test]
async fn what_was_compacted_while_a_service_was_cut_off_is_listed() {
    let (etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    let proxy = Proxy::new(&etcd.endpoints()[0]);
    let mut store = store(&etcd.endpoints());
    let mut stored = store.init(&record()).await.unwrap();
    let service = follow(&[proxy.endpoint()], dir.path());
    until_follows(&service, &stored.record).await;
    proxy.set(Mode::Refuse);
    until(&service, "etcd is gone", is_gone).await;
    for _ in 0..3 {
        stored = store.replace(&stored, &next(&stored.record)).await.unwrap();
    }
    etcd.client().await.compact(stored.revision, None).await.unwrap();
    proxy.set(Mode::Pass);
    until_follows(&service, &stored.record).await;
    stored = store.replace(&stored, &next(&stored.record)).await.unwrap();
    until_follows(&service, &stored.record).await;
}

#[tokio::test]
async fn the_death_of_etcds_leader_stops_nobody() {
    let (mut etcd, dir) = (Etcd::three().await, tempfile::tempdir().unwrap());
    let mut store = store(&etcd.endpoints());
    let first = store.init(&record()).await.unwrap();
    let service = follow(&etcd.endpoints(), dir.path());
    until_follows(&service, &first.record).await;
    let leader = etcd.leader().await;
    etcd.kill(leader);
    let second = patiently(async || store.replace(&first, &next(&first.record)).await).await;
    until_follows(&service, &second.record).await;
    // A minority decides nothing, and says so.
    let follower = (leader + 1) % 3;
    etcd.kill(follower);
    let error = store.replace(&second, &next(&second.record)).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_) | Error::Unsettled(_)), "{error}");
    etcd.restart(follower).await;
    let now = patiently(async || store.get().await).await;
    until_follows(&service, &now.record).await;
}

#[tokio::test]
async fn an_etcd_that_hangs_is_noticed() {
    let (etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    let mut store = store(&etcd.endpoints());
    let first = store.init(&record()).await.unwrap();
    let service = follow(&etcd.endpoints(), dir.path());
    until_follows(&service, &first.record).await;
    etcd.freeze(0);
    let error = store.get().await.unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable(_)) && error.to_string().contains("no answer within"),
        "{error}"
    );
    until(&service, "etcd is gone", is_gone).await;
    etcd.thaw(0);
    let second = patiently(async || store.replace(&first, &next(&first.record)).await).await;
    until_follows(&service, &second.record).await;
}
