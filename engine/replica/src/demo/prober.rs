//! Clients that ask one thing at a time, to see how long nothing is answered.

use anyhow::Result;
use isonomy_wire::client::{Client, discover};
use isonomy_wire::conversation::Config;
use isonomy_wire::id::ReplicaId;
use isonomy_wire::route::{hash_key, home_of};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::PATIENCE;
use super::stalls::Stalls;

/// The time between an answer and the next request.
const PAUSE: Duration = Duration::from_millis(1);

/// The longest time without an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pause {
    /// The time by the clock.
    pub(crate) total: Duration,
    /// The time without the stalls of the whole machine.
    pub(crate) running: Duration,
}

/// One client per replica, each with a key whose home is that replica.
pub(crate) struct Probers {
    stop: watch::Sender<bool>,
    clients: JoinSet<Result<()>>,
    worst: Arc<Mutex<Pause>>,
}

impl Probers {
    /// Starts a client for each of these replicas.
    pub(crate) async fn start(addresses: &[String], homes: &[usize], replicas: u8) -> Result<Probers> {
        let (stop, stopped) = watch::channel(false);
        let (stalls, worst) = (Arc::new(Stalls::watch()), Arc::new(Mutex::default()));
        let mut clients = JoinSet::new();
        let welcome = discover(addresses).await?;
        let config = Config { deadline_us: PATIENCE.as_micros() as u64, ..Config::of(&welcome) };
        for home in homes {
            let client = Client::with(welcome.clone(), config.clone());
            let key = key_at(*home, replicas);
            // The first answer opens the session and is not counted.
            client.decide(key.clone(), "first").await?;
            clients.spawn(probe(client, key, stopped.clone(), stalls.clone(), worst.clone()));
        }
        Ok(Probers { stop, clients, worst })
    }

    /// The longest time without an answer that any client saw since the last call.
    pub(crate) fn take_worst(&self) -> Pause {
        std::mem::take(&mut *self.worst.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops them; the longest time since it was last asked, the waits that end now included.
    pub(crate) async fn finish(mut self) -> Result<Pause> {
        // They end with the channel, too.
        let _ = self.stop.send(true);
        while let Some(ended) = self.clients.join_next().await {
            ended??;
        }
        Ok(self.take_worst())
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
    worst: Arc<Mutex<Pause>>,
) -> Result<()> {
    let mut number = 0u64;
    while !*stopped.borrow() {
        let (asked, stalled_before) = (Instant::now(), stalls.total());
        number += 1;
        client.decide(key.clone(), number.to_string()).await?;
        let total = asked.elapsed();
        // The watcher wakes up from a stall no earlier than the answer: it gets its moment.
        tokio::time::sleep(PAUSE).await;
        let stalled = stalls.total() - stalled_before;
        let pause = Pause { total, running: total.saturating_sub(stalled) };
        let mut worst = worst.lock().unwrap_or_else(PoisonError::into_inner);
        *worst = worst.max(pause);
    }
    client.close().await;
    Ok(())
}

/// A key that this replica coordinates.
fn key_at(home: usize, replicas: u8) -> String {
    let keys = (0u32..).map(|n| format!("probe-{n}"));
    let mut at_home = keys.filter(|key| home_of(hash_key(key.as_bytes()), replicas) == ReplicaId(home as u8));
    at_home.next().expect("every replica is the home of some key")
}
