//! Connections of clients: requests in, answers out.

use glommio::net::TcpStream;
use isonomy_protocol::contract::{Busy, ClientRef};
use isonomy_protocol::payload::Payload;
use isonomy_wire::frame::{Encoder, Frame};
use isonomy_wire::message::{ClientMessage, Failure, Handshake, Hello, Member, Refusal, Role, Welcome};
use std::rc::Rc;

use super::link::{Connection, LinkError, Sink};
use super::peers::listener_of;
use super::ticker::CLIENT_PATIENCE;
use super::{EPOCH, Node};
use crate::config::Durability;
use crate::files::REFUSED_MAX;

/// Answers that may wait for a client before no more of its requests are read.
const CLIENT_BACKLOG_BYTES_MAX: usize = 1 << 20;

impl Node {
    /// Serves the clients that connect, for ever.
    pub(super) async fn accept_clients(self: Rc<Node>, listener: std::net::TcpListener) {
        let listener = listener_of(listener);
        let open = Rc::new(());
        loop {
            let stream = self.accept(&listener, "a client").await;
            // Who connects as fast as it can must not keep the shard from its work.
            futures_lite::future::yield_now().await;
            // Each connection holds a share of `open` as long as it lives.
            let count = Rc::strong_count(&open) as u32;
            let limit = self.config.connections_max;
            if count > limit + REFUSED_MAX {
                continue;
            }
            let (node, held) = (self.clone(), open.clone());
            let task = async move {
                node.serve_client(stream, count > limit).await;
                drop(held);
            };
            glommio::spawn_local(task).detach();
        }
    }

    async fn serve_client(&self, stream: TcpStream, refuse: bool) {
        let mut connection = Connection::new(stream, CLIENT_PATIENCE);
        let mut encoder = Encoder::default();
        let error = match self.greet_client(&mut connection, &mut encoder, refuse).await {
            Ok(()) => self.hear_client(connection).await,
            Err(error) => error,
        };
        log::debug!("shard {}: a client's connection ended: {error}", self.shard.0);
    }

    async fn greet_client(
        &self,
        connection: &mut Connection,
        encoder: &mut Encoder,
        refuse: bool,
    ) -> Result<(), LinkError> {
        let judged = if refuse {
            Err(Refusal::TooManyConnections { limit: self.config.connections_max })
        } else {
            match connection.hear(encoder, self.shard).await? {
                Handshake::Hello(hello) => self.judge_client(&hello),
                _ => Err(Refusal::NoHello),
            }
        };
        if let Err(refusal) = judged {
            connection.refuse(encoder, self.shard, refusal.clone()).await;
            return Err(LinkError::Refused(refusal));
        }
        connection.shake(encoder, self.shard, &Handshake::Welcome(self.welcome()));
        Ok(())
    }

    fn judge_client(&self, hello: &Hello) -> Result<(), Refusal> {
        self.judge_hello(hello)?;
        match hello.role {
            Role::Client => Ok(()),
            Role::Replica { .. } => Err(Refusal::WrongPort { expected: "clients".into() }),
        }
    }

    /// What this replica says of itself.
    pub(super) fn welcome(&self) -> Welcome {
        let members = self.config.members.iter();
        Welcome {
            cluster: self.data_dir.cluster_id(),
            epoch: EPOCH,
            replica: self.config.replica,
            shards: self.config.shards,
            members: members
                .map(|it| Member { host: it.host.clone(), client_base: it.client_base })
                .collect(),
            durable: self.config.durability == Durability::Fsync,
        }
    }

    async fn hear_client(&self, mut connection: Connection) -> LinkError {
        let sink = connection.sink.clone();
        let id = {
            let mut inner = self.inner.borrow_mut();
            inner.connections += 1;
            let id = inner.connections;
            inner.clients.insert(id, sink.clone());
            id
        };
        let error = loop {
            let frame = match connection.next_frame().await {
                Ok(frame) => frame,
                Err(error) => break error,
            };
            if let Err(error) = self.on_client_frame(id, frame, &sink).await {
                break error;
            }
            while sink.backlog() > CLIENT_BACKLOG_BYTES_MAX && !sink.is_closed() {
                sink.drained.wait().await;
            }
        };
        self.inner.borrow_mut().clients.remove(&id);
        error
    }

    async fn on_client_frame(&self, connection: u64, frame: Frame, sink: &Sink) -> Result<(), LinkError> {
        match frame.decode(self.client_scope())? {
            ClientMessage::Request { tag } => {
                let client = ClientRef { connection, tag };
                match Payload::parse(frame.payload, frame.payload_crc) {
                    Ok(payload) => self.offer(client, payload, sink).await,
                    Err(why) => {
                        let failure = Failure::Invalid { why: why.to_string() };
                        self.say(sink, &ClientMessage::Failed { tag, failure });
                    }
                }
                Ok(())
            }
            ClientMessage::SnapshotRequest => {
                let now = self.now();
                self.inner.borrow_mut().core.propose_fence(now);
                self.touch();
                self.say(sink, &ClientMessage::Status(Box::new(self.status())));
                Ok(())
            }
            ClientMessage::StatusRequest => {
                let status = self.status();
                self.say(sink, &ClientMessage::Status(Box::new(status)));
                Ok(())
            }
            ClientMessage::SourcesRequest { after } => {
                let sources = self.inner.borrow().core.sources(self.now(), after);
                self.say(sink, &ClientMessage::Sources(sources));
                Ok(())
            }
            ClientMessage::Response { .. }
            | ClientMessage::Failed { .. }
            | ClientMessage::Status(_)
            | ClientMessage::Sources(_) => Err(LinkError::Closed("it sent what only replicas send")),
        }
    }

    /// Gives a request to the core; while that has no room this client is not read.
    async fn offer(&self, client: ClientRef, payload: Payload, sink: &Sink) {
        loop {
            let now = self.now();
            let offered = self.inner.borrow_mut().core.on_request(now, client, payload.clone());
            self.touch();
            match offered {
                Ok(()) => return,
                Err(Busy) if sink.is_closed() => return,
                Err(Busy) => self.room.wait().await,
            }
        }
    }

    fn say(&self, sink: &Sink, message: &ClientMessage) {
        let encoder = &mut self.inner.borrow_mut().encoder;
        sink.push(encoder, self.client_scope(), message, &[], 0);
        sink.flush();
    }
}
