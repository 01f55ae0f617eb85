//! The links' transitions, with sinks that no socket is behind.

use super::*;
use isonomy_protocol::epoch::FIRST as FIRST_EPOCH;
use isonomy_wire::frame::Kind;
use isonomy_wire::id::ShardId;

const PEER: ReplicaId = ReplicaId(1);
const OTHER: ReplicaId = ReplicaId(2);
const FIRST: Start = Start { number: 1, nonce: 7 };
const SECOND: Start = Start { number: 2, nonce: 8 };

fn links() -> Links {
    Links::default()
}

fn sink() -> Rc<Sink> {
    Rc::new(Sink::new())
}

fn linked(links: &Links) -> Vec<ReplicaId> {
    links.linked().collect()
}

fn told(links: &Links, peer: ReplicaId) -> PeerStatus {
    links.tell(PeerStatus { replica: peer, resent: 5, ..PeerStatus::default() })
}

fn living(links: &Links) -> Option<Start> {
    links.living(PEER, Instant::now())
}

fn push(links: &mut Links, to: ReplicaId) {
    let scope = Scope { kind: Kind::Peer, epoch: FIRST_EPOCH, shard: ShardId(0) };
    let send = Send { to, message: PeerMessage::Stalled, payload: None, lazy: true };
    links.push(&mut Encoder::default(), scope, &send);
}

/// A peer with a link in each direction, and the one on which it is heard.
fn both_ways() -> (Links, Rc<Sink>) {
    let (mut links, incoming) = (links(), sink());
    links.on_opened(PEER, sink());
    links.on_greeted(PEER, &incoming);
    links.on_heard(PEER, FIRST, &incoming);
    (links, incoming)
}

#[test]
fn waits_double_up_to_the_last_and_are_short_again_after_a_success() {
    let mut links = links();
    let mut waits = |times| (0..times).map(|_| links.next_wait(PEER).as_millis()).collect::<Vec<_>>();
    assert_eq!(waits(8), [20, 40, 80, 160, 320, 640, 1000, 1000]);
    assert_eq!((told(&links, PEER).retry_ms, told(&links, OTHER).retry_ms), (1000, 0));
    links.on_opened(PEER, sink());
    assert_eq!(told(&links, PEER).retry_ms, 0, "nothing is tried while there is a link");
    links.on_ended(PEER);
    assert_eq!([links.next_wait(PEER), links.next_wait(PEER)].map(|wait| wait.as_millis()), [20, 40]);
}

#[test]
fn a_peer_is_linked_while_it_is_reached_and_heard() {
    let mut links = links();
    let incoming = sink();
    links.on_greeted(PEER, &incoming);
    links.on_opened(PEER, sink());
    assert_eq!((links.is_greeted(PEER), links.directions(PEER)), (true, (true, false)));
    assert_eq!(linked(&links), [], "it has not spoken");
    links.on_heard(PEER, FIRST, &incoming);
    assert_eq!((links.is_greeted(PEER), links.directions(PEER)), (false, (true, true)));
    assert_eq!((linked(&links), living(&links)), (vec![PEER], Some(FIRST)));
    links.on_ended(PEER);
    assert_eq!((linked(&links), links.directions(PEER)), (vec![], (false, true)));
    links.on_opened(PEER, sink());
    links.on_silenced(PEER, &incoming);
    assert_eq!((linked(&links), links.directions(PEER)), (vec![], (true, false)));
    assert_eq!((living(&links), links.directions(OTHER)), (None, (false, false)));
}

#[test]
fn the_end_of_an_old_connection_leaves_the_new_one_alone() {
    let (mut links, old) = both_ways();
    let new = sink();
    links.on_greeted(PEER, &new);
    assert!(!old.is_closed(), "who only says hello takes nobody's place");
    links.on_heard(PEER, FIRST, &new);
    assert!(old.is_closed() && !new.is_closed());
    links.on_silenced(PEER, &old);
    assert_eq!((linked(&links), living(&links)), (vec![PEER], Some(FIRST)));
    assert_eq!((told(&links, PEER).heard, told(&links, PEER).silenced), (2, 1));
    links.on_silenced(PEER, &new);
    assert_eq!((linked(&links), told(&links, PEER).silenced), (vec![], 2));
}

