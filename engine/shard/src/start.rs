//! The life of a shard: its executor, the way back from the log, its tasks, and the stop.

use futures_lite::future::BoxedLocal;
use glommio::{Latency, LocalExecutorBuilder, Placement, PoolPlacement, Shares};
use isonomy_mesh::ShardEnd;
use isonomy_mesh::fatal::{Fatal, Reason, stop, stop_with};
use isonomy_protocol::contract::{Config as CoreConfig, Position, Time, Timing};
use isonomy_protocol::limits::RESERVE_BLOCK;
use isonomy_protocol::log::LogId;
use isonomy_protocol::replica::Replica;
use std::path::Path;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::aside::Aside;
use crate::data_dir::DataDir;
use crate::log::disk::Disk;
use crate::log::groups::{GROUP_BYTES_MAX, Log};
use crate::log::recover::{self, Recovered};
use crate::log::{Writer, probe};
use crate::mail::Mail;
use crate::net::Net;
use crate::node::{EPOCH, Node, STOP_PATIENCE};
use crate::pump::{Input, Pump};
use crate::rings::{self, PREEMPT};
use crate::settings::{Ports, Settings};
use crate::signal::Signal;
use crate::snapshot::Transfers;
use crate::time::ticker::TICK;
use crate::time::ticks::Ticks;
use crate::told::Told;
use crate::waiting::Wait;

/// The memory that is registered with the rings, which is a few groups of the log.
pub(crate) const IO_MEMORY_BYTES: usize = 4 * GROUP_BYTES_MAX;
/// The number of barriers within the log's budget; the log is cut at barriers.
const BARRIERS_PER_BUDGET: u64 = 4;

/// Starts the executor of a shard on a thread of its own. The thread ends when the shard was told to stop and has; a
/// shard that cannot go on ends the process ([`isonomy_mesh::fatal::stop`]).
///
/// # Errors
///
/// The system gives the process no thread.
pub fn spawn(
    settings: Settings,
    data_dir: DataDir,
    ports: Ports,
    end: ShardEnd,
) -> Result<JoinHandle<()>, Fatal> {
    let name = format!("shard-{}", settings.shard.0);
    let run = move || {
        let placement = settings.core.map_or(Placement::Unbound, Placement::Fixed);
        let executor = LocalExecutorBuilder::new(placement)
            .name("shard")
            .io_memory(IO_MEMORY_BYTES)
            .preempt_timer(PREEMPT)
            // The pool has one thread, which belongs to the log: no other work may be given to it.
            .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
            .make();
        match executor {
            Ok(executor) => executor.run(run_shard(settings, data_dir, ports, end)),
            Err(error) => {
                let text = format!(
                    "a shard cannot start its executor: {error}; check the limit on locked memory (memlock) \
                     and `cores`"
                );
                stop(Reason::Machine, &text)
            }
        }
    };
    let thread = std::thread::Builder::new().name(name).spawn(run);
    thread.map_err(|error| {
        Fatal::new(
            Reason::Machine,
            format!("a shard's thread cannot be started: {error}; raise the limit on threads"),
        )
    })
}

async fn run_shard(settings: Settings, data_dir: DataDir, ports: Ports, end: ShardEnd) {
    let ticks = Ticks::start(TICK).unwrap_or_else(|error| {
        stop(
            Reason::Machine,
            &format!("the thread for a shard's ticks cannot be started: {error}; raise the limit on threads"),
        )
    });
    ticks.attach().await;
    let mail = Mail::new(end, settings.members.clone());
    let is_usable = wait_for_room(&data_dir.shard_dir(settings.shard), &settings, &mail).await;
    if !is_usable.unwrap_or_else(|fatal| stop_with(&fatal)) {
        return;
    }
    let node = Rc::new(open(settings, data_dir, mail).await.unwrap_or_else(|fatal| stop_with(&fatal)));
    // Reading the log may have taken long.
    if node.mail.is_stopping() {
        return;
    }
    // Sockets, disk and timers matter equally: a wake-up that waited behind other work would delay every decision.
    let latency = Latency::Matters(PREEMPT);
    let queue = glommio::executor().create_task_queue(Shares::default(), latency, "shard");
    let main = glommio::spawn_local_into(serve(node, ticks, ports), queue);
    main.expect("the queue was just made").await;
}

