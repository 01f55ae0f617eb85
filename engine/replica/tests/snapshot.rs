//! Snapshots with real processes: backups that become new clusters, logs that were cut, and
//! replicas that were away for longer than the log holds.

mod support;

use isonomy_wire::client::{Client, discover};
use isonomy_wire::conversation::Config;
use isonomy_wire::message::WIRE_VERSION;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Output;
use support::{CLUSTER, Cluster, PATIENCE, eventually, flip_bit, program, set_version, stderr, stdout};

fn snapshot<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    program().arg("snapshot").args(arguments).output().unwrap()
}

fn ok<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> String {
    let output = snapshot(arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

/// A command that must fail with this code; what it says.
fn refused<A: AsRef<OsStr>>(code: i32, arguments: impl IntoIterator<Item = A>) -> String {
    let output = snapshot(arguments);
    assert_eq!(output.status.code(), Some(code), "{}{}", stdout(&output), stderr(&output));
    stderr(&output)
}

fn verify(path: &Path) -> [&OsStr; 2] {
    ["verify".as_ref(), path.as_os_str()]
}

fn export<'a>(dir: &'a Path, to: &'a Path) -> [&'a OsStr; 5] {
    ["export".as_ref(), "--dir".as_ref(), dir.as_os_str(), "--to".as_ref(), to.as_os_str()]
}

fn restore<'a>(from: &'a Path, config: &'a Path) -> [&'a OsStr; 5] {
    ["restore".as_ref(), "--from".as_ref(), from.as_os_str(), "--config".as_ref(), config.as_os_str()]
}

async fn connect(cluster: &Cluster) -> Client {
    let welcome = discover(&cluster.addresses()).await.unwrap();
    let config = Config { deadline_us: PATIENCE.as_micros() as u64, ..Config::of(&welcome) };
    Client::with(welcome, config)
}

/// What a key must be read as: key_seq and value.
type Expected = BTreeMap<String, (u64, Vec<u8>)>;

/// Decides values of `bytes` bytes, one after the other.
async fn load(client: &Client, expected: &mut Expected, round: u8, count: usize, bytes: usize) {
    for n in 0..count {
        let (key, value) = (format!("key-{}", n % 11), vec![round; bytes]);
        let decided = client.decide(key.clone(), value.clone()).await.unwrap();
        expected.insert(key, (decided.key_seq, value));
    }
}

async fn assert_holds(client: &Client, expected: &Expected) {
    for (key, (key_seq, value)) in expected {
        let found = client.read(key.clone()).await.unwrap().expect("it was decided");
        assert_eq!((found.key_seq, &found.value[..]), (*key_seq, &value[..]), "{key}");
    }
}

#[tokio::test]
async fn a_backup_becomes_a_new_cluster() {
    let mut old = Cluster::start(3, 2);
    let out = old.dir.path().join("backup");
    let none = refused(1, export(&old.data_dir(1), &out));
    assert!(none.contains("no snapshot yet") && none.contains("snapshot take"), "{none}");

    let (client, mut expected) = (connect(&old).await, Expected::new());
    load(&client, &mut expected, 1, 100, 3000).await;
    client.close().await;
    old.wait_agreed();
    let hashes = back_up(&old, &out);
    // What is decided from here on is not in the backup.
    let client = connect(&old).await;
    load(&client, &mut Expected::new(), 2, 50, 10).await;
    client.close().await;
    (0..3).for_each(|index| old.kill(index));

    assert_damage_is_refused(&out);
    let mut new = Cluster::prepare(3, 2);
    start_restored(&mut new, &out);
    for (shard, hash) in (0..).zip(&hashes) {
        for index in 0..3 {
            let status = new.status(index, shard).unwrap();
            assert_eq!(format!("{:016x}", status.state_hash), *hash, "replica {index}, shard {shard}");
        }
    }
    assert_is_named_by_its_id(&new);
    let client = connect(&new).await;
    assert_holds(&client, &expected).await;
    load(&client, &mut expected, 3, 50, 10).await;
    client.close().await;
    new.wait_agreed();
    // It has barriers, snapshots and restarts of its own.
    ok(["take", "--connect", &new.addresses()[0]]);
    for index in 0..3 {
        assert_eq!(new.stop(index), Some(0), "{}", new.log(index));
        new.spawn(index);
    }
    new.wait_linked();
    let client = connect(&new).await;
    assert_holds(&client, &expected).await;
    client.close().await;
}

