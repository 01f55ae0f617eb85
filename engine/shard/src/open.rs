//! The way back from the log: makes the core of an epoch, and the node around it.

use isonomy_mesh::fatal::Fatal;
use isonomy_protocol::contract::{Config, Position, Time, Timing};
use isonomy_protocol::limits::RESERVE_BLOCK;
use isonomy_protocol::log::LogId;
use isonomy_protocol::log::chain::Known;
use isonomy_protocol::replica::Replica;
use isonomy_protocol::snapshot::Snapshot;
use isonomy_wire::id::{Epoch, RecordId};
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use crate::data_dir::{Before, DataDir, EpochDir};
use crate::log::Writer;
use crate::log::disk::Disk;
use crate::log::groups::Log;
use crate::log::recover::{self, Recovered};
use crate::net::Net;
use crate::node::Node;
use crate::pump::Pump;
use crate::settings::Seat;
use crate::shard::Shard;
use crate::snapshot::Transfers;
use crate::tasks::Tasks;

/// The number of barriers within the log's budget; the log is cut at barriers.
const BARRIERS_PER_BUDGET: u64 = 4;

/// What a core begins with.
pub(crate) enum Found {
    /// What its directory holds, in this epoch and the one before.
    OnDisk,
    /// The core that the epoch before has left in this process, if it was sealed.
    InMemory {
        core: Option<Box<Replica>>,
        /// Whether the others have confirmed in the epoch before that this process has the newest state of its
        /// directory (G6). The new epoch has promised nothing yet.
        is_proven: bool,
    },
}

/// Makes the core, and the node around it.
pub(crate) async fn open(shard: &Rc<Shard>, seat: Seat, found: Found) -> Result<Node, Fatal> {
    let (settings, data_dir) = (&shard.settings, shard.data_dir.at(seat.epoch));
    let (id, dir) = (data_dir.log_id(settings.shard), data_dir.log_dir(settings.shard));
    let config = core_config(shard, &data_dir, seat);
    let is_proven = matches!(found, Found::InMemory { is_proven: true, .. });
    let snapshot = recover::newest_snapshot(id, &dir)?;
    let known = data_dir.known(settings.shard, snapshot.as_ref().map_or(0, |snapshot| snapshot.head.barrier));
    let mut core = match (snapshot, found) {
        (Some(snapshot), _) => with_state(config, snapshot),
        (None, Found::InMemory { core: Some(core), .. }) => *core,
        (None, Found::InMemory { core: None, .. }) => Replica::new(config, rand::random()),
        (None, Found::OnDisk) => from_the_epoch_before(shard, &data_dir, seat, config)?,
    };
    let recovered = read_back(shard, id, &dir, known, &mut core)?;
    log::info!("shard {}: read {} records back from the log", settings.shard.0, recovered.tail.next.0 - 1);
    let disk = Disk::open(id, data_dir.clone(), settings, &recovered, shard.told.clone()).await;
    let bytes = recovered.bytes();
    Ok(Node {
        net: Net::new(settings, seat, core.position(), is_proven),
        pump: Pump::new(core),
        writer: Writer::new(Log::new(id, recovered.tail), disk, bytes),
        transfers: Transfers::default(),
        roster: RefCell::new(shard.mail.roster()),
        ended: Cell::new(None),
        is_over: Cell::new(false),
        writing: RefCell::default(),
        tasks: Tasks::default(),
        shard: shard.clone(),
        seat,
        data_dir,
    })
}

/// Replays a log and starts the core behind it.
fn read_back(
    shard: &Shard,
    id: LogId,
    dir: &Path,
    known: Known,
    core: &mut Replica,
) -> Result<Recovered, Fatal> {
    tell_sink(shard, id.epoch, core);
    let recovered = recover::recover(id, dir, known, |(record, payload)| {
        core.replay(record, payload);
        tell_sink(shard, id.epoch, core);
    })?;
    core.start(Time(0), Position(recovered.tail.next.0 - 1));
    Ok(recovered)
}

/// Gives the sink what has executed so far, so that not all that a log holds gathers in memory.
fn tell_sink(shard: &Shard, epoch: Epoch, core: &mut Replica) {
    let Some(feed) = &shard.feed else { return };
    while let Some(executed) = core.poll_executed() {
        feed.push(epoch, executed);
    }
    feed.flush_and_wait();
}

/// The core of an epoch whose state is in no snapshot of its own yet: that of the sealed epoch before, or one without
/// state.
fn from_the_epoch_before(
    shard: &Shard,
    data_dir: &EpochDir,
    seat: Seat,
    config: Config,
) -> Result<Replica, Fatal> {
    let sealed = match data_dir.before(shard.settings.shard) {
        Some(before) => sealed_by(shard, data_dir, seat.record, before)?,
        None => None,
    };
    Ok(match sealed {
        Some(mut sealed) => sealed.succeed(config, rand::random()),
        None => without_state(shard, config),
    })
}

/// Makes the core of the epoch before again, if it was sealed with this record.
fn sealed_by(
    shard: &Shard,
    data_dir: &DataDir,
    record: RecordId,
    before: Before,
) -> Result<Option<Replica>, Fatal> {
    let Before { log, members, known, dir } = before;
    let seat = Seat { epoch: log.epoch, record: RecordId(0), replica: log.replica, members };
    let config = core_config(shard, data_dir, seat);
    let snapshot = recover::newest_snapshot(log, &dir)?;
    let known = Known { snapshot: snapshot.as_ref().map_or(0, |snapshot| snapshot.head.barrier), ..known };
    let mut core = match snapshot {
        Some(snapshot) => with_state(config, snapshot),
        None => without_state(shard, config),
    };
    read_back(shard, log, &dir, known, &mut core)?;
    Ok(core.sealed().is_some_and(|sealed| sealed.record == record).then_some(core))
}

/// A core that begins with the state of a snapshot.
fn with_state(config: Config, snapshot: Snapshot) -> Replica {
    let mut core = Replica::new(config, rand::random());
    core.restore(snapshot);
    core
}

/// A core that begins with its log. In the first epoch of a cluster its state is the empty one.
fn without_state(shard: &Shard, config: Config) -> Replica {
    let epoch = config.epoch;
    let core = Replica::new(config, rand::random());
    if let Some(feed) = shard.feed.as_ref().filter(|_| !core.lacks_state()) {
        feed.begin(epoch);
    }
    core
}

/// The configuration of a shard's core in an epoch.
pub(crate) fn core_config(shard: &Shard, data_dir: &DataDir, seat: Seat) -> Config {
    let settings = &shard.settings;
    let Seat { epoch, replica, members, .. } = seat;
    Config {
        cluster: data_dir.cluster_id(),
        replica,
        replicas: members,
        epoch,
        shard: settings.shard,
        timing: Timing { source_idle_us: settings.source_expiry.as_micros() as u64, ..Timing::default() },
        reserve_block: RESERVE_BLOCK,
        barrier_bytes: settings.log_budget / BARRIERS_PER_BUDGET,
        outlives_power: settings.outlives_power,
        rescue: false,
        publishes: shard.feed.is_some(),
    }
}
