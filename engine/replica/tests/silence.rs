//! Connections that die without a word: a firewall that has forgotten them, a client that lost its power. No call
//! fails for that, replicas link again, and the places of the dead are free again. The replicas live in network
//! namespaces behind a router, which takes root.

mod support;

use isonomy_protocol::limits::{GATHER_BYTES, PENDING_REQUESTS_MAX};
use isonomy_wire::client::{Client, Proposed, Source};
use isonomy_wire::command::{Numbering, RequestBuilder};
use isonomy_wire::id::{SessionId, ShardId};
use isonomy_wire::message::ClientMessage;
use isonomy_wire::tuning::Tuning;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};
use support::network::{Flow, Router};
use support::{Cluster, PATIENCE, RawClient, eventually};

const SHARD: ShardId = ShardId(0);
/// So many that each replica is the home of some.
const KEYS: u64 = 30;
/// Requests of at least 64 bytes that fill all that a replica takes without a majority, and some more.
const MORE_THAN_TAKEN: u64 =
    (PENDING_REQUESTS_MAX + Tuning::DEFAULT.window as usize * GATHER_BYTES / 64) as u64;
/// A connection is no longer read when as much waits at so many looks in a row.
const LOOKS: usize = 20;
/// How often it is looked what became of connections.
const LOOK_EVERY: Duration = Duration::from_millis(100);

struct Routed {
    cluster: Cluster,
    router: Router,
}

impl Routed {
    /// Three replicas behind a router, with more lines in each configuration.
    fn start(lines: &str) -> Option<Routed> {
        let router = Router::make(3)?;
        let mut cluster = Cluster::prepare_at((0..3).map(|index| router.host(index)).collect(), 1);
        for index in 0..3 {
            std::fs::write(cluster.config_path(index), cluster.config(index) + lines).unwrap();
            cluster.spawn_by(index, router.program(index));
        }
        cluster.wait_linked();
        Some(Routed { cluster, router })
    }

    /// The connections to the ports for clients, or to those for peers.
    fn flows(&self, bases: &[u16]) -> Vec<BTreeSet<Flow>> {
        (0..3).map(|index| self.router.flows(index, |port| bases.contains(&port))).collect()
    }

    /// Drops what belongs to all these from now on.
    fn silence(&self, bases: &[u16]) -> Vec<BTreeSet<Flow>> {
        let flows = self.flows(bases);
        assert!(flows.iter().all(|flows| !flows.is_empty()), "nothing to silence: {flows:?}");
        self.router.silence(flows.iter().flatten().collect::<BTreeSet<_>>());
        flows
    }

