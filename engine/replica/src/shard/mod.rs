//! One shard on one pinned executor, which owns everything in the shard.
//!
//! Reader tasks hand inputs to the core as they arrive. The *turn* task then takes the core's outputs in their order,
//! and sleeps. While a write is under way the next batch gathers.

mod admission;
mod aside;
mod clients;
mod disk;
mod fetch;
#[cfg(test)]
mod fixture;
mod groups;
mod growing;
mod guests;
mod link;
mod links;
mod missing;
mod peers;
mod probe;
mod recover;
#[cfg(test)]
mod rig;
mod segment;
mod signal;
mod snapshot;
mod socket;
mod strangers;
mod ticker;
mod ticks;
#[cfg(test)]
#[path = "../../tests/support/volatile.rs"]
mod volatile;

use crate::checks::Ports;
use crate::config::{Config, Durability};
use crate::data_dir::DataDir;
use crate::fatal::{Fatal, Reason, stop};
use crate::logging;
use crate::resolver::Resolver;
use crate::rings::{self, PREEMPT};
use crate::told::Told;
use crate::waiting::Wait;
use admission::Judged;
use aside::Aside;
use disk::Disk;
use fetch::Fetching;
use glommio::{Latency, LocalExecutorBuilder, Placement, PoolPlacement, Shares};
use groups::{GROUP_BYTES_MAX, Log, Write};
use guests::Guests;
use isonomy_protocol::contract::{Config as CoreConfig, Output, Position, Reply, Time, Timing};
use isonomy_protocol::limits::RESERVE_BLOCK;
use isonomy_protocol::log::LogId;
use isonomy_protocol::replica::Replica;
use isonomy_tuning::cpu::process_cpu_us;
use isonomy_wire::frame::{Encoder, Kind, Scope};
use isonomy_wire::id::{Epoch, ReplicaId, ShardId};
use isonomy_wire::message::{ClientMessage, ShardStatus};
use link::Sink;
use links::Links;
use missing::Missing;
use recover::Recovered;
pub(crate) use recover::{SEGMENT_BYTES, verify as verify_log};
use signal::Signal;
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
#[cfg(test)]
pub(crate) use ticker::{CLIENT_PATIENCE, PEER_PATIENCE};
use ticks::Ticks;

/// The only epoch so far.
pub(crate) const EPOCH: Epoch = Epoch(1);
/// The memory that is registered with the rings, which is a few groups of the log.
const IO_MEMORY_BYTES: usize = 4 * GROUP_BYTES_MAX;
/// The number of barriers within the log's budget; the log is cut at barriers.
const BARRIERS_PER_BUDGET: u64 = 4;
/// How long the own instances may take to end when the process is told to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// The arguments with which a shard is started.
pub(crate) struct Setup {
    pub(crate) config: Arc<Config>,
    pub(crate) data_dir: DataDir,
    pub(crate) shard: ShardId,
    pub(crate) core: Option<usize>,
    pub(crate) ports: Ports,
    pub(crate) resolver: Resolver,
    /// Why other machines do not reach this replica, if they do not.
    pub(crate) unreachable: Option<String>,
    /// Set when the process is told to stop.
    pub(crate) stopping: Arc<AtomicBool>,
    /// Gets the shard's id once the log is read and the ports are served.
    pub(crate) ready: std::sync::mpsc::Sender<ShardId>,
}

/// Starts the executor of a shard. The thread ends when the shard has stopped in good order.
pub(crate) fn spawn(setup: Setup) -> Result<JoinHandle<()>, Fatal> {
    let name = format!("shard-{}", setup.shard.0);
    let failed = move |error: String| {
        Fatal::new(
            Reason::Machine,
            format!("shard cannot start its executor: {error}; check memlock and cores"),
        )
    };
    let run = move || {
        let placement = setup.core.map_or(Placement::Unbound, Placement::Fixed);
        let executor = LocalExecutorBuilder::new(placement)
            .name("shard")
            .io_memory(IO_MEMORY_BYTES)
            .preempt_timer(PREEMPT)
            // The pool has one thread, which belongs to the log: no other work may be given to it.
            .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
            .make();
        match executor {
            Ok(executor) => executor.run(run_shard(setup)),
            Err(error) => stop(Reason::Machine, &failed(error.to_string()).to_string()),
        }
    };
    let thread = std::thread::Builder::new().name(name).spawn(run);
    thread.map_err(|error| Fatal::new(Reason::Machine, format!("a shard's thread: {error}")))
}

