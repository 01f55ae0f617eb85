//! Connections with the other replicas, one in each direction, each with one writer.

use futures_lite::FutureExt;
use glommio::net::TcpStream;
use isonomy_mesh::MemberAddress;
use isonomy_protocol::payload::Payload;
use isonomy_protocol::transfer::Fetch;
use isonomy_wire::frame::{Encoder, Frame};
use isonomy_wire::id::{PLACES_MAX, ReplicaId};
use isonomy_wire::message::{Handshake, Hello, PeerMessage, Refusal, Role, Start};
use isonomy_wire::route::RULE_VERSION;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::data_dir::Claim;
use crate::net::connection::{Connection, LinkError, Sink};
use crate::net::links::Links;
use crate::net::listener::Listener;
use crate::net::socket::connect;
use crate::net::strangers::Place;
use crate::node::Node;
use crate::pump::Input;
use crate::snapshot::fetch::{Piece, PiecePlace};
use crate::time::ticker::PEER_PATIENCE;
use crate::told::Kind;
use isonomy_mesh::fatal::stop_with;

impl Node {
    /// Changes a link and tells the core which peers it can reach.
    fn relink(&self, change: impl FnOnce(&mut Links)) {
        change(&mut self.net.links.borrow_mut());
        let linked = self.net.links.borrow().linked().collect();
        self.pump.take(Input::Links(linked));
    }

    /// Opens links to all that take part and have none: a member to members and learners, a learner to members only.
    pub(crate) fn open_links(self: &Rc<Node>) {
        let roster = self.roster();
        let all = if self.seat.is_learner() { usize::from(self.seat.members) } else { roster.places.len() };
        for peer in (0..all.min(PLACES_MAX)).map(|place| ReplicaId(place as u8)) {
            if peer != self.seat.replica && self.net.links.borrow_mut().begin(peer) {
                self.tasks.spawn(self.clone().run_link(peer));
            }
        }
    }

    /// Keeps the outgoing link to a peer open, for as long as the peer takes part.
    pub(crate) async fn run_link(self: Rc<Node>, peer: ReplicaId) {
        let mut said = String::new();
        while self.place(peer).is_some() {
            match self.open_link(peer).await {
                Ok(connection) => {
                    said.clear();
                    self.hold_link(peer, connection).await;
                }
                // A trouble is logged once, not at every try.
                Err(error) => {
                    self.on_no_link(peer, &error);
                    let error = error.to_string();
                    if error != said && self.shard.told.may(Kind::NoLink) {
                        log::warn!("shard {}: no link to replica {peer}: {error}", self.settings().shard.0);
                        said = error;
                    }
                }
            }
            let wait = self.net.links.borrow_mut().next_wait(peer);
            glommio::timer::sleep(wait).await;
        }
        self.net.links.borrow_mut().end(peer);
    }

    async fn open_link(&self, peer: ReplicaId) -> Result<Connection, LinkError> {
        let mut connection = Connection::new(self.reach(peer).await?, PEER_PATIENCE);
        let mut encoder = Encoder::default();
        let (incarnation, start) = (self.data_dir.incarnation(), self.data_dir.start());
        let position = self.told_position(peer);
        let hello = Hello {
            cluster: Some(self.data_dir.cluster_id()),
            epoch: self.seat.epoch,
            shard: self.settings().shard,
            shards: self.settings().shards,
            rule: RULE_VERSION,
            role: Role::Replica {
                id: self.seat.replica,
                record: self.seat.record,
                incarnation,
                start,
                position,
            },
        };
        connection.shake(&mut encoder, self.settings().shard, &Handshake::Hello(hello));
        match connection.hear(&mut encoder, self.settings().shard).await? {
            Handshake::Welcome(welcome) if welcome.replica == peer => {
                self.note_acceptance(peer).await;
                Ok(connection)
            }
            Handshake::Welcome(_) => {
                Err(LinkError::Closed("another replica answers there; check the members"))
            }
            Handshake::Refused(refusal) => Err(LinkError::Refused(refusal)),
            Handshake::Hello(_) => Err(LinkError::Closed("it answered a hello with a hello")),
        }
    }

