//! The shards of a replica, as the process's main thread sees them: their threads, and what crosses the mesh.

use crate::checks::Taken;
use crate::config::{Config, Durability};
use crate::consume::Consumption;
use crate::doors::OpenDoors;
use crate::fatal::{Fatal, Reason};
use crate::logging;
use crate::membership::{Known, Membership};
use crate::publish::{Outboxes, Publishers};
use isonomy_control::driver::{Held, Report};
use isonomy_control::id::ChangeId;
use isonomy_doors::view::ShardView;
use isonomy_kafka::outbox::Keeper;
use isonomy_mesh::bell::own_waker;
use isonomy_mesh::{EpochEnd, FromShard, ProcessEnd, Progress, Roster, ShardSettings, ToShard, connect};
use isonomy_shard::data_dir::DataDir;
use isonomy_shard::{Resolver, Settings, spawn};
use isonomy_tuning::cores;
use isonomy_wire::id::{Epoch, RecordId, ShardId};
use isonomy_wire::message::ShardStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// How often it is tried to put the order to stop into a lane that is full.
const LANE_RETRY: Duration = Duration::from_millis(20);

/// A shard that was started.
struct Shard {
    /// Until the shard has ended.
    thread: Option<JoinHandle<()>>,
    end: ProcessEnd,
    is_ready: bool,
    /// What the shard measured last.
    metrics: Option<Arc<ShardStatus>>,
    /// When that came.
    told: Option<Instant>,
    /// What the shard has come to.
    progress: Option<Progress>,
    /// Who takes part, as the shard was told last.
    roster: Roster,
    /// The record with which the shard was told last to end its epoch.
    sealing: Option<RecordId>,
    /// The settings that the shard was told last; those with which it starts.
    settings: ShardSettings,
    /// Why settings are not followed, as the shard was told last.
    settings_trouble: String,
}

/// All shards of a replica.
pub(crate) struct Shards {
    shards: Vec<Shard>,
    /// The thread of the outboxes, if the decisions are published.
    keeper: Option<Keeper>,
    /// Those who send the decisions to Kafka, if they are published there.
    publishers: Option<Publishers>,
    /// Who consumes proposals, if they are consumed.
    consumption: Option<Consumption>,
    /// The doors for HTTP and gRPC, if one is open.
    doors: Option<OpenDoors>,
    data_dir: DataDir,
    /// The members, if they are named in etcd.
    membership: Option<Membership>,
    /// The newest epoch that the directory has entered, or that has left this replica out.
    entered: Epoch,
    /// The settings of the protocol, if the members are not named in etcd.
    settings: ShardSettings,
}

impl Shards {
    /// Starts a shard for each pair of ports, in the epoch of `roster`, which the directory has entered. What the shards
    /// say wakes the calling thread.
    pub(crate) fn start(
        config: &Config,
        data_dir: &DataDir,
        roster: &Roster,
        Taken { ports, http, grpc }: Taken,
        unreachable: Option<String>,
        membership: Option<Membership>,
    ) -> Result<Shards, Fatal> {
        let resolver = Resolver::default();
        let usable = if config.cores.is_empty() { cores::usable() } else { config.cores.clone() };
        let waker = own_waker();
        let mut outboxes = Outboxes::default();
        let consumption = Consumption::new(config, data_dir);
        let consuming = consumption.as_ref().map(Consumption::shown);
        let start = |(index, ports)| {
            let shard = ShardId(index as u16);
            let settings = Settings {
                shard,
                shards: config.shards,
                core: cores::in_turn(&usable, index),
                outlives_power: config.durability == Durability::Fsync,
                connections_max: config.connections_max,
                log_budget: config.log_budget,
                publish_budget: config.publish.as_ref().map_or(u64::MAX, |publish| publish.backlog),
                source_expiry: config.source_expiry,
                resolver: resolver.clone(),
                unreachable: unreachable.clone(),
                log_lines_dropped: logging::dropped,
                consuming: (index == 0).then(|| consuming.clone()).flatten(),
            };
            let (end, mut shard_end) = connect();
            shard_end.feed = outboxes.open(config, data_dir, shard)?;
            end.news.listen(&waker);
            let thread = Some(spawn(settings, roster.clone(), data_dir.clone(), ports, shard_end)?);
            let (metrics, told, progress, roster, sealing) = (None, None, None, roster.clone(), None);
            let (settings, settings_trouble) = (ShardSettings::default(), String::new());
            Ok(Shard {
                thread,
                end,
                is_ready: false,
                metrics,
                told,
                progress,
                roster,
                sealing,
                settings,
                settings_trouble,
            })
        };
        let shards = ports.into_iter().enumerate().map(start).collect::<Result<_, Fatal>>()?;
        let settings = ShardSettings { tuning: config.settings.tuning(), is_slow_agreed: false };
        let (keeper, publishers) = outboxes.start()?;
        let doors = OpenDoors::open(config, data_dir, roster, http, grpc)?;
        Ok(Shards {
            shards,
            keeper,
            publishers,
            consumption,
            doors,
            data_dir: data_dir.clone(),
            membership,
            entered: roster.epoch,
            settings,
        })
    }