/// The state that the tasks of a shard share.
pub(crate) struct Node {
    config: Arc<Config>,
    data_dir: DataDir,
    shard: ShardId,
    resolver: Resolver,
    disk: Disk,
    aside: Aside,
    inner: RefCell<Inner>,
    judged: Judged,
    origin: Instant,
    /// Whether inputs have come since the last turn.
    dirty: Cell<bool>,
    turn: Signal,
    /// Notified at each tick of the ticks.
    tick: Signal,
    /// The bytes that the log held when the process started.
    log_bytes_before: u64,
    /// Notified when the log has something to write.
    write: Signal,
    /// Notified when a group was written.
    written: Signal,
    /// Notified when the core takes or needs a snapshot.
    snapshots: Signal,
    /// Notified when the replica's own snapshot must be verified.
    doubts: Signal,
    fetching: Fetching,
    /// Notified when replies have left, so that a refused request may be offered again.
    room: Signal,
    /// Since when the disk hangs, as far as the core was told (D9).
    hung_since: Cell<Option<Instant>>,
    told: Rc<Told>,
    missing: Missing,
}

struct Inner {
    core: Replica,
    log: Log,
    links: Links,
    guests: Guests,
    /// The clients that get an answer in this turn.
    told: Vec<Rc<Sink>>,
    encoder: Encoder,
}

impl Inner {
    /// The next write, if there is one.
    fn next_write(&mut self, now: Time) -> Option<Write> {
        let is_due = self.core.awaits_log() || self.log.is_due(now);
        is_due.then(|| self.log.take(now)).flatten()
    }

    /// Whether so much waits for the disk that the shard does not read from peers.
    fn is_behind(&self) -> bool {
        self.log.is_behind() || self.core.is_behind()
    }
}

async fn run_shard(setup: Setup) {
    let ticks = Ticks::start(ticker::TICK).unwrap_or_else(|error| {
        stop(Reason::Machine, &format!("no thread for a shard's ticks ({error}); raise the limit on threads"))
    });
    ticks.attach().await;
    let Setup { config, data_dir, shard, ports, resolver, unreachable, stopping, ready, .. } = setup;
    let is_usable = wait_for_room(&data_dir.shard_dir(shard), shard, &stopping).await;
    if !is_usable.unwrap_or_else(|fatal| stop(fatal.reason, &fatal.to_string())) {
        return;
    }
    let node = match start(config, data_dir, shard, resolver, unreachable).await {
        Ok(node) => Rc::new(node),
        Err(fatal) => stop(fatal.reason, &fatal.to_string()),
    };
    // Sockets, disk and timers matter equally: a wake-up that waited behind other work would delay every decision.
    let latency = Latency::Matters(PREEMPT);
    let queue = glommio::executor().create_task_queue(Shares::default(), latency, "shard");
    let main = glommio::spawn_local_into(serve(node, ticks, ports, stopping, ready), queue);
    main.expect("the queue was just made").await;
}

/// Waits until the directory takes writes; false if the process was told to stop meanwhile.
async fn wait_for_room(dir: &Path, shard: ShardId, stopping: &AtomicBool) -> Result<bool, Fatal> {
    let mut wait = Wait::new();
    while !stopping.load(Ordering::Relaxed) {
        match probe::check_direct_io(dir, shard).await {
            Ok(()) => {
                wait.on_success();
                return Ok(true);
            }
            Err(fatal) => glommio::timer::sleep(wait.on_failure(fatal)?).await,
        }
    }
    Ok(false)
}

