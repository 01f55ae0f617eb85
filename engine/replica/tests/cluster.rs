//! Three real replicas: they agree, lose nothing to kill -9 or a stop, and go on.

mod support;

use isonomy_wire::client::{Client, Decided, discover};
use isonomy_wire::conversation::Config;
use std::collections::BTreeMap;
use support::{Cluster, PATIENCE, eventually};
use tokio::task::JoinSet;

/// A client with the patience that a loaded machine asks for.
async fn connect(addresses: &[String]) -> Client {
    let welcome = discover(addresses).await.unwrap();
    let config = Config { deadline_us: PATIENCE.as_micros() as u64, ..Config::of(&welcome) };
    Client::with(welcome, config)
}

/// Decides `count` numbered values on a few keys from many tasks at once; the highest key_seq
/// answered per key.
async fn load(client: &Client, round: u32, count: u32) -> BTreeMap<String, u64> {
    let mut open = JoinSet::new();
    for n in 0..count {
        let client = client.clone();
        open.spawn(async move {
            let key = format!("key-{}", n % 17);
            let decided = client.decide(key.clone(), format!("{round}/{n}")).await;
            (key, decided.expect("a majority is up").key_seq)
        });
    }
    let mut highest = BTreeMap::new();
    while let Some(done) = open.join_next().await {
        let (key, key_seq) = done.unwrap();
        let entry: &mut u64 = highest.entry(key).or_default();
        *entry = key_seq.max(*entry);
    }
    highest
}

/// Nothing acknowledged is missing, and nothing was decided twice.
async fn assert_counts(client: &Client, expected: &BTreeMap<String, u64>) {
    for (key, key_seq) in expected {
        let found = client.read(key.clone()).await.unwrap().expect("it was decided");
        assert_eq!(found.key_seq, *key_seq, "{key}");
    }
}

#[tokio::test]
async fn decisions_survive_a_stop_and_a_kill_of_all() {
    let mut cluster = Cluster::start(3, 2);
    let mut expected = BTreeMap::new();
    for round in 0..3u32 {
        let client = connect(&cluster.addresses()).await;
        assert_counts(&client, &expected).await;
        let highest = load(&client, round, 300).await;
        for key_seq in highest.values() {
            let before = u64::from(round) * 300 / 17;
            assert!(*key_seq > before, "round {round} goes on where the last one ended: {key_seq}");
        }
        expected = highest;
        // In good order, then not.
        client.close().await;
        if round == 0 {
            cluster.wait_agreed();
            for index in 0..3 {
                assert_eq!(cluster.stop(index), Some(0), "{}", cluster.log(index));
            }
        } else {
            (0..3).for_each(|index| cluster.kill(index));
        }
        (0..3).for_each(|index| cluster.spawn(index));
        cluster.wait_linked();
    }
    let client = connect(&cluster.addresses()).await;
    assert_counts(&client, &expected).await;
    let total: u64 = expected.values().sum();
    assert_eq!(total, 900, "each request was decided once");
    client.close().await;
    cluster.wait_agreed();
}

#[tokio::test]
async fn one_killed_replica_stops_nobody_and_catches_up() {
    let mut cluster = Cluster::start(3, 1);
    // Only the survivors are named; the third is found through them.
    let addresses = cluster.addresses();
    let client = connect(&addresses[..2]).await;
    load(&client, 0, 200).await;
    let going_on = tokio::spawn({
        let client = client.clone();
        async move {
            let mut highest = BTreeMap::new();
            for round in 1..20 {
                highest = load(&client, round, 50).await;
            }
            highest
        }
    });
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    cluster.kill(2);
    let highest = going_on.await.unwrap();
    let total: u64 = highest.values().sum();
    assert!(total > 0);
    cluster.spawn(2);
    cluster.wait_linked();
    assert_counts(&client, &highest).await;
    client.close().await;
    cluster.wait_agreed();
}

#[tokio::test]
async fn without_a_majority_nothing_is_promised() {
    let mut cluster = Cluster::start(3, 1);
    let addresses = cluster.addresses();
    let client = connect(&addresses).await;
    client.decide("key", "before").await.unwrap();
    cluster.kill(1);
    cluster.kill(2);
    let config = Config { deadline_us: 4_000_000, ..Config::of(client.welcome()) };
    let hasty = Client::with(client.welcome().clone(), config);
    let error = hasty.decide("key", "meanwhile").await.expect_err("there is no majority");
    assert!(!error.to_string().is_empty());
    cluster.spawn(1);
    cluster.spawn(2);
    cluster.wait_linked();
    // Whatever became of the request in between, it is decided at most once.
    let after = client.decide("key", "after").await.unwrap();
    assert!((2..=3).contains(&after.key_seq), "{after:?}");
}

