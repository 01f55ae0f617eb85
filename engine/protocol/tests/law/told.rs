//! What a replica reports of itself and of its peers.

use crate::support::decide;
use crate::support::solo::*;
use isonomy_protocol::contract::ClientRef;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{Ballot, ReplicaId};
use isonomy_wire::message::{Gossip, PeerMessage, Value};

#[test]
fn a_peer_is_behind_by_what_it_has_not_said_to_have_executed() {
    let mut solo = Solo::new(3, 0);
    let behind = |solo: &Solo| solo.core.status().peers.iter().map(|peer| peer.behind).collect::<Vec<_>>();
    for seq in 1..=3 {
        let commit = commit(crate::support::id(1, seq), Ballot::ZERO, Value::Attached, Deps::NONE);
        solo.tell(1, commit, Some(&decide("s", seq, 0, "a")));
    }
    assert_eq!(behind(&solo), [None, None], "neither has told anything");
    let tell = |solo: &mut Solo, from, executed| {
        solo.tell(from, PeerMessage::Gossip(Box::new(Gossip { executed, ..Gossip::default() })), None);
    };
    tell(&mut solo, 1, upto([0, 2]));
    tell(&mut solo, 2, upto([0, 9]));
    assert_eq!(behind(&solo), [Some(1), Some(0)], "whoever is ahead is not behind");
    // A link that was lost, and a learner, of whose progress nothing is kept.
    solo.core.on_links(solo.now, &[ReplicaId(1), ReplicaId(3)]);
    tell(&mut solo, 3, upto([0, 3]));
    assert_eq!(behind(&solo), [Some(1), None, None]);
}

#[test]
fn requests_wait_until_the_turn_ends() {
    let mut solo = Solo::new(3, 0);
    for tag in 1..=2 {
        let client = ClientRef { connection: 1, tag };
        solo.core.on_request(solo.now, client, decide("s", tag, 0, "a")).expect("the queue is not full");
    }
    let (requests, bytes) = solo.core.status().queued;
    assert!(requests == 2 && bytes > 2, "{bytes} bytes");
    solo.sync();
    assert_eq!(solo.core.status().queued, (0, 0));
}
