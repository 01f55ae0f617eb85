//! Starts that must be refused: what is printed, and the exit code.

mod support;

use std::fs;
use std::net::TcpListener;
use support::{Cluster, program, stderr};

#[test]
fn an_unknown_key_names_its_line() {
    let cluster = Cluster::prepare(3, 1);
    fs::write(cluster.config_path(0), cluster.config(0) + "quorum = 2\n").unwrap();
    let output = cluster.run_to_end(0);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("quorum") && text.contains("line 11"), "{text}");
    assert!(!cluster.data_dir(0).exists(), "nothing was made");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let cluster = Cluster::prepare(1, 2);
    let port = cluster.client_bases[0] + 1;
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let output = cluster.run_to_end(0);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains(&port.to_string()) && text.contains("client_base"), "{text}");
}

#[test]
fn a_data_directory_serves_one_process_and_one_replica() {
    let mut cluster = Cluster::start(1, 1);
    let output = cluster.run_to_end(0);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(5), "{text}");
    assert!(text.contains("another process"), "{text}");
    assert_eq!(cluster.stop(0), Some(0), "{}", cluster.log(0));
    let config = cluster.config(0).replace("tested", "renamed");
    fs::write(cluster.config_path(0), config).unwrap();
    let output = cluster.run_to_end(0);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(5), "{text}");
    assert!(text.contains("'tested'") && text.contains("'renamed'"), "{text}");
}

/// Fails on kernels before 5.19, which do not know the flag.
#[test]
fn shards_have_cheap_rings() {
    let cluster = Cluster::start(1, 2);
    // It is said when all shards are ready, the last a little after the first.
    support::eventually("all shards", || cluster.log(0).contains("serves 2 shard(s)"));
    let log = cluster.log(0);
    assert!(!log.contains("which costs up to"), "{log}");
}

#[test]
fn a_damaged_log_does_not_vote() {
    let mut cluster = Cluster::start(1, 1);
    for _ in 0..3 {
        let port = cluster.client_bases[0];
        let done = program().args(["propose", "--connect", &format!("127.0.0.1:{port}"), "k", "v"]).output();
        assert!(done.unwrap().status.success());
    }
    assert_eq!(cluster.stop(0), Some(0));
    let segment = cluster.data_dir(0).join("shard-000/000000000001.log");
    let mut bytes = fs::read(&segment).unwrap();
    // The first group, which has whole ones behind it.
    bytes[4096 + 100] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let output = cluster.run_to_end(0);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(6), "{text}");
    assert!(text.contains("must not vote") && text.contains("Lost and damaged replicas"), "{text}");
}

#[test]
fn a_peer_with_a_fresh_directory_is_not_taken_for_the_old_one() {
    let mut cluster = Cluster::start(3, 1);
    cluster.kill(2);
    fs::remove_dir_all(cluster.data_dir(2)).unwrap();
    cluster.spawn(2);
    support::eventually("the refusal", || cluster.log(2).contains("another data directory"));
    assert!(cluster.log(2).contains("Lost and damaged replicas"), "it says what to do");
    let linked = cluster.status(0, 0).unwrap().peers_connected;
    assert!(linked.iter().all(|peer| peer.index() == 1), "it takes no part: {linked:?}");
}

#[test]
fn missing_settings_and_wrong_command_lines_have_their_codes() {
    let none = program().arg("serve").output().unwrap();
    assert_eq!(none.status.code(), Some(3));
    assert!(stderr(&none).contains("is missing"), "{}", stderr(&none));
    assert_eq!(program().arg("nonsense").output().unwrap().status.code(), Some(2));
    let help = program().args(["propose", "--help"]).output().unwrap();
    assert!(help.status.success() && support::stdout(&help).contains("Example"));
}
