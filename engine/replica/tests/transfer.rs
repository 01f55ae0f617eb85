//! A returning replica that cannot take the snapshot of a peer: a bit of that has flipped, or its own
//! disk has no room. It gets there all the same, and keeps nobody from cutting his log.

mod support;

use isonomy_wire::client::{Client, discover};
use isonomy_wire::conversation::Config;
use std::fs;
use support::disk::OwnDisk;
use support::{Cluster, PATIENCE, eventually, flip_bit, program};

const BUDGET: u64 = 64 << 20;
const VALUE_BYTES: usize = 128 << 10;
/// Their values are more than fits what the small disk has left.
const KEYS: usize = 280;
/// Room for its own log, too, which grows while it has to wait.
const DISK_BYTES: u64 = 512 << 20;
/// Writes after which a log that is not cut is far beyond its budget.
const MANY: usize = 1200;

fn prepare() -> Cluster {
    let cluster = Cluster::prepare(3, 1);
    for index in 0..3 {
        fs::write(cluster.config_path(index), cluster.config(index) + "log_budget_mib = 64\n").unwrap();
    }
    cluster
}

async fn connect(cluster: &Cluster) -> Client {
    let welcome = discover(&cluster.addresses()).await.unwrap();
    let config = Config { deadline_us: PATIENCE.as_micros() as u64, ..Config::of(&welcome) };
    Client::with(welcome, config)
}

/// Decides so many values under a few keys, one after the other.
async fn load(client: &Client, keys: usize, count: usize) {
    for n in 0..count {
        client.decide(format!("key-{}", n % keys), vec![n as u8; VALUE_BYTES]).await.unwrap();
    }
}

fn snapshot_of(cluster: &Cluster, index: usize) -> u64 {
    cluster.status(index, 0).map_or(0, |status| status.snapshot)
}

/// Replica 2 is away for longer than the logs of the others hold. The barrier of their snapshots.
async fn leave_behind(cluster: &mut Cluster, client: &Client, keys: usize) -> u64 {
    load(client, keys, 5).await;
    cluster.wait_agreed();
    cluster.kill(2);
    load(client, keys, 400).await;
    let is_cut =
        |cluster: &Cluster, index| !cluster.shard_files(index, 0, "log")[0].ends_with("000000000001.log");
    eventually("the cuts", || (0..2).all(|index| is_cut(cluster, index)));
    // Neither is newer, so that it turns to replica 0 first.
    eventually("the same snapshots", || {
        let take = ["snapshot", "take", "--connect", &cluster.addresses()[0]];
        assert!(program().args(take).output().unwrap().status.success());
        snapshot_of(cluster, 0) == snapshot_of(cluster, 1)
    });
    snapshot_of(cluster, 0)
}

fn flip(cluster: &Cluster, index: usize) {
    flip_bit(&cluster.shard_files(index, 0, "snapshot").pop().unwrap(), 1, 2);
}

fn assert_within_budget(cluster: &Cluster, indices: &[usize]) {
    for index in indices {
        let held = cluster.status(*index, 0).unwrap().log_held_bytes;
        assert!(held <= BUDGET, "replica {index} holds {held} bytes");
    }
}

/// The replica has found its snapshot damaged and has another.
fn has_renewed(cluster: &Cluster, index: usize, before: u64) -> bool {
    cluster.status(index, 0).is_some_and(|status| status.snapshots_damaged == 1 && status.snapshot > before)
}

/// Replica 2 is away, and a bit of what it lacks has flipped at replica 0.
async fn with_a_damaged_snapshot() -> (Cluster, Client, u64) {
    let mut cluster = prepare();
    (0..3).for_each(|index| cluster.spawn(index));
    cluster.wait_linked();
    let client = connect(&cluster).await;
    let barrier = leave_behind(&mut cluster, &client, 11).await;
    flip(&cluster, 0);
    (cluster, client, barrier)
}

#[tokio::test]
async fn a_flipped_bit_at_one_peer_sends_it_to_the_other() {
    let (mut cluster, client, barrier) = with_a_damaged_snapshot().await;
    cluster.spawn(2);
    eventually("the transfer", || cluster.log(2).contains("installed the snapshot"));
    cluster.wait_agreed();
    eventually("a new snapshot", || has_renewed(&cluster, 0, barrier));
    assert!(cluster.log(0).contains("check it"), "{}", cluster.log(0));
    // Nobody needs what was damaged any more.
    assert_eq!(cluster.stop(0), Some(0), "{}", cluster.log(0));
    cluster.spawn(0);
    cluster.wait_linked();
    load(&client, 11, 5).await;
    client.close().await;
    cluster.wait_agreed();
}

#[tokio::test]
async fn with_flipped_bits_at_all_peers_they_take_new_ones() {
    let (mut cluster, client, barrier) = with_a_damaged_snapshot().await;
    flip(&cluster, 1);
    cluster.spawn(2);
    // The barrier that the first to notice proposes may give the other a new one before anybody reads its old one.
    let statuses = |cluster: &Cluster| [0, 1].map(|index| cluster.status(index, 0).unwrap());
    eventually("new snapshots", || statuses(&cluster).iter().all(|status| status.snapshot > barrier));
    assert!(statuses(&cluster).iter().any(|status| status.snapshots_damaged == 1));
    load(&client, 11, MANY).await;
    client.close().await;
    cluster.wait_agreed();
    assert_within_budget(&cluster, &[0, 1]);
    assert!(cluster.status(2, 0).unwrap().snapshot_trouble.is_empty());
}

#[tokio::test]
async fn want_of_room_keeps_nobody_from_cutting_his_log() {
    let mut cluster = prepare();
    let Some(disk) = OwnDisk::mount(cluster.data_dir(2), DISK_BYTES) else {
        return eprintln!("NOT TESTED: this user cannot mount a file system here; run the tests as root");
    };
    (0..3).for_each(|index| cluster.spawn(index));
    cluster.wait_linked();
    let client = connect(&cluster).await;
    let barrier = leave_behind(&mut cluster, &client, KEYS).await;
    let ballast = disk.fill(20 << 20);
    cluster.spawn(2);
    eventually("saying what is lacking", || {
        cluster.status(2, 0).is_some_and(|status| status.snapshot_trouble.contains("bytes are lacking"))
    });
    load(&client, KEYS, MANY).await;
    eventually("new snapshots", || (0..2).all(|index| snapshot_of(&cluster, index) > barrier + 2));
    assert_within_budget(&cluster, &[0, 1]);
    fs::remove_file(ballast).unwrap();
    cluster.wait_agreed();
    assert!(cluster.status(2, 0).unwrap().snapshot_trouble.is_empty());
    client.close().await;
}
