//! Links over real sockets, where the test plays the peers.

use crate::data_dir::Claim;
use crate::net::connection::{Connection, LinkError};
use crate::net::listener::Listener;
use crate::node::Node;
use crate::pump::Input;
use crate::settings::Seat;
use crate::testing::rig::{self, PATIENCE, Rig, SHARD, connect, shake};
use isonomy_mesh::ToShard;
use isonomy_protocol::epoch::FIRST as FIRST_EPOCH;
use isonomy_wire::frame::Encoder;
use isonomy_wire::id::RecordId;
use isonomy_wire::id::ReplicaId;
use isonomy_wire::message::{
    Gossip, Handshake, Hello, PeerMessage, PeerStatus, Refusal, Role, SetBack, Start, Welcome,
};
use isonomy_wire::route::RULE_VERSION;
use std::cell::Cell;
use std::rc::Rc;

const PEER: ReplicaId = ReplicaId(1);
const FIRST: Start = Start { number: 1, nonce: 7 };
const SECOND: Start = Start { number: 2, nonce: 8 };

/// What the peer says that was met first.
fn hello(start: Start) -> Hello {
    let role = Role::Replica { id: PEER, record: RecordId(0), incarnation: 5, start, position: Some(0) };
    Hello { cluster: None, epoch: FIRST_EPOCH, shard: SHARD, shards: 1, rule: RULE_VERSION, role }
}

fn told(node: &Node) -> PeerStatus {
    node.status().peers.into_iter().find(|peer| peer.replica == PEER).unwrap()
}

/// The peer is welcomed on a connection of its own, and has not spoken.
async fn greeted(rig: &Rig, start: Start) -> Connection {
    let mut connection = connect(&rig.peers[rig.node.seat.replica.index()]).await;
    let answer = shake(&mut connection, hello(start)).await.unwrap();
    assert!(matches!(answer, Handshake::Welcome(_)), "{answer:?}");
    connection
}

/// The peer says something.
fn say(rig: &Rig, connection: &Connection) {
    let mut encoder = Encoder::default();
    connection.sink.push(&mut encoder, rig.node.net.peer_scope, &PeerMessage::Stalled, &[], 0);
    connection.sink.flush();
}

/// The same, and so many connections of it were heard then.
async fn speak(rig: &Rig, connection: &Connection, heard: u64) {
    say(rig, connection);
    rig.until("a word of the peer", || told(&rig.node).heard == heard).await;
}

/// The node takes peers in.
fn serve(rig: &Rig) {
    rig.listen_aside();
    rig.spawn(rig.node.clone().accept_peers(rig.peers()));
}

#[test]
fn the_end_of_a_peers_old_connection_leaves_its_new_one() {
    rig::run(3, async |rig| {
        serve(&rig);
        let old = greeted(&rig, FIRST).await;
        speak(&rig, &old, 1).await;
        let held = rig.node.net.links.borrow().incoming().next().cloned().unwrap();
        let new = greeted(&rig, FIRST).await;
        assert!(!held.is_closed(), "a hello takes nobody's place");
        speak(&rig, &new, 2).await;
        rig.until("the end of the old connection's tasks", || Rc::strong_count(&held) == 1).await;
        assert_eq!(told(&rig.node).silenced, 1);
        assert_eq!(rig.node.net.links.borrow().directions(PEER), (false, true));
        drop(new);
        rig.until("the end of the new connection", || told(&rig.node).silenced == 2).await;
        assert_eq!(rig.node.net.links.borrow().directions(PEER), (false, false));
    });
}

#[test]
fn g6_a_second_process_is_heard_once_the_first_has_gone() {
    rig::run(3, async |rig| {
        serve(&rig);
        let first = greeted(&rig, FIRST).await;
        speak(&rig, &first, 1).await;
        assert_eq!(rig.node.data_dir.met(PEER), Some(FIRST));
        let refused = async |start| {
            let answer = shake(&mut connect(&rig.peers[0]).await, hello(start)).await.unwrap();
            let Handshake::Refused(refusal) = answer else { panic!("{answer:?}") };
            refusal
        };
        let lives = Refusal::AnotherLives { id: PEER, here: SECOND, living: FIRST };
        assert_eq!(refused(SECOND).await, lives);
        drop(first);
        rig.until("the end of the first process", || told(&rig.node).silenced == 1).await;
        let second = greeted(&rig, SECOND).await;
        assert_eq!(rig.node.data_dir.met(PEER), Some(FIRST), "a hello is no word");
        speak(&rig, &second, 2).await;
        assert_eq!(rig.node.data_dir.met(PEER), Some(SECOND));
        let found = SetBack::Starts { here: 1, known: 2 };
        assert!(matches!(refused(FIRST).await, Refusal::SetBack { found: it, .. } if it == found));
    });
}

