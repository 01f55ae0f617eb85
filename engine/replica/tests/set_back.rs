//! A data directory that was set back: the copy of it that is put back, or runs beside it, takes no part,
//! says why, and harms nobody. What starts in good order, or after a crash, is not taken for one.

mod support;

use isonomy_wire::client::{Client, discover};
use isonomy_wire::conversation::Config;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Cluster, PATIENCE, eventually, program, stderr};

async fn connect(cluster: &Cluster, index: usize) -> Client {
    let welcome = discover(&[cluster.addresses()[index].clone()]).await.unwrap();
    let config = Config { deadline_us: PATIENCE.as_micros() as u64, ..Config::of(&welcome) };
    Client::with(welcome, config)
}

/// Decides these keys one after the other; each is decided once.
async fn decide(client: &Client, keys: std::ops::Range<u32>) {
    for key in keys {
        let decided = client.decide(key.to_string(), key.to_string()).await.unwrap();
        assert_eq!(decided.key_seq, 1, "key {key}");
    }
}

/// Nothing acknowledged is missing, and nothing was decided twice.
async fn assert_decided(client: &Client, keys: std::ops::Range<u32>) {
    for key in keys {
        let found = client.read(key.to_string()).await.unwrap().expect("it was decided");
        assert_eq!((found.key_seq, &found.value[..]), (1, key.to_string().as_bytes()), "key {key}");
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// What was copied of a replica's directory takes its place.
fn put_back(cluster: &Cluster, index: usize, copied: &Path) {
    fs::remove_dir_all(cluster.data_dir(index)).unwrap();
    fs::rename(copied, cluster.data_dir(index)).unwrap();
}

fn copied_path(cluster: &Cluster) -> PathBuf {
    cluster.dir.path().join("copied")
}

/// It ends with code 6 and says what to do, also when it is started again.
fn assert_refused(cluster: &mut Cluster, index: usize) {
    for times in 1..=2 {
        cluster.spawn(index);
        assert_eq!(cluster.wait_ended(index), Some(6), "{}", cluster.log(index));
        let told = cluster.log(index).matches("set back or copied").count();
        assert!(told >= times && cluster.log(index).contains("Lost and damaged replicas"));
    }
}

#[tokio::test]
async fn an_older_copy_of_a_stopped_directory_takes_no_part() {
    let mut cluster = Cluster::start(3, 2);
    let client = connect(&cluster, 0).await;
    decide(&client, 0..20).await;
    cluster.wait_agreed();
    assert_eq!(cluster.stop(2), Some(0), "{}", cluster.log(2));
    let copied = copied_path(&cluster);
    copy(&cluster.data_dir(2), &copied);
    cluster.spawn(2);
    cluster.wait_linked();
    decide(&client, 20..40).await;
    cluster.kill(2);
    // One that knows better is enough.
    assert_eq!(cluster.stop(1), Some(0), "{}", cluster.log(1));
    put_back(&cluster, 2, &copied);
    assert_refused(&mut cluster, 2);
    assert!(
        cluster.log(0).contains("replica 2 has a data directory that was set back"),
        "the peer says so, too"
    );
    cluster.spawn(1);
    cluster.wait_linked();
    assert_decided(&client, 0..40).await;
    decide(&client, 40..60).await;
    client.close().await;
    cluster.wait_agreed();
    cluster.assert_running();
}

#[tokio::test]
async fn a_copy_of_a_running_directory_takes_no_part_when_it_is_put_back() {
    let mut cluster = Cluster::start(3, 1);
    let client = connect(&cluster, 0).await;
    decide(&client, 0..20).await;
    cluster.wait_agreed();
    let copied = copied_path(&cluster);
    copy(&cluster.data_dir(2), &copied);
    decide(&client, 20..220).await;
    cluster.wait_agreed();
    // Its next start would be the same with the copy: only its log tells.
    cluster.kill(2);
    // What the others have heard outlives them.
    decide(&client, 220..240).await;
    client.close().await;
    cluster.kill(0);
    cluster.kill(1);
    put_back(&cluster, 2, &copied);
    (0..2).for_each(|index| cluster.spawn(index));
    cluster.wait_linked();
    assert_refused(&mut cluster, 2);
    let client = connect(&cluster, 0).await;
    assert_decided(&client, 0..240).await;
    decide(&client, 240..260).await;
    client.close().await;
    cluster.assert_running();
}

#[tokio::test]
async fn a_copy_beside_the_original_is_refused_and_harms_nobody() {
    // A log that tells nothing of how far it reaches: all that gives the copy away is that the original
    // lives.
    let mut cluster = Cluster::start_with(3, 1, "durability = \"os\"\n");
    let client = connect(&cluster, 0).await;
    decide(&client, 0..20).await;
    cluster.wait_agreed();
    let copied = copied_path(&cluster);
    copy(&cluster.data_dir(2), &copied);
    // The same member, elsewhere.
    let elsewhere = Cluster::prepare(1, 1);
    let config = cluster
        .config(2)
        .replace(&cluster.data_dir(2).display().to_string(), &copied.display().to_string())
        .replace(
            &format!("peer_base = {}, client_base = {}", cluster.peer_bases[2], cluster.client_bases[2]),
            &format!("peer_base = {}, client_base = {}", elsewhere.peer_bases[0], elsewhere.client_bases[0]),
        );
    let path = cluster.dir.path().join("copied.toml");
    fs::write(&path, config + "durability = \"os\"\n").unwrap();
    let output = program().arg("serve").arg("--config").arg(&path).output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(5), "{text}");
    assert!(text.contains("another process of replica 2") && text.contains("stop that one"), "{text}");
    assert!(cluster.log(0).contains("another process of replica 2"), "{}", cluster.log(0));
    cluster.assert_running();
    decide(&client, 20..40).await;
    client.close().await;
    cluster.wait_agreed();
    // The original was not taken for another one since.
    cluster.kill(2);
    cluster.spawn(2);
    cluster.wait_linked();
    cluster.wait_agreed();
}

#[tokio::test]
async fn restarts_after_a_kill_are_what_they_seem() {
    let mut cluster = Cluster::start(3, 2);
    let client = connect(&cluster, 0).await;
    for round in 0..20 {
        decide(&client, 10 * round..10 * (round + 1)).await;
        cluster.kill(2);
        cluster.spawn(2);
        cluster.wait_linked();
    }
    client.close().await;
    for _ in 0..2 {
        (0..3).for_each(|index| cluster.kill(index));
        (0..3).for_each(|index| cluster.spawn(index));
        cluster.wait_linked();
    }
    // One that does not answer is not waited for.
    cluster.kill(1);
    cluster.kill(2);
    cluster.spawn(2);
    cluster.wait_linked();
    let client = connect(&cluster, 0).await;
    assert_decided(&client, 0..200).await;
    decide(&client, 200..210).await;
    client.close().await;
    eventually("agreement", || {
        let [one, other] =
            [0, 2].map(|index| cluster.status(index, 0).map(|it| (it.frontier, it.state_hash)));
        one.is_some() && one == other
    });
}
