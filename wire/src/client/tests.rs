use super::rig::*;
use super::*;
use crate::frame::{Encoder, Kind, Scope};
use crate::id::{ClusterId, Epoch, ReplicaId};
use crate::message::{Handshake, Member, Refusal, Role};
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[tokio::test]
async fn decide_read_decide_if_delete() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    assert_eq!(client.welcome().members.len(), 3);
    assert_eq!(client.decide("k", "one").await.unwrap().key_seq, 1);
    let found = client.read("k").await.unwrap().unwrap();
    assert_eq!((found.key_seq, &found.value[..]), (1, &b"one"[..]));
    let rejected = client.decide_if("k", "two", 0).await.unwrap();
    assert_eq!(rejected, Decided::Rejected { key_seq: 1, value: Some("one".into()) });
    assert!(matches!(client.decide_if("k", "two", 1).await.unwrap(), Decided::Committed(_)));
    assert_eq!(client.delete("k").await.unwrap().unwrap().key_seq, 2);
    assert_eq!(client.read("k").await.unwrap(), None);
    assert_eq!(client.delete("k").await.unwrap(), None);
    let rejected = client.decide_if("k", "three", 2).await.unwrap();
    assert_eq!(
        rejected,
        Decided::Rejected { key_seq: 0, value: None },
        "it has no decision, not an empty one"
    );
    let error = client.decide("", "x").await.unwrap_err();
    assert!(matches!(error, CallError::NotAccepted(SubmitError::Invalid(_))), "{error}");
    let large = client.decide("k", vec![1; 1 << 20]).await.unwrap();
    assert_eq!(large.key_seq, 1);
    client.close().await;
    assert_eq!(cluster.sessions(), 0, "a client that leaves ends its sessions");
}

#[tokio::test]
async fn calls_of_many_tasks_share_frames() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let mut tasks = JoinSet::new();
    for n in 0..500 {
        let client = client.clone();
        tasks.spawn(async move { client.decide(format!("key {}", n % 50), format!("{n}")).await.unwrap() });
    }
    let committed = tasks.join_all().await;
    assert_eq!(committed.len(), 500);
    assert!(cluster.shared.frames.load(Ordering::Relaxed) < 100);
    assert!(cluster.shared.model.lock().unwrap().decided.values().all(|times| *times == 1));
}

#[tokio::test]
async fn a_replica_that_dies_is_replaced_by_another() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    for n in 0..30 {
        client.decide(format!("key {n}"), format!("{n}")).await.unwrap();
    }
    cluster.replicas[1].shutdown().await;
    cluster.replicas[0].shutdown().await;
    for n in 0..30 {
        assert_eq!(client.decide(format!("key {n}"), format!("again {n}")).await.unwrap().key_seq, 2);
    }
    drop(client);
    // Any replica that lives leads to the cluster.
    let addresses = [cluster.address(0), cluster.address(2)];
    let client = Client::connect(&addresses).await.unwrap();
    assert_eq!(client.read("key 3").await.unwrap().unwrap().key_seq, 2);
}

#[tokio::test]
async fn an_answer_lost_with_its_connection_is_fetched_again() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    client.decide("k", "0").await.unwrap();
    for n in 1..10 {
        cluster.shared.hang_ups.store(2, Ordering::Relaxed);
        assert_eq!(client.decide("k", format!("{n}")).await.unwrap().key_seq, n + 1);
    }
    assert!(cluster.shared.model.lock().unwrap().decided.values().all(|times| *times == 1));
}

#[tokio::test]
async fn a_connection_that_made_room_costs_no_call_and_is_made_when_it_is_wanted() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    client.decide("k", "0").await.unwrap();
    let welcomed = cluster.shared.welcomed.load(Ordering::Relaxed);
    for n in 1..=10 {
        cluster.shared.dismissals.store(1, Ordering::Relaxed);
        assert_eq!(client.decide("k", format!("{n}")).await.unwrap().key_seq, n + 1);
    }
    // The tenth connection rests, since nothing was asked after it.
    let made = cluster.shared.welcomed.load(Ordering::Relaxed) - welcomed;
    assert_eq!(made, 9, "once for each of the calls but the first");
    assert!(client.troubles().is_empty(), "{:?}", client.troubles());
}

#[tokio::test]
async fn overload_is_waited_out() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    cluster.shared.refusals.store(3, Ordering::Relaxed);
    assert_eq!(client.decide("k", "v").await.unwrap().key_seq, 1);
}

#[tokio::test]
async fn an_overloaded_replica_holds_nothing_up() {
    let cluster = Cluster::start(3).await;
    cluster.shared.overloaded.store(1, Ordering::Relaxed);
    let client = cluster.client().await;
    for n in 0..30 {
        assert_eq!(client.decide(format!("key {n}"), "v").await.unwrap().key_seq, 1);
    }
}

