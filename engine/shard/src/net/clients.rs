//! Connections of clients, on which requests come in and answers go out.

use futures_lite::FutureExt;
use isonomy_protocol::contract::ClientRef;
use isonomy_protocol::payload::Payload;
use isonomy_wire::command::Op;
use isonomy_wire::failure::Failure;
use isonomy_wire::frame::{Encoder, Frame};
use isonomy_wire::id::Epoch;
use isonomy_wire::message::{ClientMessage, Handshake, Hello, Refusal, Role, Welcome};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::net::connection::{Connection, LinkError, Sink};
use crate::net::guests::Admitted;
use crate::net::limits::{ARRIVING_MAX, OPERATORS_MAX};
use crate::net::listener::Listener;
use crate::net::strangers::{Place, Strangers};
use crate::node::Node;
use crate::pump::Input;
use crate::shard::client_addresses;
use crate::tally::Asked;
use crate::time::ticker::CLIENT_PATIENCE;
use crate::told::Kind;

/// The most bytes of answers that may wait for a client before the shard stops reading its requests.
const CLIENT_BACKLOG_BYTES_MAX: usize = 1 << 20;

/// How many connections are accepted before the shard's other tasks have their turn, so that a crowd gets in before
/// too many wait at the port.
const ACCEPT_BURST: u32 = 16;

/// A connection that was welcomed.
#[derive(Clone, Copy)]
struct Welcomed {
    connection: u64,
    is_operator: bool,
}

impl Node {
    /// Serves the clients that connect, for ever.
    pub(crate) async fn accept_clients(self: Rc<Node>, listener: Rc<Listener>) {
        let arrivals = Rc::new(Strangers::default());
        let all_max = self.settings().connections_max as usize + (OPERATORS_MAX + ARRIVING_MAX) as usize;
        let mut burst = 0;
        loop {
            arrivals.room(|arriving| arriving + self.net.guests.borrow().len() < all_max).await;
            let stream = listener.next(&self.shard, "a client").await;
            let from = stream.peer_addr().ok().map(|address| address.ip());
            let connection = Connection::new(stream, CLIENT_PATIENCE);
            let place = arrivals.admit(from, &connection.sink);
            let (node, arrivals) = (self.clone(), arrivals.clone());
            let task = async move {
                node.serve_client(connection, place).await;
                arrivals.on_left();
            };
            glommio::spawn_local(task).detach();
            // A machine that connects as fast as it can must not keep the shard from its work.
            burst = (burst + 1) % ACCEPT_BURST;
            if burst == 0 {
                futures_lite::future::yield_now().await;
            }
        }
    }

    /// Serves a connection to the port for clients, and gives up `arrival` once there is a place among the guests.
    async fn serve_client(&self, mut connection: Connection, arrival: Place) {
        let greeted = self.greet_client(&mut connection).await;
        drop(arrival);
        let error = match greeted {
            Ok(guest) => self.hear_client(connection, guest).await,
            Err(error) => error,
        };
        log::debug!("shard {}: a client's connection ended: {error}", self.settings().shard.0);
    }

    async fn greet_client(&self, connection: &mut Connection) -> Result<Welcomed, LinkError> {
        let mut encoder = Encoder::default();
        let judged = match connection.hear(&mut encoder, self.settings().shard).await? {
            Handshake::Hello(hello) => self.judge_client(&hello, &connection.sink),
            _ => Err(Refusal::NoHello),
        };
        self.welcome_or_refuse(connection, &mut encoder, judged).await
    }

    fn judge_client(&self, hello: &Hello, sink: &Rc<Sink>) -> Result<Welcomed, Refusal> {
        self.judge_hello(hello)?;
        let is_operator = match hello.role {
            Role::Client if self.seat.is_learner() => {
                let members = client_addresses(&self.roster());
                return Err(Refusal::NotAMember { epoch: self.seat.epoch, members });
            }
            Role::Client => false,
            Role::Operator => true,
            Role::Replica { .. } => return Err(Refusal::WrongPort { expected: "clients".into() }),
        };
        let admitted = self.net.guests.borrow_mut().admit(Instant::now(), is_operator, sink);
        let limit = self.settings().connections_max;
        match admitted {
            Ok(Admitted { id, yielding }) => {
                if let Some((sink, idle)) = yielding {
                    self.dismiss(&sink, idle);
                }
                Ok(Welcomed { connection: id, is_operator })
            }
            Err(refusal) => {
                if self.shard.told.may(Kind::NoPlace) {
                    log::warn!(
                        "shard {}: a client was refused: all {limit} connections are taken, and none is idle; \
                         close some connections or raise `connections_max`",
                        self.settings().shard.0
                    );
                }
                Err(refusal)
            }
        }
    }