/// Takes snapshots and exports those of replica 1; the state hash of each shard.
fn back_up(cluster: &Cluster, out: &Path) -> Vec<String> {
    let (dir, address) = (cluster.data_dir(1), &cluster.addresses()[1]);
    let taken = ok(["take", "--connect", address, "--output", "json"]);
    let taken: Vec<Value> = taken.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let listed =
        ok([OsStr::new("list"), "--output".as_ref(), "json".as_ref(), "--dir".as_ref(), dir.as_ref()]);
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((taken.len(), listed.len()), (2, 2));
    for (taken, listed) in taken.iter().zip(&listed) {
        assert_eq!((&taken["replica"], &taken["barrier"]), (&1.into(), &listed["barrier"]));
        assert!(Path::new(listed["file"].as_str().unwrap()).ends_with(taken["file"].as_str().unwrap()));
        assert!(listed["bytes"].as_u64().unwrap() > 3000 && listed["age_seconds"].is_number());
    }
    assert!(ok(verify(&dir)).contains("whole"));
    assert!(ok(verify(Path::new(listed[1]["file"].as_str().unwrap()))).contains("whole"));
    let said = ok(export(&dir, out));
    assert!(said.contains("2 shards") && said.contains("next: isonomy snapshot verify"), "{said}");
    assert!(refused(1, export(&dir, out)).contains("never overwritten"));
    assert_eq!(ok(verify(out)).lines().count(), 2);
    assert!(ok(verify(&out.join("shard-001.snapshot"))).contains("whole"));
    listed.iter().map(|it| it["state_hash"].as_str().unwrap().to_owned()).collect()
}

/// A restored cluster is none to those who mean the one that it was made from.
fn assert_is_named_by_its_id(restored: &Cluster) {
    let ask = |arguments: &[&str]| {
        let connect = restored.addresses().join(",");
        program().args(arguments).args(["--connect", &connect]).output().unwrap()
    };
    let by_name = ask(&["read", "--cluster", CLUSTER, "key-0"]);
    assert_eq!(by_name.status.code(), Some(1), "{}", stdout(&by_name));
    assert!(stderr(&by_name).contains("this is cluster"), "{}", stderr(&by_name));
    let status = stdout(&ask(&["status", "--output", "json"]));
    let status: Value = serde_json::from_str(status.lines().next().unwrap()).unwrap();
    let by_id = ask(&["read", "--cluster", status["cluster"].as_str().unwrap(), "--output", "raw", "key-0"]);
    assert!(by_id.status.success(), "{}", stderr(&by_id));
}

/// A flipped bit anywhere in the backup is found, by a restore before it makes anything.
fn assert_damage_is_refused(out: &Path) {
    let cluster = Cluster::prepare(3, 2);
    for file in ["shard-000.snapshot", "shard-001.snapshot", "manifest.json"] {
        for part in [0, 4, 9] {
            flip_bit(&out.join(file), part, 10);
            let text = refused(6, verify(out));
            assert!(text.contains(file) && text.contains("use another backup"), "{text}");
            refused(6, restore(out, &cluster.config_path(0)));
            assert!(!cluster.data_dir(0).exists(), "nothing was made");
            flip_bit(&out.join(file), part, 10);
        }
    }
    let other = Cluster::prepare(1, 2);
    assert!(refused(3, restore(out, &other.config_path(0))).contains("3 members"));
}

#[test]
fn what_is_no_snapshot_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("000000000001.snapshot");
    fs::write(&file, b"").unwrap();
    assert!(refused(1, verify(dir.path())).contains("neither a backup"));
    assert!(refused(1, verify(&file)).contains("not a snapshot in a backup"));
    assert!(refused(1, verify(&dir.path().join("missing"))).contains("check the path"));
    let listed = refused(5, [OsStr::new("list"), "--dir".as_ref(), dir.path().as_ref()]);
    assert!(listed.contains("no identity.json"), "{listed}");
}

