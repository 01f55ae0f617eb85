//! G6, with real processes: a cluster forms once and with everybody, and who was accepted before that stays the
//! one who is accepted, whoever starts again in between.

mod support;
#[path = "support/volatile.rs"]
mod volatile;

use isonomy_wire::id::ShardId;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::Value;
use std::fs;
use std::io::{ErrorKind, Read};
use std::time::Duration;
use support::{Cluster, RawClient, eventually, program, stderr};
use volatile::VolatileDisk;

/// How long a word that must not come is waited for.
const WRONG_WORD: Duration = Duration::from_millis(500);

/// What a replica has written down of itself and of the others.
fn identity(cluster: &Cluster, index: usize) -> Value {
    let text = fs::read_to_string(cluster.data_dir(index).join("identity.json")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// The directories that it has met in the first epoch.
fn met(cluster: &Cluster, index: usize) -> Value {
    identity(cluster, index)["epochs"]["1"]["peers"].clone()
}

fn is_formed(cluster: &Cluster, index: usize) -> bool {
    identity(cluster, index)["formed"] == true
}

/// Waits until two replicas have written down each other's directories.
fn wait_met(cluster: &Cluster, [one, other]: [usize; 2]) {
    let has = |index: usize, peer: usize| {
        let incarnation = &identity(cluster, peer)["incarnation"];
        incarnation.is_string() && met(cluster, index)[peer.to_string()] == *incarnation
    };
    eventually("a meeting", || has(one, other) && has(other, one));
}

/// Nobody is welcomed at the port for clients.
fn assert_serves_nobody(cluster: &Cluster, index: usize) {
    let mut opened = None;
    eventually("its port", || {
        opened = RawClient::open(cluster.client_bases[index], ShardId(0)).ok();
        opened.is_some()
    });
    let mut client = opened.expect("it was just opened");
    client.stream.set_read_timeout(Some(WRONG_WORD)).unwrap();
    client.say_hello().unwrap();
    let heard = client.stream.read(&mut [0; 64]);
    assert!(
        matches!(&heard, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)),
        "replica {index} serves clients: {heard:?}"
    );
    assert!(!is_formed(cluster, index), "replica {index}");
    assert_eq!(identity(cluster, index)["starts"], 0, "replica {index} takes part");
}

fn decide(cluster: &Cluster, index: usize, key: &str) {
    let output =
        program().args(["propose", "--connect", &cluster.addresses()[index], key, "v"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn nobody_serves_before_all_have_met_whoever_restarts_in_between() {
    let mut cluster = Cluster::prepare(3, 1);
    for index in [0, 1] {
        cluster.spawn(index);
    }
    wait_met(&cluster, [0, 1]);
    // A majority is not all, in whatever order they come.
    for restarted in [0, 1] {
        assert_serves_nobody(&cluster, 0);
        assert_serves_nobody(&cluster, 1);
        cluster.kill(restarted);
        cluster.spawn(restarted);
    }
    // Replica 2 meets both, one after the other; replica 0 has met one since it was started.
    cluster.kill(0);
    cluster.spawn(2);
    wait_met(&cluster, [1, 2]);
    cluster.kill(1);
    cluster.spawn(0);
    wait_met(&cluster, [0, 2]);
    assert_serves_nobody(&cluster, 0);
    cluster.spawn(1);
    eventually("the forming of all", || (0..3).all(|index| is_formed(&cluster, index)));
    cluster.wait_linked();
    (0..3).for_each(|index| decide(&cluster, index, "a"));
    cluster.wait_agreed();
}

#[test]
fn who_was_accepted_before_the_cluster_formed_is_known_after_a_restart() {
    let mut cluster = Cluster::prepare(3, 1);
    for index in [0, 1] {
        cluster.spawn(index);
    }
    wait_met(&cluster, [0, 1]);
    let its = identity(&cluster, 1)["incarnation"].clone();
    // The other has lost its directory, and whoever accepted that one has been started again since.
    cluster.kill(0);
    cluster.kill(1);
    fs::remove_dir_all(cluster.data_dir(1)).unwrap();
    (0..3).for_each(|index| cluster.spawn(index));
    eventually("the refusal", || cluster.log(1).contains("another data directory"));
    assert_eq!(met(&cluster, 0)["1"], its);
    assert_serves_nobody(&cluster, 1);
    // It is not needed for the forming of those who accept each other and are accepted by it.
    eventually("the forming of the others", || is_formed(&cluster, 0) && is_formed(&cluster, 2));
    eventually("a link", || {
        cluster.status(0, 0).is_some_and(|status| status.peers_connected.iter().any(|peer| peer.index() == 2))
    });
    let linked = cluster.status(0, 0).unwrap().peers_connected;
    assert!(linked.iter().all(|peer| peer.index() == 2), "replica 1 takes no part: {linked:?}");
    assert_serves_nobody(&cluster, 1);
}

#[test]
fn another_directory_is_refused_when_all_who_accepted_the_first_have_restarted() {
    let mut cluster = Cluster::start(3, 1);
    decide(&cluster, 0, "a");
    (0..3).for_each(|index| cluster.kill(index));
    fs::remove_dir_all(cluster.data_dir(2)).unwrap();
    for times in 1..=2 {
        (0..3).for_each(|index| cluster.spawn(index));
        let refusal = "replica 2 was known here with another data directory";
        let refused = |peer| cluster.log(peer).matches(refusal).count() >= times;
        eventually("both refusals", || refused(0) && refused(1));
        assert_serves_nobody(&cluster, 2);
        decide(&cluster, 0, "b");
        (0..3).for_each(|index| cluster.kill(index));
    }
}

/// As root, where FUSE is.
#[test]
fn who_was_told_that_it_is_accepted_is_known_when_the_power_is_back() {
    for seed in 0..8 {
        let mut cluster = Cluster::prepare(2, 1);
        let Some(disk) = VolatileDisk::mount(cluster.data_dir(0)) else {
            println!("skipped: this machine mounts no FUSE for the test");
            return;
        };
        (0..2).for_each(|index| cluster.spawn(index));
        // It rests on the word of replica 0 alone.
        eventually("the forming of replica 1", || is_formed(&cluster, 1));
        disk.power_off();
        cluster.kill(0);
        disk.power_on(&mut SmallRng::seed_from_u64(seed));
        assert_eq!(met(&cluster, 0)["1"], identity(&cluster, 1)["incarnation"], "seed {seed}");
    }
}
