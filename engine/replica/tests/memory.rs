//! How much memory a replica needs to come back, beside what it needed to run.

mod support;

use isonomy_wire::client::{Client, discover};
use isonomy_wire::conversation::Config;
use support::{Cluster, PATIENCE};

const SHARDS: u16 = 8;
/// Docs: what a restart may need for each shard beyond what running needs.
const SHARD_BYTES: u64 = 2 << 20;
/// More than one segment of the log for each shard.
const DECISIONS: usize = 800;
const KEYS: usize = 64;
const VALUE_BYTES: usize = 200 << 10;

async fn load(cluster: &Cluster) {
    let welcome = discover(&cluster.addresses()).await.unwrap();
    let config = Config { deadline_us: PATIENCE.as_micros() as u64, ..Config::of(&welcome) };
    let client = Client::with(welcome, config);
    for n in 0..DECISIONS {
        client.decide(format!("key-{}", n % KEYS), vec![n as u8; VALUE_BYTES]).await.unwrap();
    }
    client.close().await;
}

#[tokio::test]
async fn a_restart_needs_the_memory_of_running_and_a_little_per_shard() {
    let mut cluster = Cluster::start(1, SHARDS);
    load(&cluster).await;
    let running = cluster.peak_bytes(0);
    for _ in 0..2 {
        cluster.kill(0);
        cluster.spawn(0);
        cluster.wait_linked();
        let restarted = cluster.peak_bytes(0);
        let most = running + running / 2 + u64::from(SHARDS) * SHARD_BYTES;
        assert!(restarted <= most, "{} MiB, running {} MiB", restarted >> 20, running >> 20);
    }
}