/// A relay between a client and a replica, which can fall silent: then nothing comes out of the relay any more and
/// nothing is closed, as when a cable is cut.
struct Hole {
    address: Member,
    silent: watch::Sender<bool>,
    /// Connections that were made, and those that the client has closed.
    made: watch::Receiver<usize>,
    closed: watch::Receiver<usize>,
    _tasks: JoinSet<()>,
}

impl Hole {
    async fn before(target: &Member) -> Hole {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Member { host: "127.0.0.1".into(), client_base: listener.local_addr().unwrap().port() };
        let target = (target.host.clone(), target.client_base);
        let (silent, is_silent) = watch::channel(false);
        let (count, made) = watch::channel(0);
        let (ended, closed) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut wires = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                count.send_modify(|count| *count += 1);
                wires.spawn(carry(near, target.clone(), is_silent.clone(), ended.clone()));
            }
        });
        Hole { address, silent, made, closed, _tasks: tasks }
    }
}

/// Carries bytes both ways until the relay falls silent, and swallows the client's bytes from then on.
async fn carry(
    mut near: TcpStream,
    target: (String, u16),
    mut silent: watch::Receiver<bool>,
    ended: watch::Sender<usize>,
) {
    if !*silent.borrow() {
        let mut far = TcpStream::connect(target).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
            _ = silent.wait_for(|silent| *silent) => {}
        }
    }
    let _ = near.read_to_end(&mut Vec::new()).await;
    ended.send_modify(|ended| *ended += 1);
}

#[tokio::test]
async fn a_connection_that_died_in_silence_is_given_up_and_made_anew() {
    let cluster = Cluster::start(3).await;
    let mut hole = Hole::before(&cluster.shared.members[0]).await;
    let mut known = cluster.members(1, &[0, 1, 2]);
    known.members[0] = hole.address.clone();
    (0..3).for_each(|process| cluster.tell(process, known.clone()));
    let client = cluster.client().await;
    // Some of the keys have their home there.
    for n in 0..30 {
        client.decide(format!("key {n}"), "before").await.unwrap();
    }
    assert_eq!((*hole.made.borrow(), *hole.closed.borrow()), (1, 0));
    hole.silent.send_replace(true);
    for n in 0..30 {
        assert_eq!(client.decide(format!("key {n}"), "meanwhile").await.unwrap().key_seq, 2);
    }
    come("the end of the dead connection", hole.closed.wait_for(|closed| *closed == 1)).await.unwrap();
    // The connection that takes its place is not welcomed, so no request is risked on it.
    come("another connection", hole.made.wait_for(|made| *made == 2)).await.unwrap();
    let frames = cluster.shared.frames.load(Ordering::Relaxed);
    for n in 0..30 {
        assert_eq!(client.decide(format!("key {n}"), "elsewhere").await.unwrap().key_seq, 3);
    }
    assert_eq!(cluster.shared.frames.load(Ordering::Relaxed), frames + 30, "each is asked once");
    hole.silent.send_replace(false);
    cluster.shared.by_replica[0].store(0, Ordering::Relaxed);
    let carried = async {
        let mut keys = (0..30).cycle();
        while cluster.shared.by_replica[0].load(Ordering::Relaxed) == 0 {
            client.decide(format!("key {}", keys.next().unwrap()), "back").await.unwrap();
        }
    };
    come("the way home", carried).await;
}