    /// Waits until all shards serve, or the process is told to stop. Returns whether they serve.
    pub(crate) fn wait_ready(&mut self, stopping: &AtomicBool) -> Result<bool, Fatal> {
        loop {
            self.hear()?;
            if self.shards.iter().all(|shard| shard.is_ready) {
                self.consumption.as_mut().map_or(Ok(()), Consumption::start)?;
                return Ok(true);
            }
            if stopping.load(Ordering::Relaxed) {
                return Ok(false);
            }
            std::thread::park();
        }
    }

    /// Waits until the process is told to stop, and stops the shards. Returns the number of decisions that were executed
    /// since the start.
    pub(crate) fn run(mut self, stopping: &AtomicBool) -> Result<u64, Fatal> {
        while !stopping.load(Ordering::Relaxed) {
            self.hear()?;
            std::thread::park();
        }
        // While the shards serve, so that what is under way is answered.
        self.doors.take().into_iter().for_each(OpenDoors::close);
        self.consumption.take().into_iter().for_each(Consumption::stop);
        let mut untold: Vec<&Shard> = self.shards.iter().collect();
        loop {
            // A shard that stands still takes its orders when it goes on, and the others stop meanwhile.
            untold.retain(|shard| shard.end.orders.send(ToShard::Stop).is_err());
            if untold.is_empty() {
                break;
            }
            std::thread::sleep(LANE_RETRY);
        }
        let decisions = self.shards.into_iter().map(Shard::end).sum();
        self.keeper.into_iter().for_each(Keeper::stop);
        self.publishers.into_iter().for_each(Publishers::stop);
        decisions
    }

    /// Takes what the shards have said, and tells them who takes part now, and the settings.
    fn hear(&mut self) -> Result<(), Fatal> {
        self.shards.iter_mut().for_each(Shard::hear);
        self.tend_publishers()?;
        self.consumption.iter().for_each(Consumption::show);
        self.show_doors();
        let Some(membership) = &self.membership else {
            self.shards.iter_mut().for_each(|shard| shard.tune(self.settings));
            return Ok(());
        };
        let loss = self.shards.iter().find_map(|shard| shard.metrics.as_ref()?.path.loss);
        let Known { roster, sealing, settings, settings_trouble } = membership.look(loss);
        for shard in &mut self.shards {
            shard.tune(settings);
            shard.tell_trouble(&settings_trouble);
        }
        if roster.epoch > self.entered {
            // Before any shard says anything in the epoch.
            match roster.own.map(|_| self.data_dir.enter(&roster)) {
                // The shards go on in their epoch, and what they say next is the next occasion.
                Some(Err(fatal)) if fatal.passes => {
                    log::warn!("epoch {} cannot be entered yet: {fatal}", roster.epoch.0);
                    return Ok(());
                }
                Some(Err(fatal)) => return Err(fatal),
                Some(Ok(_)) | None => self.entered = roster.epoch,
            }
        }
        self.shards.iter_mut().for_each(|shard| shard.follow(&roster, sealing));
        membership.report(self.report());
        Ok(())
    }

