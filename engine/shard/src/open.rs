//! The way back from the log: makes the core of an epoch, and the node around it.

use isonomy_mesh::fatal::Fatal;
use isonomy_protocol::contract::{Config, Position, Time, Timing};
use isonomy_protocol::limits::RESERVE_BLOCK;
use isonomy_protocol::log::LogId;
use isonomy_protocol::log::chain::Known;
use isonomy_protocol::replica::Replica;
use isonomy_wire::id::RecordId;
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
use crate::settings::{Seat, Settings};
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
    let config = core_config(settings, &data_dir, seat);
    let is_proven = matches!(found, Found::InMemory { is_proven: true, .. });
    let snapshot = recover::newest_snapshot(id, &dir)?;
    let known = data_dir.known(settings.shard, snapshot.as_ref().map_or(0, |snapshot| snapshot.head.barrier));
    let mut core = match (snapshot, found) {
        (Some(snapshot), _) => {
            let mut core = Replica::new(config, rand::random());
            core.restore(snapshot);
            core
        }
        (None, Found::InMemory { core: Some(core), .. }) => *core,
        (None, Found::InMemory { core: None, .. }) => Replica::new(config, rand::random()),
        (None, Found::OnDisk) => from_the_epoch_before(settings, &data_dir, seat, config)?,
    };
    let recovered = read_back(id, &dir, known, &mut core)?;
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
fn read_back(id: LogId, dir: &Path, known: Known, core: &mut Replica) -> Result<Recovered, Fatal> {
    let recovered = recover::recover(id, dir, known, |(record, payload)| core.replay(record, payload))?;
    core.start(Time(0), Position(recovered.tail.next.0 - 1));
    Ok(recovered)
}

/// The core of an epoch whose state is in no snapshot of its own yet: that of the sealed epoch before, or one without
/// state.
fn from_the_epoch_before(
    settings: &Settings,
    data_dir: &EpochDir,
    seat: Seat,
    config: Config,
) -> Result<Replica, Fatal> {
    let sealed = match data_dir.before(settings.shard) {
        Some(before) => sealed_by(settings, data_dir, seat.record, before)?,
        None => None,
    };
    Ok(match sealed {
        Some(mut sealed) => sealed.succeed(config, rand::random()),
        None => Replica::new(config, rand::random()),
    })
}

/// Makes the core of the epoch before again, if it was sealed with this record.
fn sealed_by(
    settings: &Settings,
    data_dir: &DataDir,
    record: RecordId,
    before: Before,
) -> Result<Option<Replica>, Fatal> {
    let Before { log, members, known, dir } = before;
    let seat = Seat { epoch: log.epoch, record: RecordId(0), replica: log.replica, members };
    let mut core = Replica::new(core_config(settings, data_dir, seat), rand::random());
    let snapshot = recover::newest_snapshot(log, &dir)?;
    let known = Known { snapshot: snapshot.as_ref().map_or(0, |snapshot| snapshot.head.barrier), ..known };
    snapshot.into_iter().for_each(|snapshot| core.restore(snapshot));
    read_back(log, &dir, known, &mut core)?;
    Ok(core.sealed().is_some_and(|sealed| sealed.record == record).then_some(core))
}

/// The configuration of a shard's core in an epoch.
pub(crate) fn core_config(settings: &Settings, data_dir: &DataDir, seat: Seat) -> Config {
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
    }
}