#[tokio::test]
async fn proposals_of_a_key_decide_in_their_order() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let mut proposals = Vec::new();
    for n in 0..100 {
        proposals.push(client.propose("k", format!("{n}")).await.unwrap());
    }
    for (n, proposal) in (1..).zip(proposals) {
        let outcome = proposal.await.unwrap();
        assert!(
            matches!(outcome, Proposed::Committed(Committed { key_seq, .. }) if key_seq == n),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn a_named_source_decides_each_number_once() {
    let cluster = Cluster::start(3).await;
    for run in 0..2 {
        let name = "orders.jsonl".parse().unwrap();
        let source = Source::connect(&[cluster.address(2)], &name, 1).await.unwrap();
        let mut proposals = Vec::new();
        for number in [1, 2, 5, 6] {
            proposals.push(source.propose(number, format!("k{number}"), "v").await.unwrap());
        }
        for proposal in proposals {
            let outcome = proposal.await.unwrap();
            assert_eq!(outcome == Proposed::Before, run == 1, "{outcome:?}");
        }
        let wrong = source.propose(6, "k", "v").await.unwrap().await.unwrap_err();
        assert!(matches!(wrong, CallError::NotAccepted(SubmitError::Order { .. })), "{wrong}");
        source.close().await.unwrap();
    }
}

#[tokio::test]
async fn status_is_told() {
    let cluster = Cluster::start(2).await;
    let member = parse_address(&cluster.address(1)).unwrap();
    let told = status(&member, SHARD).await.unwrap();
    assert_eq!((told.replica, told.decisions), (ReplicaId(1), 7));
}

/// A listener that sends `bytes` on every connection.
async fn say_to_all(bytes: Vec<u8>) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(&bytes).await;
            // Wait for the other side to hang up, or its unread bytes would reset the connection.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    (address, tasks)
}

fn handshake(message: &Handshake) -> Vec<u8> {
    let scope = Scope { kind: Kind::Handshake, epoch: Epoch(0), shard: SHARD };
    let mut out = Vec::new();
    Encoder::default().frame(&mut out, 0, scope, message, &[], 0);
    out
}

#[tokio::test]
async fn refusals_and_strangers_are_explained() {
    let refusal = Refusal::TooManyConnections { limit: 3 };
    let text = refusal.to_string();
    let none = Welcome {
        cluster: ClusterId(1),
        epoch: Epoch(1),
        replica: ReplicaId(0),
        shards: 0,
        members: Vec::new(),
        durable: true,
    };
    for (said, expected) in [
        (handshake(&Handshake::Refused(refusal)), text.as_str()),
        (b"HTTP/1.1 400 Bad Request\r\n\r\nthis is another service".to_vec(), "no Isonomy frame"),
        (handshake(&Handshake::Welcome(none)), "names 0 members"),
    ] {
        let (address, _tasks) = say_to_all(said).await;
        let error = Client::connect(std::slice::from_ref(&address)).await.unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(&address), "{error}");
    }
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = Client::connect(&[free.to_string()]).await.unwrap_err().to_string();
    assert!(error.contains("check that the replica runs"), "{error}");
    for wrong in ["", "host", ":1", "host:port", "host:70000"] {
        assert!(matches!(parse_address(wrong), Err(ConnectError::Address(_))), "{wrong}");
    }
    assert_eq!(parse_address("[::1]:70").unwrap(), Member { host: "::1".into(), client_base: 70 });
}

#[test]
fn whoever_answers_as_a_client_is_no_replica() {
    use crate::conversation::{Link, LinkError};
    let mut link = Link::new(SHARD, None, Role::Client, 4096, &mut Vec::new());
    let bytes = handshake(&Handshake::Hello(crate::message::Hello {
        cluster: None,
        epoch: Epoch(0),
        shard: SHARD,
        shards: 0,
        rule: 1,
        role: Role::Client,
    }));
    link.room()[..bytes.len()].copy_from_slice(&bytes);
    link.received(bytes.len());
    assert_eq!(link.poll().unwrap_err(), LinkError::Unexpected);
}

/// A listener that never takes a connection, so that a client that connects hears nothing.
async fn mute() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The addresses would take five minutes one after the other.
#[tokio::test]
async fn addresses_that_say_nothing_hold_up_no_first_contact() {
    let cluster = Cluster::start(3).await;
    let (_listener, silent) = mute().await;
    let mut addresses = vec![silent.to_string(); 60];
    addresses.push(cluster.address(1));
    let found = come("the first contact", discover(&addresses)).await.unwrap();
    assert_eq!(found.replica, ReplicaId(1));
    let named = come("a named one", contact(&addresses, Some(ClusterId(1)), Role::Client)).await.unwrap();
    assert_eq!(named.member.client_base, cluster.shared.members[1].client_base);
}

#[tokio::test]
async fn all_addresses_of_a_name_are_tried() {
    let cluster = Cluster::start(1).await;
    let good = cluster.address(0).parse().unwrap();
    let (_listener, silent) = mute().await;
    let refused = mute().await.1;
    let hail = connection::Hail { shard: SHARD, cluster: None, role: Role::Client };
    let open = |addresses: Vec<_>| Connection::open_any(addresses, hail, "db:1");
    let connection = come("the last one", open(vec![refused, silent, silent, good])).await.unwrap();
    assert_eq!(connection.welcome().replica, ReplicaId(0));
    let error = come("the errors", open(vec![silent, refused])).await.unwrap_err().to_string();
    assert!(
        error.contains("db:1 (127.0.0.1): the connection was made, but no answer came in 5 s"),
        "{error}"
    );
    assert!(error.contains("db:1 (127.0.0.1): Connection refused"), "{error}");
}

#[tokio::test]
async fn a_member_of_another_cluster_is_left_out_and_named() {
    let own = Cluster::start(3).await;
    let welcome = Welcome { cluster: ClusterId(2), ..own.client().await.welcome().clone() };
    let client = Client::with(welcome.clone(), Config { deadline_us: 1_000_000, ..Config::of(&welcome) });
    let error = come("the end", client.decide("k", "v")).await.unwrap_err().to_string();
    for member in 0..3 {
        assert!(error.contains(&format!("{}: this is cluster 0000", own.address(member))), "{error}");
    }
    assert_eq!(own.shared.frames.load(Ordering::Relaxed), 0);
}
