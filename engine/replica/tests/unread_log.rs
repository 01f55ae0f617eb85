//! Standard error that nobody reads, or that is closed: the replica goes on, drops lines, and counts them.

mod support;

use isonomy_wire::client::Client;
use isonomy_wire::id::ShardId;
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use support::{Cluster, RawClient, eventually, program, stdout};

/// Each is told, when nothing holds the lines back.
const STRANGERS: usize = 2000;
const SHARD: ShardId = ShardId(0);

/// Connections for peers that make no sense, all of which the replica has heard of in the end.
fn annoy(cluster: &Cluster, strangers: usize) {
    for _ in 0..strangers {
        let mut stranger = RawClient::open(cluster.peer_bases[0], SHARD).unwrap();
        stranger.write(&[0xff; 64]).unwrap();
        stranger.wait_closed();
    }
}

/// Decides a key; it is the first decision of it.
fn decide(cluster: &Cluster, key: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&cluster.addresses()[..1]).await.unwrap();
        assert_eq!(client.decide(key.to_owned(), "value").await.unwrap().key_seq, 1);
        client.close().await;
    });
}

fn status(cluster: &Cluster) -> Value {
    let address = &cluster.addresses()[0];
    let output = program().args(["status", "--output", "json", "--connect", address]).output().unwrap();
    serde_json::from_str(&stdout(&output)).unwrap()
}

/// A pipe that takes not a byte more.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    for size in [4096, 1] {
        while rustix::io::write(&writer, &vec![b'.'; size]).is_ok() {}
    }
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader.into(), writer.into())
}

#[test]
fn a_replica_whose_log_nobody_reads_goes_on_and_counts_what_it_drops() {
    let mut cluster = Cluster::prepare(1, 1);
    let (reader, writer) = full_pipe();
    // Everything is logged, so that more lines come than may wait.
    cluster.spawn_saying(0, writer, "trace");
    cluster.wait_linked();
    decide(&cluster, "first");
    annoy(&cluster, STRANGERS);
    decide(&cluster, "second");
    eventually("dropped lines", || status(&cluster)["shards"][0]["log_lines_dropped"].as_u64() > Some(0));
    assert_eq!(cluster.running(), [0]);

    // Once somebody reads, the count is told.
    let mut text = String::new();
    let mut reader = File::from(reader);
    let mut buffer = vec![0; 64 << 10];
    eventually("the count in the log", || {
        annoy(&cluster, 1);
        let count = reader.read(&mut buffer).unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        text.contains("lines were dropped here")
    });
    // It ends although nobody reads its last words.
    assert_eq!(cluster.stop(0), Some(0));
}

#[test]
fn a_replica_whose_log_is_closed_goes_on() {
    let mut cluster = Cluster::prepare(1, 1);
    let (reader, writer) = full_pipe();
    drop(reader);
    cluster.spawn_saying(0, writer, "info");
    cluster.wait_linked();
    annoy(&cluster, 20);
    decide(&cluster, "key");
    assert!(status(&cluster)["shards"][0]["log_lines_dropped"].as_u64() > Some(0));
    assert_eq!(cluster.stop(0), Some(0));
}

#[test]
fn what_ends_a_replica_does_not_wait_for_a_reader() {
    let mut cluster = Cluster::prepare(1, 1);
    std::fs::write(cluster.config_path(0), cluster.config(0) + "nonsense = 1\n").unwrap();
    let (_reader, writer) = full_pipe();
    cluster.spawn_saying(0, writer, "info");
    assert_eq!(cluster.wait_ended(0), Some(3));
}

#[test]
fn a_flood_of_strangers_is_told_in_a_few_lines() {
    let cluster = Cluster::start(1, 1);
    annoy(&cluster, 300);
    // Who connects without a word and leaves is one, too.
    drop(TcpStream::connect(("127.0.0.1", cluster.peer_bases[0])).unwrap());
    eventually("a count of those held back", || cluster.log(0).contains("were held back"));
    let lines = cluster.log(0).matches("a connection for peers ended").count();
    assert!(lines <= 100, "{lines} lines for 301 strangers");
}
