//! Clients over real sockets. The replica takes no part yet, so every request is answered at once: nothing here
//! waits for a disk.

use super::*;
use crate::testing::rig::{self, Rig, SHARD, connect, shake, within_patience};
use isonomy_wire::command::{Numbering, RequestBuilder};
use isonomy_wire::id::RecordId;
use isonomy_wire::id::{Epoch, SessionId};
use isonomy_wire::route::RULE_VERSION;

fn hello(role: Role) -> Hello {
    Hello { cluster: None, epoch: Epoch(0), shard: SHARD, shards: 0, rule: RULE_VERSION, role }
}

fn serve(rig: &Rig) {
    rig.spawn(rig.node.clone().accept_clients(rig.clients()));
    rig.spawn(rig.node.clone().run_turns());
}

async fn welcomed(rig: &Rig, role: Role) -> Connection {
    let mut connection = connect(&rig.clients).await;
    let answer = shake(&mut connection, hello(role)).await.unwrap();
    assert!(matches!(answer, Handshake::Welcome(_)), "{answer:?}");
    connection
}

fn push(rig: &Rig, connection: &Connection, message: &ClientMessage, payload: &[u8]) {
    let encoder = &mut Encoder::default();
    connection.sink.push(encoder, rig.node.net.client_scope, message, payload, crc32c::crc32c(payload));
}

fn decide() -> bytes::Bytes {
    let mut builder = RequestBuilder::default();
    builder.decide(b"key", b"value").unwrap();
    builder.encode(SessionId::named("s"), Numbering::at(1))
}

fn ask(rig: &Rig, connection: &Connection, tag: u64, payload: &[u8]) {
    push(rig, connection, &ClientMessage::Request { tag }, payload);
    connection.sink.flush();
}

async fn hear(rig: &Rig, connection: &mut Connection) -> ClientMessage {
    let frame = within_patience("an answer", connection.next_frame()).await.unwrap();
    frame.decode(rig.node.net.client_scope).unwrap()
}

/// The sink of the node's for its only guest.
fn sink_of_guest(rig: &Rig) -> Rc<Sink> {
    let guests = rig.node.net.guests.borrow();
    assert_eq!(guests.len(), 1);
    guests.sinks().next().cloned().unwrap()
}

#[test]
fn each_answer_goes_to_the_connection_that_asked() {
    rig::run(3, async |rig| {
        serve(&rig);
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(welcomed(&rig, Role::Client).await);
        }
        for round in 0..3 {
            // Those who asked last are answered first or last: the order is not the connections'.
            for (index, client) in clients.iter().enumerate().rev() {
                ask(&rig, client, 10 * index as u64 + round, &decide());
            }
            for (index, client) in clients.iter_mut().enumerate() {
                let heard = hear(&rig, client).await;
                let ClientMessage::Failed { tag, failure: Failure::Unavailable(_) } = heard else {
                    panic!("{heard:?}")
                };
                assert_eq!(tag, 10 * index as u64 + round);
            }
        }
        let status = rig.node.status();
        assert_eq!((status.proposals, status.requests_failed.unavailable), (9, 9));
        assert_eq!(status.latency.count(), 0, "a refusal says nothing about how long decisions take");
    });
}

#[test]
fn an_answer_to_whoever_has_gone_goes_to_nobody() {
    rig::run(3, async |rig| {
        serve(&rig);
        let gone = welcomed(&rig, Role::Client).await;
        let id = rig.node.net.guests.borrow().taken().0.0;
        assert_eq!(id, 1);
        drop(gone);
        rig.until("the end of the guest", || rig.node.net.guests.borrow().len() == 0).await;
        let mut stayed = welcomed(&rig, Role::Client).await;
        ask(&rig, &stayed, 7, &decide());
        assert!(matches!(hear(&rig, &mut stayed).await, ClientMessage::Failed { tag: 7, .. }));
        assert_eq!(rig.node.status().clients.0, 1);
    });
}

#[test]
fn an_operator_commands_nothing_but_asks_what_it_likes() {
    rig::run(3, async |rig| {
        serve(&rig);
        let mut operator = welcomed(&rig, Role::Operator).await;
        ask(&rig, &operator, 1, &decide());
        let heard = hear(&rig, &mut operator).await;
        let ClientMessage::Failed { tag: 1, failure: Failure::Invalid { why } } = heard else {
            panic!("{heard:?}")
        };
        assert!(why.contains("an operator's connection takes no commands"), "{why}");
        push(&rig, &operator, &ClientMessage::StatusRequest, &[]);
        operator.sink.flush();
        let ClientMessage::Status(status) = hear(&rig, &mut operator).await else { panic!("no status") };
        assert_eq!((status.clients.0, status.operators), (0, 1));
        // The end of a source is the core's to judge.
        let mut builder = RequestBuilder::default();
        builder.end_idle(1, Default::default());
        ask(&rig, &operator, 2, &builder.encode(SessionId::named("s"), Numbering::NONE));
        let heard = hear(&rig, &mut operator).await;
        assert!(
            matches!(heard, ClientMessage::Failed { tag: 2, failure: Failure::Unavailable(_) }),
            "{heard:?}"
        );
    });
}

#[test]
fn whoever_says_what_only_replicas_say_is_closed() {
    rig::run(3, async |rig| {
        serve(&rig);
        let mut client = welcomed(&rig, Role::Client).await;
        push(&rig, &client, &ClientMessage::Response { tag: 1 }, &[]);
        client.sink.flush();
        assert!(within_patience("the end of the connection", client.next_frame()).await.is_err());
        rig.until("the end of the guest", || rig.node.net.guests.borrow().len() == 0).await;
    });
}

#[test]
fn a_client_that_reads_nothing_is_read_no_further_and_loses_nothing() {
    const REQUESTS: usize = 40_000;
    rig::run(3, async |rig| {
        serve(&rig);
        let mut client = welcomed(&rig, Role::Client).await;
        let sink = sink_of_guest(&rig);
        (0..REQUESTS).for_each(|_| push(&rig, &client, &ClientMessage::StatusRequest, &[]));
        client.sink.flush();
        rig.until("a backlog", || sink.backlog() > CLIENT_BACKLOG_BYTES_MAX).await;
        let mut largest = 0;
        for _ in 0..REQUESTS {
            largest = sink.backlog().max(largest);
            assert!(matches!(hear(&rig, &mut client).await, ClientMessage::Status(_)));
        }
        let one_answer = 16 << 10;
        assert!(largest < CLIENT_BACKLOG_BYTES_MAX + one_answer, "{largest} bytes waited");
    });
}

#[test]
fn a_client_at_the_port_of_peers_is_told_so() {
    rig::run(3, async |rig| {
        serve(&rig);
        let mut peer = connect(&rig.clients).await;
        let role = Role::Replica {
            record: RecordId(0),
            id: isonomy_wire::id::ReplicaId(1),
            incarnation: 1,
            start: Default::default(),
            position: None,
        };
        let answer = shake(&mut peer, hello(role)).await.unwrap();
        let expected = Refusal::WrongPort { expected: "clients".into() };
        assert_eq!(answer, Handshake::Refused(expected));
        assert_eq!(rig.node.net.guests.borrow().len(), 0);
    });
}
