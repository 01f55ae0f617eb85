//! `GET /v1/stream`: the executed decisions of a shard, as server-sent events.

use crate::events::{self, Event, From, Place};
use crate::headers::value;
use crate::json::{self, Key, Payload, Told};
use crate::problem::{Problem, Refusal};
use crate::router::Rooms;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_lite::stream::unfold;
use isonomy_wire::published::Effect;
use std::convert::Infallible;

/// What tells a reader that is gone from one that waits: a comment.
const BEAT: &[u8] = b":\n\n";

pub(crate) async fn stream(State(house): Rooms, headers: HeaderMap, uri: Uri) -> Result<Response, Refusal> {
    let (shard, from) = wanted(&headers, uri.query().unwrap_or_default())?;
    let reader = events::open(&house, shard, from, Problem::BadQuery)?;
    let place = house.enter_stream()?;
    let stopped = house.stopped.clone();
    let events = unfold((reader, stopped, place), |(reader, mut stopped, place)| async move {
        let (reader, texts) = events::next(reader, &mut stopped, |event| Some(text(event))).await?;
        let chunk = if texts.is_empty() { Bytes::from_static(BEAT) } else { texts.concat().into() };
        Some((Ok::<_, Infallible>(chunk), (reader, stopped, place)))
    });
    let fields = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((fields, Body::from_stream(events)).into_response())
}

/// What the query and `Last-Event-ID` ask for. The latter wins, since a reader that connects again sends the same query.
fn wanted(headers: &HeaderMap, query: &str) -> Result<(u32, From), Refusal> {
    let wrong = |why: &str| Problem::BadQuery.because(why);
    let (mut shard, mut from) = (0, From::End);
    for part in query.split('&') {
        match part.split_once('=') {
            Some(("shard", text)) => {
                shard = text.parse().map_err(|_| wrong("shard is no number"))?;
            }
            Some(("from", "start")) => from = From::Start,
            Some(("from", "end")) => from = From::End,
            Some(("from", id)) => {
                let place = id
                    .parse()
                    .map_err(|()| wrong("from is neither start, nor end, nor the id of an event"))?;
                from = From::Behind(place);
            }
            _ => {}
        }
    }
    if let Some(id) = value(headers, "last-event-id")?.filter(|id| !id.is_empty()) {
        let place =
            id.parse().map_err(|()| Problem::BadHeader.because("Last-Event-ID is no id of an event"))?;
        from = From::Behind(place);
    }
    Ok((shard, from))
}

/// An event, whose data is one line.
fn text(event: Event<'_>) -> String {
    let (place, name, data) = match event {
        Event::Gap { barrier } => (None, "gap", json::line(&serde_json::json!({"barrier": barrier}))),
        Event::Failed { why } => (None, "failed", json::line(&serde_json::json!({"detail": why}))),
        Event::Told { place, effect, id, key, value } => {
            let (key_seq, status, payload) = match effect {
                Effect::Decided { key_seq } => (key_seq, None, Payload::of(value)),
                Effect::Deleted { key_seq } => (key_seq, Some("deleted"), Payload::default()),
            };
            let told = Told { key: Key::of(key), key_seq, command_id: id.to_string(), status, payload };
            (Some(place), status.unwrap_or("decided"), json::line(&told))
        }
    };
    let id = place.map(|place: Place| format!("id: {place}\n")).unwrap_or_default();
    format!("{id}event: {name}\ndata: {}\n", String::from_utf8(data).expect("JSON is text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::id::CommandId;

    #[test]
    fn an_event_is_a_few_lines() {
        let place = "00000007-3-128-1".parse().unwrap();
        let (effect, id) = (Effect::Decided { key_seq: 1 }, CommandId::default());
        let told = Event::Told { place, effect, id, key: b"a", value: b"{\n}" };
        let decided = "id: 00000007-3-128-1\nevent: decided\n\
                       data: {\"key\":\"a\",\"key_seq\":1,\"command_id\":\"0.0.0.0.0\",\"payload\":{ }}\n\n";
        assert_eq!(text(told), decided);
        let told = Event::Told { place, effect: Effect::Deleted { key_seq: 2 }, id, key: b"a", value: b"" };
        assert!(text(told).ends_with("\"command_id\":\"0.0.0.0.0\",\"status\":\"deleted\"}\n\n"));
        assert_eq!(text(Event::Gap { barrier: 3 }), "event: gap\ndata: {\"barrier\":3}\n\n");
        let failed = "event: failed\ndata: {\"detail\":\"check the disk\"}\n\n";
        assert_eq!(text(Event::Failed { why: "check the disk" }), failed);
    }

    #[test]
    fn a_place_comes_from_the_query_or_the_header_field() {
        let place: Place = "000000ab-5-6-7".parse().unwrap();
        let of = |query| wanted(&HeaderMap::new(), query);
        assert_eq!(of(""), Ok((0, From::End)));
        assert_eq!(of("shard=2&from=start"), Ok((2, From::Start)));
        assert_eq!(of("from=x").unwrap_err().problem, Problem::BadQuery);
        assert_eq!(of("shard=x").unwrap_err().problem, Problem::BadQuery);
        let mut headers = HeaderMap::new();
        headers.insert("last-event-id", place.to_string().parse().unwrap());
        assert_eq!(wanted(&headers, "from=start"), Ok((0, From::Behind(place))));
    }
}
