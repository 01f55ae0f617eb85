//! The connections of a shard: links with the other replicas, and guests at the port for clients.

pub(crate) mod admission;
pub(crate) mod clients;
pub(crate) mod connection;
pub(crate) mod guests;
pub(crate) mod left_out;
pub mod limits;
pub(crate) mod links;
pub(crate) mod listener;
pub(crate) mod missing;
pub(crate) mod peers;
pub(crate) mod resolver;
mod socket;
mod strangers;

use crate::settings::{Seat, Settings};
use crate::signal::Signal;
use crate::tally::Answers;
use admission::Judged;
use connection::Sink;
use guests::Guests;
use isonomy_protocol::contract::{Reply, Send, Time};
use isonomy_wire::frame::{Encode, Encoder, Kind, Scope};
use isonomy_wire::id::{Epoch, ReplicaId};
use isonomy_wire::message::{ClientMessage, PeerMessage};
use links::Links;
use missing::Missing;
use std::cell::{Ref, RefCell, RefMut};
use std::rc::Rc;

/// What the tasks of a shard share of its connections.
pub(crate) struct Net {
    pub(crate) links: RefCell<Links>,
    pub(crate) guests: RefCell<Guests>,
    encoder: RefCell<Encoder>,
    /// The clients that get an answer in this turn.
    answered: RefCell<Vec<Rc<Sink>>>,
    pub(crate) answers: RefCell<Answers>,
    /// Notified when replies have left, so that a refused request may be offered again.
    room: Signal,
    judged: Judged,
    missing: Missing,
    pub(crate) peer_scope: Scope,
    client_scope: Scope,
}

impl Net {
    /// No connections. `began` is the number of records that the log had at the start, if that is meaningful, and
    /// `is_proven` says whether nobody has to confirm that it is the newest state.
    pub(crate) fn new(settings: &Settings, seat: Seat, began: Option<u64>, is_proven: bool) -> Net {
        let shard = settings.shard;
        Net {
            links: RefCell::new(Links::default()),
            guests: RefCell::new(Guests::new(settings.connections_max)),
            encoder: RefCell::default(),
            answered: RefCell::default(),
            answers: RefCell::default(),
            room: Signal::default(),
            judged: Judged::new(seat, began, is_proven),
            missing: Missing::default(),
            peer_scope: Scope { kind: Kind::Peer, epoch: seat.epoch, shard },
            client_scope: Scope { kind: Kind::Client, epoch: Epoch(0), shard },
        }
    }

    /// The messages and replies of a turn; dropping the value lets them leave.
    pub(crate) fn outgoing(&self) -> Outgoing<'_> {
        Outgoing {
            net: self,
            links: self.links.borrow_mut(),
            guests: self.guests.borrow(),
            encoder: self.encoder.borrow_mut(),
            answered: self.answered.borrow_mut(),
            answers: self.answers.borrow_mut(),
            has_replies: false,
        }
    }

    /// Sends a client a message that is no reply of the core's.
    fn say(&self, sink: &Sink, message: &impl Encode) {
        sink.push(&mut self.encoder.borrow_mut(), self.client_scope, message, &[], 0);
        sink.flush();
    }

    /// Sends a peer a message about a snapshot, with these bytes.
    pub(crate) fn say_to_peer(&self, peer: ReplicaId, message: &PeerMessage, bytes: &[u8]) {
        let (links, encoder) = (&mut *self.links.borrow_mut(), &mut *self.encoder.borrow_mut());
        links.push_bytes(encoder, self.peer_scope, peer, message, bytes);
        links.flush();
    }

    /// Lets all that waits leave. Returns every connection.
    pub(crate) fn flush_all(&self) -> Vec<Rc<Sink>> {
        self.links.borrow_mut().flush_all();
        let (guests, links) = (self.guests.borrow(), self.links.borrow());
        guests.sinks().cloned().chain(links.sinks()).collect()
    }
}

/// The messages and replies of a turn.
pub(crate) struct Outgoing<'a> {
    net: &'a Net,
    links: RefMut<'a, Links>,
    guests: Ref<'a, Guests>,
    encoder: RefMut<'a, Encoder>,
    answered: RefMut<'a, Vec<Rc<Sink>>>,
    answers: RefMut<'a, Answers>,
    has_replies: bool,
}

impl Outgoing<'_> {
    /// Queues a message to a peer.
    pub(crate) fn send(&mut self, send: &Send) {
        self.links.push(&mut self.encoder, self.net.peer_scope, send);
    }

    /// Queues the answer to a request.
    pub(crate) fn reply(&mut self, now: Time, reply: Reply) {
        self.has_replies = true;
        let Some((sink, asked)) = self.guests.on_answer(reply.client) else { return };
        self.answers.on_reply(now, asked, &reply);
        push_reply(&mut self.encoder, self.net.client_scope, sink, reply);
        self.answered.push(sink.clone());
    }
}

impl Drop for Outgoing<'_> {
    fn drop(&mut self) {
        self.links.flush();
        if self.has_replies {
            self.answered.drain(..).for_each(|sink| sink.flush());
            self.net.room.notify();
        }
    }
}

fn push_reply(encoder: &mut Encoder, scope: Scope, sink: &Sink, reply: Reply) {
    let tag = reply.client.tag;
    match reply.outcome {
        Ok(response) => {
            let crc = crc32c::crc32c(&response);
            sink.push(encoder, scope, &ClientMessage::Response { tag }, &response, crc);
        }
        Err(failure) => sink.push(encoder, scope, &ClientMessage::Failed { tag, failure }, &[], 0),
    }
}
