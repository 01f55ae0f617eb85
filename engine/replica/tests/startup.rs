//! Starts that must be refused: what is printed, and the exit code. And those that wait for what passes.

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
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
    let segment = cluster.data_dir(0).join("shard-000/epoch-000001/000000000001.log");
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
    support::eventually("what it waits for", || replica.says("192.0.2.7 of 'db-own' is not an address"));
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

#[test]
fn a_lock_that_is_left_over_for_a_moment_is_waited_for() {
    let mut cluster = Cluster::prepare(1, 1);
    fs::create_dir_all(cluster.data_dir(0)).unwrap();
    let lock = fs::File::create(cluster.data_dir(0).join("LOCK")).unwrap();
    lock.lock().unwrap();
    cluster.spawn(0);
    support::eventually("the wait", || cluster.log(0).contains("another process uses the directory"));
    drop(lock);
    support::eventually("the start", || {
        cluster.assert_running();
        cluster.log(0).contains("serves 1 shard(s)")
    });
    assert_eq!(cluster.log(0).matches("another process uses the directory").count(), 1, "{}", cluster.log(0));
}

#[test]
fn a_relative_data_dir_begins_at_the_configuration_file() {
    let mut cluster = Cluster::prepare(1, 1);
    let absolute = format!("data_dir = \"{}\"", cluster.data_dir(0).display());
    let relative = cluster.config(0).replace(&absolute, "data_dir = \"data-0\"");
    assert!(relative.contains("\"data-0\""));
    fs::write(cluster.config_path(0), &relative).unwrap();
    // Started from elsewhere.
    let mut command = program();
    command.current_dir("/");
    cluster.spawn_by(0, command);
    cluster.wait_linked();
    let told = format!("data in {}", cluster.data_dir(0).display());
    support::eventually("its word of where the data is", || cluster.log(0).contains(&told));
    let run = |dir: &Path, arguments: &[&str]| {
        let output = program().args(arguments).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        support::stdout(&output)
    };
    let here = cluster.dir.path().to_owned();
    let connect = cluster.addresses().remove(0);
    run(&here, &["propose", "--connect", &connect, "k", "v"]);
    run(&here, &["snapshot", "take", "--connect", &connect]);
    assert!(run(&here, &["snapshot", "list", "--dir", "data-0"]).contains("barrier"));
    run(&here, &["snapshot", "export", "--dir", "data-0", "--to", "backup"]);
    run(&here, &["snapshot", "verify", "backup"]);
    assert_eq!(cluster.stop(0), Some(0), "{}", cluster.log(0));
    fs::rename(cluster.data_dir(0), here.join("old")).unwrap();
    let config = cluster.config_path(0);
    let config = config.to_str().unwrap();
    let restored = ["snapshot", "restore", "--config", config, "--from"];
    let backup = here.join("backup");
    run(Path::new("/"), &[&restored[..], &[backup.to_str().unwrap()]].concat());
    assert!(cluster.data_dir(0).join("identity.json").exists());
    run(&here, &[&restored[..], &["backup", "--to", "typed"]].concat());
    assert!(here.join("typed/identity.json").exists());
    cluster.spawn(0);
    cluster.wait_linked();
    assert_eq!(run(&here, &["read", "--connect", &connect, "k"]), "v\n");
}

#[test]
fn a_member_may_have_an_address_of_ipv6_in_brackets() {
    let mut cluster = Cluster::prepare(3, 1);
    for index in 0..3 {
        fs::write(cluster.config_path(index), cluster.config(index).replace("127.0.0.1", "[::1]")).unwrap();
        cluster.spawn(index);
    }
    let connect = format!("[::1]:{}", cluster.client_bases[0]);
    let output = || program().args(["propose", "--connect", &connect, "k", "v"]).output().unwrap();
    support::eventually("a decision", || {
        cluster.assert_running();
        output().status.success()
    });
    let told = format!("clients on {connect}");
    support::eventually("its word of its address", || cluster.log(0).contains(&told));
    cluster.kill(0);
    let dead = program().args(["status", "--connect", &connect]).output().unwrap();
    assert!(support::stdout(&dead).contains(&connect), "{}", support::stdout(&dead));
}

#[test]
fn a_member_that_nobody_can_find_is_refused() {
    let cluster = Cluster::prepare(3, 1);
    fs::write(cluster.config_path(0), cluster.config(0).replace("127.0.0.1", "0.0.0.0")).unwrap();
    let output = cluster.run_to_end(0);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("`listen`"), "{}", stderr(&output));
}

#[test]
fn a_directory_with_other_files_is_named() {
    let cluster = Cluster::prepare(1, 1);
    fs::create_dir_all(cluster.data_dir(0)).unwrap();
    fs::write(cluster.data_dir(0).join("thesis.tex"), b"").unwrap();
    let output = cluster.run_to_end(0);
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).contains("holds thesis.tex"), "{}", stderr(&output));
}

/// Where /dev/shm is a tmpfs, as it is on every Linux that was not changed.
#[test]
fn a_file_system_in_memory_is_told() {
    let mut cluster = Cluster::prepare(1, 1);
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let config = cluster.config(0);
    let here = cluster.data_dir(0).display().to_string();
    fs::write(cluster.config_path(0), config.replace(&here, &memory.path().display().to_string())).unwrap();
    cluster.spawn(0);
    support::eventually("the warning", || cluster.log(0).contains("is in memory (tmpfs)"));
}

#[test]
fn a_broken_standard_error_changes_no_exit_code() {
    let cluster = Cluster::prepare(1, 1);
    let mut command: Command = program();
    command.arg("serve").arg("--config").arg(cluster.config_path(0)).stderr(Stdio::piped());
    let mut replica = command.spawn().unwrap();
    let mut lines = BufReader::new(replica.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("serves 1 shard(s)")));
    drop(lines);
    let pid = rustix::process::Pid::from_child(&replica);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    support::ends(&mut replica);
    assert_eq!(replica.wait().unwrap().code(), Some(0));
}
