//! `POST /v1/propose:batch`: a proposal on each line, and its outcome on the same line of the answer.

use crate::body::too_large;
use crate::headers::{check_type, deadline};
use crate::json;
use crate::limits::{BATCH_CHUNK_BYTES, BATCH_LINES_MAX, BODY_BYTES_MAX};
use crate::problem::Refusal;
use crate::proposal::Order;
use crate::propose::to_line;
use crate::router::{House, Rooms};
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_lite::future::poll_once;
use futures_lite::stream::unfold;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// The types of a body of JSON lines.
const JSON_LINES: [&str; 2] = ["application/jsonl", "application/x-ndjson"];

/// The outcome of a line, when it comes.
type Coming = oneshot::Receiver<Vec<u8>>;

pub(crate) async fn propose(
    State(house): Rooms,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let deadline = deadline(&headers)?;
    check_type(&headers, &JSON_LINES)?;
    let place = house.enter_batch()?;
    let (outcomes, answers) = mpsc::channel(BATCH_LINES_MAX);
    let reading = async move {
        read_lines(&house, body, deadline, &outcomes).await;
        drop(place);
    };
    tokio::spawn(reading);
    Ok(([(CONTENT_TYPE, JSON_LINES[0])], Body::from_stream(written(answers))).into_response())
}

/// Proposes each line as it comes. Ends when the body has ended, or when nobody waits for outcomes any more.
async fn read_lines(house: &Arc<House>, mut body: Body, deadline: Duration, outcomes: &mpsc::Sender<Coming>) {
    let mut lines = Lines::default();
    loop {
        let data = house.room.read_more(&mut body).await;
        let (data, end) = match data {
            Ok(Some(data)) => (data, None),
            Ok(None) => (Bytes::from_static(b"\n"), Some(None)),
            Err(refusal) => (Bytes::new(), Some(Some(refusal))),
        };
        for line in lines.add(&data) {
            if !propose_line(house, line, deadline, outcomes).await {
                return;
            }
        }
        match end {
            None => {}
            Some(None) => return,
            Some(Some(refusal)) => {
                refuse(&refusal, outcomes).await;
                return;
            }
        }
    }
}

/// Proposes a line, behind those before. Returns whether anybody waits for its outcome.
async fn propose_line(
    house: &Arc<House>,
    line: Result<Vec<u8>, Refusal>,
    deadline: Duration,
    outcomes: &mpsc::Sender<Coming>,
) -> bool {
    let line = match line {
        Ok(line) if line.iter().all(u8::is_ascii_whitespace) => return true,
        Ok(line) => line,
        Err(refusal) => return refuse(&refusal, outcomes).await,
    };
    let room = house.room.wait(line.len()).await;
    let order = match Order::parse(&HeaderMap::new(), &line) {
        Ok(order) => order,
        Err(refusal) => return refuse(&refusal, outcomes).await,
    };
    let (sender, outcome) = oneshot::channel();
    if outcomes.send(outcome).await.is_err() {
        return false;
    }
    let house = house.clone();
    // Tasks of one thread begin in the order in which they are made, so the lines of a key keep theirs.
    tokio::spawn(async move {
        let request_key = order.request_key().map(ToOwned::to_owned);
        let done = house.cluster.submit(order, deadline).await;
        let line = done.map_or_else(
            |refusal| json::line(&refusal.to_json()),
            |done| to_line(&done, request_key.as_deref()),
        );
        drop(room);
        let _ = sender.send(line);
    });
    true
}

async fn refuse(refusal: &Refusal, outcomes: &mpsc::Sender<Coming>) -> bool {
    let (sender, outcome) = oneshot::channel();
    // The receiver is in hand.
    let _ = sender.send(json::line(&refusal.to_json()));
    outcomes.send(outcome).await.is_ok()
}

/// The outcomes in the order of the lines. Those that are there are written together.
fn written(answers: mpsc::Receiver<Coming>) -> impl futures_lite::Stream<Item = Result<Bytes, Infallible>> {
    unfold((answers, None::<Coming>), |(mut answers, mut first)| async move {
        let mut chunk = Vec::new();
        loop {
            let mut outcome = match first.take() {
                Some(outcome) => outcome,
                None if chunk.is_empty() => answers.recv().await?,
                None => match answers.try_recv() {
                    Ok(outcome) => outcome,
                    Err(_) => break,
                },
            };
            let line = match chunk.is_empty() {
                true => (&mut outcome).await,
                false => match poll_once(&mut outcome).await {
                    Some(line) => line,
                    None => {
                        first = Some(outcome);
                        break;
                    }
                },
            };
            // The task of a line ends without an outcome only when the process does.
            chunk.extend_from_slice(&line.ok()?);
            if chunk.len() >= BATCH_CHUNK_BYTES {
                break;
            }
        }
        Some((Ok(Bytes::from(chunk)), (answers, first)))
    })
}

/// Cuts what comes into lines.
#[derive(Default)]
struct Lines {
    /// The begin of a line whose end has not come.
    begin: Vec<u8>,
    /// Whether that line is too long, so that what comes of it is dropped.
    is_too_long: bool,
}

impl Lines {
    /// The lines that end in these bytes.
    fn add(&mut self, data: &[u8]) -> Vec<Result<Vec<u8>, Refusal>> {
        let mut lines = Vec::new();
        let mut rest = data;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.extend(&rest[..end]);
            rest = &rest[end + 1..];
            let line = std::mem::take(&mut self.begin);
            lines.push(if std::mem::take(&mut self.is_too_long) { Err(too_large()) } else { Ok(line) });
        }
        self.extend(rest);
        lines
    }

    fn extend(&mut self, part: &[u8]) {
        if self.is_too_long || self.begin.len() + part.len() > BODY_BYTES_MAX {
            (self.is_too_long, self.begin) = (true, Vec::new());
        } else {
            self.begin.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Problem;
    use futures_lite::StreamExt;

    #[test]
    fn lines_are_cut_wherever_the_bytes_are() {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        for part in ["a", "b\nc", "\n\nd", "e", "\n"] {
            all.extend(lines.add(part.as_bytes()).into_iter().map(Result::unwrap));
        }
        assert_eq!(all, [&b"ab"[..], b"c", b"", b"de"]);
        assert!(lines.add(&vec![b'x'; BODY_BYTES_MAX]).is_empty());
        let next = lines.add(b"xx\nf\n");
        assert_eq!(next[0].as_ref().unwrap_err().problem, Problem::TooLarge);
        assert_eq!(next[1], Ok(b"f".to_vec()));
        assert_eq!(next.len(), 2);
    }

    #[tokio::test]
    async fn outcomes_are_written_in_the_order_of_the_lines() {
        let (outcomes, answers) = mpsc::channel(8);
        let mut senders = Vec::new();
        for _ in 0..4 {
            let (sender, outcome) = oneshot::channel();
            senders.push(sender);
            outcomes.send(outcome).await.unwrap();
        }
        drop(outcomes);
        let mut chunks = Box::pin(written(answers));
        let mut senders = senders.into_iter();
        let mut say = |text: &str| senders.next().unwrap().send(text.into()).unwrap();
        let first = tokio::spawn(async move {
            let first = chunks.next().await;
            (first, chunks)
        });
        say("1");
        say("2");
        let (first, mut chunks) = first.await.unwrap();
        assert_eq!(first.unwrap().unwrap(), "12");
        say("3");
        say("4");
        assert_eq!(chunks.next().await.unwrap().unwrap(), "34");
        assert!(chunks.next().await.is_none());
    }
}
