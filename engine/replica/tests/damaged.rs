//! Logs that have lost a part, with real processes: the replica does not vote (law, D6), the others do,
//! and nothing that was acknowledged is lost.

mod support;

use isonomy_wire::client::{Client, discover};
use isonomy_wire::conversation::Config;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use support::{Cluster, PATIENCE, eventually, program, stderr, stdout};

const BLOCK_BYTES: usize = 4096;

async fn connect(cluster: &Cluster) -> Client {
    let addresses: Vec<String> =
        cluster.running().into_iter().map(|index| cluster.addresses()[index].clone()).collect();
    let welcome = discover(&addresses).await.unwrap();
    let config = Config { deadline_us: PATIENCE.as_micros() as u64, ..Config::of(&welcome) };
    Client::with(welcome, config)
}

async fn decide(cluster: &Cluster, keys: std::ops::Range<usize>) {
    let client = connect(cluster).await;
    for key in keys {
        client.decide(format!("key-{key}"), format!("value-{key}")).await.unwrap();
    }
    client.close().await;
}

async fn assert_holds(cluster: &Cluster, keys: std::ops::Range<usize>) {
    let client = connect(cluster).await;
    for key in keys {
        let found = client.read(format!("key-{key}")).await.unwrap().expect("it was acknowledged");
        assert_eq!((found.key_seq, &found.value[..]), (1, format!("value-{key}").as_bytes()));
    }
    client.close().await;
}

fn lose_head(path: &Path) {
    File::options().write(true).open(path).unwrap().write_all(&[0; BLOCK_BYTES]).unwrap();
}

/// The segment that was written last.
fn active(cluster: &Cluster, index: usize) -> PathBuf {
    let begun = |path: &PathBuf| fs::read(path).unwrap()[..BLOCK_BYTES].iter().any(|byte| *byte != 0);
    cluster.shard_files(index, 0, "log").into_iter().rfind(begun).expect("the log has begun")
}

/// It says what is wrong and what to do, when it starts and when it is verified.
fn assert_refused(cluster: &Cluster, index: usize, what: &str) {
    let verify = program().args(["snapshot", "verify"]).arg(cluster.data_dir(index)).output().unwrap();
    for output in [cluster.run_to_end(index), verify] {
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(6), "{text}{}", stdout(&output));
        assert!(text.contains(what) && text.contains("must not vote"), "{text}");
        assert!(text.contains("Lost and damaged replicas"), "{text}");
    }
}

fn verified(cluster: &Cluster, index: usize) -> String {
    let output = program().args(["snapshot", "verify"]).arg(cluster.data_dir(index)).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

fn take_snapshot(cluster: &Cluster, index: usize) {
    let taken =
        program().args(["snapshot", "take", "--connect", &cluster.addresses()[index]]).output().unwrap();
    assert!(taken.status.success(), "{}", stderr(&taken));
}

/// One is away, five decisions are acknowledged by the other two, and one of these loses a part of its
/// log. With the one that was away it would be a majority that has forgotten them.
async fn five_more_are_not_forgotten(snapshot: bool, damage: fn(&Path), what: &str) {
    let mut cluster = Cluster::start(3, 1);
    decide(&cluster, 0..20).await;
    if snapshot {
        take_snapshot(&cluster, 0);
        cluster.wait_agreed();
        eventually("the cut", || !cluster.shard_files(0, 0, "log")[0].ends_with("000000000001.log"));
    }
    assert_eq!(cluster.stop(2), Some(0), "{}", cluster.log(2));
    decide(&cluster, 20..25).await;
    cluster.kill(1);
    cluster.kill(0);
    damage(&active(&cluster, 0));
    cluster.spawn(2);
    assert_refused(&cluster, 0, what);
    // The healthy one comes back: two of three have all that was acknowledged.
    cluster.spawn(1);
    cluster.wait_linked();
    assert_holds(&cluster, 0..25).await;
    decide(&cluster, 25..30).await;
    cluster.wait_agreed();
    cluster.assert_running();
}

#[tokio::test]
async fn a_log_without_its_head_does_not_vote() {
    five_more_are_not_forgotten(true, lose_head, "its first block is empty").await;
}

#[tokio::test]
async fn a_log_without_the_segment_in_use_does_not_vote() {
    five_more_are_not_forgotten(true, |path| fs::remove_file(path).unwrap(), "but it is empty").await;
}

#[tokio::test]
async fn nor_before_the_first_snapshot() {
    let all = |path: &Path| {
        for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    };
    five_more_are_not_forgotten(false, all, "the log ends with record 0").await;
}

#[tokio::test]
async fn what_is_missing_of_a_directory_is_told_by_start_and_verify() {
    let mut cluster = Cluster::start(1, 2);
    decide(&cluster, 0..40).await;
    // Beside a replica that runs it is verified as well.
    let said = verified(&cluster, 0);
    assert_eq!(said.matches("whole: log of").count(), 2, "{said}");
    assert_eq!(cluster.stop(0), Some(0), "{}", cluster.log(0));
    verified(&cluster, 0);
    let (dir, first) = (cluster.data_dir(0).join("shard-000/epoch-000001"), active(&cluster, 0));
    let away = dir.with_file_name("away");

    fs::rename(&first, &away).unwrap();
    assert_refused(&cluster, 0, "the log begins with segment 2, and its snapshot is missing");
    fs::rename(&away, &first).unwrap();

    let head = fs::read(&first).unwrap()[..BLOCK_BYTES].to_vec();
    lose_head(&first);
    assert_refused(&cluster, 0, "its first block is empty");
    File::options().write(true).open(&first).unwrap().write_all(&head).unwrap();

    fs::rename(&dir, &away).unwrap();
    assert_refused(&cluster, 0, "the directory of this shard is missing");
    assert!(!dir.exists(), "it is not made anew");
    fs::create_dir(&dir).unwrap();
    assert_refused(&cluster, 0, "the log ends with record 0");
    fs::remove_dir(&dir).unwrap();
    fs::rename(&away, &dir).unwrap();

    cluster.spawn(0);
    cluster.wait_linked();
    assert_holds(&cluster, 0..40).await;
}

/// Who verifies reads what is written and cut meanwhile, and neither finds damage nor disturbs.
#[tokio::test]
async fn a_log_that_is_written_and_cut_is_verified() {
    let mut cluster = Cluster::start_with(1, 1, "log_budget_mib = 64\n");
    let client = connect(&cluster).await;
    let verify = std::thread::spawn({
        let dir = cluster.data_dir(0);
        move || {
            let runs = (0..20).map(|_| program().args(["snapshot", "verify"]).arg(&dir).output().unwrap());
            runs.collect::<Vec<_>>()
        }
    });
    let mut round = 0;
    while !verify.is_finished() || cluster.shard_files(0, 0, "log")[0].ends_with("000000000001.log") {
        client.decide(format!("key-{}", round % 11), vec![1; 128 << 10]).await.unwrap();
        round += 1;
    }
    client.close().await;
    for output in verify.join().unwrap() {
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    }
    cluster.assert_running();
}
