//! What the replicas of a real cluster keep for publication, whatever happens to them.

mod support;

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Output, Stdio};
use support::{Cluster, program, stderr, stdout, write_lines};

/// Publishes into files. The small budget brings a barrier, and with it a snapshot, every 16 MiB of log.
const PUBLISHING: &str = "log_budget_mib = 64\n[publish]\nto = \"file\"\n";

/// One decision of an outbox.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Line {
    key: String,
    key_seq: u64,
    value: Option<String>,
    id: String,
}

fn tail(cluster: &Cluster, index: usize) -> Output {
    program().arg("tail").arg(cluster.data_dir(index)).output().unwrap()
}

/// The decisions in the outbox of a replica.
fn lines(cluster: &Cluster, index: usize) -> Vec<Line> {
    let output = tail(cluster, index);
    assert!(output.status.success(), "{}", stderr(&output));
    let line = |line: &str| {
        let json: Value = serde_json::from_str(line).unwrap();
        Line {
            key: json["key"].as_str().unwrap().into(),
            key_seq: json["key_seq"].as_u64().unwrap(),
            value: json["value"].as_str().map(Into::into),
            id: json["id"].as_str().unwrap().into(),
        }
    };
    stdout(&output).lines().map(line).collect()
}

/// Each decision once, and the decisions of each key in their order.
fn check(lines: &[Line]) {
    let mut ids = BTreeSet::new();
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for Line { key, key_seq, value, id } in lines {
        assert!(ids.insert(id), "{id} is there twice");
        let before = last.entry(key).or_default();
        match value {
            Some(_) => assert_eq!(*key_seq, *before + 1, "{key}"),
            None => assert_eq!(*key_seq, *before, "{key} was deleted"),
        }
        *before = if value.is_some() { *key_seq } else { 0 };
    }
}

fn sorted(mut lines: Vec<Line>) -> Vec<Line> {
    lines.sort_unstable();
    lines
}

/// Proposes lines of about a kilobyte through some replicas, and ends when all are decided.
fn propose(cluster: &Cluster, at: &[usize], name: &str, count: usize) -> Command {
    let path = cluster.data_dir(0).with_file_name(format!("{name}.jsonl"));
    let pad = "x".repeat(900);
    let line = |number: usize| format!(r#"{{"k":"{name}-{}","n":{number},"pad":"{pad}"}}"#, number % 97);
    write_lines(&path, (0..count).map(line));
    let addresses = cluster.addresses();
    let connect: Vec<&str> = at.iter().map(|index| addresses[*index].as_str()).collect();
    let mut command = program();
    command
        .args(["propose", "--connect", &connect.join(","), "--key", "k", "--source", name, "--from"])
        .arg(path);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn done(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn every_replica_keeps_every_decision_once_and_in_order() {
    let mut cluster = Cluster::start_with(3, 1, PUBLISHING);
    let addresses = cluster.addresses().join(",");
    done(&mut propose(&cluster, &[0, 1, 2], "s", 2000));
    let command = |args: &[&str]| {
        let output = program().args(args).args(["--connect", &addresses]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    };
    command(&["delete", "s-1"]);
    command(&["propose", "s-1", "again"]);
    cluster.wait_agreed();
    for index in 0..3 {
        assert_eq!(cluster.stop(index), Some(0));
    }
    let kept: Vec<Vec<Line>> = (0..3).map(|index| lines(&cluster, index)).collect();
    for lines in &kept {
        check(lines);
        assert_eq!(lines.len(), 2002);
        let of_key: Vec<(u64, bool)> = lines
            .iter()
            .filter(|line| line.key == "s-1")
            .map(|line| (line.key_seq, line.value.is_some()))
            .collect();
        assert_eq!(of_key[of_key.len() - 2..], [(of_key.len() as u64 - 2, false), (1, true)]);
    }
    assert_eq!(sorted(kept[0].clone()), sorted(kept[1].clone()));
    assert_eq!(sorted(kept[0].clone()), sorted(kept[2].clone()));
    // A restart reads its log again and keeps nothing twice.
    cluster.spawn(0);
    cluster.spawn(1);
    cluster.wait_linked();
    assert_eq!(lines(&cluster, 0), kept[0]);
}

/// How many lines are decided while replicas are killed.
const LOAD: usize = 60_000;

#[test]
fn p2_kills_and_snapshots_lose_and_repeat_nothing() {
    let mut cluster = Cluster::start_with(3, 1, PUBLISHING);
    let mut load = propose(&cluster, &[0, 1, 2], "k", LOAD).spawn().unwrap();
    for round in 0.. {
        if load.try_wait().unwrap().is_some() {
            assert!(round > 2, "the load ends before a replica was killed");
            break;
        }
        let index = round % 3;
        cluster.kill(index);
        cluster.spawn(index);
        cluster.wait_linked();
    }
    let output = load.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    cluster.wait_agreed();
    for index in 0..3 {
        assert_eq!(cluster.stop(index), Some(0));
    }
    // A replica that was away for long takes over a snapshot, and lacks what is before it. Somebody has executed that.
    let mut together = BTreeSet::new();
    for index in 0..3 {
        let kept = lines(&cluster, index);
        if !stderr(&tail(&cluster, index)).contains("as a snapshot") {
            check(&kept);
            assert_eq!(kept.len(), LOAD, "replica {index} lacks nothing");
        }
        let ids: BTreeSet<&str> = kept.iter().map(|line| line.id.as_str()).collect();
        assert_eq!(ids.len(), kept.len(), "replica {index} keeps everything once");
        together.extend(kept);
    }
    assert_eq!(together.len(), LOAD, "all keep the same, and nothing is lost");
    assert!(!cluster.shard_files(0, 0, "snapshot").is_empty(), "no snapshot was taken");
}

#[test]
fn a_replica_that_took_over_a_snapshot_says_that_decisions_are_elsewhere() {
    let mut cluster = Cluster::start_with(3, 1, PUBLISHING);
    cluster.kill(2);
    done(&mut propose(&cluster, &[0, 1], "g", 120_000));
    fs::write(cluster.log_path(2), "").unwrap();
    cluster.spawn(2);
    cluster.wait_linked();
    cluster.wait_agreed();
    for index in 0..3 {
        assert_eq!(cluster.stop(index), Some(0));
    }
    let output = tail(&cluster, 2);
    assert!(stderr(&output).contains("as a snapshot"), "{}", stderr(&output));
    assert!(lines(&cluster, 2).len() < 120_000);
    let whole = lines(&cluster, 0);
    check(&whole);
    assert_eq!(whole.len(), 120_000);
}

#[test]
fn bad_input_of_tail_and_publish_is_told() {
    let cluster = Cluster::prepare(1, 1);
    let output = tail(&cluster, 0);
    assert_eq!(output.status.code(), Some(10), "{}", stderr(&output));
    assert!(stderr(&output).contains("is no outbox"), "{}", stderr(&output));
    for (table, said) in [
        ("[publish]\nto = \"kafkaa\"\n", "kafkaa"),
        ("[publish]\nto = \"file\"\nretain = 5\n", "retain"),
        ("[publish]\nretain_mib = 5\n", "does not say where to"),
        ("[publish]\nto = \"file\"\nretain_mib = 0\n", "`publish.retain_mib` is 0"),
    ] {
        let cluster = Cluster::prepare_with(1, 1, table);
        let output = cluster.run_to_end(0);
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
}
