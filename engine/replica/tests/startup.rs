//! Starts that must be refused: what is printed, and the exit code. And those that wait for what passes.

mod support;

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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

/// Runs a replica whose name `db-own` is what this hosts file says, in a mount namespace of its own.
struct Named {
    process: Child,
    log: PathBuf,
}

impl Named {
    fn start(cluster: &Cluster, hosts: &Path) -> Named {
        let log = cluster.log_path(0);
        let stderr = File::create(&log).unwrap();
        let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        let process = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(hosts)
            .arg(env!("CARGO_BIN_EXE_isonomy"))
            .args(["serve", "--config"])
            .arg(cluster.config_path(0))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn();
        Named { process: process.unwrap(), log }
    }

    fn says(&self, what: &str) -> bool {
        fs::read_to_string(&self.log).is_ok_and(|text| text.contains(what))
    }

    /// SIGTERM; the exit code.
    fn stop(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.process.wait().unwrap().code()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A cluster whose first member is called `db-own`; none where this user has no namespaces.
fn named(replicas: usize) -> Option<(Cluster, PathBuf)> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TESTED: this user has no mount namespace here; run the tests as root");
        return None;
    }
    let cluster = Cluster::prepare(replicas, 1);
    let config = cluster.config(0).replacen("127.0.0.1", "db-own", 1).replace("127.0.0.1", "192.0.2.1");
    fs::write(cluster.config_path(0), config).unwrap();
    let hosts = cluster.dir.path().join("hosts");
    Some((cluster, hosts))
}

#[test]
fn a_name_that_is_not_known_yet_is_waited_for() {
    let Some((cluster, hosts)) = named(1) else { return };
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let mut replica = Named::start(&cluster, &hosts);
    support::eventually("what it waits for", || replica.says("'db-own'") && replica.says("the start waits"));
    assert_eq!(replica.stop(), Some(0), "it is stopped while it waits");
    let mut replica = Named::start(&cluster, &hosts);
    support::eventually("what it waits for", || replica.says("'db-own'"));
    fs::write(&hosts, "127.0.0.1 localhost db-own\n").unwrap();
    support::eventually("the start", || replica.says("serves 1 shard(s)"));
    let listens = format!("listens for peers on 127.0.0.1:{}", cluster.peer_bases[0]);
    assert!(replica.says(&listens), "{listens}");
    assert_eq!(replica.stop(), Some(0));
}

#[test]
fn an_address_that_no_interface_has_yet_is_waited_for() {
    let Some((cluster, hosts)) = named(1) else { return };
    fs::write(&hosts, "192.0.2.7 db-own\n").unwrap();
    let mut replica = Named::start(&cluster, &hosts);
    support::eventually("what it waits for", || replica.says("192.0.2.7 of 'db-own' is no address"));
    fs::write(&hosts, "127.0.0.1 db-own\n").unwrap();
    support::eventually("the start", || replica.says("serves 1 shard(s)"));
    assert_eq!(replica.stop(), Some(0));
}

#[test]
fn a_name_that_stands_for_loopback_is_told_where_other_machines_are_members() {
    let Some((cluster, hosts)) = named(3) else { return };
    fs::write(&hosts, "127.0.1.1 db-own\n").unwrap();
    let mut replica = Named::start(&cluster, &hosts);
    support::eventually("the warning", || replica.says("'db-own' stands for 127.0.1.1"));
    support::eventually("who is missing", || replica.says("not linked with replica 1 (192.0.2.1:"));
    assert_eq!(replica.stop(), Some(0));
    let local = Cluster::start(3, 1);
    assert!(!local.log(0).contains("stands for"), "all members are on this machine");
}
