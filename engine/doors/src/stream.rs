//! `GET /v1/stream`: the executed decisions of a shard, as server-sent events.

use crate::feed::{Begin, Fed, Feed};
use crate::headers::value;
use crate::json::{self, Key, Payload, Told};
use crate::limits::{STREAM_BEAT, STREAM_CHUNK_BYTES, STREAM_LOOK_EVERY};
use crate::problem::{Problem, Refusal};
use crate::router::Rooms;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_lite::stream::unfold;
use isonomy_wire::id::ShardId;
use isonomy_wire::published::{Decision, Effect, Origin, PublishedBatch};
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// The place of an event in the stream: behind this many decisions of the batch at an offset behind a barrier. The
/// order between two barriers is each process's own, so that offsets mean something to the process that gave them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Place {
    process: u32,
    barrier: u64,
    offset: u64,
    decisions: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { process, barrier, offset, decisions } = self;
        write!(f, "{process:08x}-{barrier}-{offset}-{decisions}")
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Place, ()> {
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or(());
        let process = u32::from_str_radix(part()?, 16).map_err(drop)?;
        let mut number = || part()?.parse::<u64>().map_err(drop);
        let (barrier, offset, decisions) = (number()?, number()?, number()?);
        let decisions = decisions.try_into().map_err(drop)?;
        parts.next().is_none().then_some(Place { process, barrier, offset, decisions }).ok_or(())
    }
}

/// Where a reader wants to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum From {
    Start,
    End,
    Behind(Place),
}

pub(crate) async fn stream(State(house): Rooms, headers: HeaderMap, uri: Uri) -> Result<Response, Refusal> {
    let (shard, from) = wanted(&headers, uri.query().unwrap_or_default())?;
    let shards = house.shown.look().welcome.shards;
    if shard.0 >= shards {
        return Err(Problem::BadQuery.because(format!(
            "shard is {}, and goes from 0 to {}",
            shard.0,
            shards - 1
        )));
    }
    let Some(feeds) = &house.feeds else {
        return Err(Problem::NotPublished
            .because("this replica keeps no decisions for those who read them from outside"));
    };
    let begin = match from {
        From::Start => Begin::Barrier(0),
        From::End => Begin::Newest,
        From::Behind(place) => Begin::Barrier(place.barrier),
    };
    let place = house.enter_stream()?;
    let reader = Reader::new((feeds.open)(shard, begin), house.process, from);
    let stopped = house.stopped.clone();
    let events = unfold((reader, stopped, place), |(reader, mut stopped, place)| async move {
        let (reader, events) = events(reader, &mut stopped).await?;
        Some((Ok::<_, Infallible>(events), (reader, stopped, place)))
    });
    let fields = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((fields, Body::from_stream(events)).into_response())
}

