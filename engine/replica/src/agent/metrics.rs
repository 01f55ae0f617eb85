//! What a supervisor and Prometheus ask: `/metrics`, `/livez` and `/readyz`.

use crate::fatal::{Fatal, Reason};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use isonomy_agent::{HookStatus, Status, Watch};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

/// The type of the text that Prometheus reads.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The names of the readers, in their order.
const READERS: [&str; 2] = ["table", "hook"];

/// What is asked about.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) watches: Vec<Watch>,
    pub(super) hook: Option<Arc<HookStatus>>,
    pub(super) staleness_max: Duration,
}

/// Answers from a thread of its own, until the process ends. Returns the address.
pub(super) fn serve(address: &str, watched: Watched) -> Result<SocketAddr, Fatal> {
    let unbound = |error: std::io::Error| {
        let text =
            format!("the metrics cannot be answered at {address}: {error}; name another address, or none");
        Fatal::new(Reason::Machine, text)
    };
    let listener = TcpListener::bind(address).map_err(unbound)?;
    listener.set_nonblocking(true).map_err(unbound)?;
    let at = listener.local_addr().map_err(unbound)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unbound)?;
    let answer = move || {
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, router(watched)).await
        })
    };
    std::thread::Builder::new().name("metrics".into()).spawn(answer).map_err(unbound)?;
    Ok(at)
}

fn router(watched: Watched) -> Router {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(watched.clone()));
    let state = Arc::new((watched, registry));
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(state)
}

type Shared = State<Arc<(Watched, Registry)>>;

async fn ready(State(shared): Shared) -> impl IntoResponse {
    let (watched, _) = &*shared;
    match why_unready(&watched.watches[0].status(), watched.staleness_max) {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn metrics(State(shared): Shared) -> impl IntoResponse {
    let mut text = String::new();
    encode(&mut text, &shared.1).expect("writing to memory cannot fail");
    ([(CONTENT_TYPE, OPEN_METRICS)], text)
}

/// Why what the table shows is not to be used; `None` if it is.
fn why_unready(status: &Status, staleness_max: Duration) -> Option<String> {
    let trouble = status.trouble.as_deref().map(|trouble| format!(": {trouble}")).unwrap_or_default();
    match status.staleness() {
        None => Some(format!("the table has not everything yet{trouble}")),
        Some(age) if age > staleness_max => Some(format!(
            "the table may be {} s old, and {} are allowed{trouble}",
            age.as_secs(),
            staleness_max.as_secs()
        )),
        Some(_) => None,
    }
}

/// The labels of a value, and the value.
type Values<'a> = Vec<(Vec<(&'a str, String)>, f64)>;

impl Collector for Watched {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let readers: Vec<(&str, Status)> =
            READERS.into_iter().zip(self.watches.iter().map(Watch::status)).collect();
        let each = |value: fn(&Status) -> f64| -> Values<'_> {
            readers
                .iter()
                .map(|(reader, status)| (vec![("reader", (*reader).to_owned())], value(status)))
                .collect()
        };
        let age = |status: &Status| status.staleness().map_or(f64::INFINITY, |age| age.as_secs_f64());
        put_gauge(
            &mut encoder,
            "staleness_seconds",
            "How old what the reader has may be; +Inf: not known yet",
            each(age),
        )?;
        put_gauge(
            &mut encoder,
            "up",
            "Whether Kafka answers",
            each(|status| f64::from(status.trouble.is_none())),
        )?;
        put_counter(
            &mut encoder,
            "decisions",
            "Decisions that were applied",
            each(|status| status.decisions as f64),
        )?;
        put_counter(
            &mut encoder,
            "batches",
            "Batches that were applied",
            each(|status| status.batches as f64),
        )?;
        let (lags, positions) = by_partition(&readers);
        put_gauge(&mut encoder, "lag_offsets", "Offsets that are left to read", lags)?;
        put_gauge(&mut encoder, "position_offset", "The offset at which reading goes on", positions)?;
        let Some(hook) = &self.hook else { return Ok(()) };
        let one = |value: u64| vec![(Vec::new(), value as f64)];
        put_counter(&mut encoder, "hook_posted", "Decisions that the hook has taken", one(hook.posted()))?;
        put_counter(
            &mut encoder,
            "hook_retries",
            "Requests that have failed and were tried again",
            one(hook.retried()),
        )?;
        put_counter(
            &mut encoder,
            "hook_skipped",
            "Decisions that were refused for good and skipped",
            one(hook.skipped()),
        )?;
        put_gauge(
            &mut encoder,
            "hook_up",
            "Whether the hook has taken the last request",
            one(hook.trouble().is_none().into()),
        )
    }
}

/// Lag and position of each partition. A reader that waits for its hook does not ask Kafka, so that the newest known end counts
/// for all.
fn by_partition<'a>(readers: &[(&'a str, Status)]) -> (Values<'a>, Values<'a>) {
    let end_of = |partition: &i32| {
        let ends = readers.iter().filter_map(|(_, status)| Some(status.partitions.get(partition)?.end));
        ends.max().unwrap_or_default()
    };
    let all = readers.iter().flat_map(|(reader, status)| {
        status.partitions.iter().map(move |(partition, standing)| (*reader, partition, standing.next))
    });
    let value = |(reader, partition, next): (&'a str, &i32, i64)| {
        let labels = vec![("reader", reader.to_owned()), ("partition", partition.to_string())];
        ((labels.clone(), (end_of(partition) - next).max(0) as f64), (labels, next as f64))
    };
    all.map(value).unzip()
}

fn put_gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, values: Values<'_>) -> fmt::Result {
    let name = format!("isonomy_agent_{name}");
    let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn put_counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: Values<'_>,
) -> fmt::Result {
    let name = format!("isonomy_agent_{name}");
    let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
