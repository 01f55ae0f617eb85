//! What a call sends, within its bounds: room, sizes and time.

use crate::body::{Room, too_large};
use crate::limits::MESSAGE_BYTES_MAX;
use crate::problem::Refusal;
use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::error::Elapsed;
use tokio::time::{Sleep, sleep, timeout};
use tonic::Status;

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// How a call sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sending {
    /// One message, which must come whole in time. Its room is held until the call ends.
    Unary,
    /// Messages whose handler takes over their room, and for which no more is read while there is none.
    Proposals,
    /// Messages that are small and answered at once.
    Other,
}

/// The room of what a call has sent and its handler has not taken over.
#[derive(Debug)]
pub(super) struct Meter(Mutex<Portions>);

#[derive(Debug)]
struct Portions {
    /// The room of a message that has not come whole.
    begun: OwnedSemaphorePermit,
    /// The room of each message that has.
    whole: VecDeque<OwnedSemaphorePermit>,
}

impl Meter {
    pub(super) fn new(room: &Room) -> Meter {
        Meter(Mutex::new(Portions { begun: room.none(), whole: VecDeque::new() }))
    }

    /// Takes over the room of the message that was read. Messages are read in their order.
    pub(super) fn take(&self) -> OwnedSemaphorePermit {
        let whole = self.0.lock().unwrap_or_else(PoisonError::into_inner).whole.pop_front();
        whole.expect("a message that was read has come whole")
    }

    /// Adds the room of bytes that have come, in which messages of these sizes end.
    fn add(&self, room: OwnedSemaphorePermit, ends: &[usize], sending: Sending) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.begun.merge(room);
        for bytes in ends {
            let whole = held.begun.split(*bytes).expect("what has come has room");
            match sending {
                Sending::Other => drop(whole),
                Sending::Unary | Sending::Proposals => held.whole.push_back(whole),
            }
        }
    }
}

/// Finds the ends of messages in what comes.
#[derive(Default)]
struct Cut {
    prefix: [u8; PREFIX_BYTES],
    /// How much of the message has come, its prefix included.
    come: usize,
}

impl Cut {
    fn is_inside(&self) -> bool {
        self.come > 0
    }

    /// The bytes of each message that ends in these bytes.
    fn ends(&mut self, mut data: &[u8]) -> Result<Vec<usize>, Refusal> {
        let mut ends = Vec::new();
        while !data.is_empty() {
            if let Some(rest) = PREFIX_BYTES.checked_sub(self.come).filter(|rest| *rest > 0) {
                let part = rest.min(data.len());
                self.prefix[self.come..][..part].copy_from_slice(&data[..part]);
                self.come += part;
                data = &data[part..];
                if self.come < PREFIX_BYTES {
                    break;
                }
            }
            let [_, length @ ..] = self.prefix;
            let length = u32::from_be_bytes(length) as usize;
            if length > MESSAGE_BYTES_MAX {
                return Err(too_large());
            }
            let part = (PREFIX_BYTES + length - self.come).min(data.len());
            self.come += part;
            data = &data[part..];
            if self.come == PREFIX_BYTES + length {
                ends.push(std::mem::take(&mut self.come));
            }
        }
        Ok(ends)
    }
}

/// Bytes that wait for their room, but not for ever: messages that have begun must not wait for each other.
type Waiting = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, Elapsed>> + Send>>;

/// The body of a call.
pub(super) struct Metered<B> {
    body: B,
    sending: Sending,
    room: Room,
    meter: Arc<Meter>,
    cut: Cut,
    waiting: Option<(Bytes, Waiting)>,
    /// The end of the patience with what is being sent.
    late: Option<Pin<Box<Sleep>>>,
}

impl<B> Metered<B> {
    pub(super) fn new(body: B, sending: Sending, room: Room, meter: Arc<Meter>) -> Metered<B> {
        Metered { body, sending, room, meter, cut: Cut::default(), waiting: None, late: None }
    }

    /// Hands on bytes that have room.
    fn admit(&mut self, data: Bytes, room: OwnedSemaphorePermit) -> Result<Frame<Bytes>, Status> {
        let ends = self.cut.ends(&data)?;
        self.meter.add(room, &ends, self.sending);
        if self.sending != Sending::Unary && !ends.is_empty() {
            self.late = None;
        }
        Ok(Frame::data(data))
    }

    /// Whether the sender is too slow, while nothing comes.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if self.sending != Sending::Unary && !self.cut.is_inside() {
            self.late = None;
            return Poll::Pending;
        }
        let patience = self.room.patience;
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(late.as_mut().poll(cx));
        Poll::Ready(self.room.slow().into())
    }
}

