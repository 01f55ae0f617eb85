//! Clients that ask one thing at a time, to see how long nothing is answered.

use anyhow::Result;
use isonomy_wire::client::{Client, discover};
use isonomy_wire::id::ReplicaId;
use isonomy_wire::route::{hash_key, home_of};
use isonomy_wire::session::Config;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::PATIENCE;
use super::stalls::Stalls;

/// Between an answer and the next request.
const PAUSE: Duration = Duration::from_millis(1);

/// The longest time without an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pause {
    /// By the clock.
    pub(crate) total: Duration,
    /// Without the time in which the whole machine stood still.
    pub(crate) running: Duration,
}

/// One client per replica, each with a key whose home is that replica.
pub(crate) struct Probers {
    stop: watch::Sender<bool>,
    clients: JoinSet<Result<Pause>>,
}

impl Probers {
    /// Starts a client for each of these replicas.
    pub(crate) async fn start(addresses: &[String], homes: &[usize], replicas: u8) -> Result<Probers> {
        let (stop, stopped) = watch::channel(false);
        let stalls = Arc::new(Stalls::watch());
        let mut clients = JoinSet::new();
        let welcome = discover(addresses).await?;
        let config = Config { deadline_us: PATIENCE.as_micros() as u64, ..Config::of(&welcome) };
        for home in homes {
            let client = Client::with(welcome.clone(), config.clone());
            let key = key_at(*home, replicas);
            // The first answer opens the stream and is not counted.
            client.decide(key.clone(), "first").await?;
            clients.spawn(probe(client, key, stopped.clone(), stalls.clone()));
        }
        Ok(Probers { stop, clients })
    }

    /// Stops them; the longest time without an answer that any of them saw.
    pub(crate) async fn worst_pause(mut self) -> Result<Pause> {
        // They end with the channel, too.
        let _ = self.stop.send(true);
        let mut worst = Pause::default();
        while let Some(pause) = self.clients.join_next().await {
            worst = worst.max(pause??);
        }
        Ok(worst)
    }
}

impl Pause {
    fn max(self, other: Pause) -> Pause {
        Pause { total: self.total.max(other.total), running: self.running.max(other.running) }
    }
}

async fn probe(
    client: Client,
    key: String,
    stopped: watch::Receiver<bool>,
    stalls: Arc<Stalls>,
) -> Result<Pause> {
    let (mut worst, mut number) = (Pause::default(), 0u64);
    while !*stopped.borrow() {
        let (asked, stalled_before) = (Instant::now(), stalls.total());
        number += 1;
        client.decide(key.clone(), number.to_string()).await?;
        let total = asked.elapsed();
        // The watcher wakes up from a stall no earlier than the answer: it gets its moment.
        tokio::time::sleep(PAUSE).await;
        let stalled = stalls.total() - stalled_before;
        worst = worst.max(Pause { total, running: total.saturating_sub(stalled) });
    }
    client.close().await;
    Ok(worst)
}

/// A key that this replica coordinates.
fn key_at(home: usize, replicas: u8) -> String {
    let keys = (0u32..).map(|n| format!("probe-{n}"));
    let mut at_home = keys.filter(|key| home_of(hash_key(key.as_bytes()), replicas) == ReplicaId(home as u8));
    at_home.next().expect("every replica is the home of some key")
}
