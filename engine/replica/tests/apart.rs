//! What a peer is waited for with never stands in the log's way: the name of a member, and the snapshot
//! that it fetches, each at a place that does not answer.

mod support;

use isonomy_wire::client::{Client, discover};
use isonomy_wire::conversation::Config;
use std::fs;
use std::process::Command;
use support::names::{silent_server, with_names};
use support::{Cluster, PATIENCE, eventually, program, stderr};

/// So large that few decisions fill a segment, and so many that more are filled than were prepared.
const VALUE_BYTES: usize = 60_000;
const DECISIONS: u32 = 1500;
/// Only the file of hosts knows it, and not for ever.
const NAME: &str = "third.isonomy.test";

async fn decide(cluster: &Cluster, keys: std::ops::Range<u32>) {
    let mut welcome = discover(&cluster.addresses()[..1]).await.unwrap();
    // The replicas have names that this process does not know.
    welcome.members.iter_mut().zip(&cluster.hosts).for_each(|(member, host)| member.host = host.clone());
    let config = Config { deadline_us: PATIENCE.as_micros() as u64, ..Config::of(&welcome) };
    let client = Client::with(welcome, config);
    for key in keys {
        client.decide(key.to_string(), vec![key as u8; VALUE_BYTES]).await.unwrap();
    }
    client.close().await;
}

/// It takes root, who may bind the server's port and mount.
#[tokio::test]
async fn a_name_server_that_does_not_answer_holds_up_nobody() {
    let Some(server) = silent_server() else { return };
    let mut cluster = Cluster::prepare_at(["127.0.0.1", "127.0.0.1", NAME].map(String::from).into(), 1);
    let hosts = cluster.dir.path().join("hosts");
    fs::write(&hosts, format!("127.0.0.1 localhost {NAME}\n")).unwrap();
    for index in 0..3 {
        fs::write(cluster.config_path(index), cluster.config(index) + "listen = \"127.0.0.1\"\n").unwrap();
        cluster.spawn_by(index, with_names(cluster.dir.path(), &server));
    }
    // This process does not know the name.
    cluster.hosts[2] = "127.0.0.1".into();
    cluster.wait_linked();

    // The same file, so that what is mounted changes too.
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    cluster.kill(2);
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    server.recv_from(&mut [0; 512]).expect("the member is looked up once the link to it has ended");
    decide(&cluster, 0..DECISIONS).await;

    cluster.spawn_by(2, with_names(cluster.dir.path(), &server));
    cluster.wait_linked();
    cluster.wait_agreed();
}

#[tokio::test]
async fn a_snapshot_that_does_not_read_holds_up_nobody() {
    let mut cluster = Cluster::start(3, 1);
    cluster.kill(2);
    decide(&cluster, 0..20).await;
    let output = program().args(["snapshot", "take", "--connect", &cluster.addresses()[0]]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let is_cut = |index| !cluster.shard_files(index, 0, "log")[0].ends_with("000000000001.log");
    eventually("the cut", || is_cut(0) && is_cut(1));
    // To open it takes until somebody writes to it.
    for index in 0..2 {
        let snapshot = cluster.shard_files(index, 0, "snapshot").pop().unwrap();
        fs::remove_file(&snapshot).unwrap();
        assert!(Command::new("mkfifo").arg(snapshot).status().unwrap().success());
    }
    cluster.spawn(2);
    eventually("the transfer", || cluster.log(2).contains("fetching the snapshot"));
    decide(&cluster, 20..DECISIONS).await;
    // Whichever of the two is asked for the snapshot keeps up with the other.
    let frontier = |index| cluster.status(index, 0).map(|status| status.frontier);
    eventually("the same at both", || frontier(0).is_some() && frontier(0) == frontier(1));
    cluster.assert_running();
}
