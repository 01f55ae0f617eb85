//! More clients than there are places: a crowd that comes at once, places that the idle give up and the busy keep,
//! and an operator who gets in all the same.

mod support;

use isonomy_tuning::limits::{Resource, raise};
use isonomy_tuning::ports::backlog_max;
use isonomy_wire::client::{Client, discover};
use isonomy_wire::command::{Numbering, RequestBuilder};
use isonomy_wire::conversation::Config;
use isonomy_wire::failure::Failure;
use isonomy_wire::id::{SessionId, ShardId};
use isonomy_wire::message::{ClientMessage, Handshake, Hello, Refusal, Role};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Signal;
use serde_json::Value;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use support::{Cluster, PATIENCE, RawClient, eventually, hello, program, stderr, stdout, write_lines};

const SHARD: ShardId = ShardId(0);
const CROWD: u32 = 2000;
/// Connections that say nothing: more than may wait to say who they are.
const SILENT: usize = 100;
/// More than operators have places.
const OPERATORS: usize = 12;

/// Begins to connect and waits for nothing.
fn begin(address: &SocketAddr) -> TcpStream {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None);
    let stream = TcpStream::from(socket.unwrap());
    match rustix::net::connect(&stream, address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => panic!("{error}"),
    }
    stream.set_nonblocking(false).unwrap();
    stream
}

/// How many packets of a connection were sent more than once, the first one included.
fn sent_again(stream: &TcpStream) -> u32 {
    // SAFETY: all zeros are one, and the kernel writes no more of it than it is told to.
    #[allow(unsafe_code)]
    unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut length = size_of_val(&info) as u32;
        let place = (&raw mut info).cast();
        let done =
            libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, place, &mut length);
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        info.tcpi_total_retrans
    }
}

/// What is lost for want of room at the port is sent again after a second, and then after two more.
#[test]
fn a_crowd_that_comes_at_once_waits_at_the_port() {
    let backlog = backlog_max().unwrap();
    if backlog < CROWD {
        eprintln!("NOT TESTED: this machine lets {backlog} connections wait at a port");
        return;
    }
    assert!(raise(Resource::NOFILE, 8 * 1024).unwrap() >= 8 * 1024);
    let cluster = Cluster::start_with(1, 1, &format!("connections_max = {CROWD}\n"));
    let address = cluster.addresses()[0].parse().unwrap();
    // All come before it takes one.
    cluster.signal(0, Signal::STOP);
    let crowd: Vec<TcpStream> = (0..CROWD).map(|_| begin(&address)).collect();
    cluster.signal(0, Signal::CONT);
    let welcomed =
        crowd.into_iter().map(|stream| RawClient::over(stream, SHARD).unwrap().welcomed().unwrap());
    let welcomed: Vec<RawClient> = welcomed.collect();
    assert_eq!(cluster.status(0, 0).unwrap().clients, (CROWD, CROWD));
    let sent_again: u32 = welcomed.iter().map(|client| sent_again(&client.stream)).sum();
    assert_eq!(sent_again, 0);
}

fn decide(stream: &str) -> bytes::Bytes {
    let mut builder = RequestBuilder::default();
    builder.decide(b"key", b"value").unwrap();
    builder.encode(SessionId::named(stream), Numbering { first: 1, answered_below: 1 })
}

/// A full replica of three, whose clients wait for answers for as long as the other two stand still.
fn start_full(clients: usize, busy: usize) -> (Cluster, Vec<RawClient>) {
    let cluster = Cluster::start_with(3, 1, &format!("connections_max = {clients}\n"));
    (1..3).for_each(|index| cluster.signal(index, Signal::STOP));
    let connect = |_| RawClient::connect(cluster.client_bases[0], SHARD).unwrap();
    let mut clients: Vec<RawClient> = (0..clients).map(connect).collect();
    for (tag, client) in (0..).zip(&mut clients[..busy]) {
        client.send(&ClientMessage::Request { tag }, &decide(&format!("client {tag}")));
    }
    (cluster, clients)
}

fn resume(cluster: &Cluster, busy: &mut [RawClient]) {
    (1..3).for_each(|index| cluster.signal(index, Signal::CONT));
    for (tag, client) in (0..).zip(busy) {
        assert_eq!(client.receive().expect("an answer").0, ClientMessage::Response { tag });
    }
}

#[test]
fn the_idle_make_room_and_the_busy_stay() {
    let (cluster, mut clients) = start_full(4, 2);
    let port = cluster.client_bases[0];
    let mut newcomers = Vec::new();
    for _ in 0..3 {
        eventually("a place", || RawClient::connect(port, SHARD).map(|it| newcomers.push(it)).is_ok());
    }
    for idle in &mut clients[2..] {
        let said = idle.receive().expect("a word before the end").0;
        let ClientMessage::Leave(Refusal::MadeRoom { idle_s }) = said else { panic!("{said:?}") };
        assert!(idle_s >= 10, "{idle_s} s");
        idle.wait_closed();
    }
    // One newcomer has made room for another.
    assert!(matches!(newcomers[0].receive().unwrap().0, ClientMessage::Leave(_)));
    let status = cluster.status(0, 0).unwrap();
    assert_eq!((status.clients, status.connections_yielded), ((4, 4), 3));
    assert!(cluster.log(0).contains("one that had been idle for"), "{}", cluster.log(0));
    resume(&cluster, &mut clients[..2]);
    cluster.wait_agreed();
}