    /// All replicas have given these up, and have so many others of the kind. The tasks of clients go on meanwhile.
    async fn wait_replaced(&self, silenced: &[BTreeSet<Flow>], bases: &[u16], count: usize) {
        let is_replaced =
            |silenced: &BTreeSet<Flow>, now: &BTreeSet<Flow>| silenced.is_disjoint(now) && now.len() >= count;
        let began = Instant::now();
        while !silenced.iter().zip(&self.flows(bases)).all(|(silenced, now)| is_replaced(silenced, now)) {
            assert!(began.elapsed() < PATIENCE, "the silent connections stand: {:?}", self.flows(bases));
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Some of everything, at once.
async fn call(client: &Client, source: &Source, round: u64) {
    let mut proposals = Vec::new();
    for n in 0..KEYS {
        let proposal = source.propose(round * KEYS + n + 1, format!("numbered {n}"), "value").await;
        proposals.push(proposal.unwrap());
    }
    for n in 0..KEYS {
        let decided = client.decide(format!("key {n}"), "value").await;
        assert_eq!(decided.unwrap_or_else(|error| panic!("round {round}: {error}")).key_seq, round + 1);
    }
    for proposal in proposals {
        let proposed = proposal.await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert!(matches!(proposed, Proposed::Committed(it) if it.key_seq == round + 1), "{proposed:?}");
    }
}

/// The clients' deadline is the usual one: 10 s.
#[tokio::test]
async fn connections_that_are_dropped_in_silence_fail_no_call() {
    let Some(routed) = Routed::start("") else { return };
    let addresses = routed.cluster.addresses();
    let bases = routed.cluster.client_bases.clone();
    let client = Client::connect(&addresses).await.unwrap();
    let source = Source::connect(&addresses, &"lines".parse().unwrap(), 1).await.unwrap();
    call(&client, &source, 0).await;
    let silenced = routed.silence(&bases);
    call(&client, &source, 1).await;
    routed.wait_replaced(&silenced, &bases, 2).await;
    // Nobody asks anything: it is noticed all the same, and before somebody does.
    let silenced = routed.silence(&bases);
    routed.wait_replaced(&silenced, &bases, 2).await;
    call(&client, &source, 2).await;
}

#[tokio::test]
async fn peers_whose_links_are_dropped_in_silence_link_again() {
    let Some(mut routed) = Routed::start("") else { return };
    let bases = routed.cluster.peer_bases.clone();
    let silenced = routed.silence(&bases);
    routed.wait_replaced(&silenced, &bases, 4).await;
    routed.cluster.wait_linked();
    let client = Client::connect(&routed.cluster.addresses()).await.unwrap();
    for n in 0..KEYS {
        assert_eq!(client.decide(format!("key {n}"), "value").await.unwrap().key_seq, 1);
    }
    client.close().await;
    routed.cluster.wait_agreed();
}

/// Sends so many requests, which are under way for as long as the other replicas stand still.
fn ask(client: &mut RawClient, stream: &str, requests: u64) {
    for number in 1..=requests {
        let mut builder = RequestBuilder::default();
        builder.decide(b"key", b"value").unwrap();
        let request =
            builder.encode(SessionId::named(stream), Numbering { first: number, answered_below: number });
        client.send(&ClientMessage::Request { tag: number }, &request);
    }
}

#[test]
fn clients_that_vanish_give_up_their_places() {
    let Some(routed) = Routed::start("connections_max = 4\n") else { return };
    let Routed { cluster, router } = &routed;
    let port = cluster.client_bases[0];
    let connect = || RawClient::connect_to(&cluster.hosts[0], port, SHARD).unwrap();
    // One says nothing, one waits for an answer, one does not read its answers, and one asks more than the replica
    // takes and is read no more.
    let (silent, mut waiting, mut deaf, mut greedy) = (connect(), connect(), connect(), connect());
    (1..3).for_each(|index| cluster.signal(index, Signal::STOP));
    ask(&mut waiting, "waiting", 1);
    (0..1000).for_each(|_| deaf.send(&ClientMessage::StatusRequest, &[]));
    let stream = greedy.stream.try_clone().unwrap();
    let asking = std::thread::spawn(move || ask(&mut greedy, "greedy", MORE_THAN_TAKEN));
    let SocketAddr::V4(own) = stream.local_addr().unwrap() else { panic!("the network is one of IPv4") };
    let mut looks = Vec::new();
    eventually("the end of reading", || {
        assert_eq!(cluster.status(0, 0).unwrap().clients, (4, 4));
        looks.push(router.unread_bytes(0, own));
        let last = &looks[looks.len().saturating_sub(LOOKS)..];
        last.len() == LOOKS && last[0] > 0 && last.iter().all(|unread| *unread == last[0])
    });

    router.silence(&router.flows(0, |other| other == port));
    eventually("their end", || cluster.status(0, 0).is_some_and(|status| status.clients == (0, 4)));
    stream.shutdown(Shutdown::Both).unwrap();
    asking.join().unwrap();
    drop((silent, waiting, deaf));
    (1..3).for_each(|index| cluster.signal(index, Signal::CONT));
    cluster.wait_agreed();
}
