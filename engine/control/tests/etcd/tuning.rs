//! The settings in etcd, and the word that a fast quorum cannot be formed.

use crate::support::server::Etcd;
use crate::support::{PREFIX, follow, options, presence, record, store, until, until_follows};
use isonomy_control::id::MemberId;
use isonomy_control::service::{Options, Service, View};
use isonomy_control::store::Swapped;
use isonomy_control::tuning::{BadTuning, Chosen, Name, Why, Word};
use isonomy_wire::tuning::Loss;
use std::path::Path;

fn chosen(changes: &[&str]) -> Chosen {
    Chosen::default().changed(&changes.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

async fn until_chosen(service: &Service, settings: Chosen) -> View {
    until(service, "settings are followed", |view| {
        view.tuning.chosen == settings && view.tuning.trouble.is_none()
    })
    .await
}

#[tokio::test]
async fn settings_are_followed_and_kept_for_a_start_without_etcd() {
    let (mut etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    let mut store = store(&etcd.endpoints());
    let first = store.init(&record()).await.unwrap();
    let service = follow(&etcd.endpoints(), dir.path());
    until_follows(&service, &first.record).await;
    until(&service, "the settings are reached", |view| view.tuning.is_reached).await;
    assert_eq!(service.view().tuning.chosen, Chosen::default());
    let settings = chosen(&["window=7", "path=slow"]);
    assert_eq!(store.choose(0, &settings).await.unwrap(), Swapped::Done);
    until_chosen(&service, settings).await;
    drop(service);
    etcd.kill(0);
    let service = follow(&etcd.endpoints(), dir.path());
    assert_eq!(service.view().tuning.chosen, settings);
    etcd.restart(0).await;
    etcd.client().await.delete(key("settings"), None).await.unwrap();
    until_chosen(&service, Chosen::default()).await;
}

#[tokio::test]
async fn of_two_who_change_the_same_settings_one_is_told_so() {
    let etcd = Etcd::one().await;
    let (mut one, mut two) = (store(&etcd.endpoints()), store(&etcd.endpoints()));
    let known = one.tuned().await.unwrap().settings;
    assert_eq!((known.value, known.revision), (Ok(None), 0));
    let (mine, theirs) = (chosen(&["window=7"]), chosen(&["window=8"]));
    let (first, second) = tokio::join!(one.choose(0, &mine), two.choose(0, &theirs));
    let mut both = [first.unwrap(), second.unwrap()];
    let there = one.tuned().await.unwrap().settings;
    assert_eq!(there.value, Ok(Some(if both[0] == Swapped::Done { mine } else { theirs })));
    both.sort_by_key(|swapped| *swapped == Swapped::Moved);
    assert_eq!(both, [Swapped::Done, Swapped::Moved]);
    assert_eq!(one.choose(there.revision, &mine).await.unwrap(), Swapped::Done);
    assert_eq!(two.choose(there.revision, &theirs).await.unwrap(), Swapped::Moved);
    assert_eq!(two.choose(there.revision, &mine).await.unwrap(), Swapped::Done, "it is there already");
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_told_and_change_nothing() {
    let (etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    let mut store = store(&etcd.endpoints());
    let service = follow(&etcd.endpoints(), dir.path());
    let good = chosen(&["window=7"]);
    store.choose(0, &good).await.unwrap();
    until_chosen(&service, good).await;
    let mut client = etcd.client().await;
    let bad = [
        ("slow", None),
        (r#"{"version":2,"knobs":[]}"#, Some(BadTuning::Newer(2))),
        (
            r#"{"version":1,"settings":{"window":99}}"#,
            Some(BadTuning::Range { name: Name::Window, value: 99 }),
        ),
    ];
    for (value, expected) in bad {
        client.put(key("settings"), value, None).await.unwrap();
        let is_it = |trouble: &BadTuning| match &expected {
            Some(expected) => trouble == expected,
            None => matches!(trouble, BadTuning::NoJson(_)),
        };
        let view = until(&service, value, |view| view.tuning.trouble.as_ref().is_some_and(is_it)).await;
        assert_eq!(view.tuning.chosen, good, "those before stay");
        assert!(store.tuned().await.unwrap().settings.value.is_err());
    }
    let better = chosen(&["window=8"]);
    let revision = store.tuned().await.unwrap().settings.revision;
    assert_eq!(store.choose(revision, &better).await.unwrap(), Swapped::Done);
    until_chosen(&service, better).await;
}

/// Member `n`, which follows the cluster and gives signs of life.
fn member(etcd: &Etcd, dir: &Path, n: u8) -> Service {
    let dir = dir.join(n.to_string());
    std::fs::create_dir_all(&dir).unwrap();
    Service::start(Options { presence: Some(presence(n)), ..options(&etcd.endpoints(), &dir) }).unwrap()
}

async fn until_word_of(service: &Service, member: Option<u8>) -> View {
    until(service, "a word stands or is taken back", |view| {
        view.tuning.is_reached
            && view.tuning.word.as_ref().map(|word| word.by) == member.map(MemberId)
            && view.tuning.is_slow_agreed() == member.is_some()
    })
    .await
}

#[tokio::test]
async fn a_word_stands_until_its_member_takes_it_back_or_is_gone() {
    let (etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    store(&etcd.endpoints()).init(&record()).await.unwrap();
    let [zero, one, two] = [0, 1, 2].map(|n| member(&etcd, dir.path(), n));
    for service in [&zero, &one, &two] {
        until(service, "all live", |view| view.alive.len() == 3).await;
        until_word_of(service, None).await;
    }
    zero.judge(Some(Loss::InVain));
    let view = until_word_of(&two, Some(0)).await;
    assert_eq!(view.tuning.word.map(|word| word.why), Some(Why::InVain));
    // The second that judges so says nothing, and takes nothing back when it judges otherwise.
    one.judge(Some(Loss::Unreached));
    until_word_of(&one, Some(0)).await;
    zero.judge(None);
    let view = until_word_of(&two, Some(1)).await;
    assert_eq!(view.tuning.word.map(|word| word.why), Some(Why::Unreached));
    // Whoever gives no sign of life has no word.
    drop(one);
    until_word_of(&two, None).await;
    until_word_of(&zero, None).await;
}

#[tokio::test]
async fn without_etcd_no_word_counts() {
    let (mut etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    store(&etcd.endpoints()).init(&record()).await.unwrap();
    let [zero, one] = [0, 1].map(|n| member(&etcd, dir.path(), n));
    zero.judge(Some(Loss::InVain));
    until_word_of(&one, Some(0)).await;
    etcd.kill(0);
    let view = until(&one, "etcd is gone", |view| !view.tuning.is_reached).await;
    assert!(!view.tuning.is_slow_agreed());
    etcd.restart(0).await;
    until_word_of(&one, Some(0)).await;
    zero.judge(None);
    until_word_of(&one, None).await;
}

#[tokio::test]
async fn a_word_that_does_not_parse_says_nothing_and_gives_way() {
    let (etcd, dir) = (Etcd::one().await, tempfile::tempdir().unwrap());
    store(&etcd.endpoints()).init(&record()).await.unwrap();
    etcd.client().await.put(key("settings/slow"), "very", None).await.unwrap();
    let service = member(&etcd, dir.path(), 0);
    until_word_of(&service, None).await;
    service.judge(Some(Loss::InVain));
    until_word_of(&service, Some(0)).await;
    let there = etcd.client().await.get(key("settings/slow"), None).await.unwrap();
    assert_eq!(Word::parse(there.kvs()[0].value()).unwrap().by, MemberId(0));
}