#[test]
fn an_operator_gets_in_where_all_places_are_taken() {
    let (cluster, mut clients) = start_full(2, 2);
    let (port, address) = (cluster.client_bases[0], cluster.addresses()[0].clone());
    let silent: Vec<TcpStream> =
        (0..SILENT).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    let refused = 200;
    for _ in 0..refused {
        let answer = RawClient::open(port, SHARD).unwrap().shake(hello(SHARD)).unwrap();
        assert_eq!(answer, Some(Handshake::Refused(Refusal::TooManyConnections { limit: 2 })));
    }
    let output = program().args(["status", "--output", "json", "--connect", &address]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let status: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let told = ["clients", "clients_max", "operators", "connections_refused", "connections_yielded"]
        .map(|key| status["shards"][0][key].as_u64().unwrap());
    assert_eq!(told, [2, 2, 1, refused, 0]);
    let output = program().args(["status", "--connect", &address]).output().unwrap();
    assert!(
        stdout(&output).contains("clients 2 of 2  operators 1  refused 200  yielded 0"),
        "{}",
        stdout(&output)
    );
    let output = program().args(["read", "--connect", &address, "key"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("all 2 connections of this shard are taken"), "{}", stderr(&output));
    let lines = cluster.log(0).matches("a client was refused").count();
    assert!((1..=refused as usize / 10).contains(&lines), "{lines} lines");

    // Their places are theirs alone, and not without end.
    let operator = |operators: &mut Vec<RawClient>| {
        let hello = Hello { role: Role::Operator, ..hello(SHARD) };
        let mut operator = RawClient::open(port, SHARD).unwrap();
        let is_in = matches!(operator.shake(hello).unwrap(), Some(Handshake::Welcome(_)));
        is_in.then(|| operators.push(operator)).is_some()
    };
    let mut operators = Vec::new();
    for _ in 0..OPERATORS {
        eventually("a place for an operator", || operator(&mut operators));
        assert!(cluster.status(0, 0).is_none_or(|status| status.operators <= 8));
    }
    let answer = RawClient::open(port, SHARD).unwrap().shake(hello(SHARD)).unwrap();
    assert!(matches!(answer, Some(Handshake::Refused(_))), "{answer:?}");
    let operator = operators.last_mut().unwrap();
    operator.send(&ClientMessage::Request { tag: 7 }, &decide("operator"));
    let answer = operator.receive().unwrap().0;
    let ClientMessage::Failed { tag: 7, failure: Failure::Invalid { why } } = answer else {
        panic!("{answer:?}")
    };
    assert!(why.contains("connect as a client"), "{why}");
    resume(&cluster, &mut clients);
    drop(silent);
}

#[test]
fn sources_are_listed_and_ended_where_all_places_are_taken() {
    let cluster = Cluster::start_with(1, 1, "connections_max = 2\n");
    let file = cluster.dir.path().join("lines.jsonl");
    write_lines(&file, ["{\"k\":\"key\"}".into()]);
    let run = |arguments: &[&str]| {
        let output = program().args(arguments).args(["--connect", &cluster.addresses()[0]]).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    };
    run(&["propose", "--from", file.to_str().unwrap(), "--key", "k", "--source", "daily"]);
    let mut clients = Vec::new();
    for _ in 0..2 {
        let port = cluster.client_bases[0];
        eventually("a place", || RawClient::connect(port, SHARD).map(|it| clients.push(it)).is_ok());
    }
    let listed = run(&["source", "list"]);
    assert!(listed.contains("daily") && listed.contains("to line 1"), "{listed}");
    run(&["source", "end", "daily"]);
    assert!(run(&["source", "list"]).contains("no sources"));
    let status = cluster.status(0, 0).unwrap();
    assert_eq!((status.clients, status.connections_yielded), ((2, 2), 0));
}

/// More clients than places: each of them decides, though those that have asked nothing for a while have left.
#[tokio::test]
async fn clients_that_made_room_fail_no_call() {
    let cluster = Cluster::start_with(3, 1, "connections_max = 2\n");
    let addresses = cluster.addresses();
    let mut welcome = None;
    let mut clients = Vec::new();
    let mut key_seq = 0;
    for _ in 0..3 {
        for n in 0..4 {
            while clients.len() <= n {
                match discover(&addresses).await {
                    Ok(found) => {
                        let found = welcome.get_or_insert(found).clone();
                        let config =
                            Config { deadline_us: PATIENCE.as_micros() as u64, ..Config::of(&found) };
                        clients.push(Client::with(found, config));
                    }
                    Err(error) => assert!(error.to_string().contains("are taken"), "{error}"),
                }
            }
            key_seq += 1;
            assert_eq!(clients[n].decide("key", "value").await.unwrap().key_seq, key_seq);
        }
    }
    // Which replicas they had to leave depends on who was slow.
    let statuses: Vec<_> = (0..3).map(|index| cluster.status(index, 0).unwrap()).collect();
    assert!(statuses.iter().any(|status| status.connections_yielded > 0), "{statuses:?}");
    assert!(statuses.iter().all(|status| status.clients.0 <= 2), "{statuses:?}");
}
