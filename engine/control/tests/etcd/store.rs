//! The record by compare-and-swap: what one, two and many writers get, and what lost answers cost.

use crate::support::proxy::{Mode, Proxy};
use crate::support::server::Etcd;
use crate::support::{CLUSTER, KEY, changing, next, record, settings, store};
use isonomy_control::id::MemberId;
use isonomy_control::record::Record;
use isonomy_control::store::{Event, Store, Stored};
use isonomy_control::{BadRecord, Error};
use std::sync::Arc;

#[tokio::test]
async fn a_cluster_is_initialised_once() {
    let etcd = Etcd::one().await;
    let mut store = store(&etcd.endpoints());
    assert!(matches!(store.get().await, Err(Error::Absent(key)) if key == KEY));
    let first = record();
    let stored = store.init(&first).await.unwrap();
    assert_eq!(store.get().await.unwrap(), stored);
    let error = store.init(&record()).await.unwrap_err();
    assert!(matches!(&error, Error::Exists { there, .. } if **there == first), "{error}");
    assert!(error.to_string().contains(&format!("cluster orders, epoch 1, record {}", first.record)));
    assert_eq!(store.get().await.unwrap(), stored, "nothing has changed");
}

#[tokio::test]
async fn of_two_changes_of_one_record_one_is_made() {
    let etcd = Etcd::one().await;
    let (mut one, mut other) = (store(&etcd.endpoints()), store(&etcd.endpoints()));
    let first = one.init(&record()).await.unwrap();
    let (ours, theirs) = (changing(&first.record), changing(&first.record));
    let (ours, theirs) = tokio::join!(one.replace(&first, &ours), other.replace(&first, &theirs));
    let (won, lost) = match (ours, theirs) {
        (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
        both => panic!("{both:?}"),
    };
    assert!(matches!(lost, Error::Moved { there: Some(there), .. } if *there == won.record));
    assert_eq!(one.get().await.unwrap(), won);
    // A change of what was there before is refused as well, and one of what is there is made.
    let stale = one.replace(&first, &next(&first.record)).await;
    assert!(matches!(stale, Err(Error::Moved { .. })), "{stale:?}");
    one.replace(&won, &next(&won.record)).await.unwrap();
    etcd.client().await.delete(KEY, None).await.unwrap();
    let gone = one.replace(&won, &next(&won.record)).await.unwrap_err().to_string();
    assert!(gone.contains("nothing is there"), "{gone}");
}

#[tokio::test]
async fn an_answer_that_is_lost_is_found_out() {
    let etcd = Etcd::one().await;
    let proxy = Proxy::new(&etcd.endpoints()[0]);
    let mut near = store(&[proxy.endpoint()]);
    let first = near.init(&record()).await.unwrap();
    let second = changing(&first.record);
    proxy.set(Mode::LoseOne);
    let stored = near.replace(&first, &second).await.unwrap();
    assert_eq!(proxy.mode(), Mode::Pass, "an answer was lost");
    let direct = store(&etcd.endpoints()).get().await.unwrap();
    assert_eq!(stored, direct);
    assert_eq!(stored.revision, first.revision + 1, "the record was written once");
}

#[tokio::test]
async fn a_writer_that_gets_no_answer_at_all_is_told_so() {
    let etcd = Etcd::one().await;
    let proxy = Proxy::new(&etcd.endpoints()[0]);
    let mut near = store(&[proxy.endpoint()]);
    let first = near.init(&record()).await.unwrap();
    let second = changing(&first.record);
    proxy.set(Mode::LoseAll);
    let error = near.replace(&first, &second).await.unwrap_err();
    assert!(matches!(&error, Error::Unsettled(_)), "{error}");
    assert!(error.to_string().contains(&proxy.endpoint()), "{error}");
    // etcd has it. Who asks again with the same record is told that it is there.
    let direct = store(&etcd.endpoints()).get().await.unwrap();
    assert_eq!(direct.record, second);
    proxy.set(Mode::Pass);
    assert_eq!(near.replace(&first, &second).await.unwrap(), direct);
}

/// Puts a value by hand; what the store says of it, and that a writer leaves it alone.
async fn said_of(etcd: &Etcd, value: &[u8]) -> BadRecord {
    let mut client = etcd.client().await;
    client.put(KEY, value, None).await.unwrap();
    let mut store = store(&etcd.endpoints());
    let Err(Error::Bad { key, why }) = store.get().await else { panic!("it is taken for a record") };
    assert_eq!(key, KEY);
    let stale = Stored { record: record(), revision: 1 };
    for result in [store.init(&record()).await, store.replace(&stale, &record()).await] {
        assert!(matches!(&result, Err(Error::Bad { why: said, .. }) if *said == why), "{result:?}");
    }
    let there = client.get(KEY, None).await.unwrap();
    assert_eq!(there.kvs()[0].value(), value, "nothing has changed");
    why
}

#[tokio::test]
async fn what_is_no_record_of_the_cluster_is_left_alone() {
    let etcd = Etcd::one().await;
    let changed = |change: &dyn Fn(&mut Record)| {
        let mut record = record();
        change(&mut record);
        record.to_json()
    };
    assert!(matches!(said_of(&etcd, b"three members").await, BadRecord::NoJson(_)));
    assert_eq!(said_of(&etcd, br#"{"version":2}"#).await, BadRecord::Newer(2));
    let foreign = BadRecord::OtherCluster { there: "bids".into(), expected: CLUSTER.into() };
    assert_eq!(said_of(&etcd, &changed(&|record| record.cluster = "bids".into())).await, foreign);
    let twice = changed(&|record| record.membership.members[1].id = MemberId(0));
    assert_eq!(said_of(&etcd, &twice).await, BadRecord::Twice(MemberId(0)));
}

#[tokio::test]
async fn an_endpoint_that_is_down_gives_way_and_all_are_named() {
    let etcd = Etcd::one().await;
    let nobody = Proxy::new(&etcd.endpoints()[0]);
    nobody.set(Mode::Refuse);
    let endpoints = [nobody.endpoint(), etcd.endpoints()[0].clone()];
    let mut one_down = store(&endpoints);
    one_down.init(&record()).await.unwrap();
    let other = Proxy::new(&etcd.endpoints()[0]);
    other.set(Mode::Refuse);
    let error = store(&[nobody.endpoint(), other.endpoint()]).get().await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable(_)), "{error}");
    for endpoint in [nobody.endpoint(), other.endpoint()] {
        assert!(error.to_string().contains(&endpoint), "{error}");
    }
}

#[tokio::test]
async fn a_watch_on_what_was_compacted_says_so() {
    let etcd = Etcd::one().await;
    let mut store = store(&etcd.endpoints());
    let first = store.init(&record()).await.unwrap();
    let second = store.replace(&first, &changing(&first.record)).await.unwrap();
    etcd.client().await.compact(second.revision, None).await.unwrap();
    let mut late = store.watch(first.revision).await.unwrap();
    let error = store.next(&mut late).await.unwrap_err();
    assert!(matches!(error, Error::Compacted(revision) if revision == second.revision), "{error}");
    let mut watch = store.watch(second.revision).await.unwrap();
    let events = store.next(&mut watch).await.unwrap();
    assert!(matches!(&events[..], [Event::Record(Ok(there))] if *there == second), "{events:?}");
}

#[tokio::test]
async fn clusters_with_prefixes_of_their_own_do_not_meet() {
    let etcd = Etcd::one().await;
    let mut orders = store(&etcd.endpoints());
    let first = orders.init(&record()).await.unwrap();
    let prefix = "/isonomy/bids/".to_owned();
    let apart = isonomy_control::settings::Settings { prefix, ..settings(&etcd.endpoints()) };
    let mut bids = Store::new(Arc::new(apart), "bids").unwrap();
    assert!(matches!(bids.get().await, Err(Error::Absent(_))));
    bids.init(&Record { cluster: "bids".into(), ..record() }).await.unwrap();
    assert_eq!(orders.get().await.unwrap(), first);
    // Whoever names the wrong prefix is told whose it is.
    let mut lost = Store::new(Arc::new(settings(&etcd.endpoints())), "bids").unwrap();
    let error = lost.get().await.unwrap_err().to_string();
    assert!(error.contains("it belongs to the cluster orders, not to bids"), "{error}");
}
