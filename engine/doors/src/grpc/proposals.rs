//! A stream of proposals, and of their answers.

use super::body::Meter;
use super::proto::{self, outcome, propose_stream_response::Result as Answered};
use super::service::propose;
use crate::limits::{DEADLINE_MAX, PROPOSALS_PER_STREAM_MAX, RETRY_AFTER};
use crate::problem::Problem;
use crate::router::House;
use futures_lite::stream::{Boxed, StreamExt, unfold};
use proto::{ProposeStreamRequest, ProposeStreamResponse};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Status, Streaming};

/// An answer, and until it is taken the place of its proposal among those of the stream and the room of its value.
type HeldAnswer = (Result<ProposeStreamResponse, Status>, Vec<OwnedSemaphorePermit>);

/// The answers to proposals, as they come. No more is read while answers are not taken.
pub(super) fn answers(
    house: Arc<House>,
    messages: Streaming<ProposeStreamRequest>,
    meter: Arc<Meter>,
    patience: Option<Duration>,
    place: OwnedSemaphorePermit,
) -> Boxed<Result<ProposeStreamResponse, Status>> {
    // The places bound what is in the channel, and the end has one of its own.
    let (sender, receiver) = mpsc::channel::<HeldAnswer>(PROPOSALS_PER_STREAM_MAX + 1);
    tokio::spawn(async move {
        if let Err(status) = read(house, messages, meter, patience, &sender).await {
            let _ = sender.send((Err(status), Vec::new())).await;
        }
    });
    let taken = unfold((receiver, place), |(mut receiver, place)| async {
        let (answer, _taken) = receiver.recv().await?;
        Some((answer, (receiver, place)))
    });
    taken.boxed()
}

/// Proposes what comes. Ends when no more comes, or when nobody waits for answers any more, and otherwise with the reason.
async fn read(
    house: Arc<House>,
    mut messages: Streaming<ProposeStreamRequest>,
    meter: Arc<Meter>,
    patience: Option<Duration>,
    sender: &mpsc::Sender<HeldAnswer>,
) -> Result<(), Status> {
    let places = Arc::new(Semaphore::new(PROPOSALS_PER_STREAM_MAX));
    let mut stopped = house.stopped.clone();
    let over = tokio::time::sleep(patience.unwrap_or(Duration::MAX));
    let mut over = std::pin::pin!(over);
    let end = loop {
        let next = async {
            let place = places.clone().acquire_owned().await.expect("the places are never closed");
            (place, messages.message().await)
        };
        let (place, message) = tokio::select! {
            next = next => next,
            () = sender.closed() => return Ok(()),
            () = &mut over => {
                return Err(Problem::UnknownOutcome.because("the grpc-timeout of the stream is over").into());
            }
            _ = stopped.wait_for(|stopped| *stopped) => {
                break Problem::Unavailable.for_now(RETRY_AFTER, "this replica is shutting down").into();
            }
        };
        match message {
            Ok(Some(message)) => start(&house, message, meter.take(), place, sender.clone()),
            Ok(None) => return Ok(()),
            Err(status) => break status,
        }
    };
    // What was proposed is answered before the stream ends.
    tokio::select! {
        _ = places.acquire_many(PROPOSALS_PER_STREAM_MAX as u32) => {}
        () = sender.closed() => {}
    }
    Err(end)
}

/// Proposes a message. Tasks of one thread begin in the order in which they are made, so the proposals of a key keep theirs.
fn start(
    house: &Arc<House>,
    message: ProposeStreamRequest,
    room: OwnedSemaphorePermit,
    place: OwnedSemaphorePermit,
    sender: mpsc::Sender<HeldAnswer>,
) {
    let house = house.clone();
    tokio::spawn(async move {
        let ProposeStreamRequest { id, proposal, timeout_ms } = message;
        let deadline = match timeout_ms {
            0 => DEADLINE_MAX,
            millis => DEADLINE_MAX.min(Duration::from_millis(millis.into())),
        };
        let done = propose(&house, proposal, deadline).await;
        drop(room);
        let mut held = vec![place];
        let result = match done {
            Ok(mut outcome) => {
                held.extend(room_of_value(&house, &mut outcome));
                Answered::Outcome(outcome)
            }
            Err(refusal) => Answered::Refusal(refusal.into()),
        };
        let answer = ProposeStreamResponse { id, result: Some(result) };
        let _ = sender.send((Ok(answer), held)).await;
    });
}

/// Takes room for the value of a rejection until somebody takes the answer. Without room the value counts as too large.
fn room_of_value(house: &House, outcome: &mut proto::Outcome) -> Option<OwnedSemaphorePermit> {
    let Some(outcome::Outcome::Rejected(rejected)) = &mut outcome.outcome else { return None };
    let room = house.room.take(rejected.value.as_ref()?.len()).ok();
    if room.is_none() {
        rejected.value = None;
    }
    room
}