/// The peer says how many records its log has.
async fn tell_position(rig: &Rig, connection: &Connection, position: u64) {
    let mut encoder = Encoder::default();
    let gossip = PeerMessage::Gossip(Box::new(Gossip { position, ..Gossip::default() }));
    connection.sink.push(&mut encoder, rig.node.net.peer_scope, &gossip, &[], 0);
    connection.sink.flush();
    rig.until("the gossip", || rig.node.pump.look(|core| core.heard(PEER)) == position).await;
}

/// What becomes of a member that has said that its log grew, loses its link, and says again how long its log was at its
/// start. To those who have welcomed it once it says how long the log is.
async fn greet_again_as_at_start(rig: Rig) -> Handshake {
    serve(&rig);
    let first = greeted(&rig, FIRST).await;
    rig.node.pump.take(Input::Admit);
    speak(&rig, &first, 1).await;
    tell_position(&rig, &first, 10).await;
    drop(first);
    rig.until("the end of the link", || told(&rig.node).silenced == 1).await;
    let own = rig.node.seat.replica.index();
    shake(&mut connect(&rig.peers[own]).await, hello(FIRST)).await.unwrap()
}

#[test]
fn g6_a_member_judges_a_log_that_has_become_shorter() {
    rig::run(3, async |rig| {
        let answer = greet_again_as_at_start(rig).await;
        let found = SetBack::Log { here: 0, heard: 10 };
        assert!(matches!(answer, Handshake::Refused(Refusal::SetBack { found: it, .. }) if it == found));
    });
}

#[test]
fn g6_a_learner_judges_nobody() {
    rig::run_learner(2, async |rig| {
        let answer = greet_again_as_at_start(rig).await;
        assert!(matches!(answer, Handshake::Welcome(_)), "{answer:?}");
    });
}

#[test]
fn g6_only_a_members_word_stops_a_replica_as_set_back() {
    rig::run(3, async |rig| {
        let Seat { replica: id, epoch, .. } = rig.node.seat;
        let (cluster, found) = (rig.node.data_dir.cluster_id(), SetBack::Log { here: 0, heard: 10 });
        let refusal = |by| Refusal::SetBack { id, found, by, cluster, epoch };
        assert!(rig.node.is_set_back(PEER, &refusal(PEER)));
        let learner = ReplicaId(3);
        assert!(!rig.node.is_set_back(learner, &refusal(learner)));
        assert!(!rig.node.is_set_back(PEER, &refusal(learner)));
    });
}

/// So many ticks pass while something must not happen.
const TICKS: u32 = 40;

#[test]
fn g6_a_peer_is_welcomed_once_its_directory_is_written_down() {
    rig::run(3, async |rig| {
        serve(&rig);
        let held = rig.hold_aside();
        let mut connection = connect(&rig.peers[0]).await;
        let answered = Cell::new(false);
        let shaking = async {
            let answer = shake(&mut connection, hello(FIRST)).await;
            answered.set(true);
            answer.unwrap()
        };
        let releasing = async {
            rig.ticks(TICKS).await;
            assert!(!answered.get(), "the disk may yet lose it");
            drop(held);
        };
        let (answer, ()) = futures_lite::future::zip(shaking, releasing).await;
        assert!(matches!(answer, Handshake::Welcome(_)), "{answer:?}");
        assert_eq!(rig.node.data_dir.knows_peer(PEER, Claim { incarnation: 5, is_named: false }), Some(true));
        // Another directory is refused from memory, also while the disk hangs.
        let _held = rig.hold_aside();
        let mut other = connect(&rig.peers[0]).await;
        let role =
            Role::Replica { id: PEER, record: RecordId(0), incarnation: 6, start: SECOND, position: Some(0) };
        let answer = shake(&mut other, Hello { role, ..hello(SECOND) }).await.unwrap();
        assert_eq!(answer, Handshake::Refused(Refusal::WrongIncarnation { id: PEER }));
    });
}

#[test]
fn g6_a_process_is_heard_once_it_is_written_down() {
    rig::run(3, async |rig| {
        serve(&rig);
        let peer = greeted(&rig, FIRST).await;
        let held = rig.hold_aside();
        say(&rig, &peer);
        rig.ticks(TICKS).await;
        assert_eq!((told(&rig.node).heard, rig.node.data_dir.met(PEER)), (0, None));
        drop(held);
        rig.until("a word of the peer", || told(&rig.node).heard == 1).await;
        assert_eq!(rig.node.data_dir.met(PEER), Some(FIRST));
    });
}

