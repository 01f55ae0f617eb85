//! Signs of life: published, seen by others, gone with their lease, and there again.

use crate::support::server::Etcd;
use crate::support::{PREFIX, directory, follow, options, presence, record, store, until};
use isonomy_control::id::{Incarnation, MemberId};
use isonomy_control::service::{Options, Service, View};
use isonomy_control::{Error, Presence};
use std::time::Duration;

/// What the key of a sign of life may hold.
const ADDRESS: &str = r#"{"host":"h1","peer_base":1,"client_base":2}"#;

fn member(etcd: &Etcd, dir: &std::path::Path, n: u8) -> Service {
    let dir = dir.join(n.to_string());
    std::fs::create_dir(&dir).unwrap();
    Service::start(Options { presence: Some(presence(n)), ..options(&etcd.endpoints(), &dir) }).unwrap()
}

fn sees(view: &View, members: &[u8]) -> bool {
    view.alive.keys().copied().eq(members.iter().map(|n| directory(*n)))
}

#[tokio::test]
async fn members_find_each_other_and_notice_who_leaves() {
    let (etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    store(&etcd.endpoints()).init(&record()).await.unwrap();
    let (zero, one) = (member(&etcd, dir.path(), 0), member(&etcd, dir.path(), 1));
    for service in [&zero, &one] {
        let view = until(service, "both are seen", |view| sees(view, &[0, 1])).await;
        assert_eq!(view.alive[&directory(1)], presence(1));
    }
    drop(one);
    until(&zero, "the other has left", |view| sees(view, &[0])).await;
}

#[tokio::test]
async fn whoever_is_replaced_while_it_lives_is_seen_beside_the_new_one() {
    let (etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    let service = member(&etcd, dir.path(), 1);
    let anew = Presence { incarnation: Incarnation(99), ..presence(1) };
    store(&etcd.endpoints()).publish(&anew, Duration::from_secs(60)).await.unwrap();
    let view = until(&service, "both are seen", |view| view.alive.len() == 2).await;
    assert!(view.alive.values().all(|presence| presence.id == MemberId(1)), "{view:?}");
}

#[tokio::test]
async fn who_does_not_renew_is_gone() {
    let (etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    let service = follow(&etcd.endpoints(), dir.path());
    let mut silent = store(&etcd.endpoints());
    let lease = silent.publish(&presence(2), Duration::from_secs(1)).await.unwrap();
    until(&service, "the member is seen", |view| sees(view, &[2])).await;
    until(&service, "the member is gone", |view| sees(view, &[])).await;
    assert!(matches!(silent.renew(lease, &presence(2)).await, Err(Error::LeaseOver)));
}

#[tokio::test]
async fn a_sign_of_life_that_somebody_removes_or_overwrites_comes_back() {
    let (etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    let service = member(&etcd, dir.path(), 0);
    until(&service, "the member is seen", |view| sees(view, &[0])).await;
    let (mut client, key) = (etcd.client().await, format!("{PREFIX}alive/0/{}", directory(0)));
    client.delete(key.as_str(), None).await.unwrap();
    until(&service, "the member is gone", |view| sees(view, &[])).await;
    until(&service, "the member is seen again", |view| sees(view, &[0])).await;
    let elsewhere =
        client.get(key.as_str(), None).await.unwrap().kvs()[0].value_str().unwrap().replace("h0", "h9");
    client.put(key.as_str(), elsewhere, None).await.unwrap();
    let host = |view: &View| view.alive.get(&directory(0)).map(|presence| presence.address.host.clone());
    until(&service, "the member is elsewhere", |view| host(view).as_deref() == Some("h9")).await;
    until(&service, "the member is where it said", |view| host(view).as_deref() == Some("h0")).await;
}

#[tokio::test]
async fn a_lease_that_is_lost_gives_way_to_another() {
    let (etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    let service = member(&etcd, dir.path(), 0);
    until(&service, "the member is seen", |view| sees(view, &[0])).await;
    let mut client = etcd.client().await;
    let leases = client.leases().await.unwrap();
    assert_eq!(leases.leases().len(), 1);
    let mut views = service.views();
    views.mark_unchanged();
    client.lease_revoke(leases.leases()[0].id()).await.unwrap();
    tokio::time::timeout(crate::support::PATIENCE, views.wait_for(|view| sees(view, &[])))
        .await
        .unwrap()
        .unwrap();
    until(&service, "the member is seen again", |view| sees(view, &[0])).await;
    assert_ne!(client.leases().await.unwrap().leases()[0].id(), leases.leases()[0].id());
}

#[tokio::test]
async fn a_sign_of_life_that_does_not_read_is_left_out() {
    let (etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    let mut client = etcd.client().await;
    for (key, value) in [
        (&*format!("alive/1/{}", directory(1)), "here"),
        (&*format!("alive/01/{}", directory(1)), ADDRESS),
        ("alive/1", ADDRESS),
        ("alive/1/1", ADDRESS),
        ("alive/x", "{}"),
        ("alive/", ""),
        ("other", "1"),
    ] {
        client.put(format!("{PREFIX}{key}"), value, None).await.unwrap();
    }
    let mut store = store(&etcd.endpoints());
    store.publish(&presence(2), Duration::from_secs(60)).await.unwrap();
    assert_eq!(store.list().await.unwrap().alive, [presence(2)]);
    let service = follow(&etcd.endpoints(), dir.path());
    until(&service, "one is seen", |view| sees(view, &[2])).await;
    client.put(format!("{PREFIX}alive/0/{}", directory(0)), "there", None).await.unwrap();
    store.publish(&presence(3), Duration::from_secs(60)).await.unwrap();
    until(&service, "another is seen", |view| sees(view, &[2, 3])).await;
}