/// Waits until the directory takes writes; false if the process was told to stop meanwhile.
async fn wait_for_room(dir: &Path, settings: &Settings, mail: &Mail) -> Result<bool, Fatal> {
    let mut wait = Wait::new();
    while !mail.is_stopping() {
        match probe::check_direct_io(dir, settings.shard).await {
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
pub(crate) async fn open(settings: Settings, data_dir: DataDir, mail: Mail) -> Result<Node, Fatal> {
    let shard = settings.shard;
    let id = LogId {
        cluster: data_dir.cluster_id(),
        incarnation: data_dir.incarnation(),
        replica: settings.replica,
        shard,
    };
    let dir = data_dir.shard_dir(shard);
    let mut core = Replica::new(core_config(&settings, &data_dir), rand::random());
    let snapshot = recover::newest_snapshot(id, &dir)?;
    let known = data_dir.known(shard, snapshot.as_ref().map_or(0, |snapshot| snapshot.head.barrier));
    snapshot.into_iter().for_each(|snapshot| core.restore(snapshot));
    let recovered = recover::recover(id, &dir, known, |(record, payload)| core.replay(record, payload))?;
    let Recovered { tail, .. } = recovered;
    core.start(Time(0), Position(tail.next.0 - 1));
    let aside = Aside::start().map_err(|error| {
        let text =
            format!("a shard's thread for files cannot be started: {error}; raise the limit on threads");
        Fatal::new(Reason::Machine, text)
    })?;
    let told = Rc::new(Told::default());
    let disk = Disk::open(id, data_dir.clone(), &settings, &recovered, told.clone()).await;
    log::info!("shard {}: read {} records back from the log", shard.0, tail.next.0 - 1);
    Ok(Node {
        net: Net::new(&settings, core.position()),
        pump: Pump::new(core),
        writer: Writer::new(Log::new(id, tail), disk, recovered.bytes()),
        transfers: Transfers::default(),
        aside,
        mail,
        tick: Signal::default(),
        told,
        settings,
        data_dir,
    })
}

fn core_config(settings: &Settings, data_dir: &DataDir) -> CoreConfig {
    CoreConfig {
        cluster: data_dir.cluster_id(),
        replica: settings.replica,
        replicas: settings.members.len() as u8,
        epoch: EPOCH,
        shard: settings.shard,
        timing: Timing { source_idle_us: settings.source_expiry.as_micros() as u64, ..Timing::default() },
        reserve_block: RESERVE_BLOCK,
        barrier_bytes: settings.log_budget / BARRIERS_PER_BUDGET,
        outlives_power: settings.outlives_power,
        rescue: false,
    }
}

/// Runs all tasks of a shard until it is told to stop.
async fn serve(node: Rc<Node>, ticks: Ticks, ports: Ports) {
    // A replica alone has no peer to ask.
    node.maybe_admit();
    let spawn = |task: BoxedLocal<()>| glommio::spawn_local(task).detach();
    let shared = node.clone();
    spawn(Box::pin(async move { shared.writer.disk.prepare().await }));
    let shared = node.clone();
    spawn(Box::pin(async move { shared.aside.listen().await }));
    spawn(Box::pin(node.clone().run_turns()));
    spawn(Box::pin(node.clone().run_writes()));
    spawn(Box::pin(node.clone().run_ticks(ticks)));
    spawn(Box::pin(node.clone().run_snapshots()));
    spawn(Box::pin(node.clone().run_verifications()));
    for peer in node.settings.peers() {
        spawn(Box::pin(node.clone().run_link(peer)));
    }
    spawn(Box::pin(node.clone().accept_peers(ports.peers)));
    become_ready(&node).await;
    spawn(Box::pin(node.clone().accept_clients(ports.clients)));
    if let Some(complaint) = rings::complaint() {
        log::warn!("shard {}: {complaint}", node.settings.shard.0);
    }
    node.mail.say_ready();
    while !node.mail.is_stopping() {
        node.tick.wait().await;
    }
    end(&node).await;
}

/// Waits until the log takes records, because the first segment may have to be filled, and the others have confirmed a
/// new directory.
async fn become_ready(node: &Node) {
    if !node.data_dir.is_formed() {
        log::info!(
            "shard {}: this data directory is new; the replica takes part when all members have been up once \
             and have confirmed that",
            node.settings.shard.0
        );
    }
    let first = node.writer.durable();
    let is_ready = || node.writer.durable() != first && node.data_dir.is_formed();
    while !is_ready() && !node.mail.is_stopping() {
        node.tick.wait().await;
    }
}

/// Sees the own instances through, and lets the last answers leave.
async fn end(node: &Node) {
    node.pump.take(Input::Stop);
    let began = Instant::now();
    while !node.pump.look(|core| core.is_idle()) && began.elapsed() < STOP_PATIENCE {
        node.tick.wait().await;
    }
    node.mail.send_metrics(node.status());
    node.close_all().await;
}