/// Reads the log back and makes the core.
async fn start(
    config: Arc<Config>,
    data_dir: DataDir,
    shard: ShardId,
    resolver: Resolver,
    unreachable: Option<String>,
) -> Result<Node, Fatal> {
    let core_config = CoreConfig {
        cluster: data_dir.cluster_id(),
        replica: config.replica,
        replicas: config.members.len() as u8,
        epoch: EPOCH,
        shard,
        timing: Timing { source_idle_us: config.source_expiry.as_micros() as u64, ..Timing::default() },
        reserve_block: RESERVE_BLOCK,
        barrier_bytes: config.log_budget / BARRIERS_PER_BUDGET,
        outlives_power: config.durability == Durability::Fsync,
        rescue: false,
    };
    let id = LogId {
        cluster: data_dir.cluster_id(),
        incarnation: data_dir.incarnation(),
        replica: config.replica,
        shard,
    };
    let dir = data_dir.shard_dir(shard);
    let mut core = Replica::new(core_config, rand::random());
    let snapshot = recover::newest_snapshot(id, &dir)?;
    let known = data_dir.known(shard, snapshot.as_ref().map_or(0, |snapshot| snapshot.head.barrier));
    snapshot.into_iter().for_each(|snapshot| core.restore(snapshot));
    let recovered = recover::recover(id, &dir, known, |(record, payload)| core.replay(record, payload))?;
    let Recovered { tail, .. } = recovered;
    core.start(Time(0), Position(tail.next.0 - 1));
    let judged = Judged::new(&config, core.position());
    let aside = Aside::start().map_err(|error| {
        Fatal::new(
            Reason::Machine,
            format!("a shard's thread for files: {error}; raise the limit on threads"),
        )
    })?;
    let told = Rc::new(Told::default());
    let disk = Disk::open(id, data_dir.clone(), &config, &recovered, told.clone()).await;
    let node = Node {
        shard,
        resolver,
        disk,
        aside,
        judged,
        inner: RefCell::new(Inner {
            core,
            log: Log::new(id, tail),
            links: Links::new(config.members.len()),
            guests: Guests::new(config.connections_max),
            told: Vec::new(),
            encoder: Encoder::default(),
        }),
        origin: Instant::now(),
        dirty: Cell::new(true),
        turn: Signal::default(),
        tick: Signal::default(),
        log_bytes_before: recovered.bytes(),
        write: Signal::default(),
        written: Signal::default(),
        snapshots: Signal::default(),
        doubts: Signal::default(),
        fetching: Fetching::default(),
        room: Signal::default(),
        hung_since: Cell::default(),
        told,
        missing: Missing::new(unreachable),
        config,
        data_dir,
    };
    log::info!("shard {}: {} records read back", shard.0, tail.next.0 - 1);
    Ok(node)
}

/// Runs all tasks of a shard until it is told to stop.
async fn serve(
    node: Rc<Node>,
    ticks: Ticks,
    ports: Ports,
    stopping: Arc<AtomicBool>,
    ready: std::sync::mpsc::Sender<ShardId>,
) {
    // A replica alone has no peer to ask.
    node.maybe_admit();
    let spawn = |task: futures_lite::future::BoxedLocal<()>| glommio::spawn_local(task).detach();
    let shared = node.clone();
    spawn(Box::pin(async move { shared.disk.prepare().await }));
    let shared = node.clone();
    spawn(Box::pin(async move { shared.aside.listen().await }));
    spawn(Box::pin(node.clone().run_turns()));
    spawn(Box::pin(node.clone().run_writes()));
    spawn(Box::pin(node.clone().run_ticks(ticks)));
    spawn(Box::pin(node.clone().run_snapshots()));
    spawn(Box::pin(node.clone().run_verifications()));
    for peer in (0..node.config.members.len() as u8).map(ReplicaId).filter(|id| *id != node.config.replica) {
        spawn(Box::pin(node.clone().run_link(peer)));
    }
    spawn(Box::pin(node.clone().accept_peers(ports.peers)));
    if !node.data_dir.is_formed() {
        log::info!(
            "shard {}: this data directory is new: all members must be up once to confirm that",
            node.shard.0
        );
    }
    // The shard serves clients once the log takes records, because the first segment may have to be filled.
    let first = node.inner.borrow().log.durable;
    let is_ready = || node.inner.borrow().log.durable != first && node.data_dir.is_formed();
    while !is_ready() && !stopping.load(Ordering::Relaxed) {
        node.tick.wait().await;
    }
    spawn(Box::pin(node.clone().accept_clients(ports.clients)));
    if let Some(complaint) = rings::complaint() {
        log::warn!("shard {}: {complaint}", node.shard.0);
    }
    // The receiver is gone if the process is stopping.
    let _ = ready.send(node.shard);

    while !stopping.load(Ordering::Relaxed) {
        node.tick.wait().await;
    }
    let now = node.now();
    node.inner.borrow_mut().core.on_stop(now);
    node.touch();
    let began = Instant::now();
    while !node.inner.borrow().core.is_idle() && began.elapsed() < STOP_PATIENCE {
        node.tick.wait().await;
    }
    node.close_all().await;
}

impl Node {
    fn dir(&self) -> std::path::PathBuf {
        self.data_dir.shard_dir(self.shard)
    }

    pub(crate) fn now(&self) -> Time {
        Time(self.origin.elapsed().as_micros() as u64)
    }

    /// Notes that inputs have come, so that a turn is due.
    pub(crate) fn touch(&self) {
        if !self.dirty.replace(true) {
            self.turn.notify();
        }
    }

