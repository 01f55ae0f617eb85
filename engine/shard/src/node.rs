//! What the tasks of a shard share, and its turns.

use isonomy_protocol::contract::Output;
use isonomy_tuning::cpu::process_cpu_us;
use isonomy_wire::id::Epoch;
use isonomy_wire::message::ShardStatus;
use isonomy_wire::tuning::PathStatus;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::aside::Aside;
use crate::data_dir::DataDir;
use crate::log::Writer;
use crate::log::groups::Write;
use crate::mail::Mail;
use crate::net::Net;
use crate::pump::{Input, Pump};
use crate::settings::Settings;
use crate::signal::Signal;
use crate::snapshot::Transfers;
use crate::told::Told;

/// The only epoch so far.
pub(crate) const EPOCH: Epoch = Epoch(1);
/// How long the own instances may take to end when the process is told to stop, and the last answers to leave.
pub(crate) const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// A shard. Each field keeps its state to itself; tasks share the node.
pub(crate) struct Node {
    pub(crate) settings: Settings,
    pub(crate) data_dir: DataDir,
    pub(crate) pump: Pump,
    pub(crate) writer: Writer,
    pub(crate) net: Net,
    pub(crate) transfers: Transfers,
    /// Runs what may block and does not belong to the log.
    pub(crate) aside: Aside,
    pub(crate) mail: Mail,
    /// Notified at each tick.
    pub(crate) tick: Signal,
    pub(crate) told: Rc<Told>,
}

impl Node {
    pub(crate) fn dir(&self) -> PathBuf {
        self.data_dir.shard_dir(self.settings.shard)
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
            Output::Reply(reply) => outgoing.reply(reply),
            Output::Cut(position) => self.writer.disk.cut(position),
            // No process proposes a Seal yet, so no epoch ends.
            Output::Sealed(_) => {}
        });
        drop((log, outgoing));
        self.pump.look(|core| {
            if core.awaits_log() {
                self.writer.want();
            }
            self.transfers.on_turn(core);
        });
    }

    /// Writes the log, one group after the other. The next group gathers while one is under way, and as long as no
    /// message or reply waits for it.
    pub(crate) async fn run_writes(self: Rc<Node>) {
        loop {
            let is_awaited = || self.pump.look(|core| core.awaits_log());
            let write = self.writer.next(|| self.pump.now(), is_awaited).await;
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
        let disk = &self.writer.disk;
        ShardStatus {
            log_bytes,
            log_groups,
            log_held_bytes: disk.held_bytes(),
            log_budget_bytes: self.settings.log_budget,
            path: PathStatus { for_ms: self.pump.now().since(path_since) / 1000, ..core.path },
            fetched: self.transfers.progress(),
            snapshot_trouble: self.snapshot_trouble(),
            process_cpu_us: process_cpu_us(),
            durable: self.settings.outlives_power,
            disk_hung_ms: disk.hung_for().map_or(0, |hung| hung.as_millis() as u64),
            log_lines_dropped: (self.settings.log_lines_dropped)(),
            peers_connected: links.linked().collect(),
            peers: core.peers.into_iter().map(|peer| links.tell(peer)).collect(),
            clients,
            operators,
            connections_refused: guests.refused,
            connections_yielded: guests.yielded,
            ..core
        }
    }

    /// Sends the queued messages and replies, and then ends all connections.
    pub(crate) async fn close_all(&self) {
        let sinks = self.net.flush_all();
        let began = Instant::now();
        while sinks.iter().any(|sink| sink.backlog() > 0) && began.elapsed() < STOP_PATIENCE {
            self.tick.wait().await;
        }
        sinks.iter().for_each(|sink| sink.close("this replica stops"));
    }
}
