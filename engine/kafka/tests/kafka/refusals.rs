use crate::support::consumer::committed;
use crate::support::history::History;
use crate::support::outbox::Outbox;
use crate::support::{PUBLICATION, SHARDS, broker, end_of, publish_all, settings};
use isonomy_kafka::publisher::{Publication, Publisher};
use isonomy_kafka::settings::{BadSettings, Format, Settings};
use isonomy_kafka::{Error, Unfit, create_topics};
use isonomy_wire::id::{ClusterId, ShardId};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

fn batches() -> Vec<Vec<u8>> {
    History::new(1, 20).batches()
}

fn why(settings: &Settings, publication: Publication) -> Error {
    end_of(Publisher::start(settings.clone(), publication, Outbox::open(batches())).unwrap())
}

fn publish(settings: &Settings) {
    let history = History::new(1, 20);
    let publisher = Publisher::start(settings.clone(), PUBLICATION, Outbox::open(history.batches())).unwrap();
    publish_all(publisher, history.len());
}

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", broker::shared()).create().unwrap()
}

fn set(topic: &str, name: &str, value: &str) {
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
    let results = futures_lite::future::block_on(admin().alter_configs(&[change], &AdminOptions::new()));
    results.unwrap().into_iter().for_each(|result| assert!(result.is_ok(), "{result:?}"));
}

#[test]
fn topics_that_are_not_as_they_must_be_are_refused() {
    let fit = settings(broker::shared(), Format::Record);
    let absent = Settings { topic: "absent".into(), ..fit.clone() };
    let found = why(&absent, PUBLICATION);
    let missing = Unfit::Missing { topic: "absent".into(), partitions: SHARDS };
    assert!(matches!(&found, Error::Unfit(unfit) if *unfit == missing), "{found}");
    let found = why(&fit, Publication { shards: 3, ..PUBLICATION });
    assert!(matches!(found, Error::Unfit(Unfit::Partitions { there: SHARDS, needed: 3, .. })), "{found}");
    let found = why(&Settings { replicas_min: 3, ..fit.clone() }, PUBLICATION);
    assert!(matches!(found, Error::Unfit(Unfit::Replicas { there: 1, needed: 3, .. })), "{found}");
    let found = why(&Settings { insync_min: 2, ..fit.clone() }, PUBLICATION);
    assert!(matches!(found, Error::Unfit(Unfit::InSync { there: 1, needed: 2, .. })), "{found}");
    let found = why(&Settings { format: Format::Batch, ..fit.clone() }, PUBLICATION);
    assert!(matches!(found, Error::Unfit(Unfit::RecordBytes { .. })), "{found}");
    set(&fit.cursor_topic, "cleanup.policy", "delete");
    let found = why(&fit, PUBLICATION);
    assert!(matches!(found, Error::Unfit(Unfit::Cleanup { .. })), "{found}");
    assert!(committed(&fit).is_empty());
}

#[test]
fn a_property_that_librdkafka_does_not_take_is_named() {
    let mut settings = settings(broker::shared(), Format::Record);
    settings.properties.insert("compression.type".into(), "none-such".into());
    let found = why(&settings, PUBLICATION);
    assert!(
        matches!(&found, Error::Settings(BadSettings::Property { name, .. }) if name == "compression.type"),
        "{found}"
    );
}

#[test]
fn the_decisions_of_another_cluster_are_left_alone() {
    let settings = settings(broker::shared(), Format::Record);
    publish(&settings);
    let before = committed(&settings).len();
    let found = why(&settings, Publication { cluster: ClusterId(78), ..PUBLICATION });
    assert!(matches!(&found, Error::Owned { there, .. } if there.cluster == PUBLICATION.cluster), "{found}");
    assert_eq!(committed(&settings).len(), before);
}

#[test]
fn a_topic_that_was_created_again_is_not_taken_for_the_one_before() {
    let settings = settings(broker::shared(), Format::Record);
    publish(&settings);
    let deleted = admin().delete_topics(&[&settings.topic], &AdminOptions::new());
    assert!(futures_lite::future::block_on(deleted).unwrap()[0].is_ok());
    crate::support::await_that("the topic's end", || {
        let again = create_topics(&settings, SHARDS, 1);
        again.is_ok() && matches!(why(&settings, PUBLICATION), Error::Replaced { .. })
    });
}

#[test]
fn records_without_a_cursor_are_not_added_to() {
    let settings = settings(broker::shared(), Format::Record);
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", broker::shared()).create().unwrap();
    let record = BaseRecord::<str, str>::to(&settings.topic).partition(1).payload("stranger");
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(crate::support::PATIENCE).unwrap();
    let found = why(&settings, PUBLICATION);
    assert!(matches!(found, Error::NoCursor { partition: 1, .. }), "{found}");
}

#[test]
fn batches_of_another_shard_are_not_published() {
    let settings = settings(broker::shared(), Format::Record);
    let found = why(&settings, Publication { shard: ShardId(0), ..PUBLICATION });
    assert!(matches!(found, Error::Stray { shard: ShardId(1), .. }), "{found}");
    let mut twice = batches();
    twice.extend(batches());
    let outbox = Outbox::open(twice);
    let many = Settings { batch_bytes: usize::MAX, batch_time: crate::support::PATIENCE, ..settings };
    let found = end_of(Publisher::start(many, PUBLICATION, outbox).unwrap());
    assert!(matches!(found, Error::OutOfOrder(_)), "{found}");
}
