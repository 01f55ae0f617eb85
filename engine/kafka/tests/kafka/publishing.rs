use crate::support::consumer::{committed, decisions};
use crate::support::history::History;
use crate::support::outbox::{Gate, Outbox};
use crate::support::{PUBLICATION, await_that, broker, publish_all, settings};
use isonomy_kafka::publisher::Publisher;
use isonomy_kafka::settings::{Format, Settings};
use rdkafka::message::Message;
use std::time::Duration;

#[test]
fn each_decision_arrives_once_and_in_order_in_both_formats() {
    for (format, compression) in [(Format::Record, "gzip"), (Format::Batch, "zstd")] {
        let mut settings = settings(broker::shared(), format);
        settings.properties.insert("compression.type".into(), compression.into());
        let history = History::new(1, 300);
        let outbox = Outbox::open(history.batches());
        let publisher = Publisher::start(settings.clone(), PUBLICATION, outbox).unwrap();
        await_that("the publication of everything", || publisher.status().decisions == history.len());
        let status = publisher.status();
        publisher.stop();
        publisher.join().unwrap();
        assert!(decisions(format, &committed(&settings)) == history.decisions, "{format}");
        assert_eq!(
            (status.batches, status.sessions, status.error),
            (history.batches().len() as u64, 1, None)
        );
        assert!(status.transactions > 10, "the bound of a transaction holds: {}", status.transactions);
        assert_eq!(isonomy_kafka::published(&settings, PUBLICATION.shard).unwrap(), status.cursor);
    }
}

#[test]
fn a_publisher_goes_on_at_the_cursor_of_another_that_had_another_order() {
    for seed in 0..2 {
        let settings = settings(broker::shared(), Format::Record);
        let history = History::new(seed, 200);
        // The first one publishes what it has until it is stopped, each other one all that is left by then.
        let mut orders =
            [history.reordered(seed + 10), history.reordered(seed + 20), history.clone()].into_iter();
        for part in [50, 120] {
            let outbox = Outbox::new(orders.next().unwrap().batches(), &Gate::of(part));
            let publisher = Publisher::start(settings.clone(), PUBLICATION, outbox).unwrap();
            await_that("the start", || publisher.status().cursor.is_some());
            await_that("the publication of a part", || publisher.status().transactions > 2);
            publisher.stop();
            publisher.join().unwrap();
        }
        let seen: u64 =
            decisions(Format::Record, &committed(&settings)).values().map(|all| all.len() as u64).sum();
        assert!(0 < seen && seen < history.len());
        let outbox = Outbox::open(orders.next().unwrap().batches());
        publish_all(Publisher::start(settings.clone(), PUBLICATION, outbox).unwrap(), history.len() - seen);
        assert!(decisions(Format::Record, &committed(&settings)) == history.decisions, "seed {seed}");
    }
}

/// A marker stands behind each transaction and takes an offset, so that offsets tell where transactions end.
#[test]
fn a_component_is_one_transaction_however_small_transactions_are() {
    let settings = Settings { batch_bytes: 1, ..settings(broker::shared(), Format::Batch) };
    let history = History::new(5, 60);
    let outbox = Outbox::open(history.batches());
    publish_all(Publisher::start(settings.clone(), PUBLICATION, outbox).unwrap(), history.len());
    let records = committed(&settings);
    let mut transactions: Vec<Vec<Vec<u8>>> = Vec::new();
    for (at, record) in records.iter().enumerate() {
        if at == 0 || record.offset() > records[at - 1].offset() + 1 {
            transactions.push(Vec::new());
        }
        transactions.last_mut().unwrap().push(record.payload().unwrap().to_vec());
    }
    let units: Vec<_> = history.units.iter().map(|unit| unit.batches.clone()).collect();
    assert!(transactions == units && units.iter().any(|unit| unit.len() > 1));
}

#[test]
fn a_small_transaction_ends_with_its_time() {
    let settings = Settings { batch_bytes: usize::MAX, ..settings(broker::shared(), Format::Record) };
    let history = History::new(6, 20);
    let gate = Gate::of(history.units[0].batches.len());
    let outbox = Outbox::new(history.batches(), &gate);
    let publisher = Publisher::start(settings.clone(), PUBLICATION, outbox).unwrap();
    await_that("the first transaction", || publisher.status().transactions == 1);
    gate.open(usize::MAX);
    publish_all(publisher, history.len());
    assert!(decisions(Format::Record, &committed(&settings)) == history.decisions);
    let long = Settings { batch_time: Duration::from_secs(3600), ..settings };
    let publisher = Publisher::start(long, PUBLICATION, Outbox::open(Vec::new())).unwrap();
    await_that("the start", || publisher.status().cursor.is_some());
    publisher.stop();
    publisher.join().unwrap();
}
