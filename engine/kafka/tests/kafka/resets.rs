use crate::support::consumer::{committed, decisions};
use crate::support::history::{Decisions, History};
use crate::support::outbox::{Gate, Outbox};
use crate::support::{PUBLICATION, SHARDS, await_that, broker, end_of, publish_all, settings};
use isonomy_kafka::cursor::Cursor;
use isonomy_kafka::outbox::{Published, Retain, Writer, follow, segments};
use isonomy_kafka::publisher::{Publication, Publisher};
use isonomy_kafka::settings::{Format, Settings};
use isonomy_kafka::{Error, Standing, create_topics, reset, standing};
use isonomy_mesh::ForSink;
use isonomy_wire::id::{ClusterId, Epoch};
use isonomy_wire::message::Milestone;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use std::sync::Arc;

const OTHER: Publication = Publication { cluster: ClusterId(78), ..PUBLICATION };

fn start(settings: &Settings, outbox: Outbox) -> Publisher {
    Publisher::start(settings.clone(), PUBLICATION, outbox).unwrap()
}

fn now(settings: &Settings) -> Standing {
    standing(settings, SHARDS, PUBLICATION.shard).unwrap()
}

/// The point up to which a cursor says that everything is published.
fn behind(cursor: &Cursor) -> Milestone {
    Milestone { barrier: 0, epoch: cursor.epoch, frontier: cursor.frontier }
}

/// Publishes about half of a history, and stops.
fn publish_half(settings: &Settings, history: &History) -> Decisions {
    let half = history.before_a_component();
    let publisher = start(settings, Outbox::new(history.batches(), &Gate::of(half)));
    await_that("the publication of a half", || publisher.status().batches == half as u64);
    publisher.stop();
    publisher.join().unwrap();
    decisions(settings.format, &committed(settings))
}

fn create_again(settings: &Settings) {
    let before = now(settings).topic;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", broker::shared()).create().unwrap();
    let deleted = admin.delete_topics(&[&settings.topic], &AdminOptions::new());
    assert!(futures_lite::future::block_on(deleted).unwrap()[0].is_ok());
    await_that("another topic of the same name", || {
        let created = create_topics(settings, SHARDS, 1);
        created.is_ok() && standing(settings, SHARDS, PUBLICATION.shard).is_ok_and(|now| now.topic != before)
    });
}

/// Whether what came first and what came later are all decisions, each once and in order.
fn assert_whole(history: &History, first: &Decisions, later: &Decisions) {
    let mut all = first.clone();
    for (key, decisions) in later {
        all.entry(key.clone()).or_default().extend(decisions.iter().cloned());
    }
    assert!(all == history.decisions);
}

fn count(decisions: &Decisions) -> u64 {
    decisions.values().map(|all| all.len() as u64).sum()
}

#[test]
fn a_topic_that_was_made_again_gets_what_the_one_before_had_not() {
    let settings = settings(broker::shared(), Format::Record);
    let history = History::new(21, 100);
    let first = publish_half(&settings, &history);
    create_again(&settings);
    let seen = now(&settings);
    assert!(matches!(seen.judge(&settings, PUBLICATION), Err(Error::Replaced { .. })));
    let cursor = seen.cursor.unwrap();
    let written = reset(&settings, PUBLICATION, &seen, &behind(&cursor)).unwrap();
    assert_eq!(now(&settings).judge(&settings, PUBLICATION).unwrap(), written);
    assert_eq!((written.topic, written.frontier), (seen.topic, cursor.frontier));
    let outbox = Outbox::open(history.reordered(22).batches());
    publish_all(start(&settings, outbox), history.len() - count(&first));
    assert_whole(&history, &first, &decisions(Format::Record, &committed(&settings)));
}

