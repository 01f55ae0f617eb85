//! The shards of a replica, as the process's main thread sees them: their threads, and what crosses the mesh.

use crate::config::{Config, Durability, MemberConfig};
use crate::fatal::{Fatal, Reason};
use crate::logging;
use crate::membership::Membership;
use isonomy_mesh::{FromShard, MemberAddress, ProcessEnd, ShardSettings, ToShard, connect};
use isonomy_shard::data_dir::DataDir;
use isonomy_shard::{Ports, Resolver, Settings, spawn};
use isonomy_tuning::cores;
use isonomy_wire::id::ShardId;
use isonomy_wire::message::ShardStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

fn address(member: &MemberConfig) -> MemberAddress {
    let MemberConfig { host, peer_base, client_base } = member;
    MemberAddress { host: host.clone(), peer_base: *peer_base, client_base: *client_base }
}

/// How often it is tried to put the order to stop into a lane that is full.
const LANE_RETRY: Duration = Duration::from_millis(20);

/// Wakes a thread that has parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A shard that was started.
struct Shard {
    /// Until the shard has ended.
    thread: Option<JoinHandle<()>>,
    end: ProcessEnd,
    is_ready: bool,
    /// What the shard measured last.
    metrics: Option<Box<ShardStatus>>,
    /// Where the shard was told last that the members are.
    addresses: Vec<MemberAddress>,
    /// The settings that the shard was told last; those with which it starts.
    settings: ShardSettings,
}

/// All shards of a replica.
pub(crate) struct Shards {
    shards: Vec<Shard>,
    /// The members, if they are named in etcd.
    membership: Option<Membership>,
    /// The settings of the protocol, if the members are not named in etcd.
    settings: ShardSettings,
}

impl Shards {
    /// Starts a shard for each pair of ports. What the shards say wakes the calling thread.
    pub(crate) fn start(
        config: &Config,
        data_dir: &DataDir,
        ports: Vec<Ports>,
        unreachable: Option<String>,
        membership: Option<Membership>,
    ) -> Result<Shards, Fatal> {
        let resolver = Resolver::default();
        let usable = if config.cores.is_empty() { cores::usable() } else { config.cores.clone() };
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let start = |(index, ports)| {
            let settings = Settings {
                replica: config.replica,
                members: config.members.iter().map(address).collect(),
                shard: ShardId(index as u16),
                shards: config.shards,
                core: cores::in_turn(&usable, index),
                outlives_power: config.durability == Durability::Fsync,
                connections_max: config.connections_max,
                log_budget: config.log_budget,
                source_expiry: config.source_expiry,
                resolver: resolver.clone(),
                unreachable: unreachable.clone(),
                log_lines_dropped: logging::dropped,
            };
            let (end, shard_end) = connect();
            end.news.listen(&waker);
            let thread = Some(spawn(settings, data_dir.clone(), ports, shard_end)?);
            let addresses = config.members.iter().map(address).collect();
            let settings = ShardSettings::default();
            Ok(Shard { thread, end, is_ready: false, metrics: None, addresses, settings })
        };
        let shards = ports.into_iter().enumerate().map(start).collect::<Result<_, Fatal>>()?;
        let settings = ShardSettings { tuning: config.settings.tuning(), is_slow_agreed: false };
        Ok(Shards { shards, membership, settings })
    }

    /// Waits until all shards serve, or the process is told to stop. Returns whether they serve.
    pub(crate) fn wait_ready(&mut self, stopping: &AtomicBool) -> bool {
        loop {
            self.hear();
            if self.shards.iter().all(|shard| shard.is_ready) {
                return true;
            }
            if stopping.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::park();
        }
    }

    /// Waits until the process is told to stop, and stops the shards. Returns the number of decisions that were executed
    /// since the start.
    pub(crate) fn run(mut self, stopping: &AtomicBool) -> Result<u64, Fatal> {
        while !stopping.load(Ordering::Relaxed) {
            self.hear();
            std::thread::park();
        }
        let mut untold: Vec<&Shard> = self.shards.iter().collect();
        loop {
            // A shard that stands still takes its orders when it goes on, and the others stop meanwhile.
            untold.retain(|shard| shard.end.orders.send(ToShard::Stop).is_err());
            if untold.is_empty() {
                break;
            }
            std::thread::sleep(LANE_RETRY);
        }
        self.shards.into_iter().map(Shard::end).sum()
    }

    /// Takes what the shards have said, and tells them where the members are now, and the settings.
    fn hear(&mut self) {
        self.shards.iter_mut().for_each(Shard::hear);
        let loss = self.shards.iter().find_map(|shard| shard.metrics.as_ref()?.path.loss);
        let settings = self.membership.as_ref().map_or(self.settings, |membership| membership.settings(loss));
        self.shards.iter_mut().for_each(|shard| shard.tune(settings));
        if let Some(membership) = &self.membership {
            let addresses = membership.addresses();
            self.shards.iter_mut().for_each(|shard| shard.move_members(&addresses));
        }
    }
}

impl Shard {
    /// Waits for the end of the shard. Returns the number of decisions that it has executed.
    fn end(mut self) -> Result<u64, Fatal> {
        self.hear();
        // A lane has room for what a shard says until it ends.
        let thread = self.thread.take().expect("a shard ends once");
        thread.join().map_err(|_| Fatal::new(Reason::Failed, "a shard has panicked; see the text above"))?;
        self.hear();
        Ok(self.metrics.map_or(0, |metrics| metrics.decisions))
    }

    /// Tells the shard where the members are, unless it knows. A shard that does not take its orders for so long that the
    /// lane is full is told when it has said something again.
    fn move_members(&mut self, addresses: &[MemberAddress]) {
        if self.addresses != addresses && self.end.orders.send(ToShard::Addresses(addresses.to_vec())).is_ok()
        {
            self.addresses = addresses.to_vec();
        }
    }

    /// Tells the shard the settings, unless it knows, like the places of the members.
    fn tune(&mut self, settings: ShardSettings) {
        if self.settings != settings && self.end.orders.send(ToShard::Settings(settings)).is_ok() {
            self.settings = settings;
        }
    }

    /// Takes what the shard has said.
    fn hear(&mut self) {
        for news in self.end.news.take() {
            match news {
                FromShard::Ready => self.is_ready = true,
                FromShard::Metrics(metrics) => self.metrics = Some(metrics),
            }
        }
    }
}