#[test]
fn the_end_of_a_greeted_connection_leaves_the_others_alone() {
    let (mut links, heard) = both_ways();
    let (first, second) = (sink(), sink());
    links.on_greeted(PEER, &first);
    links.on_greeted(PEER, &second);
    assert!(first.is_closed() && !second.is_closed() && !heard.is_closed());
    links.on_silenced(PEER, &first);
    assert!(links.is_greeted(PEER), "the second may still speak");
    assert_eq!((linked(&links), told(&links, PEER).silenced), (vec![PEER], 0));
    links.on_silenced(PEER, &second);
    assert_eq!((links.is_greeted(PEER), linked(&links)), (false, vec![PEER]));
    // The one that is heard ends while another waits to speak.
    let waiting = sink();
    links.on_greeted(PEER, &waiting);
    links.on_silenced(PEER, &heard);
    assert_eq!((links.is_greeted(PEER), linked(&links)), (true, vec![]));
}

#[test]
fn a_connection_that_speaks_leaves_another_that_was_greeted_since() {
    let (mut links, first, second) = (links(), sink(), sink());
    links.on_greeted(PEER, &first);
    links.on_greeted(PEER, &second);
    links.on_heard(PEER, FIRST, &first);
    assert!(links.is_greeted(PEER), "the second has not spoken");
}

#[test]
fn g6_the_process_that_lives_is_the_one_that_was_heard_last() {
    let (mut links, first) = both_ways();
    let second = sink();
    links.on_greeted(PEER, &second);
    assert_eq!(living(&links), Some(FIRST));
    links.on_heard(PEER, SECOND, &second);
    links.on_silenced(PEER, &first);
    assert_eq!(living(&links), Some(SECOND));
    second.close("it has gone");
    assert_eq!(living(&links), None, "it is over before its reader has noticed");
    let third = sink();
    links.on_heard(PEER, SECOND, &third);
    let later = Instant::now() + LIVING_SILENT_MAX;
    assert_eq!(links.living(PEER, later), None, "it was silent for too long");
}

#[test]
fn what_does_not_leave_is_counted() {
    let mut links = links();
    push(&mut links, PEER);
    assert_eq!(told(&links, PEER).lost, 1, "there is no link");
    let outgoing = sink();
    links.on_opened(PEER, outgoing.clone());
    (0..3).for_each(|_| push(&mut links, PEER));
    assert_eq!(told(&links, PEER).lost, 1, "they may leave");
    outgoing.close("the other side has gone");
    push(&mut links, PEER);
    links.on_ended(PEER);
    let expected =
        PeerStatus { replica: PEER, opened: 1, ended: 1, lost: 5, resent: 5, ..PeerStatus::default() };
    assert_eq!(told(&links, PEER), expected);
    assert_eq!(told(&links, OTHER).lost, 0);
}

#[test]
fn whoever_falls_too_far_behind_loses_its_link() {
    let mut links = links();
    let (outgoing, scope) = (sink(), Scope { kind: Kind::Peer, epoch: FIRST_EPOCH, shard: ShardId(0) });
    links.on_opened(PEER, outgoing.clone());
    let piece = PeerMessage::Piece { barrier: 1, from: 0, total: 1 };
    let bytes = vec![0; PEER_BACKLOG_BYTES_MAX];
    links.push_bytes(&mut Encoder::default(), scope, PEER, &piece, &bytes[..1 << 20]);
    push(&mut links, PEER);
    assert!(!outgoing.is_closed());
    // More than one frame takes, in several.
    for piece_bytes in bytes.chunks(1 << 20) {
        links.push_bytes(&mut Encoder::default(), scope, PEER, &piece, piece_bytes);
    }
    push(&mut links, PEER);
    assert!(outgoing.is_closed());
}