#[test]
fn g6_a_directory_that_is_not_formed_takes_no_part() {
    rig::run(2, async |rig| {
        rig.listen_aside();
        let is_admitted = || rig.node.pump.look(|core| core.is_admitted());
        rig.node.on_welcome(PEER);
        rig.ticks(TICKS).await;
        assert!(!is_admitted() && !rig.node.data_dir.is_counted());
        rig.node.data_dir.on_accepted(PEER).unwrap();
        rig.node.maybe_admit();
        rig.until("its admission", is_admitted).await;
        assert!(rig.node.data_dir.is_counted());
    });
}

#[test]
fn g6_an_acceptance_counts_once_it_is_written_down() {
    rig::run(2, async |rig| {
        rig.listen_aside();
        let listener = Listener::new(rig.peers[1].try_clone().unwrap());
        let held = rig.hold_aside();
        let opened = Cell::new(false);
        let opening = async {
            let link = rig.node.open_link(PEER).await;
            opened.set(true);
            link.unwrap()
        };
        let releasing = async {
            rig.ticks(TICKS).await;
            assert!(!opened.get() && !rig.node.data_dir.is_formed());
            drop(held);
        };
        let both = futures_lite::future::zip(opening, releasing);
        futures_lite::future::zip(welcome(&rig, &listener), both).await;
        assert!(rig.node.data_dir.is_formed());
    });
}

/// What a peer answers whose port it is.
async fn welcome(rig: &Rig, listener: &Listener) -> Connection {
    let mut connection = Connection::new(listener.accept().await.unwrap(), PATIENCE);
    let mut encoder = Encoder::default();
    let word = connection.hear(&mut encoder, SHARD).await.unwrap();
    assert!(matches!(word, Handshake::Hello(_)), "{word:?}");
    let welcome = Welcome { replica: PEER, ..rig.node.welcome() };
    connection.shake(&mut encoder, SHARD, &Handshake::Welcome(welcome));
    connection
}

#[test]
fn a_link_that_has_ended_is_opened_again_soon_and_what_was_under_way_is_counted() {
    rig::run(2, async |rig| {
        rig.listen_aside();
        rig.spawn(rig.node.clone().run_link(PEER));
        let listener = Listener::new(rig.peers[1].try_clone().unwrap());
        for times in 1..=3 {
            let connection = welcome(&rig, &listener).await;
            rig.until("a link", || told(&rig.node).opened == times).await;
            assert_eq!((told(&rig.node).retry_ms, told(&rig.node).ended), (0, times - 1));
            drop(connection);
            rig.until("its end", || told(&rig.node).ended == times).await;
            assert_eq!(told(&rig.node).retry_ms, 20, "the first wait, each time");
        }
    });
}

#[test]
fn a_peer_that_has_moved_is_reached_at_its_new_address() {
    rig::run(3, async |rig| {
        rig.listen_aside();
        rig.spawn(rig.node.clone().run_link(PEER));
        let there = Listener::new(rig.peers[1].try_clone().unwrap());
        let before = welcome(&rig, &there).await;
        rig.until("a link", || told(&rig.node).opened == 1).await;
        let mut roster = rig.setup.roster.clone();
        roster.places[PEER.index()] = roster.places[2].clone();
        rig.process.orders.send(ToShard::Roster(roster)).unwrap();
        rig.ticks(TICKS).await;
        assert_eq!(told(&rig.node).ended, 0, "a link that stands is kept");
        drop(before);
        let elsewhere = Listener::new(rig.peers[2].try_clone().unwrap());
        let _after = welcome(&rig, &elsewhere).await;
        rig.until("a link", || told(&rig.node).opened == 2).await;
    });
}

#[test]
fn whoever_speaks_where_it_only_listens_is_given_up() {
    rig::run(2, async |rig| {
        rig.listen_aside();
        let listener = Listener::new(rig.peers[1].try_clone().unwrap());
        let node = rig.node.clone();
        let opening = async { node.open_link(PEER).await };
        let (peer, link) = futures_lite::future::zip(welcome(&rig, &listener), opening).await;
        let encoder = &mut Encoder::default();
        peer.sink.push(encoder, rig.node.net.peer_scope, &PeerMessage::Stalled, &[], 0);
        peer.sink.flush();
        rig.node.hold_link(PEER, link.unwrap()).await;
        assert_eq!((told(&rig.node).opened, told(&rig.node).ended), (1, 1));
    });
}

#[test]
fn another_replica_at_a_peers_port_is_no_link() {
    rig::run(3, async |rig| {
        rig.listen_aside();
        let listener = Listener::new(rig.peers[2].try_clone().unwrap());
        let opening = rig.node.open_link(ReplicaId(2));
        let (_peer, link) = futures_lite::future::zip(welcome(&rig, &listener), opening).await;
        assert!(matches!(link, Err(LinkError::Closed(why)) if why.contains("another replica answers there")));
        assert!(!rig.node.data_dir.is_formed(), "nobody has accepted it");
    });
}
