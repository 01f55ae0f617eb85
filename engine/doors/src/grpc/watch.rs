//! `Watch`: the executed decisions of a shard.

use super::proto::{Decision, Deleted, Gap, WatchRequest, WatchResponse, watch_response};
use super::refusal::unreadable;
use crate::events::{self, Event, From};
use crate::limits::RETRY_AFTER;
use crate::problem::{Problem, Refusal};
use crate::router::House;
use futures_lite::stream::{Boxed, StreamExt, iter, unfold};
use isonomy_wire::published::Effect;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

/// An event on its way; an error ends the stream.
type Sent = Result<WatchResponse, Status>;

/// The events of a stream, which no more are read for than its reader takes.
pub(super) fn events(
    house: &House,
    request: WatchRequest,
    patience: Option<Duration>,
) -> Result<Boxed<Sent>, Refusal> {
    let WatchRequest { shard, from_start, behind } = request;
    let from = match (behind.is_empty(), from_start) {
        (false, _) => From::Behind(
            behind.parse().map_err(|()| Problem::BadField.because("behind is no offset of an event"))?,
        ),
        (true, true) => From::Start,
        (true, false) => From::End,
    };
    let reader = events::open(house, shard, from, Problem::BadField)?;
    let place = house.enter_stream()?;
    // Somebody watches for as long as nobody says until when.
    let until = patience.and_then(|patience| Instant::now().checked_add(patience));
    let begin = Some((reader, house.stopped.clone(), place));
    let chunks = unfold(begin, move |state| async move {
        let (reader, mut stopped, place) = state?;
        let next = events::next(reader, &mut stopped, |event| Some(word(event)));
        let next = match until {
            None => next.await,
            Some(until) => timeout_at(until, next).await.unwrap_or_default(),
        };
        Some(match next {
            Some((reader, words)) => (words, Some((reader, stopped, place))),
            None if *stopped.borrow() => (
                vec![Err(Problem::Unavailable.for_now(RETRY_AFTER, "this replica is shutting down").into())],
                None,
            ),
            // The time is over, or the reason was told.
            None => (Vec::new(), None),
        })
    });
    Ok(chunks.flat_map(iter).boxed())
}

fn word(event: Event<'_>) -> Sent {
    let (offset, event) = match event {
        Event::Failed { why } => return Err(unreadable(why.into())),
        Event::Gap { barrier } => (String::new(), watch_response::Event::Gap(Gap { barrier })),
        Event::Told { place, effect, id, key, value } => {
            let (key, command_id) = (key.to_vec(), id.to_string());
            let event = match effect {
                Effect::Decided { key_seq } => {
                    let value = value.to_vec();
                    watch_response::Event::Decided(Decision { key, key_seq, command_id, value })
                }
                Effect::Deleted { key_seq } => {
                    watch_response::Event::Deleted(Deleted { key, key_seq, command_id })
                }
            };
            (place.to_string(), event)
        }
    };
    Ok(WatchResponse { offset, event: Some(event) })
}
