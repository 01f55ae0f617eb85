//! What a paused replica costs clients.

use super::load::{Key, Load, Style};
use super::support::Cluster;
use rustix::process::Signal;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Until clients are under way, and until a paused replica has caught up.
const SETTLE: Duration = Duration::from_secs(3);
/// How long each throughput is measured.
const MEASURED: Duration = Duration::from_secs(8);

/// Enough commands on enough keys to keep the replicas busy.
const STYLE: Style = Style {
    keys_open: 256,
    commands_per_client: 32,
    pause: Duration::ZERO,
    client_life_max: Duration::from_secs(3600),
    varied: false,
};

/// Answers per second.
pub(crate) struct Cost {
    /// While all replicas run, before and after the pause.
    pub(crate) all: f64,
    /// From the first moment of its pause on, to clients that spoke to it before.
    pub(crate) paused: f64,
    /// To clients that came during the pause.
    pub(crate) avoided: f64,
}

/// Pauses this replica; what it costs, and what the clients were told.
pub(crate) fn measure(cluster: &mut Cluster, replica: usize, seed: u64) -> (Cost, Vec<Key>) {
    let addresses = cluster.addresses();
    let load = Load::start(addresses.clone(), &format!("paused-{replica}"), STYLE, seed);
    sleep(SETTLE);
    let before = rate(&load);
    cluster.signal(replica, Signal::STOP);
    let paused = rate(&load);
    cluster.signal(replica, Signal::CONT);
    cluster.wait_linked();
    sleep(SETTLE);
    let all = (before + rate(&load)) / 2.0;
    let (mut keys, _) = load.finish(&addresses);

    cluster.signal(replica, Signal::STOP);
    let mut others = addresses.clone();
    others.remove(replica);
    let load = Load::start(others, &format!("avoided-{replica}"), STYLE, seed);
    sleep(SETTLE);
    let avoided = rate(&load);
    cluster.signal(replica, Signal::CONT);
    cluster.wait_linked();
    keys.extend(load.finish(&addresses).0);
    (Cost { all, paused, avoided }, keys)
}

fn rate(load: &Load) -> f64 {
    let (before, began) = (load.progress().answered, Instant::now());
    sleep(MEASURED);
    (load.progress().answered - before) as f64 / began.elapsed().as_secs_f64()
}