    /// Connects to a peer's port, at the first of its addresses that takes a connection.
    async fn reach(&self, peer: ReplicaId) -> Result<TcpStream, LinkError> {
        let place = self.place(peer).ok_or(LinkError::Closed("it takes no part any more"))?;
        let MemberAddress { host, peer_base, .. } = place.address;
        let port = peer_base + self.settings().shard.0;
        let question = self.settings().resolver.ask(&host);
        let found = loop {
            match question.answer() {
                Some(Ok(found)) => break found,
                Some(Err(why)) => return Err(LinkError::NoAddress { host, why }),
                None => self.shard.tick.wait().await,
            }
        };
        let mut last = None;
        for address in found.addresses {
            let address = SocketAddr::new(address, port);
            match connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(LinkError::Unreachable(address, error)),
            }
        }
        let error = last.expect("a host that was found has an address");
        Err(match found.failure {
            Some(why) => LinkError::LastAddress { host, why, error: Box::new(error) },
            None => error,
        })
    }

    /// G6: notes that a peer accepts this directory. Other tasks go on while the file with the note is written, since
    /// the disk may hang.
    async fn note_acceptance(&self, peer: ReplicaId) {
        if !self.data_dir.is_formed() {
            let data_dir = self.data_dir.clone();
            let noted = self.shard.aside.run(move || data_dir.on_accepted(peer)).await;
            noted.unwrap_or_else(|fatal| stop_with(&fatal));
        }
    }

    /// Makes the link available until it ends.
    async fn hold_link(self: &Rc<Node>, peer: ReplicaId, mut connection: Connection) {
        let sink = connection.sink.clone();
        self.relink(|links| links.on_opened(peer, sink));
        self.on_welcome(peer);
        // The peer sends nothing on this link, so only an error ends the wait, or the end of the peer's part.
        let error = match connection.next_frame().await {
            Ok(_) => LinkError::Closed("it spoke where it only listens"),
            Err(error) => error,
        };
        self.relink(|links| links.on_ended(peer));
        if self.shard.told.may(Kind::LinkEnd) {
            log::info!("shard {}: the link to replica {peer} has ended: {error}", self.settings().shard.0);
        }
    }

    /// Serves the peers that connect, for ever.
    pub(crate) async fn accept_peers(self: Rc<Node>, listener: Rc<Listener>) {
        let serve = |connection, place| {
            glommio::spawn_local(self.clone().serve_peer(connection, place)).detach();
        };
        listener.serve_strangers(&self.shard, "a peer", PEER_PATIENCE, serve).await;
    }

    /// Serves a connection to the port for peers, and gives up `place` once the peer has said who it is.
    async fn serve_peer(self: Rc<Node>, mut connection: Connection, place: Place) {
        let greeted = self.greet_peer(&mut connection).await;
        drop(place);
        match greeted {
            Ok((peer, start)) => self.hear_peer(peer, start, connection).await,
            Err(error) if self.shard.told.may(Kind::Stranger) => {
                log::warn!("shard {}: a connection for peers ended: {error}", self.settings().shard.0);
            }
            Err(_) => {}
        }
    }

    async fn greet_peer(&self, connection: &mut Connection) -> Result<(ReplicaId, Start), LinkError> {
        let mut encoder = Encoder::default();
        let word = connection.hear(&mut encoder, self.settings().shard).await?;
        let judged = match word {
            Handshake::Hello(hello) => self.judge_peer(&hello).await,
            _ => Err(Refusal::NoHello),
        };
        self.welcome_or_refuse(connection, &mut encoder, judged).await
    }

    /// Answers a hello as `judged` says.
    pub(crate) async fn welcome_or_refuse<T>(
        &self,
        connection: &mut Connection,
        encoder: &mut Encoder,
        judged: Result<T, Refusal>,
    ) -> Result<T, LinkError> {
        match judged {
            Ok(found) => {
                connection.shake(encoder, self.settings().shard, &Handshake::Welcome(self.welcome()));
                Ok(found)
            }
            Err(refusal) => {
                connection.refuse(encoder, self.settings().shard, refusal.clone()).await;
                Err(LinkError::Refused(refusal))
            }
        }
    }

    async fn judge_peer(&self, hello: &Hello) -> Result<(ReplicaId, Start), Refusal> {
        self.judge_hello(hello)?;
        let Role::Replica { id, record, incarnation, start, position } = hello.role else {
            return Err(Refusal::WrongPort { expected: "replicas".into() });
        };
        let here = self.seat.epoch;
        if hello.epoch != here {
            return Err(Refusal::WrongEpoch { here, there: hello.epoch });
        }
        if record != self.seat.record {
            return Err(Refusal::WrongRecord { epoch: here, here: self.seat.record, there: record });
        }
        if hello.shards != self.settings().shards {
            return Err(Refusal::WrongShards { here: self.settings().shards, there: hello.shards });
        }
        let place = self.place(id).filter(|_| id != self.seat.replica && id.index() < PLACES_MAX);
        let Some(place) = place else { return Err(Refusal::NotAPeer { id }) };
        if place.incarnation.is_some_and(|named| named != incarnation) {
            return Err(Refusal::WrongIncarnation { id });
        }
        // A peer that is met for the first time is noted in the directory, and the disk may hang.
        let claim = Claim { incarnation, is_named: place.incarnation.is_some() };
        let known = self.data_dir.knows_peer(id, claim).map(Ok);
        let accepted = match known {
            Some(accepted) => accepted,
            None => {
                let data_dir = self.data_dir.clone();
                self.shard.aside.run(move || data_dir.accept_peer(id, claim)).await
            }
        };
        match accepted {
            Ok(true) => self.judge_state(id, start, position).map(|()| (id, start)),
            Ok(false) => Err(Refusal::WrongIncarnation { id }),
            Err(fatal) => stop_with(&fatal),
        }
    }

    /// Checks the parts of a hello that every sender must have right.
    pub(crate) fn judge_hello(&self, hello: &Hello) -> Result<(), Refusal> {
        if self.is_over.get() {
            return Err(Refusal::EpochChanged { epoch: self.shard.mail.roster().epoch });
        }
        let here = self.data_dir.cluster_id();
        if let Some(there) = hello.cluster.filter(|there| *there != here) {
            return Err(Refusal::WrongCluster { here, there });
        }
        if hello.rule != RULE_VERSION {
            return Err(Refusal::WrongRule { here: RULE_VERSION, there: hello.rule });
        }
        if hello.shard != self.settings().shard {
            return Err(Refusal::WrongShard { here: self.settings().shard, there: hello.shard });
        }
        Ok(())
    }

    /// Hands the messages of a peer to the core until the link ends.
    async fn hear_peer(self: &Rc<Node>, peer: ReplicaId, start: Start, mut connection: Connection) {
        let sink = connection.sink.clone();
        self.net.links.borrow_mut().on_greeted(peer, &sink);
        let mut is_heard = false;
        let error = loop {
            // Messages of peers become records, so the shard reads from no peer while the disk does not take these.
            while self.is_behind() && !sink.is_closed() {
                sink.wait_closed().or(self.writer.written.wait()).await;
            }
            let frame = match connection.next_frame().await {
                Ok(frame) => frame,
                Err(error) => break error,
            };
            if !is_heard && let Err(error) = self.begin_hearing(peer, start, &sink).await {
                break error;
            }
            is_heard = true;
            if let Err(error) = self.on_peer_frame(peer, frame) {
                break error;
            }
        };
        if self.shard.told.may(Kind::LinkEnd) {
            log::info!("shard {}: replica {peer} is no longer heard: {error}", self.settings().shard.0);
        }
        self.relink(|links| links.on_silenced(peer, &sink));
    }

    /// G6: handles the first message of a peer since its welcome. Another process of the peer may have sent one
    /// before, or sends one meanwhile; what was noted then stands.
    async fn begin_hearing(&self, peer: ReplicaId, start: Start, sink: &Rc<Sink>) -> Result<(), LinkError> {
        self.judge_state(peer, start, None).map_err(LinkError::Refused)?;
        if self.data_dir.met(peer) != Some(start) {
            // Other tasks go on during the write, since the disk may hang.
            let data_dir = self.data_dir.clone();
            match self.shard.aside.run(move || data_dir.note_start(peer, start)).await {
                Ok(true) => self.judge_state(peer, start, None).map_err(LinkError::Refused)?,
                Ok(false) => {
                    return Err(LinkError::Closed("its start cannot be noted for want of room or files"));
                }
                Err(fatal) => stop_with(&fatal),
            }
            // The peer may have connected again meanwhile.
            if let Some(why) = sink.why_closed() {
                return Err(LinkError::Closed(why));
            }
        }
        self.relink(|links| links.on_heard(peer, start, sink));
        Ok(())
    }

    fn on_peer_frame(self: &Rc<Node>, peer: ReplicaId, frame: Frame) -> Result<(), LinkError> {
        let message: PeerMessage = frame.decode(self.net.peer_scope)?;
        match message {
            PeerMessage::Fetch { barrier, from } => {
                self.on_fetch(peer, Fetch { barrier, from });
                return Ok(());
            }
            PeerMessage::Piece { barrier, from, total } => {
                let place = PiecePlace { source: peer, barrier, from };
                self.on_piece(Piece { place, total, bytes: frame.payload });
                return Ok(());
            }
            PeerMessage::Stalled if self.shard.told.may(Kind::PeerDisk) => {
                log::warn!(
                    "shard {}: replica {peer} says that its disk hangs; it is done without until that ends",
                    self.settings().shard.0
                );
            }
            _ => {}
        }
        let payload = if frame.payload.is_empty() {
            None
        } else {
            let parsed = Payload::parse(frame.payload, frame.payload_crc);
            Some(parsed.map_err(|_| LinkError::Closed("it sent a batch that does not decode"))?)
        };
        self.pump.take(Input::Message { from: peer, message, payload });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
