//! Connections over real sockets.

use super::*;
use crate::testing::rig::{self, PATIENCE, Rig, SHARD};
use isonomy_wire::message::ClientMessage;

const ASKS: ClientMessage = ClientMessage::StatusRequest;

fn scope() -> Scope {
    Scope { kind: Kind::Client, epoch: Epoch(0), shard: SHARD }
}

/// One frame after the other, as bytes.
fn frames(count: u64) -> Vec<u8> {
    let (mut bytes, mut encoder) = (Vec::new(), Encoder::default());
    for tag in 0..count {
        let payload = vec![tag as u8; 1000];
        let (place, crc) = (bytes.len() as u64, crc32c::crc32c(&payload));
        encoder.frame(&mut bytes, place, scope(), &ClientMessage::Request { tag }, &payload, crc);
    }
    bytes
}

/// A plain socket, and the connection at its other end.
async fn pair(rig: &Rig) -> (TcpStream, Connection) {
    let listener = rig.clients();
    let stream = TcpStream::connect(rig.clients.local_addr().unwrap()).await.unwrap();
    (stream, Connection::new(listener.accept().await.unwrap(), PATIENCE))
}

async fn tag(connection: &mut Connection) -> u64 {
    let frame = connection.next_frame().await.unwrap();
    match frame.decode(scope()).unwrap() {
        ClientMessage::Request { tag } => {
            assert_eq!(&frame.payload[..], vec![tag as u8; 1000]);
            tag
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn frames_that_come_in_parts_are_whole() {
    rig::run(1, async |rig| {
        let (mut stream, mut connection) = pair(&rig).await;
        let sender = glommio::spawn_local(async move {
            // No part ends where a frame does, and some are a few bytes.
            for part in frames(20).chunks(337) {
                stream.write_all(part).await.unwrap();
                stream.flush().await.unwrap();
                futures_lite::future::yield_now().await;
            }
            stream
        });
        for expected in 0..20 {
            assert_eq!(tag(&mut connection).await, expected);
        }
        drop(sender.await);
        assert!(matches!(
            connection.next_frame().await,
            Err(LinkError::Closed("the other side closed the connection"))
        ));
    });
}

#[test]
fn a_part_of_a_frame_is_noticed_until_its_rest_comes() {
    rig::run(1, async |rig| {
        let (mut stream, mut connection) = pair(&rig).await;
        let (bytes, sink) = (frames(2), connection.sink.clone());
        let later = || Instant::now() + PATIENCE;
        assert_eq!(sink.partial_for(later()), Duration::ZERO);
        stream.write_all(&bytes[..bytes.len() - 1]).await.unwrap();
        assert_eq!(tag(&mut connection).await, 0);
        let waiting = glommio::spawn_local(async move { (tag(&mut connection).await, connection) });
        rig.until("a part", || sink.idle_since().is_none()).await;
        assert!(sink.partial_for(later()) >= PATIENCE);
        stream.write_all(&bytes[bytes.len() - 1..]).await.unwrap();
        let (tag, _connection) = waiting.await;
        assert_eq!((tag, sink.partial_for(later())), (1, Duration::ZERO));
        assert!(sink.idle_since().is_some());
    });
}

#[test]
fn what_nobody_takes_is_stuck_until_it_moves() {
    let (sink, later) = (Sink::new(), || Instant::now() + PATIENCE);
    assert_eq!((sink.stuck_for(later()), sink.unsent()), (Duration::ZERO, 0));
    sink.push(&mut Encoder::default(), scope(), &ASKS, &[], 0);
    assert!(sink.stuck_for(later()) >= PATIENCE && sink.idle_since().is_none());
    assert_eq!((sink.unsent(), sink.backlog() > 0), (1, true));
}

#[test]
fn what_is_pushed_during_a_write_does_not_leave_with_it() {
    rig::run(1, async |rig| {
        let (mut stream, connection) = pair(&rig).await;
        let (sink, large) = (connection.sink.clone(), vec![0; 1 << 20]);
        let push = |count| {
            let encoder = &mut Encoder::default();
            (0..count).for_each(|_| sink.push(encoder, scope(), &ASKS, &large, crc32c::crc32c(&large)));
        };
        // More than the kernel takes while nobody reads.
        push(32);
        sink.flush();
        rig.until("a write", || sink.out.borrow().writing > 0).await;
        let first = sink.out.borrow().writing;
        push(30);
        stream.read_exact(&mut vec![0; first]).await.unwrap();
        rig.until("the end of the first write", || sink.unsent() == 30).await;
        sink.close("the test ends");
        assert_eq!((sink.unsent(), sink.backlog() > 0), (30, true), "they never leave");
    });
}

#[test]
fn a_connection_that_is_to_leave_says_all_before() {
    rig::run(1, async |rig| {
        let (mut stream, connection) = pair(&rig).await;
        let encoder = &mut Encoder::default();
        (0..1000).for_each(|_| {
            connection.sink.push(encoder, scope(), &ASKS, &[7; 1000], crc32c::crc32c(&[7; 1000]))
        });
        let said = connection.sink.backlog();
        assert_eq!(connection.sink.unsent(), 1000);
        connection.sink.leave("it made room for another");
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        assert_eq!((heard.len(), connection.sink.unsent()), (said, 0));
        assert_eq!(connection.sink.why_closed(), Some("it made room for another"));
    });
}

#[test]
fn a_refusal_arrives_before_the_end() {
    rig::run(1, async |rig| {
        let (stream, mut connection) = pair(&rig).await;
        let mut client = Connection::new(stream, PATIENCE);
        // More than is ever read of it.
        let encoder = &mut Encoder::default();
        for _ in 0..100 {
            client.sink.push(encoder, scope(), &ASKS, &[0; 10_000], crc32c::crc32c(&[0; 10_000]));
        }
        client.sink.flush();
        let sink = connection.sink.clone();
        let refusing = glommio::spawn_local(async move {
            connection.refuse(&mut Encoder::default(), SHARD, Refusal::NoHello).await;
        });
        let heard = client.hear(encoder, SHARD).await.unwrap();
        assert_eq!(heard, Handshake::Refused(Refusal::NoHello));
        assert!(!sink.is_closed(), "whoever is refused closes first");
        drop(client);
        refusing.await;
        assert_eq!(sink.why_closed(), Some("the connection was refused"));
    });
}

#[test]
fn the_end_of_a_reader_is_the_end_of_its_connection() {
    rig::run(1, async |rig| {
        let (mut stream, connection) = pair(&rig).await;
        let sink = connection.sink.clone();
        drop(connection);
        assert_eq!(sink.why_closed(), Some("the reader of the connection has ended"));
        sink.close("for another reason");
        assert_eq!(
            sink.why_closed(),
            Some("the reader of the connection has ended"),
            "the first reason stands"
        );
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    });
}