impl<B: Body<Data = Bytes, Error = hyper::Error> + Unpin> Body for Metered<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Some((_, waiting)) = &mut this.waiting {
            let room = ready!(waiting.as_mut().poll(cx));
            let (data, _) = this.waiting.take().expect("it was there");
            let room = room.or_else(|_| this.room.take(data.len()));
            return Poll::Ready(Some(room.map_err(Status::from).and_then(|room| this.admit(data, room))));
        }
        let frame = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => return this.poll_late(cx).map(|slow| Some(Err(slow))),
        };
        let data = match frame.map(|frame| frame.map(Frame::into_data)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
            Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
            Some(Ok(Ok(data))) => data,
        };
        match this.room.take(data.len()) {
            Ok(room) => Poll::Ready(Some(this.admit(data, room))),
            Err(refusal) if this.sending == Sending::Unary => Poll::Ready(Some(Err(refusal.into()))),
            Err(_) => {
                let (room, bytes) = (this.room.clone(), data.len());
                let patiently = async move { timeout(room.patience, room.wait(bytes)).await };
                this.waiting = Some((data, Box::pin(patiently)));
                self.poll_frame(cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BODIES_BYTES_MAX;
    use crate::problem::Problem;
    use http_body_util::{BodyExt, Empty, StreamBody};
    use std::time::Duration;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((length as u32).to_be_bytes());
        bytes.resize(PREFIX_BYTES + length, 7);
        bytes
    }

    #[test]
    fn messages_end_wherever_the_bytes_are_cut() {
        let all = [message(0), message(300), message(7)].concat();
        for piece in [1, 2, 4, 5, 6, 300, all.len()] {
            let mut cut = Cut::default();
            let ends: Vec<usize> = all.chunks(piece).flat_map(|data| cut.ends(data).unwrap()).collect();
            assert_eq!(ends, [5, 305, 12], "pieces of {piece}");
            assert!(!cut.is_inside());
        }
        let mut cut = Cut::default();
        assert_eq!(cut.ends(&message(MESSAGE_BYTES_MAX)[..9]), Ok(vec![]));
        assert!(cut.is_inside());
        let refusal = Cut::default().ends(&message(MESSAGE_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(refusal.problem, Problem::TooLarge);
    }

    /// A body of these pieces, after which nothing comes.
    fn silent(
        sending: Sending,
        room: &Room,
        pieces: Vec<Vec<u8>>,
    ) -> (impl Body<Data = Bytes, Error = Status> + Unpin, Arc<Meter>) {
        use futures_lite::{StreamExt, stream};
        let pieces = stream::iter(pieces).map(|piece| Ok(Frame::data(Bytes::from(piece))));
        let meter = Arc::new(Meter::new(room));
        let body = StreamBody::new(pieces.chain(stream::pending::<Result<Frame<Bytes>, hyper::Error>>()));
        (Metered::new(body, sending, room.clone(), meter.clone()), meter)
    }

    #[tokio::test]
    async fn a_message_has_its_time_and_a_pause_between_messages_has_none() {
        let room = Room::new(Duration::from_millis(1));
        let begun = vec![message(3), message(9)[..6].to_vec()];
        for (sending, pieces) in
            [(Sending::Proposals, begun), (Sending::Unary, vec![message(3)]), (Sending::Unary, vec![])]
        {
            let count = pieces.len();
            let (mut body, _meter) = silent(sending, &room, pieces);
            for _ in 0..count {
                body.frame().await.unwrap().unwrap();
            }
            let status = body.frame().await.unwrap().unwrap_err();
            assert!(status.message().contains("1 ms"), "{}", status.message());
        }
        for sending in [Sending::Proposals, Sending::Other] {
            let (mut body, _meter) = silent(sending, &room, vec![message(3)]);
            body.frame().await.unwrap().unwrap();
            tokio::time::timeout(50 * room.patience, body.frame()).await.unwrap_err();
        }
    }

    #[tokio::test]
    async fn what_has_come_takes_room_until_it_is_taken_over() {
        let room = Room::new(Duration::from_secs(60));
        let (mut body, meter) =
            silent(Sending::Proposals, &room, vec![[message(3), message(4)].concat(), message(1)]);
        body.frame().await.unwrap().unwrap();
        assert_eq!(room.left(), BODIES_BYTES_MAX - 17);
        drop(meter.take());
        assert_eq!(room.left(), BODIES_BYTES_MAX - 9);
        let rest = room.take(room.left()).unwrap();
        assert!(futures_lite::future::poll_once(body.frame()).await.is_none(), "no room, no reading");
        drop(rest);
        body.frame().await.unwrap().unwrap();
        drop((body, meter));
        assert_eq!(room.left(), BODIES_BYTES_MAX);
        let rest = room.take(room.left()).unwrap();
        let mut hasty = room.clone();
        hasty.patience = Duration::from_millis(1);
        let (mut hasty, _meter) = silent(Sending::Proposals, &hasty, vec![message(3)]);
        let status = hasty.frame().await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        drop(rest);
        let (mut other, _meter) = silent(Sending::Other, &room, vec![message(3)]);
        other.frame().await.unwrap().unwrap();
        assert_eq!(room.left(), BODIES_BYTES_MAX);
        let rest = room.take(room.left()).unwrap();
        let (mut unary, _meter) = silent(Sending::Unary, &room, vec![message(3)]);
        let status = unary.frame().await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        drop(rest);
        let empty = Empty::new().map_err(|never| match never {});
        let mut empty = Metered::new(empty, Sending::Unary, room.clone(), Arc::new(Meter::new(&room)));
        assert!(empty.frame().await.is_none());
    }
}
