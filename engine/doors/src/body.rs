//! Bodies of requests, within their bounds.

use crate::limits::{BODIES_BYTES_MAX, BODY_BYTES_MAX, RETRY_AFTER};
use crate::problem::{Problem, Refusal};
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::BodyExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The room for bodies.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    bytes: Arc<Semaphore>,
    /// How long a body may take to come, and a batch to send its next bytes.
    pub(crate) patience: Duration,
}

/// A body that has come, and its room until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl Room {
    pub(crate) fn new(patience: Duration) -> Room {
        Room { bytes: Arc::new(Semaphore::new(BODIES_BYTES_MAX)), patience }
    }

    /// Room for nothing, to which more is added.
    pub(crate) fn none(&self) -> OwnedSemaphorePermit {
        self.bytes.clone().try_acquire_many_owned(0).expect("nothing always has room")
    }

    /// Takes room for so many bytes, if it is there.
    pub(crate) fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let taken = self.bytes.clone().try_acquire_many_owned(bytes as u32);
        taken.map_err(|_| {
            let why =
                format!("bodies of {BODIES_BYTES_MAX} bytes wait for their decisions, which is the limit");
            Problem::Overloaded.for_now(RETRY_AFTER, why)
        })
    }

    /// Takes room for a part of many requests, such as a line of a batch, and waits for it.
    pub(crate) async fn wait(&self, bytes: usize) -> OwnedSemaphorePermit {
        let taken = self.bytes.clone().acquire_many_owned(bytes as u32).await;
        taken.expect("the room is never closed")
    }

    /// Reads a body.
    pub(crate) async fn read(&self, body: Body) -> Result<Held, Refusal> {
        if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
            return Err(too_large());
        }
        timeout(self.patience, self.gather(body)).await.unwrap_or_else(|_| Err(self.slow()))
    }

    /// Reads the next bytes of a batch.
    pub(crate) async fn read_more(&self, body: &mut Body) -> Result<Option<Bytes>, Refusal> {
        timeout(self.patience, next(body)).await.unwrap_or_else(|_| Err(self.slow()))
    }

    pub(crate) fn slow(&self) -> Refusal {
        Problem::SlowSender.because(format!("no whole body came in {} ms", self.patience.as_millis()))
    }

    async fn gather(&self, mut body: Body) -> Result<Held, Refusal> {
        let mut held = Held { bytes: Vec::new(), _room: self.none() };
        while let Some(data) = next(&mut body).await? {
            if held.bytes.len() + data.len() > BODY_BYTES_MAX {
                return Err(too_large());
            }
            // What has come takes room, not what was announced, so that nobody takes room without sending.
            held._room.merge(self.take(data.len())?);
            held.bytes.extend_from_slice(&data);
        }
        Ok(held)
    }
}

/// The next bytes of a body; trailers are none.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Refusal> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Problem::BadBody.because(error.to_string()))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

pub(crate) fn too_large() -> Refusal {
    let why = format!("a body, a message, or a line of a batch, has at most {BODY_BYTES_MAX} bytes");
    Problem::TooLarge.because(why)
}

#[cfg(test)]
impl Room {
    /// How many bytes there is room for.
    pub(crate) fn left(&self) -> usize {
        self.bytes.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_body_takes_room_until_it_is_dropped_and_is_refused_without() {
        let room = Room::new(PATIENCE);
        let held = room.read(Body::from("four")).await.unwrap();
        assert_eq!((held.bytes.len(), room.bytes.available_permits()), (4, BODIES_BYTES_MAX - 4));
        let rest = room.take(BODIES_BYTES_MAX - 6).unwrap();
        let refusal = room.read(Body::from("more")).await.unwrap_err();
        assert_eq!((refusal.problem, refusal.retry_after.is_some()), (Problem::Overloaded, true));
        drop((held, rest));
        assert_eq!(room.bytes.available_permits(), BODIES_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_refused_whether_announced_or_not() {
        let announced = Body::from(vec![0; BODY_BYTES_MAX + 1]);
        assert_eq!(Room::new(PATIENCE).read(announced).await.unwrap_err().problem, Problem::TooLarge);
        let pieces = (0..3).map(|_| Ok::<_, std::io::Error>(vec![0_u8; 1 << 19]));
        let pieces = futures_lite::stream::iter(pieces);
        assert_eq!(
            Room::new(PATIENCE).read(Body::from_stream(pieces)).await.unwrap_err().problem,
            Problem::TooLarge
        );
    }
}
