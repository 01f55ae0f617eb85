//! A disk that fills up under a running replica: it refuses and waits, the others go on, nothing
//! acknowledged is lost, and it heals by itself. The disk is a small file system of its own, which only
//! root can mount.

mod support;

use isonomy_wire::client::{Client, discover};
use isonomy_wire::conversation::Config;
use std::fs::{self, File};
use std::path::Path;
use support::disk::OwnDisk;
use support::{Cluster, PATIENCE, eventually, program, stderr};

const DISK_BYTES: u64 = 160 << 20;
/// So large that few decisions fill a segment.
const VALUE_BYTES: usize = 60_000;

async fn connect(address: &str) -> Client {
    let welcome = discover(&[address.to_string()]).await.unwrap();
    let config = Config { deadline_us: PATIENCE.as_micros() as u64, ..Config::of(&welcome) };
    Client::with(welcome, config)
}

fn take_snapshot(address: &str) {
    let output = program().args(["snapshot", "take", "--connect", address]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

/// Decides these keys one after the other; each is decided once.
async fn decide(client: &Client, keys: std::ops::Range<u32>) {
    for key in keys {
        let decided = client.decide(key.to_string(), vec![key as u8; VALUE_BYTES]).await.unwrap();
        assert_eq!(decided.key_seq, 1, "key {key}");
    }
}

fn says(log: &Path, what: &str) -> bool {
    fs::read_to_string(log).is_ok_and(|text| text.contains(what))
}

#[tokio::test]
async fn a_full_disk_loses_nothing_stops_nobody_and_heals() {
    let mut cluster = Cluster::prepare(3, 1);
    let Some(disk) = OwnDisk::mount(cluster.data_dir(0), DISK_BYTES) else {
        return eprintln!("NOT TESTED: this user cannot mount a file system here; run the tests as root");
    };
    (0..3).for_each(|index| cluster.spawn(index));
    cluster.wait_linked();
    let client = connect(&cluster.addresses()[0]).await;
    decide(&client, 0..20).await;
    // The second takes the place of the first, whose file is kept for the third.
    let spare = cluster.data_dir(0).join("shard-000/epoch-000001/snapshot.spare");
    take_snapshot(&cluster.addresses()[0]);
    take_snapshot(&cluster.addresses()[0]);
    eventually("a spare snapshot", || spare.exists());

    let ballast = disk.fill(0);
    // More than the segments that were prepared before hold, and than may wait in memory.
    decide(&client, 20..1800).await;
    eventually("saying that the disk is full", || says(&cluster.log_path(0), "the disk is full"));
    assert!(!spare.exists(), "the log needs its room more");
    let behind = cluster.status(0, 0).expect("it answers operators");
    let others = cluster.status(1, 0).unwrap();
    assert_ne!(behind.frontier, others.frontier, "it reads its peers only as far as the disk takes it");
    let memory = cluster.resident_bytes(0);
    assert!(memory < 400 << 20, "{memory} bytes");

    fs::remove_file(ballast).unwrap();
    cluster.wait_agreed();
    decide(&client, 1800..1810).await;
    for key in (0..1810).step_by(7) {
        let found = client.read(key.to_string()).await.unwrap().expect("it was decided");
        assert_eq!((found.key_seq, found.value.len()), (1, VALUE_BYTES), "key {key}");
    }
    client.close().await;
    cluster.wait_agreed();
    // What the disk holds is whole.
    assert_eq!(cluster.stop(0), Some(0), "{}", cluster.log(0));
    cluster.spawn(0);
    cluster.wait_linked();
    cluster.wait_agreed();
}

#[tokio::test]
async fn a_disk_that_is_full_at_the_start_is_waited_for() {
    let mut cluster = Cluster::prepare(1, 1);
    let Some(disk) = OwnDisk::mount(cluster.data_dir(0), DISK_BYTES) else {
        return eprintln!("NOT TESTED: this user cannot mount a file system here; run the tests as root");
    };
    let ballast = disk.fill(0);
    cluster.spawn(0);
    let waits = |cluster: &Cluster| says(&cluster.log_path(0), "no room on the disk");
    eventually("saying what it waits for", || waits(&cluster));
    assert_eq!(cluster.stop(0), Some(0), "it is stopped while it waits: {}", cluster.log(0));
    cluster.spawn(0);
    // Room for the directories, not for a segment.
    let length = fs::metadata(&ballast).unwrap().len();
    File::options().write(true).open(&ballast).unwrap().set_len(length - (1 << 20)).unwrap();
    eventually("a shard that waits", || says(&cluster.log_path(0), "a segment of"));
    fs::remove_file(&ballast).unwrap();
    let address = cluster.addresses()[0].clone();
    eventually("the start", || says(&cluster.log_path(0), "serves 1 shard(s)"));
    let client = connect(&address).await;
    decide(&client, 0..10).await;
    client.close().await;
    assert_eq!(cluster.stop(0), Some(0), "{}", cluster.log(0));
    // With a log, too.
    let ballast = disk.fill(0);
    fs::remove_file(cluster.log_path(0)).unwrap();
    cluster.spawn(0);
    eventually("saying what it waits for", || waits(&cluster));
    fs::remove_file(ballast).unwrap();
    eventually("the start", || says(&cluster.log_path(0), "serves 1 shard(s)"));
    let client = connect(&address).await;
    assert_eq!(client.read("3").await.unwrap().expect("it was decided").key_seq, 1);
}
