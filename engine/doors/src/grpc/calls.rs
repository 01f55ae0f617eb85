//! What the calls of a connection are doing, so that a connection ends that is idle, or whose reader takes nothing.

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// The calls of a connection.
#[derive(Debug)]
pub(super) struct Calls(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Each call, and since when bytes of its answer wait to be taken.
    open: BTreeMap<u64, Option<Instant>>,
    /// How many calls there have been.
    begun: u64,
    /// Since when there is none.
    idle_since: Instant,
}

impl Calls {
    pub(super) fn new(now: Instant) -> Calls {
        Calls(Mutex::new(State { open: BTreeMap::new(), begun: 0, idle_since: now }))
    }

    /// A call begins.
    pub(super) fn begin(self: &Arc<Calls>) -> Call {
        let mut state = self.lock();
        let id = state.begun;
        state.begun += 1;
        state.open.insert(id, None);
        Call { calls: self.clone(), id }
    }

    /// Whether a reader has taken nothing of an answer for so long.
    pub(super) fn is_stuck(&self, now: Instant, patience: Duration) -> bool {
        self.lock().open.values().flatten().any(|since| now.saturating_duration_since(*since) >= patience)
    }

    /// Whether there has been no call for so long: at first, and after calls.
    pub(super) fn is_idle(&self, now: Instant, at_first: Duration, later: Duration) -> bool {
        let state = self.lock();
        let patience = if state.begun == 0 { at_first } else { later };
        state.open.is_empty() && now.saturating_duration_since(state.idle_since) >= patience
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call, until it is dropped.
#[derive(Debug)]
pub(super) struct Call {
    calls: Arc<Calls>,
    id: u64,
}

impl Call {
    fn waits_since(&self, since: Option<Instant>) {
        self.calls.lock().open.insert(self.id, since);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.calls.lock();
        state.open.remove(&self.id);
        state.idle_since = Instant::now();
    }
}

/// The body of an answer. It is asked for more when what it gave before has been taken.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    call: Call,
}

impl Answer {
    pub(super) fn new(body: Body, call: Call) -> Answer {
        // It is not asked for anything before the reader takes bytes at all.
        call.waits_since(Some(Instant::now()));
        Answer { body, call }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.call.waits_since(None);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            self.call.waits_since(Some(Instant::now()));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_connection_is_idle_without_calls_only() {
        let now = Instant::now();
        let calls = Arc::new(Calls::new(now));
        assert!(!calls.is_idle(now, SECOND, 9 * SECOND) && calls.is_idle(now + SECOND, SECOND, 9 * SECOND));
        let call = calls.begin();
        assert!(!calls.is_idle(now + 60 * SECOND, SECOND, 9 * SECOND));
        drop(call);
        assert!(!calls.is_idle(now + SECOND, SECOND, 9 * SECOND));
        assert!(calls.is_idle(now + 60 * SECOND, SECOND, 9 * SECOND));
    }

    #[tokio::test]
    async fn a_reader_is_stuck_that_has_bytes_and_takes_none() {
        let calls = Arc::new(Calls::new(Instant::now()));
        let stuck = || calls.is_stuck(Instant::now() + SECOND, SECOND);
        let pieces = futures_lite::stream::iter(["a", "b"].map(Ok::<_, std::io::Error>));
        let mut answer = Answer::new(Body::from_stream(pieces), calls.begin());
        assert!(stuck(), "nothing was asked for yet");
        answer.frame().await.unwrap().unwrap();
        assert!(stuck() && !calls.is_stuck(Instant::now(), SECOND));
        answer.frame().await.unwrap().unwrap();
        assert!(answer.frame().await.is_none() && !stuck(), "all is taken");
    }
}