/// Its session goes on with the name of the topic, and the broker takes it.
#[test]
fn a_publisher_whose_topic_is_made_again_under_it_notices() {
    let settings = settings(broker::shared(), Format::Record);
    let history = History::new(23, 100);
    let half = history.before_a_component();
    let gate = Gate::of(half);
    let publisher = start(&settings, Outbox::new(history.batches(), &gate));
    await_that("the publication of a half", || publisher.status().batches == half as u64);
    create_again(&settings);
    gate.open(usize::MAX);
    let end = end_of(publisher);
    assert!(matches!(end, Error::Truncated { .. } | Error::Replaced { .. } | Error::Unfit(_)), "{end}");
    assert_eq!(committed(&settings).len(), 0, "nothing goes on in the middle of another topic");
}

#[test]
fn an_adopted_topic_hears_nothing_more_of_the_cluster_before() {
    let settings = settings(broker::shared(), Format::Record);
    let history = History::new(24, 100);
    let half = history.before_a_component();
    let gate = Gate::of(half + 1);
    let before = start(&settings, Outbox::new(history.batches(), &gate));
    // It has half a component in a transaction that stays open.
    await_that("half a component", || gate.passed() == half + 1 && now(&settings).cursor.is_some());
    let seen = now(&settings);
    let owned = seen.judge(&settings, OTHER).unwrap_err();
    assert!(matches!(&owned, Error::Owned { there, .. } if there.cluster == PUBLICATION.cluster), "{owned}");
    assert!(owned.to_string().contains(&format!("isonomy publish adopt {}", PUBLICATION.cluster)), "{owned}");
    let published = committed(&settings).len();
    let from = Milestone { epoch: Epoch(3), ..Milestone::default() };
    let written = reset(&settings, OTHER, &seen, &from).unwrap();
    gate.open(usize::MAX);
    let end = end_of(before);
    assert!(matches!(end, Error::Fenced(_)), "{end}");
    assert_eq!(committed(&settings).len(), published);
    // It begins anew, and is refused.
    let end = end_of(start(&settings, Outbox::open(history.batches())));
    assert!(matches!(&end, Error::Owned { there, .. } if there.cluster == OTHER.cluster), "{end}");
    assert_eq!(now(&settings).cursor, Some(written));
}

#[test]
fn a_reset_that_somebody_was_faster_than_changes_nothing() {
    let settings = settings(broker::shared(), Format::Record);
    let history = History::new(25, 60);
    let seen = now(&settings);
    publish_half(&settings, &history);
    let cursor = now(&settings).cursor;
    let refused = reset(&settings, PUBLICATION, &seen, &Milestone::default()).unwrap_err();
    assert!(matches!(refused, Error::Moved(shard) if shard == PUBLICATION.shard), "{refused}");
    assert_eq!(now(&settings).cursor, cursor);
}

/// A restored cluster waits until it adopts the topic, and may not lose what it decides until then.
#[test]
fn the_cursor_of_another_cluster_gives_nothing_up() {
    let settings = settings(broker::shared(), Format::Record);
    let history = History::new(26, 30);
    publish_all(start(&settings, Outbox::open(history.batches())), history.len());
    let dir = tempfile::tempdir().unwrap();
    let published = Arc::new(Published::default());
    let retain = Retain::Unpublished(published.clone());
    let mut writer = Writer::open(dir.path(), OTHER.cluster, OTHER.shard, retain).unwrap();
    let start = Milestone { epoch: Epoch(1), ..Milestone::default() };
    writer.take(&ForSink::State(start)).unwrap();
    writer.take(&ForSink::Barrier(Milestone { barrier: 1, ..start })).unwrap();
    let mut left = |publication: Publication| {
        let cursor = follow(&settings, publication, dir.path(), &published).unwrap();
        writer.prune().unwrap();
        (cursor.map(|cursor| cursor.cluster), segments(dir.path()).unwrap())
    };
    assert_eq!(left(OTHER), (None, vec![0, 1]));
    assert_eq!(left(PUBLICATION), (Some(PUBLICATION.cluster), vec![1]));
}