/// What the query and `Last-Event-ID` ask for. The latter wins, since a reader that connects again sends the same query.
fn wanted(headers: &HeaderMap, query: &str) -> Result<(ShardId, From), Refusal> {
    let wrong = |why: &str| Problem::BadQuery.because(why);
    let (mut shard, mut from) = (ShardId(0), From::End);
    for part in query.split('&') {
        match part.split_once('=') {
            Some(("shard", text)) => {
                shard = ShardId(text.parse().map_err(|_| wrong("shard is no number"))?);
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

/// The next events, or a comment when there are none for a while, so that a reader that is gone is noticed. `None` ends
/// the stream.
async fn events(mut reader: Reader, stopped: &mut watch::Receiver<bool>) -> Option<(Reader, Bytes)> {
    let beat = Instant::now() + STREAM_BEAT;
    loop {
        // Files are read apart from the thread of the doors.
        let read = tokio::task::spawn_blocking(move || {
            let text = reader.read();
            (reader, text)
        });
        let text;
        (reader, text) = read.await.ok()?;
        if !text.is_empty() {
            return Some((reader, Bytes::from(text)));
        }
        if reader.has_failed || timeout(STREAM_LOOK_EVERY, stopped.wait_for(|stopped| *stopped)).await.is_ok()
        {
            return None;
        }
        if Instant::now() >= beat {
            return Some((reader, Bytes::from_static(b":\n\n")));
        }
    }
}

/// Makes events of what is fed.
struct Reader {
    feed: Feed,
    process: u32,
    /// What the reader has, and need not be told again.
    behind: Place,
    /// The barrier of what is fed.
    barrier: Option<u64>,
    /// Whether what is there already is left out.
    skips: bool,
    has_failed: bool,
}

impl Reader {
    fn new(feed: Feed, process: u32, from: From) -> Reader {
        let behind = match from {
            // Another process has another order, and begins again at the barrier.
            From::Behind(place) if place.process != process => Place { offset: 0, decisions: 0, ..place },
            From::Behind(place) => place,
            From::Start | From::End => Place::default(),
        };
        Reader { feed, process, behind, barrier: None, skips: from == From::End, has_failed: false }
    }

    /// The next events, about as many as one chunk holds; none if there are none yet.
    fn read(&mut self) -> String {
        let mut text = String::new();
        while !self.has_failed && text.len() < STREAM_CHUNK_BYTES {
            match (self.feed)() {
                Ok(Some(Fed::Segment { barrier, has_gap })) => self.begin(barrier, has_gap, &mut text),
                Ok(Some(Fed::Batch { .. })) if self.skips => {}
                Ok(Some(Fed::Batch { offset, bytes })) => self.put(offset, &bytes, &mut text),
                Ok(None) => {
                    self.skips = false;
                    break;
                }
                Err(why) => {
                    self.has_failed = true;
                    put(&mut text, None, "failed", &json::line(&serde_json::json!({"detail": why})));
                }
            }
        }
        text
    }

    fn begin(&mut self, barrier: u64, has_gap: bool, text: &mut String) {
        let follows = match self.barrier {
            Some(before) => barrier == before + 1 && !has_gap,
            // A reader that begins anywhere misses nothing.
            None => self.behind == Place::default() || barrier == self.behind.barrier,
        };
        self.barrier = Some(barrier);
        if !follows && !self.skips {
            put(text, None, "gap", &json::line(&serde_json::json!({"barrier": barrier})));
        }
    }

    fn put(&mut self, offset: u64, bytes: &[u8], text: &mut String) {
        let barrier = self.barrier.unwrap_or_default();
        let Ok(batch) = PublishedBatch::parse(bytes) else {
            self.has_failed = true;
            return;
        };
        for (decisions, decision) in (1..).zip(batch.decisions()) {
            let place = Place { process: self.process, barrier, offset, decisions };
            let has = (self.behind.barrier, self.behind.offset, self.behind.decisions);
            if (barrier, offset, decisions) > has {
                put_decision(text, place, batch.origin(), &decision);
            }
        }
    }
}

fn put_decision(text: &mut String, place: Place, origin: &Origin, decision: &Decision<'_>) {
    let (key_seq, status, payload) = match decision.effect {
        Effect::Decided { key_seq } => (key_seq, None, Payload::of(decision.value)),
        Effect::Deleted { key_seq } => (key_seq, Some("deleted"), Payload::default()),
    };
    let command_id = origin.command(decision.index.into()).to_string();
    let told = Told { key: Key::of(decision.key), key_seq, command_id, status, payload };
    put(text, Some(place), status.unwrap_or("decided"), &json::line(&told));
}

/// Puts an event, whose data is one line.
fn put(text: &mut String, place: Option<Place>, event: &str, line: &[u8]) {
    if let Some(place) = place {
        text.push_str(&format!("id: {place}\n"));
    }
    let line = std::str::from_utf8(line).expect("JSON is text");
    text.push_str(&format!("event: {event}\ndata: {line}\n"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::id::{ClusterId, Epoch, InstanceId, ReplicaId};
    use isonomy_wire::published::PublishedBuilder;

    fn batch(seq: u64, decisions: &[(&str, u64)]) -> Vec<u8> {
        let instance = InstanceId::new(ReplicaId(0), seq);
        let origin =
            Origin { cluster: ClusterId(1), shard: ShardId(0), epoch: Epoch(1), instance, has_more: false };
        let mut builder = PublishedBuilder::default();
        for (index, (key, key_seq)) in (0..).zip(decisions) {
            let effect = Effect::Decided { key_seq: *key_seq };
            builder.push(&Decision { index, effect, key: key.as_bytes(), value: b"{\n}" });
        }
        builder.finish(&origin).unwrap().to_vec()
    }

    fn reader(fed: Vec<Fed>, process: u32, from: From) -> Reader {
        let mut fed = fed.into_iter();
        Reader::new(Box::new(move || Ok(fed.next())), process, from)
    }

    fn fed() -> Vec<Fed> {
        vec![
            Fed::Segment { barrier: 3, has_gap: false },
            Fed::Batch { offset: 128, bytes: batch(1, &[("a", 1), ("b", 1)]) },
            Fed::Batch { offset: 300, bytes: batch(2, &[("a", 2)]) },
            Fed::Segment { barrier: 4, has_gap: false },
            Fed::Batch { offset: 128, bytes: batch(3, &[("a", 3)]) },
        ]
    }

    fn ids(text: &str) -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix("id: ")).collect()
    }

    #[test]
    fn each_decision_is_an_event_behind_which_a_reader_goes_on() {
        let text = reader(fed(), 7, From::Start).read();
        let all = ["00000007-3-128-1", "00000007-3-128-2", "00000007-3-300-1", "00000007-4-128-1"];
        assert_eq!(ids(&text), all);
        let first = "id: 00000007-3-128-1\nevent: decided\n\
                     data: {\"key\":\"a\",\"key_seq\":1,\"command_id\":\"1.0.0.1.0\",\"payload\":{ }}\n\n";
        assert!(text.starts_with(first), "{text}");
        for (had, id) in (1..).zip(all) {
            let place: Place = id.parse().unwrap();
            let begun = if place.barrier == 4 { fed().split_off(3) } else { fed() };
            let text = reader(begun, 7, From::Behind(place)).read();
            assert_eq!(ids(&text), all[had..], "behind {id}");
            assert!(!text.contains("gap"), "{text}");
        }
        // Another process begins again at the barrier, since its order is another.
        let behind = From::Behind(all[2].parse().unwrap());
        assert_eq!(ids(&reader(fed(), 8, behind).read()).len(), 4);
    }

    #[test]
    fn what_is_missing_is_told() {
        let behind = From::Behind("00000007-2-128-1".parse().unwrap());
        assert!(reader(fed(), 7, behind).read().starts_with("event: gap\ndata: {\"barrier\":3}\n\n"));
        for (barrier, has_gap, is_told) in [(4, false, false), (4, true, true), (6, false, true)] {
            let mut fed = fed();
            fed[3] = Fed::Segment { barrier, has_gap };
            assert_eq!(reader(fed, 7, From::Start).read().contains("event: gap"), is_told, "{barrier}");
        }
    }

    #[test]
    fn a_reader_from_the_end_is_told_what_comes_later() {
        let later = Fed::Batch { offset: 300, bytes: batch(4, &[("c", 1)]) };
        let mut all = fed().into_iter().map(Some).chain([None, Some(later), None]);
        let mut reader = Reader::new(Box::new(move || Ok(all.next().flatten())), 7, From::End);
        assert_eq!(reader.read(), "");
        assert_eq!(ids(&reader.read()), ["00000007-4-300-1"]);
    }

    #[test]
    fn a_feed_that_fails_ends_with_the_reason() {
        let mut reader = Reader::new(Box::new(|| Err("check the disk".into())), 7, From::Start);
        assert_eq!(reader.read(), "event: failed\ndata: {\"detail\":\"check the disk\"}\n\n");
        assert_eq!((reader.read(), reader.has_failed), (String::new(), true));
    }

    #[test]
    fn a_place_is_read_as_it_was_written_and_nothing_else() {
        let place = Place { process: 0xab, barrier: 5, offset: 6, decisions: 7 };
        assert_eq!(place.to_string().parse(), Ok(place));
        for text in ["", "5", "x-1-2-3", "1-2-3", "1-2-3-4-5", "1-2-3-4294967296", "1-+2--3-4"] {
            assert_eq!(text.parse::<Place>(), Err(()), "{text}");
        }
        let of = |query| wanted(&HeaderMap::new(), query);
        assert_eq!(of(""), Ok((ShardId(0), From::End)));
        assert_eq!(of("shard=2&from=start"), Ok((ShardId(2), From::Start)));
        assert_eq!(of("from=x").unwrap_err().problem, Problem::BadQuery);
        assert_eq!(of("shard=x").unwrap_err().problem, Problem::BadQuery);
        let mut headers = HeaderMap::new();
        headers.insert("last-event-id", place.to_string().parse().unwrap());
        assert_eq!(wanted(&headers, "from=start"), Ok((ShardId(0), From::Behind(place))));
    }
}
