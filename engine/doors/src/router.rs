//! Which path leads where.

use crate::health;
use crate::metrics;
use crate::page;
use crate::problem::Refusal;
use crate::status;
use crate::view::Shown;
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Uri};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Instant;

/// What all requests need.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) shown: Shown,
    pub(crate) metrics: Registry,
}

/// The state of the routes.
pub(crate) type Rooms = State<Arc<House>>;

pub(crate) fn router(house: House) -> Router {
    Router::new()
        .route("/", get(page::show))
        .route("/livez", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::answer))
        .route("/v1/status", get(show_status))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::new(house))
}

async fn show_status(State(house): Rooms) -> impl IntoResponse {
    let status = status::of_view(&house.shown.look(), Instant::now());
    ([(CONTENT_TYPE, "application/json")], status.to_string())
}

async fn unknown(uri: Uri) -> Refusal {
    Refusal::NoSuchPath { path: uri.path().into() }
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    Refusal::WrongMethod { method: method.to_string(), path: uri.path().into() }
}