    fn peer_scope(&self) -> Scope {
        Scope { kind: Kind::Peer, epoch: EPOCH, shard: self.shard }
    }

    fn client_scope(&self) -> Scope {
        Scope { kind: Kind::Client, epoch: Epoch(0), shard: self.shard }
    }

    async fn run_turns(self: Rc<Node>) {
        loop {
            if self.dirty.replace(false) {
                self.run_turn();
            } else {
                self.turn.wait().await;
            }
        }
    }

    /// Takes the outputs of the core in the order of its contract: appends, messages, replies.
    fn run_turn(&self) {
        let now = self.now();
        let mut inner = self.inner.borrow_mut();
        let Inner { core, log, links, guests, told, encoder, .. } = &mut *inner;
        core.end_turn(now);
        let mut replied = false;
        while let Some(output) = core.poll() {
            match output {
                Output::Append(append) => log.append(now, &append),
                Output::Send(send) => links.push(encoder, self.peer_scope(), &send),
                Output::Reply(reply) => {
                    replied = true;
                    if let Some(sink) = guests.on_answer(reply.client.connection) {
                        push_reply(encoder, self.client_scope(), sink, reply);
                        told.push(sink.clone());
                    }
                }
                Output::Sealed(_) => {}
                Output::Cut(position) => self.disk.cut(position),
            }
        }
        links.flush();
        if replied {
            told.drain(..).for_each(|sink| sink.flush());
            self.room.notify();
        }
        if log.has_work() && core.awaits_log() {
            self.write.notify();
        }
        if core.taking().is_some() || core.wants_snapshot().is_some() {
            self.snapshots.notify();
        }
        if core.doubted_snapshot().is_some() {
            self.doubts.notify();
        }
    }

    /// Writes the log, one group after the other. The next group gathers while one is under way, and as long as no
    /// message or reply waits for it.
    async fn run_writes(self: Rc<Node>) {
        loop {
            let write = self.inner.borrow_mut().next_write(self.now());
            let Some(write) = write else {
                self.write.wait().await;
                continue;
            };
            self.write_group(write).await;
        }
    }

    async fn write_group(&self, write: Write) {
        let durable = self.disk.write(write).await;
        let now = self.now();
        let mut inner = self.inner.borrow_mut();
        inner.log.durable = durable;
        inner.core.on_durable(now, durable);
        drop(inner);
        self.written.notify();
        self.touch();
    }

    /// The status of this shard.
    fn status(&self) -> ShardStatus {
        let snapshot_trouble = self.snapshot_trouble();
        let inner = self.inner.borrow();
        let (clients, operators) = inner.guests.taken();
        let core = inner.core.status();
        ShardStatus {
            log_bytes: inner.log.bytes,
            log_groups: inner.log.groups,
            log_held_bytes: self.disk.held_bytes(),
            log_budget_bytes: self.config.log_budget,
            fetched: self.fetching.progress.get(),
            snapshot_trouble,
            process_cpu_us: process_cpu_us(),
            durable: self.config.durability == Durability::Fsync,
            disk_hung_ms: self.disk.hung_for().map_or(0, |hung| hung.as_millis() as u64),
            log_lines_dropped: logging::dropped(),
            peers_connected: inner.links.linked().collect(),
            peers: core.peers.into_iter().map(|peer| inner.links.tell(peer)).collect(),
            clients,
            operators,
            connections_refused: inner.guests.refused,
            connections_yielded: inner.guests.yielded,
            ..core
        }
    }

    /// Sends the queued messages and replies, and then ends all connections.
    async fn close_all(&self) {
        let sinks: Vec<Rc<Sink>> = {
            let mut inner = self.inner.borrow_mut();
            inner.links.flush_all();
            inner.guests.sinks().cloned().chain(inner.links.sinks()).collect()
        };
        let began = Instant::now();
        while sinks.iter().any(|sink| sink.backlog() > 0) && began.elapsed() < STOP_PATIENCE {
            self.tick.wait().await;
        }
        sinks.iter().for_each(|sink| sink.close("this replica stops"));
    }
}

/// Queues the answer to a request.
fn push_reply(encoder: &mut Encoder, scope: Scope, sink: &Sink, reply: Reply) {
    let tag = reply.client.tag;
    match reply.outcome {
        Ok(response) => {
            let crc = crc32c::crc32c(&response);
            sink.push(encoder, scope, &ClientMessage::Response { tag }, &response, crc);
        }
        Err(failure) => sink.push(encoder, scope, &ClientMessage::Failed { tag, failure }, &[], 0),
    }
}
