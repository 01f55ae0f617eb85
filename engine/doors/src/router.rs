//! Which path leads where.

use crate::body::Room;
use crate::cluster::Cluster;
use crate::feed::Feeds;
use crate::json::{self, JSON};
use crate::limits::{
    BATCHES_MAX, BODY_PATIENCE, PROPOSAL_STREAMS_MAX, REQUESTS_MAX, RETRY_AFTER, STREAMS_MAX,
};
use crate::problem::{Facts, Problem, Refusal};
use crate::view::Shown;
use crate::{batch, decisions, health, metrics, page, propose, status, stream};
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The description of the paths, OpenAPI 3.1.
const OPEN_API: &str = include_str!("openapi.json");

/// What the requests share.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) shown: Shown,
    pub(crate) metrics: Registry,
    pub(crate) cluster: Cluster,
    pub(crate) room: Room,
    /// Where executed decisions are read from, if they are kept.
    pub(crate) feeds: Option<Feeds>,
    /// Tells this process from others in the ids of events.
    pub(crate) process: u32,
    /// Whether the doors close.
    pub(crate) stopped: watch::Receiver<bool>,
    requests: Arc<Semaphore>,
    batches: Arc<Semaphore>,
    proposals: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl House {
    pub(crate) fn new(
        shown: Shown,
        metrics: Registry,
        cluster: Cluster,
        feeds: Option<Feeds>,
        stopped: watch::Receiver<bool>,
    ) -> House {
        House {
            shown,
            metrics,
            cluster,
            room: Room::new(BODY_PATIENCE),
            feeds,
            process: rand::random(),
            stopped,
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            batches: Arc::new(Semaphore::new(BATCHES_MAX)),
            proposals: Arc::new(Semaphore::new(PROPOSAL_STREAMS_MAX)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }

    /// Takes a place among the requests that are under way.
    pub(crate) fn enter(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        enter(&self.requests, format!("{REQUESTS_MAX} requests are under way, which is the limit"))
    }

    /// Takes a place among the batches that are under way.
    pub(crate) fn enter_batch(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        enter(&self.batches, format!("{BATCHES_MAX} batches are under way, which is the limit"))
    }

    /// Takes a place among the streams of proposals.
    pub(crate) fn enter_proposals(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let why = format!("{PROPOSAL_STREAMS_MAX} streams of proposals are under way, which is the limit");
        enter(&self.proposals, why)
    }

    /// Takes a place among the streams that are read.
    pub(crate) fn enter_stream(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        enter(&self.streams, format!("{STREAMS_MAX} streams are read, which is the limit"))
    }
}

fn enter(places: &Arc<Semaphore>, why: String) -> Result<OwnedSemaphorePermit, Refusal> {
    places.clone().try_acquire_owned().map_err(|_| Problem::Overloaded.for_now(RETRY_AFTER, why))
}

/// The state of the routes.
pub(crate) type Rooms = State<Arc<House>>;

pub(crate) fn router(house: Arc<House>) -> Router {
    Router::new()
        .route("/", get(page::show))
        .route("/livez", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::answer))
        .route("/openapi.json", get(|| async { ([(CONTENT_TYPE, JSON)], OPEN_API) }))
        .route("/problems/{name}", get(explain))
        .route("/propose", post(propose::propose))
        .route("/v1/propose", post(propose::propose))
        .route("/v1/propose:batch", post(batch::propose))
        .route("/v1/decisions/{*key}", get(decisions::read).delete(decisions::delete))
        .route("/v1/stream", get(stream::stream))
        .route("/v1/status", get(show_status))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(house)
}

async fn show_status(State(house): Rooms) -> Response {
    json::answer(json::line(&status::of_view(&house.shown.look(), Instant::now())))
}

/// What a kind of problem means, and what to do.
async fn explain(uri: Uri) -> Result<impl IntoResponse, Refusal> {
    let name = uri.path().trim_start_matches("/problems/");
    let problem = Problem::of_name(name)
        .ok_or_else(|| Problem::NoSuchPath.because(format!("there is no problem '{name}'")))?;
    let Facts { status, title, advice, .. } = problem.facts();
    Ok(format!("{title} ({status}): {advice}.\n"))
}

async fn unknown(uri: Uri) -> Refusal {
    Problem::NoSuchPath.because(format!("there is nothing at {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    Problem::WrongMethod.because(format!("{} does not take {method}", uri.path()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::limits::{DEADLINE_MAX, ID_BYTES_MAX};
    use crate::view::ReplicaView;
    use isonomy_wire::command::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
    use isonomy_wire::id::{ClusterId, Epoch, ReplicaId};
    use isonomy_wire::message::Welcome;
    use serde_json::Value;
    use std::time::Duration;

    /// A house that waits no longer than `body_patience` for a body, and what closes its doors. No cluster is behind it.
    pub(crate) fn house(body_patience: Duration) -> (House, watch::Sender<bool>) {
        let (epoch, replica) = (Epoch(1), ReplicaId(0));
        let welcome =
            Welcome { cluster: ClusterId(1), epoch, replica, shards: 1, members: Vec::new(), durable: true };
        let (address, shards, is_etcd_reached) = ("db:7400".into(), Vec::new(), None);
        let shown = Shown::new(ReplicaView { address, welcome, shards, is_etcd_reached });
        let metrics = metrics::Metrics::registry(shown.clone(), "/".into());
        let (stop, stopped) = watch::channel(false);
        let cluster = Cluster::new(ClusterId(1), vec!["127.0.0.1:9".into()]);
        let mut house = House::new(shown, metrics, cluster, None, stopped);
        house.room = Room::new(body_patience);
        (house, stop)
    }

    #[test]
    fn the_description_has_the_problems_and_the_limits_of_the_code() {
        let document: Value = serde_json::from_str(OPEN_API).unwrap();
        let schemas = &document["components"]["schemas"];
        let types: Vec<String> =
            Problem::all().map(|problem| format!("/problems/{}", problem.facts().name)).collect();
        assert_eq!(schemas["Problem"]["properties"]["type"]["enum"], Value::from(types));
        let proposal = &schemas["Proposal"]["properties"];
        assert_eq!(proposal["key"]["maxLength"], KEY_BYTES_MAX);
        assert_eq!(proposal["client_id"]["maxLength"], ID_BYTES_MAX);
        assert_eq!(proposal["request_id"]["maxLength"], ID_BYTES_MAX);
        let payload = proposal["payload"]["description"].as_str().unwrap();
        assert!(payload.contains(&VALUE_BYTES_MAX.to_string()), "{payload}");
        let timeout = &document["paths"]["/v1/propose"]["post"]["parameters"][1]["description"];
        assert!(timeout.as_str().unwrap().ends_with(&format!("; {} without it", DEADLINE_MAX.as_secs())));
        // Every status of a problem is told of some path.
        for problem in Problem::all() {
            let status = problem.facts().status.to_string();
            let paths = document["paths"].as_object().unwrap();
            let mut operations = paths.values().flat_map(|path| path.as_object().unwrap().values());
            assert!(operations.any(|operation| operation["responses"].get(&status).is_some()), "{status}");
        }
    }
}