/// Restores all members but the last, which has to be refused until it is restored too.
fn start_restored(new: &mut Cluster, out: &Path) {
    for index in 0..2 {
        let said = ok(restore(out, &new.config_path(index)));
        assert!(said.contains("next:") && said.contains("isonomy serve --config"), "{said}");
        assert!(refused(5, restore(out, &new.config_path(index))).contains("not empty"));
    }
    (0..3).for_each(|index| new.spawn(index));
    eventually("the refusal of one that begins empty", || new.log(2).contains("began with the same backup"));
    new.kill(2);
    fs::remove_dir_all(new.data_dir(2)).unwrap();
    ok(restore(out, &new.config_path(2)));
    new.spawn(2);
    new.wait_linked();
}

#[tokio::test]
async fn one_that_was_away_for_longer_than_the_log_holds_takes_over_a_snapshot() {
    let mut cluster = Cluster::prepare(3, 1);
    for index in 0..3 {
        let config = cluster.config(index) + "log_budget_mib = 64\n";
        fs::write(cluster.config_path(index), config).unwrap();
        cluster.spawn(index);
    }
    cluster.wait_linked();
    let (client, mut expected) = (connect(&cluster).await, Expected::new());
    load(&client, &mut expected, 1, 20, 1000).await;
    cluster.kill(2);
    // Nobody asks for the snapshot: the log has grown by a quarter of its budget.
    let cut = |cluster: &Cluster| {
        !cluster.shard_files(0, 0, "log")[0].ends_with("000000000001.log")
            && cluster.status(0, 0).is_some_and(|status| status.snapshot > 0)
    };
    let mut round = 2;
    while !cut(&cluster) {
        load(&client, &mut expected, round, 11, 128 << 10).await;
        round += 1;
        assert!(round < 50, "the log is never cut");
    }
    client.close().await;
    cluster.spawn(2);
    cluster.wait_linked();
    eventually("the transfer", || cluster.log(2).contains("installed the snapshot"));
    cluster.wait_agreed();

    // All start from snapshots: what lies before them is no longer in any log.
    (0..3).for_each(|index| cluster.kill(index));
    (0..3).for_each(|index| cluster.spawn(index));
    cluster.wait_linked();
    let client = connect(&cluster).await;
    assert_holds(&client, &expected).await;
    load(&client, &mut expected, 1, 11, 10).await;
    client.close().await;
    cluster.wait_agreed();
    let status: Value = serde_json::from_str(&status_of(&cluster)).unwrap();
    let shard = &status["shards"][0];
    assert!(shard["barrier"].as_u64() >= shard["snapshot"].as_u64() && shard["snapshot"] != 0, "{shard}");
    assert_eq!(shard["log_budget_bytes"], 64 << 20);
    assert!(shard["log_held_bytes"].as_u64().unwrap() > 0 && shard["fetched"].is_null(), "{shard}");
    assert!(shard["floor"].as_array().unwrap().iter().any(|seq| *seq != 0), "{shard}");
}

fn status_of(cluster: &Cluster) -> String {
    let arguments = ["status", "--output", "json", "--connect", &cluster.addresses()[2]];
    stdout(&program().args(arguments).output().unwrap())
}

#[tokio::test]
async fn a_damaged_or_missing_snapshot_keeps_its_replica_from_voting() {
    let mut cluster = Cluster::start(1, 1);
    let client = connect(&cluster).await;
    load(&client, &mut Expected::new(), 1, 20, 1000).await;
    client.close().await;
    ok(["take", "--connect", &cluster.addresses()[0]]);
    eventually("the cut", || !cluster.shard_files(0, 0, "log")[0].ends_with("000000000001.log"));
    assert_eq!(cluster.stop(0), Some(0), "{}", cluster.log(0));
    let path = cluster.shard_files(0, 0, "snapshot").pop().unwrap();
    flip_bit(&path, 1, 2);
    refused(6, verify(&cluster.data_dir(0)));
    refused(6, export(&cluster.data_dir(0), &cluster.dir.path().join("backup")));
    assert!(!cluster.dir.path().join("backup.tmp").exists(), "nothing is left of it");
    let refused_start = |cluster: &Cluster| {
        let output = cluster.run_to_end(0);
        assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
        assert!(stderr(&output).contains("Lost and damaged replicas"), "{}", stderr(&output));
    };
    refused_start(&cluster);
    fs::remove_file(&path).unwrap();
    refused_start(&cluster);
}

