//! What strangers, broken clients and wrong peers get: a clear refusal or a closed connection,
//! and a replica that goes on as if nothing had happened.

mod support;

use isonomy_wire::command::{Numbering, RequestBuilder};
use isonomy_wire::failure::Failure;
use isonomy_wire::frame::HEADER_BYTES;
use isonomy_wire::id::{ClusterId, Epoch, RecordId, ReplicaId, SessionId, ShardId};
use isonomy_wire::message::{ClientMessage, Handshake, Hello, Refusal, Role, Start};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::io::Write;
use support::{Cluster, RawClient, hello};

const SHARD: ShardId = ShardId(0);

fn decide(number: u64) -> bytes::Bytes {
    let mut builder = RequestBuilder::default();
    builder.decide(b"key", b"value").unwrap();
    builder.encode(SessionId::named("hostile"), Numbering { first: number, answered_below: number })
}

/// The replica still decides.
fn assert_alive(cluster: &Cluster, number: u64) {
    let mut client = RawClient::connect(cluster.client_bases[0], SHARD).unwrap();
    client.send(&ClientMessage::Request { tag: number }, &decide(number));
    let (answer, _) = client.receive().expect("an answer");
    assert_eq!(answer, ClientMessage::Response { tag: number });
}

fn refusal(port: u16, shard: ShardId, hello: Hello) -> Refusal {
    match RawClient::open(port, shard).unwrap().shake(hello).unwrap() {
        Some(Handshake::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn handshakes_that_do_not_fit_are_refused_with_the_reason() {
    let cluster = Cluster::start(1, 1);
    let (clients, peers) = (cluster.client_bases[0], cluster.peer_bases[0]);
    let good = || hello(SHARD);
    let other = ClusterId::of_name("other");
    assert!(matches!(
        refusal(clients, SHARD, Hello { cluster: Some(other), ..good() }),
        Refusal::WrongCluster { .. }
    ));
    assert!(matches!(refusal(clients, SHARD, Hello { rule: 99, ..good() }), Refusal::WrongRule { .. }));
    let shard = Hello { shard: ShardId(3), ..good() };
    assert!(matches!(refusal(clients, ShardId(3), shard), Refusal::WrongShard { .. }));
    assert!(matches!(refusal(peers, SHARD, good()), Refusal::WrongPort { .. }));
    let role = Role::Replica {
        id: ReplicaId(7),
        record: RecordId(0),
        incarnation: 1,
        start: Start::default(),
        position: None,
    };
    let peer = Hello { role, shards: 1, epoch: Epoch(1), ..good() };
    assert!(matches!(refusal(clients, SHARD, peer.clone()), Refusal::WrongPort { .. }));
    assert!(matches!(refusal(peers, SHARD, peer.clone()), Refusal::NotAPeer { .. }));
    assert!(matches!(
        refusal(peers, SHARD, Hello { shards: 2, ..peer.clone() }),
        Refusal::WrongShards { .. }
    ));
    assert!(matches!(refusal(peers, SHARD, Hello { epoch: Epoch(9), ..peer }), Refusal::WrongEpoch { .. }));
    assert_alive(&cluster, 1);
}

#[test]
fn a_frame_of_another_version_is_told_so() {
    let cluster = Cluster::start(1, 1);
    let mut client = RawClient::open(cluster.client_bases[0], SHARD).unwrap();
    let mut bytes = client.encode(&ClientMessage::StatusRequest, &[]);
    bytes[4] = 77;
    client.write(&bytes).unwrap();
    let heard = client.heard().unwrap();
    assert!(matches!(heard, Some(Handshake::Refused(Refusal::WrongVersion { there: 77, .. }))), "{heard:?}");
    client.wait_closed();
    assert_alive(&cluster, 1);
}

#[test]
fn random_bytes_close_the_connection_and_nothing_else() {
    let cluster = Cluster::start(1, 1);
    let mut random = SmallRng::seed_from_u64(3);
    for port in [cluster.client_bases[0], cluster.peer_bases[0]] {
        for _ in 0..50 {
            let mut bytes = vec![0; random.random_range(HEADER_BYTES..4000)];
            random.fill(&mut bytes[..]);
            let mut client = RawClient::open(port, SHARD).unwrap();
            // The replica may close before all is written.
            let _ = client.stream.write_all(&bytes);
            client.wait_closed();
        }
    }
    assert_alive(&cluster, 1);
}

#[test]
fn damaged_frames_after_the_handshake_close_the_connection() {
    let cluster = Cluster::start(1, 1);
    let mut random = SmallRng::seed_from_u64(4);
    for round in 0..60 {
        let mut client = RawClient::connect(cluster.client_bases[0], SHARD).unwrap();
        let mut bytes = client.encode(&ClientMessage::Request { tag: 1 }, &decide(1));
        match round % 3 {
            // A flipped bit in message or payload: the checksum fails.
            0 => {
                let at = random.random_range(HEADER_BYTES..HEADER_BYTES + 8);
                bytes[at] ^= 1 << random.random_range(0..8);
            }
            // A length beyond every limit.
            1 => bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes()),
            // A frame twice: good in itself, in the wrong place.
            _ => {
                bytes = client.encode(&ClientMessage::StatusRequest, &[]);
                let once = bytes.clone();
                bytes.extend(once);
            }
        }
        let _ = client.write(&bytes);
        client.wait_closed();
    }
    assert_alive(&cluster, 1);
}

#[test]
fn a_request_that_does_not_decode_is_answered_invalid_and_the_connection_lives() {
    let cluster = Cluster::start(1, 1);
    let mut client = RawClient::connect(cluster.client_bases[0], SHARD).unwrap();
    for payload in [&b""[..], b"no batch at all, but with a good checksum"] {
        client.send(&ClientMessage::Request { tag: 5 }, payload);
        match client.receive().expect("an answer").0 {
            ClientMessage::Failed { tag: 5, failure: Failure::Invalid { why } } => assert!(!why.is_empty()),
            other => panic!("{other:?}"),
        }
    }
    client.send(&ClientMessage::Request { tag: 6 }, &decide(1));
    assert_eq!(client.receive().expect("an answer").0, ClientMessage::Response { tag: 6 });
}

#[test]
fn tricklers_and_clients_that_never_read_cost_little_memory() {
    let cluster = Cluster::start(1, 1);
    assert_alive(&cluster, 1);
    let before = cluster.resident_bytes(0);
    // Each claims a frame of the largest size and sends its first bytes only.
    let mut tricklers = Vec::new();
    for _ in 0..100 {
        let mut client = RawClient::connect(cluster.client_bases[0], SHARD).unwrap();
        let large = vec![7; isonomy_wire::command::BATCH_BYTES_MAX];
        let bytes = client.encode(&ClientMessage::Request { tag: 1 }, &large);
        client.write(&bytes[..100]).unwrap();
        tricklers.push(client);
    }
    // Asks and asks, and never reads: the replica stops reading it.
    let mut deaf = RawClient::connect(cluster.client_bases[0], SHARD).unwrap();
    deaf.stream.set_nonblocking(true).unwrap();
    let mut asked = 0;
    let stopped = loop {
        let bytes = deaf.encode(&ClientMessage::StatusRequest, &[]);
        match deaf.write(&bytes) {
            Ok(()) => asked += bytes.len(),
            Err(error) => break error,
        }
        assert!(asked < 64 << 20, "the replica reads on although nobody reads its answers");
    };
    // The buffers between the two are full.
    assert_eq!(stopped.kind(), std::io::ErrorKind::WouldBlock);
    assert_alive(&cluster, 2);
    let grown = cluster.resident_bytes(0).saturating_sub(before);
    assert!(grown < 100 << 20, "the replica has grown by {grown} bytes");
}
