//! A shard in one epoch: what its tasks share, and its turns.

use glommio::Task;
use isonomy_mesh::{EpochEnd, Place, Progress, Roster};
use isonomy_protocol::contract::{Output, Sealed};
use isonomy_protocol::replica::Replica;
use isonomy_tuning::cpu::process_cpu_us;
use isonomy_wire::id::ReplicaId;
use isonomy_wire::message::ShardStatus;
use isonomy_wire::tuning::PathStatus;
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::data_dir::EpochDir;
use crate::feed::Feed;
use crate::log::Writer;
use crate::log::groups::Write;
use crate::net::Net;
use crate::pump::{Input, Pump};
use crate::settings::{Seat, Settings};
use crate::shard::Shard;
use crate::snapshot::Transfers;
use crate::tasks::Tasks;

/// How long the own instances may take to end when the process is told to stop, and the last answers to leave.
pub(crate) const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// A shard in one epoch. Each field keeps its state to itself; tasks share the node.
pub(crate) struct Node {
    /// What outlives the epoch.
    pub(crate) shard: Rc<Shard>,
    pub(crate) seat: Seat,
    pub(crate) data_dir: EpochDir,
    pub(crate) pump: Pump,
    pub(crate) writer: Writer,
    pub(crate) net: Net,
    pub(crate) transfers: Transfers,
    /// Who takes part in the epoch, as the process said last.
    pub(crate) roster: RefCell<Rc<Roster>>,
    /// The end of the epoch, once the state at it is durable here.
    pub(crate) ended: Cell<Option<EpochEnd>>,
    /// Whether a later epoch has begun. Nobody is welcomed any more.
    pub(crate) is_over: Cell<bool>,
    /// The task of the writes, which is never cancelled in the middle of one.
    pub(crate) writing: RefCell<Option<Task<()>>>,
    pub(crate) tasks: Tasks,
}

impl Node {
    pub(crate) fn settings(&self) -> &Settings {
        &self.shard.settings
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.data_dir.log_dir(self.settings().shard)
    }

    /// Who takes part in the epoch now.
    pub(crate) fn roster(&self) -> Rc<Roster> {
        let newest = self.shard.mail.roster();
        if newest.epoch == self.seat.epoch {
            self.roster.replace(newest);
        }
        self.roster.borrow().clone()
    }

    /// Another member or learner, if there is one at this place now.
    pub(crate) fn place(&self, of: ReplicaId) -> Option<Place> {
        self.roster().places.get(of.index()).cloned()
    }

    /// How far this shard has come.
    pub(crate) fn progress(&self) -> Progress {
        let is_close = self.pump.look(Replica::is_close);
        Progress { epoch: self.seat.epoch, is_close, end: self.ended.get() }
    }

    /// Whether so much waits for the disk that the shard does not read from peers.
    pub(crate) fn is_behind(&self) -> bool {
        self.writer.is_behind() || self.pump.look(|core| core.is_behind())
    }

    /// Takes the core's outputs whenever inputs have come, for ever.
    pub(crate) async fn run_turns(self: Rc<Node>) {
        loop {
            self.pump.turn_due().await;
            self.run_turn();
        }
    }

    /// Takes the outputs of the core in the order of its contract: appends, messages, replies.
    fn run_turn(&self) {
        let (mut log, mut outgoing) = (self.writer.log(), self.net.outgoing());
        self.pump.end_turn(|now, output| match output {
            Output::Append(append) => log.append(now, &append),
            Output::Send(send) => outgoing.send(&send),
            Output::Reply(reply) => outgoing.reply(now, reply),
            Output::Executed(executed) => self.shard.publish(self.seat.epoch, executed),
            Output::Cut(position) => self.writer.disk.cut(position),
            Output::Sealed(Sealed { record, hash, .. }) => self.ended.set(Some(EpochEnd { record, hash })),
        });
        drop((log, outgoing));
        if let Some(feed) = &self.shard.feed {
            feed.flush();
        }
        self.pump.look(|core| {
            if core.awaits_log() {
                self.writer.want();
            }
            self.transfers.on_turn(core);
        });
    }

    /// Writes the log, one group after the other, until the node ends. The next group gathers while one is under way, and
    /// as long as no message or reply waits for it.
    pub(crate) async fn run_writes(self: Rc<Node>) {
        let is_awaited = || self.pump.look(|core| core.awaits_log());
        while let Some(write) = self.writer.next(|| self.pump.now(), is_awaited).await {
            self.write_group(write).await;
        }
    }

    pub(crate) async fn write_group(&self, write: Write) {
        let durable = self.writer.write(write).await;
        self.pump.take(Input::Durable(durable));
        self.writer.written.notify();
    }

    /// The status of this shard, which is also what it measures of itself.
    pub(crate) fn status(&self) -> ShardStatus {
        let (core, path_since) = self.pump.look(|core| (core.status(), core.path_since()));
        let (links, guests) = (self.net.links.borrow(), self.net.guests.borrow());
        let (clients, operators) = guests.taken();
        let (log_bytes, log_groups) = self.writer.counts();
        let (disk, answers) = (&self.writer.disk, self.net.answers.borrow());
        ShardStatus {
            log_bytes,
            log_groups,
            log_held_bytes: disk.held_bytes(),
            log_budget_bytes: self.settings().log_budget,
            path: PathStatus { for_ms: self.pump.now().since(path_since) / 1000, ..core.path },
            fetched: self.transfers.progress(),
            publishing: self.shard.feed.as_ref().map(Feed::publishing),
            consuming: self.settings().consuming.as_ref().map(|it| {
                let told = it.lock().unwrap_or_else(PoisonError::into_inner);
                told.clone()
            }),
            snapshot_trouble: self.snapshot_trouble(),
            tuning_trouble: self.shard.mail.settings_trouble(),
            process_cpu_us: process_cpu_us(),
            durable: self.settings().outlives_power,
            disk_hung_ms: disk.hung_for().map_or(0, |hung| hung.as_millis() as u64),
            log_lines_dropped: (self.settings().log_lines_dropped)(),
            peers_connected: links.linked().collect(),
            peers: core.peers.into_iter().map(|peer| links.tell(peer)).collect(),
            clients,
            operators,
            connections_refused: guests.refused,
            connections_yielded: guests.yielded,
            proposals: answers.proposals,
            requests_failed: answers.failed,
            latency: answers.tally.latency(),
            log_latency: disk.latency(),
            log_queued_bytes: self.writer.waiting_bytes(),
            ..core
        }
    }

    /// Sends the queued messages and replies, and then ends all connections.
    pub(crate) async fn close_all(&self) {
        let sinks = self.net.flush_all();
        let began = Instant::now();
        while sinks.iter().any(|sink| sink.backlog() > 0) && began.elapsed() < STOP_PATIENCE {
            self.shard.tick.wait().await;
        }
        sinks.iter().for_each(|sink| sink.close("this replica stops"));
    }
}