#[tokio::test]
async fn what_another_release_wrote_is_told_from_damage() {
    let mut cluster = Cluster::start(1, 1);
    let client = connect(&cluster).await;
    load(&client, &mut Expected::new(), 1, 20, 1000).await;
    client.close().await;
    ok(["take", "--connect", &cluster.addresses()[0]]);
    let (dir, backup) = (cluster.data_dir(0), cluster.dir.path().join("backup"));
    ok(export(&dir, &backup));
    assert_eq!(cluster.stop(0), Some(0), "{}", cluster.log(0));
    let assert_told = |text: &str| {
        let expected = format!("wire version {} wrote it, and this release reads version", WIRE_VERSION - 1);
        assert!(text.contains(&expected) && text.contains("run the release that made it"), "{text}");
    };
    let refused_start = |cluster: &Cluster| {
        let output = cluster.run_to_end(0);
        assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
        assert_told(&stderr(&output));
    };
    let in_backup = backup.join("shard-000.snapshot");
    set_version(&in_backup, WIRE_VERSION - 1);
    let fresh = Cluster::prepare(1, 1);
    assert_told(&refused(5, verify(&backup)));
    assert_told(&refused(5, restore(&backup, &fresh.config_path(0))));
    assert!(!fresh.data_dir(0).exists(), "nothing was made");
    let snapshot = cluster.shard_files(0, 0, "snapshot").pop().unwrap();
    set_version(&snapshot, WIRE_VERSION - 1);
    assert_told(&refused(5, verify(&dir)));
    assert_told(&refused(5, export(&dir, &cluster.dir.path().join("another"))));
    refused_start(&cluster);
    set_version(&snapshot, WIRE_VERSION);
    set_version(&cluster.shard_files(0, 0, "log")[0], WIRE_VERSION - 1);
    assert_told(&refused(5, verify(&dir)));
    refused_start(&cluster);
    // Nothing was changed by all that.
    set_version(&cluster.shard_files(0, 0, "log")[0], WIRE_VERSION);
    assert!(ok(verify(&dir)).contains("whole: log of"));
    cluster.spawn(0);
    cluster.wait_linked();
}

#[tokio::test]
async fn a_log_at_its_budget_takes_writes_again_once_a_snapshot_can_be_written() {
    let mut cluster = Cluster::prepare(1, 1);
    fs::write(cluster.config_path(0), cluster.config(0) + "log_budget_mib = 64\n").unwrap();
    cluster.spawn(0);
    cluster.wait_linked();
    // No file can be made under this name.
    let obstacle = cluster.data_dir(0).join("shard-000/epoch-000001/snapshot.tmp");
    fs::create_dir(&obstacle).unwrap();
    let welcome = discover(&cluster.addresses()).await.unwrap();
    let config = Config { deadline_us: 1_500_000, ..Config::of(&welcome) };
    let client = Client::with(welcome, config);
    let mut refused = false;
    for n in 0..1000 {
        let error = client.decide(format!("key-{}", n % 11), vec![1; 128 << 10]).await.err();
        refused = error.is_some_and(|error| error.to_string().contains("log_budget_mib"));
        if refused {
            break;
        }
    }
    assert!(refused, "the budget is met");
    client.close().await;
    let client = connect(&cluster).await;
    assert!(client.read("key-0").await.unwrap().is_some(), "reads go on");
    fs::remove_dir(&obstacle).unwrap();
    client.decide("key", "value").await.unwrap();
    client.close().await;
}
