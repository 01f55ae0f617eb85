//! Refusals, as problem details (RFC 9457).

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::time::Duration;

/// The type of a body that tells a problem.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// The kinds of refusals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Problem {
    BadJson,
    BadField,
    BadHeader,
    BadQuery,
    BadBody,
    NoSuchPath,
    NoDecision,
    NotPublished,
    WrongMethod,
    SlowSender,
    OtherContents,
    TooLarge,
    WrongType,
    Overloaded,
    WrongRelease,
    Unavailable,
    NoQuorum,
    UnknownOutcome,
    NoAnswer,
}

/// What a kind of refusal is for programs and people.
pub(crate) struct Facts {
    /// The last part of `type`.
    pub(crate) name: &'static str,
    pub(crate) status: u16,
    pub(crate) title: &'static str,
    /// What to do next.
    pub(crate) advice: &'static str,
}

const fn facts(name: &'static str, status: u16, title: &'static str, advice: &'static str) -> Facts {
    Facts { name, status, title, advice }
}

/// All kinds, in the order of the enum.
static TABLE: [(Problem, Facts); 19] = [
    (Problem::BadJson, facts("bad-json", 400, "The body is not JSON", "correct the body")),
    (Problem::BadField, facts("bad-field", 400, "A field is wrong", "correct that field")),
    (Problem::BadHeader, facts("bad-header", 400, "A header field is wrong", "correct that header field")),
    (Problem::BadQuery, facts("bad-query", 400, "The query is wrong", "correct that parameter")),
    (
        Problem::BadBody,
        facts("bad-body", 400, "The body does not come whole", "send the request again with its whole body"),
    ),
    (
        Problem::NoSuchPath,
        facts("no-such-path", 404, "There is no such path", "GET /openapi.json lists what there is"),
    ),
    (
        Problem::NoDecision,
        facts("no-decision", 404, "The key has no decision", "decide the key first, or correct the key"),
    ),
    (
        Problem::NotPublished,
        facts(
            "not-published",
            404,
            "Decisions are not published here",
            "set `publish.to` in the configuration of this replica and start it again",
        ),
    ),
    (
        Problem::WrongMethod,
        facts(
            "wrong-method",
            405,
            "The path does not take this method",
            "use a method that the header field Allow names",
        ),
    ),
    (
        Problem::SlowSender,
        facts("slow-sender", 408, "The body came too slowly", "send the request again, without pauses"),
    ),
    (
        Problem::OtherContents,
        facts(
            "other-contents",
            409,
            "The request's name stands for other contents",
            "use a new idempotency key, or a new request_id, for a new request",
        ),
    ),
    (Problem::TooLarge, facts("too-large", 413, "The request is too large", "send less, or split it")),
    (
        Problem::WrongType,
        facts(
            "wrong-type",
            415,
            "The body has another type",
            "name that type in the header field content-type",
        ),
    ),
    (
        Problem::Overloaded,
        facts(
            "overloaded",
            429,
            "Too much is under way",
            "nothing was proposed; send the request again after the time that Retry-After names",
        ),
    ),
    (
        Problem::WrongRelease,
        facts(
            "wrong-release",
            500,
            "A replica answers in another way than this one expects",
            "run the same release at all replicas",
        ),
    ),
    (
        Problem::Unavailable,
        facts(
            "unavailable",
            503,
            "No replica takes the request now",
            "nothing was proposed; send the request again after the time that Retry-After names, here or at another \
                 replica",
        ),
    ),
    (
        Problem::NoQuorum,
        facts(
            "no-quorum",
            503,
            "No majority of the replicas answers",
            "nothing was proposed; see /readyz?verbose of the replicas, and send the request again after the time that \
                 Retry-After names",
        ),
    ),
    (
        Problem::UnknownOutcome,
        facts(
            "unknown-outcome",
            504,
            "The outcome is not known",
            "the request may have been decided, or may still be; send it again with its idempotency key, or read the key \
                 to find out",
        ),
    ),
    (
        Problem::NoAnswer,
        facts("no-answer", 504, "No answer came in time", "a read has no effect; send it again"),
    ),
];

impl Problem {
    pub(crate) fn facts(self) -> &'static Facts {
        &TABLE[self as usize].1
    }

    /// All kinds.
    pub(crate) fn all() -> impl Iterator<Item = Problem> {
        TABLE.iter().map(|(problem, _)| *problem)
    }

    /// The kind that `/problems/NAME` stands for.
    pub(crate) fn of_name(name: &str) -> Option<Problem> {
        Problem::all().find(|problem| problem.facts().name == name)
    }

    /// A refusal of this kind, for this reason.
    pub(crate) fn because(self, why: impl Into<String>) -> Refusal {
        Refusal { problem: self, why: why.into(), retry_after: None }
    }

    /// The same, which the sender may try again after this time.
    pub(crate) fn for_now(self, retry_after: Duration, why: impl Into<String>) -> Refusal {
        Refusal { retry_after: Some(retry_after), ..self.because(why) }
    }
}

/// A request that is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub(crate) problem: Problem,
    /// The reason, without what to do.
    pub(crate) why: String,
    pub(crate) retry_after: Option<Duration>,
}

impl Refusal {
    /// The problem as JSON.
    pub(crate) fn to_json(&self) -> Value {
        let Facts { name, status, title, advice } = self.problem.facts();
        let mut problem = json!({
            "type": format!("/problems/{name}"),
            "title": title,
            "status": status,
            "detail": format!("{}; {advice}", self.why),
        });
        if let Some(after) = self.retry_after {
            problem["retry_after_ms"] = (after.as_millis() as u64).into();
        }
        problem
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.facts().status).expect("all are statuses of HTTP");
        let mut response =
            (status, [(CONTENT_TYPE, PROBLEM_JSON)], self.to_json().to_string()).into_response();
        if let Some(after) = self.retry_after {
            // HTTP counts in whole seconds.
            let seconds = after.as_millis().div_ceil(1000).max(1);
            let value = seconds.to_string().try_into().expect("digits are a value of a header field");
            response.headers_mut().insert(RETRY_AFTER, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_kind_has_a_name_of_its_own_that_leads_back_to_it() {
        let names: BTreeSet<&str> = Problem::all().map(|problem| problem.facts().name).collect();
        assert_eq!(names.len(), TABLE.len());
        for (place, (problem, _)) in TABLE.iter().enumerate() {
            assert_eq!(*problem as usize, place);
            assert_eq!(Problem::of_name(problem.facts().name), Some(*problem));
            assert!((400..600).contains(&problem.facts().status));
        }
        assert_eq!(Problem::of_name("no-such-name"), None);
    }

    #[test]
    fn a_time_to_wait_is_told_in_whole_seconds_and_exactly() {
        let refusal = Problem::Overloaded.for_now(Duration::from_millis(1200), "all is busy");
        assert_eq!(refusal.to_json()["retry_after_ms"], 1200);
        let response = refusal.into_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["retry-after"]),
            (429, &"2".parse().unwrap())
        );
        assert_eq!(response.headers()["content-type"], PROBLEM_JSON);
        assert!(!Problem::BadJson.because("it").into_response().headers().contains_key("retry-after"));
    }
}
