//! `/metrics`, for Prometheus. docs/METRICS.md describes each metric.

mod families;
mod plain;
mod recent;

use crate::router::{House, Rooms};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::IntoResponse;
use families::{Kind, OF_PARTITION, OF_PEER, OF_REASON, OF_SHARD, reading_of_machine};
use isonomy_wire::latency::Latency;
use isonomy_wire::message::{PeerStatus, ShardStatus};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use recent::Recent;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use crate::view::{ReplicaView, Shown};

/// The type of the text for those who ask for it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The type of the text that everybody reads.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The upper bounds of the buckets of durations, in microseconds.
const BOUNDS_US: [u64; 18] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000, 10_000_000, 60_000_000,
];

/// What all metrics are read from.
#[derive(Debug)]
pub(crate) struct Metrics {
    shown: Shown,
    /// The directory whose file system is measured.
    data_dir: PathBuf,
    started: SystemTime,
    recent: Mutex<Recent>,
}

/// Metrics on their way to a text: the labels of each value, and the value.
type Values = Vec<(Vec<(&'static str, String)>, f64)>;

impl Metrics {
    /// The registry of all metrics.
    pub(crate) fn registry(shown: Shown, data_dir: PathBuf) -> Registry {
        let mut registry = Registry::default();
        let (started, recent) = (SystemTime::now(), Mutex::default());
        registry.register_collector(Box::new(Metrics { shown, data_dir, started, recent }));
        registry
    }
}

pub(crate) async fn answer(State(house): Rooms, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let text = text(&house);
    match accept.contains("application/openmetrics-text") {
        true => ([(CONTENT_TYPE, OPEN_METRICS)], text),
        false => ([(CONTENT_TYPE, PLAIN)], plain::from_open_metrics(&text)),
    }
}

fn text(house: &House) -> String {
    let mut text = String::new();
    encode(&mut text, &house.metrics).expect("writing to memory cannot fail");
    text
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (view, now, encoder) = (self.shown.look(), Instant::now(), &mut encoder);
        let statuses: Vec<&ShardStatus> = view.statuses().collect();
        for (family, value) in OF_SHARD {
            let values = statuses.iter().filter_map(|it| Some((vec![shard(it)], value(it)?)));
            put(encoder, *family, values.collect())?;
        }
        for (family, label, read) in OF_REASON {
            let of = |it: &&ShardStatus| {
                let labels = [shard(it)];
                let read = read(it).into_iter();
                read.map(move |(reason, value)| {
                    ([&labels[..], &[(*label, reason.to_owned())]].concat(), value)
                })
                .collect::<Values>()
            };
            put(encoder, *family, statuses.iter().flat_map(of).collect())?;
        }
        for (family, value) in OF_PEER {
            let of = |it: &&ShardStatus| {
                let peer = |peer: &PeerStatus| {
                    let labels = vec![shard(it), ("peer", peer.replica.to_string())];
                    Some((labels, value(it, peer)?))
                };
                it.peers.iter().filter_map(peer).collect::<Values>()
            };
            put(encoder, *family, statuses.iter().flat_map(of).collect())?;
        }
        let partitions = statuses.iter().filter_map(|it| it.consuming.as_ref()).flat_map(|it| &it.partitions);
        for (family, value) in OF_PARTITION {
            let values = partitions.clone().filter_map(|partition| {
                Some((vec![("partition", partition.partition.to_string())], value(partition)?))
            });
            put(encoder, *family, values.collect())?;
        }
        put(encoder, families::FAST_RATIO, self.fast_ratios(now, &statuses))?;
        put(encoder, families::SHARD_AGE, ages(&view, now))?;
        for (family, value) in reading_of_machine(&view, &self.data_dir, self.started) {
            put(encoder, family, value.map(|value| (Vec::new(), value)).into_iter().collect())?;
        }
        put(encoder, families::INFO, vec![(info(&view), 1.0)])?;
        let merged = |of: fn(&ShardStatus) -> &Latency| {
            let mut merged = Latency::default();
            statuses.iter().for_each(|status| merged.add(of(status)));
            merged
        };
        put_durations(encoder, families::COMMAND_DURATION, &merged(|it| &it.latency))?;
        put_durations(encoder, families::LOG_WRITE_DURATION, &merged(|it| &it.log_latency))
    }
}

impl Metrics {
    fn fast_ratios(&self, now: Instant, statuses: &[&ShardStatus]) -> Values {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let ratios = recent.ratios(now, statuses);
        statuses.iter().zip(ratios).filter_map(|(it, ratio)| Some((vec![shard(it)], ratio?))).collect()
    }
}

fn shard(status: &ShardStatus) -> (&'static str, String) {
    ("shard", status.shard.0.to_string())
}

/// How long ago each shard has told what it measures.
fn ages(view: &ReplicaView, now: Instant) -> Values {
    let shards = view.shards.iter().enumerate();
    let age = |(index, shard): (usize, &crate::view::ShardView)| {
        let age = now.saturating_duration_since(shard.told?);
        Some((vec![("shard", index.to_string())], age.as_secs_f64()))
    };
    shards.filter_map(age).collect()
}

fn info(view: &ReplicaView) -> Vec<(&'static str, String)> {
    let durability = if view.welcome.durable { "fsync" } else { "os" };
    vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("cluster", view.welcome.cluster.to_string()),
        ("replica", view.welcome.replica.to_string()),
        ("durability", durability.to_owned()),
    ]
}

/// What is said of all metrics of one name.
#[derive(Clone, Copy, Debug)]
struct Family {
    kind: Kind,
    name: &'static str,
    help: &'static str,
}

/// Puts a family, with its description also when it has no value now.
fn put(encoder: &mut DescriptorEncoder<'_>, family: Family, values: Values) -> fmt::Result {
    let Family { kind, name, help } = family;
    let is_counter = kind == Kind::Counter;
    let kind = if is_counter { MetricType::Counter } else { MetricType::Gauge };
    let mut encoder = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in values {
        let metric = encoder.encode_family(&labels)?;
        if is_counter {
            ConstCounter::new(value).encode(metric)?
        } else {
            ConstGauge::new(value).encode(metric)?
        }
    }
    Ok(())
}

fn put_durations(encoder: &mut DescriptorEncoder<'_>, family: Family, latency: &Latency) -> fmt::Result {
    let mut before = 0;
    let upto = |us: u64| {
        let all = latency.count_upto(us);
        (us as f64 / 1e6, all - std::mem::replace(&mut before, all))
    };
    let mut buckets: Vec<(f64, u64)> = BOUNDS_US.into_iter().map(upto).collect();
    buckets.push((f64::INFINITY, latency.count() - before));
    let sum_s = latency.sum_us as f64 / 1e6;
    let mut encoder = encoder.encode_descriptor(family.name, family.help, None, MetricType::Histogram)?;
    encoder.encode_histogram::<NoLabelSet>(sum_s, latency.count(), &buckets, None)
}

#[cfg(test)]
mod tests;