#[tokio::test]
async fn first_writer_wins_among_many_clients() {
    let cluster = Cluster::start(3, 1);
    let mut open = JoinSet::new();
    for n in 0..12 {
        let address = cluster.addresses().swap_remove(n % 3);
        open.spawn(async move {
            let client = connect(&[address]).await;
            let decided = client.decide_if("leader", format!("client {n}"), 0).await.unwrap();
            client.close().await;
            decided
        });
    }
    let (mut won, mut values) = (0, Vec::new());
    while let Some(decided) = open.join_next().await {
        match decided.unwrap() {
            Decided::Committed(committed) => {
                assert_eq!(committed.key_seq, 1);
                won += 1;
            }
            Decided::Rejected { key_seq, value } => {
                assert_eq!(key_seq, 1);
                values.push(value.expect("it is small"));
            }
        }
    }
    assert_eq!(won, 1);
    assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "all losers see the one winner");
    let client = connect(&cluster.addresses()).await;
    assert_eq!(client.read("leader").await.unwrap().unwrap().value, values[0]);
    assert!(client.delete("leader").await.unwrap().is_some());
    assert!(client.read("leader").await.unwrap().is_none());
    cluster.wait_agreed();
}

#[tokio::test]
async fn clusters_of_one_and_five_decide_too() {
    for replicas in [1, 5] {
        let cluster = Cluster::start(replicas, 1);
        let client = connect(&cluster.addresses()).await;
        let highest = load(&client, 0, 100).await;
        assert_eq!(highest.values().sum::<u64>(), 100, "{replicas} replicas");
        client.close().await;
        cluster.wait_agreed();
    }
}

/// The flags with which a process has its open files of this extension, as /proc tells them.
fn flags_of(pid: u32, extension: &str) -> Vec<i32> {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap().path());
    let is_meant = |path: &std::path::PathBuf| {
        std::fs::read_link(path).is_ok_and(|target| target.extension().is_some_and(|it| it == extension))
    };
    let flags = |path: std::path::PathBuf| {
        let info = format!("/proc/{pid}/fdinfo/{}", path.file_name().unwrap().to_str().unwrap());
        let text = std::fs::read_to_string(info).unwrap();
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        i32::from_str_radix(flags, 8).unwrap()
    };
    open.filter(is_meant).map(flags).collect()
}

/// A write of the log returns when the disk has it, and goes there at once.
#[test]
fn the_segment_in_use_is_open_for_direct_writes_that_are_synced() {
    for (durability, synced) in [("fsync", libc::O_DSYNC), ("os", 0)] {
        let cluster = Cluster::start_with(1, 2, &format!("durability = \"{durability}\"\n"));
        let flags = flags_of(cluster.pid(0), "log");
        assert_eq!(flags.len(), 2, "{durability}: a segment for each shard");
        for flags in flags {
            assert_eq!(flags & (libc::O_DSYNC | libc::O_DIRECT), libc::O_DIRECT | synced, "{durability}");
        }
    }
}

#[test]
fn the_status_tells_how_links_end_and_come_back() {
    let mut cluster = Cluster::start(3, 1);
    let peer = |cluster: &Cluster, of: u8| {
        let status = cluster.status(0, 0).unwrap();
        status.peers.into_iter().find(|peer| peer.replica.0 == of).unwrap()
    };
    let before = [1, 2].map(|of| peer(&cluster, of));
    for peer in &before {
        assert_eq!(
            (peer.opened - peer.ended, peer.heard - peer.silenced, peer.retry_ms),
            (1, 1, 0),
            "{peer:?}"
        );
    }
    cluster.kill(2);
    eventually("the end of both links", || {
        let now = peer(&cluster, 2);
        now.ended == now.opened && now.silenced == now.heard && now.retry_ms > 0 && now.lost > before[1].lost
    });
    cluster.spawn(2);
    cluster.wait_linked();
    let now = peer(&cluster, 2);
    assert_eq!((now.opened - now.ended, now.heard - now.silenced, now.retry_ms), (1, 1, 0), "{now:?}");
    assert!(now.opened > before[1].opened && now.heard > before[1].heard, "{now:?}");
    let other = peer(&cluster, 1);
    assert_eq!((other.opened, other.heard), (before[0].opened, before[0].heard), "it was there all the time");
    let output = support::program().args(["status", "--connect", &cluster.addresses()[0]]).output().unwrap();
    let line = format!("peer 2  links opened/ended {}/{}", now.opened, now.ended);
    assert!(support::stdout(&output).contains(&line), "{}", support::stdout(&output));
}
