//! A disk that hangs under a running replica: it says so, proposes nothing and sends clients elsewhere,
//! the others decide everything, and it goes on by itself when the disk does.

mod support;

use isonomy_wire::client::{Client, discover};
use isonomy_wire::conversation::Config;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use support::disk::OwnDisk;
use support::{Cluster, PATIENCE, eventually, program, stdout};

const DISK_BYTES: u64 = 160 << 20;
/// So many that each replica is the home of some, in each shard.
const KEYS: u32 = 60;

async fn connect(address: &str) -> Client {
    let welcome = discover(&[address.to_string()]).await.unwrap();
    let config = Config { deadline_us: PATIENCE.as_micros() as u64, ..Config::of(&welcome) };
    Client::with(welcome, config)
}

/// A client that decides all keys again and again.
struct Load {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Load {
    fn start(address: String) -> Load {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), rounds.clone());
        let decide = async move {
            let client = Arc::new(connect(&address).await);
            while !stopped.load(Ordering::Relaxed) {
                decide_all(&client).await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Load { stop, rounds, thread: std::thread::spawn(move || runtime.block_on(decide)) }
    }

    fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// Decides every key once more, all at a time.
async fn decide_all(client: &Arc<Client>) {
    let decide = |key: u32| {
        let client = client.clone();
        tokio::spawn(async move {
            client.decide(key.to_string(), "value").await.unwrap();
        })
    };
    let tasks: Vec<_> = (0..KEYS).map(decide).collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// For how long the disk of a replica's first shard has not answered, as `isonomy status` tells.
fn hung_ms(address: &str) -> Option<u64> {
    let output = program().args(["status", "--output", "json", "--connect", address]).output().unwrap();
    let status: Value = serde_json::from_str(&stdout(&output)).unwrap_or_default();
    status["shards"][0]["disk_hung_ms"].as_u64()
}

#[test]
fn a_disk_that_hangs_is_told_stops_nobody_and_heals() {
    let mut cluster = Cluster::prepare(3, 2);
    let Some(disk) = OwnDisk::mount(cluster.data_dir(0), DISK_BYTES) else {
        return eprintln!("NOT TESTED: this user cannot mount a file system here; run the tests as root");
    };
    (0..3).for_each(|index| cluster.spawn(index));
    cluster.wait_linked();
    let addresses = cluster.addresses();
    // What is under way at the moment is decided, too.
    let load = Load::start(addresses[1].clone());
    eventually("load", || load.rounds() > 20);
    disk.freeze();
    eventually("a word about the disk", || cluster.log(0).contains("has not answered for"));
    eventually("a status of the disk", || hung_ms(&addresses[0]).is_some());
    let before = load.rounds();
    eventually("decisions through the others", || load.rounds() > before + 50);
    assert!(hung_ms(&addresses[0]).is_some(), "it still hangs");
    cluster.assert_running();

    disk.thaw();
    eventually("an end of it in the status", || hung_ms(&addresses[0]).is_none());
    eventually("a word about the end", || cluster.log(0).contains("answers again"));
    let fast = || cluster.status(0, 0).map_or(0, |status| status.fast);
    let before = fast();
    eventually("proposals of its own", || fast() > before);
    load.stop();
    cluster.wait_agreed();
}
