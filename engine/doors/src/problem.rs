//! Refusals, as problem details (RFC 9457).

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a request is refused. The text says what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is nothing at {path}; GET /openapi.json lists what there is")]
    NoSuchPath { path: String },
    #[error("{path} does not take {method}; the header Allow names the methods that it takes")]
    WrongMethod { method: String, path: String },
}

impl Refusal {
    /// The kind as programs know it: the last part of `type`.
    fn name(&self) -> &'static str {
        match self {
            Refusal::NoSuchPath { .. } => "no-such-path",
            Refusal::WrongMethod { .. } => "wrong-method",
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Refusal::NoSuchPath { .. } => "There is no such path",
            Refusal::WrongMethod { .. } => "The path does not take this method",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Refusal::NoSuchPath { .. } => StatusCode::NOT_FOUND,
            Refusal::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({
            "type": format!("/problems/{}", self.name()),
            "title": self.title(),
            "status": self.status().as_u16(),
            "detail": self.to_string(),
        });
        (self.status(), [(CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
    }
}