    /// Shows the doors how the shards stand.
    fn show_doors(&self) {
        let (Some(doors), Some(first)) = (&self.doors, self.shards.first()) else { return };
        let is_etcd_reached = self.membership.as_ref().map(Membership::is_etcd_reached);
        doors.show(&first.roster, self.shards.iter().map(Shard::view), is_etcd_reached);
    }

    /// Lets the publishers know who is there.
    fn tend_publishers(&mut self) -> Result<(), Fatal> {
        let Some(publishers) = &mut self.publishers else { return Ok(()) };
        let Some(shard) = self.shards.first() else { return Ok(()) };
        let (own, members) = (shard.roster.own, shard.roster.members);
        publishers.tend(own, members, self.shards.iter().map(|shard| shard.metrics.as_deref()))
    }

    /// What all shards have come to.
    fn report(&self) -> Report {
        let here = |shard: &Shard| shard.progress.filter(|progress| progress.epoch == self.entered);
        let Some(all) = self.shards.iter().map(here).collect::<Option<Vec<_>>>() else {
            return Report::default();
        };
        let is_close = all.iter().all(|progress| progress.is_close);
        let ends: Option<Vec<EpochEnd>> = all.iter().map(|progress| progress.end).collect();
        Report { is_close, held: ends.and_then(|ends| held(&ends)) }
    }
}

/// The end of the epoch in all shards, if it is the same change that has ended it.
fn held(ends: &[EpochEnd]) -> Option<Held> {
    let EpochEnd { record, .. } = *ends.first()?;
    let is_one = ends.iter().all(|end| end.record == record);
    let bytes: Vec<u8> = ends.iter().flat_map(|end| end.hash.to_le_bytes()).collect();
    is_one.then(|| Held { change: ChangeId(record.0), hash: xxh3_64(&bytes) })
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

    /// The shard as the doors know it.
    fn view(&self) -> ShardView {
        ShardView { is_serving: self.is_ready, status: self.metrics.clone(), told: self.told }
    }

    /// Tells the shard who takes part and whether the epoch is to end, unless it knows. A shard that does not take its
    /// orders for so long that the lane is full is told when it has said something again.
    fn follow(&mut self, roster: &Roster, sealing: Option<RecordId>) {
        if self.roster != *roster && self.end.orders.send(ToShard::Roster(roster.clone())).is_ok() {
            self.roster = roster.clone();
        }
        let record = sealing.filter(|record| self.sealing != Some(*record));
        if let Some(record) = record.filter(|record| self.end.orders.send(ToShard::Seal(*record)).is_ok()) {
            self.sealing = Some(record);
        }
    }

    /// Tells the shard the settings, unless it knows, like the places of the members.
    fn tune(&mut self, settings: ShardSettings) {
        if self.settings != settings && self.end.orders.send(ToShard::Settings(settings)).is_ok() {
            self.settings = settings;
        }
    }

    /// Tells the shard why settings are not followed, unless it knows.
    fn tell_trouble(&mut self, why: &str) {
        let is_told = self.settings_trouble == why;
        if !is_told && self.end.orders.send(ToShard::SettingsTrouble(why.to_owned())).is_ok() {
            self.settings_trouble = why.to_owned();
        }
    }

    /// Takes what the shard has said.
    fn hear(&mut self) {
        for news in self.end.news.take() {
            match news {
                FromShard::Ready => self.is_ready = true,
                FromShard::Progress(progress) => self.progress = Some(progress),
                FromShard::Metrics(metrics) => {
                    (self.metrics, self.told) = (Some(metrics.into()), Some(Instant::now()));
                }
            }
        }
    }
}
