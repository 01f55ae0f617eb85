//! More connections than the limit of open files allows: they are refused or cut, and the replica goes
//! on deciding, cutting its log and reaching its peers.

mod support;

use isonomy_tuning::limits::{Resource, raise};
use isonomy_wire::client::{Client, discover};
use isonomy_wire::conversation::Config;
use isonomy_wire::id::ShardId;
use std::net::TcpStream;
use std::process::Command;
use support::{Cluster, PATIENCE, RawClient, eventually, program, stderr};

/// The usual limit.
const FILES: u32 = 1024;
/// More than fit in it, as many as `connections_max` and some.
const CONNECTIONS: usize = 1050;
/// So large that few decisions fill a segment.
const VALUE_BYTES: usize = 60_000;
/// With the least budget there may be, enough for a snapshot and segments that are used again.
const DECISIONS: u32 = 1500;

/// The program with these limits of open files, soft and hard.
fn limited(soft: u32, hard: u32) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={soft}:{hard}")).arg(program().get_program());
    command
}

async fn decide(cluster: &Cluster, client: &Client, from: u32) {
    for key in from..from + DECISIONS {
        client.decide(key.to_string(), vec![key as u8; VALUE_BYTES]).await.unwrap();
    }
    cluster.wait_agreed();
}

async fn connect(cluster: &Cluster) -> Client {
    let welcome = discover(&cluster.addresses()).await.unwrap();
    let config = Config { deadline_us: PATIENCE.as_micros() as u64, ..Config::of(&welcome) };
    Client::with(welcome, config)
}

#[tokio::test]
async fn more_connections_than_open_files_end_nothing() {
    // Of this process: all ends of all connections.
    assert!(raise(Resource::NOFILE, 8 * 1024).unwrap() >= 8 * 1024);
    let mut cluster = Cluster::prepare(3, 1);
    for index in 0..3 {
        let config = cluster.config(index) + "log_budget_mib = 64\n";
        std::fs::write(cluster.config_path(index), config).unwrap();
    }
    cluster.spawn_by(0, limited(FILES, FILES));
    cluster.spawn_by(1, limited(FILES, FILES));
    // As much more as a limit that is raised to what the clients alone take.
    cluster.spawn_by(2, limited(FILES, FILES + 76));
    cluster.wait_linked();
    let log = cluster.log(0);
    assert!(log.contains("1024 open files") && log.contains("not 1024"), "{log}");
    let client = connect(&cluster).await;
    // The connections that it will use stand before there is no room.
    decide(&cluster, &client, 0).await;

    let mut held = Vec::new();
    for index in 0..3 {
        let idle =
            (0..CONNECTIONS).map(|_| TcpStream::connect(("127.0.0.1", cluster.peer_bases[index])).unwrap());
        held.extend(idle);
    }
    let mut clients = Vec::new();
    for base in cluster.client_bases.clone() {
        let welcomed = (0..CONNECTIONS).filter_map(|_| RawClient::connect(base, ShardId(0)).ok());
        clients.push(welcomed.collect::<Vec<_>>());
    }
    for welcomed in &mut clients {
        assert!(welcomed.len() >= CONNECTIONS / 2 && welcomed.len() < CONNECTIONS, "{}", welcomed.len());
        // Room for who asks how the replicas stand.
        welcomed.truncate(welcomed.len() - 10);
    }
    decide(&cluster, &client, DECISIONS).await;
    cluster.assert_running();

    // A peer that comes back gets in among those who say nothing.
    cluster.kill(2);
    held.extend((0..CONNECTIONS).map(|_| TcpStream::connect(("127.0.0.1", cluster.peer_bases[0])).unwrap()));
    clients.clear();
    cluster.spawn_by(2, limited(FILES, FILES));
    cluster.wait_linked();
    cluster.wait_agreed();
    client.close().await;
    drop(held);
    for index in 0..3 {
        let log = cluster.log(index);
        assert!(log.contains("snapshot at barrier"), "{log}");
        assert!(!log.contains("os error 24"), "none was lacking: {log}");
    }
}

#[test]
fn a_limit_that_is_not_enough_even_for_a_few_clients_is_named() {
    let cluster = Cluster::prepare(3, 16);
    let mut command = limited(FILES, FILES);
    let output = command.arg("serve").arg("--config").arg(cluster.config_path(0)).output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("1024 open files are allowed") && text.contains("LimitNOFILE"), "{text}");
}

#[test]
fn the_limit_is_raised_as_far_as_it_goes() {
    let mut cluster = Cluster::prepare(1, 1);
    cluster.spawn_by(0, limited(64, 4096));
    eventually("the replica", || cluster.status(0, 0).is_some());
    assert!(!cluster.log(0).contains("open files"), "{}", cluster.log(0));
}