    /// Tells a guest, on whose connection nothing is under way, that its place was given to another.
    fn dismiss(&self, sink: &Sink, idle: Duration) {
        let limit = self.settings().connections_max;
        if self.shard.told.may(Kind::MadeRoom) {
            log::warn!(
                "shard {}: all {limit} connections of clients are taken: one that had been idle for {idle:.0?} \
                 made room for another; if this happens often, close some connections or raise \
                 `connections_max`",
                self.settings().shard.0
            );
        }
        let refusal = Refusal::MadeRoom { idle_s: idle.as_secs() };
        self.net.say(sink, &ClientMessage::Leave(refusal));
        sink.leave("the connection made room for another one");
    }

    /// Tells clients and operators that the epoch is over. They find the next one by connecting again.
    pub(crate) fn close_guests(&self, next: Epoch) {
        let refusal = Refusal::EpochChanged { epoch: next };
        for sink in self.net.guests.borrow().sinks() {
            self.net.say(sink, &ClientMessage::Leave(refusal.clone()));
            sink.leave("the epoch is over");
        }
    }

    /// The description of this replica and its cluster.
    pub(crate) fn welcome(&self) -> Welcome {
        Welcome {
            cluster: self.data_dir.cluster_id(),
            epoch: self.seat.epoch,
            replica: self.seat.replica,
            shards: self.settings().shards,
            members: client_addresses(&self.roster()),
            durable: self.settings().outlives_power,
        }
    }

    async fn hear_client(&self, mut connection: Connection, guest: Welcomed) -> LinkError {
        let sink = connection.sink.clone();
        let error = loop {
            let frame = match connection.next_frame().await {
                Ok(frame) => frame,
                Err(error) => break error,
            };
            if let Err(error) = self.on_client_frame(guest, frame, &connection).await {
                break error;
            }
            while sink.backlog() > CLIENT_BACKLOG_BYTES_MAX && !sink.is_closed() {
                sink.drained.wait().await;
            }
        };
        self.net.guests.borrow_mut().remove(guest.connection);
        error
    }

    async fn on_client_frame(
        &self,
        guest: Welcomed,
        frame: Frame,
        connection: &Connection,
    ) -> Result<(), LinkError> {
        let sink = &*connection.sink;
        match frame.decode(self.net.client_scope)? {
            ClientMessage::Request { tag } => {
                let why = match Payload::parse(frame.payload, frame.payload_crc) {
                    Ok(payload) if !guest.is_operator || is_idle_end(&payload) => {
                        let client = ClientRef { connection: guest.connection, tag };
                        return self.offer(client, payload, connection).await;
                    }
                    Ok(_) => "an operator's connection takes no commands but the end of a source; connect as a client"
                        .into(),
                    Err(why) => why.to_string(),
                };
                self.net.say(sink, &ClientMessage::Failed { tag, failure: Failure::Invalid { why } });
                Ok(())
            }
            ClientMessage::SnapshotRequest => {
                self.pump.take(Input::Barrier);
                self.net.say(sink, &ClientMessage::Status(Box::new(self.status())));
                Ok(())
            }
            ClientMessage::StatusRequest => {
                let status = self.status();
                self.net.say(sink, &ClientMessage::Status(Box::new(status)));
                Ok(())
            }
            ClientMessage::SourcesRequest { after } => {
                let sources = self.pump.look(|core| core.sources(self.pump.now(), after));
                self.net.say(sink, &ClientMessage::Sources(sources));
                Ok(())
            }
            ClientMessage::Response { .. }
            | ClientMessage::Failed { .. }
            | ClientMessage::Status(_)
            | ClientMessage::Sources(_)
            | ClientMessage::Leave(_) => {
                Err(LinkError::Closed("the client sent a message that only replicas send"))
            }
        }
    }

    /// Gives a request to the core. While the core has no room, the shard does not read from this client.
    async fn offer(
        &self,
        client: ClientRef,
        payload: Payload,
        connection: &Connection,
    ) -> Result<(), LinkError> {
        let (commands, at) = (payload.batch().commands(), self.pump.time_of(connection.sink.heard()));
        self.net.answers.borrow_mut().proposals += u64::from(commands);
        self.net.guests.borrow().on_request(client.connection, Asked { tag: client.tag, commands, at });
        loop {
            if self.pump.take(Input::Request { client, payload: payload.clone() }) {
                return Ok(());
            }
            let sink = &connection.sink;
            if let Some(why) = sink.why_closed() {
                return Err(LinkError::Closed(why));
            }
            let failed = async {
                connection.failed().await;
                sink.close("the connection failed while a request waited");
            };
            failed.or(self.net.room.wait()).or(sink.wait_closed()).await;
        }
    }
}

/// Whether a request ends a source and does nothing else, which is the only change that an operator may make.
fn is_idle_end(payload: &Payload) -> bool {
    let batch = payload.batch();
    let is_end = |part| batch.commands_of(part).all(|command| command.op == Op::End && command.number == 0);
    batch.parts().iter().all(is_end)
}

#[cfg(test)]
mod tests;
