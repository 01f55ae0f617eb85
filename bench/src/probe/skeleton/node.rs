//! The work of a replica of the skeleton on its inputs: the steps of the fast path, without dependencies, ballots,
//! conversations or recovery.
//!
//! Everything is in order: a peer acknowledges batches in the order in which it received them, and a log is durable
//! up to a position. So plain counters tell the progress of each of them.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use isonomy_tuning::cpu::process_cpu_us;
use isonomy_wire::deps::Deps;
use isonomy_wire::frame::{Encoder, Frame};
use isonomy_wire::id::{Ballot, InstanceId, ReplicaId};
use isonomy_wire::message::{ClientMessage, PeerMessage, ShardStatus, Value};
use std::collections::VecDeque;
use std::rc::Rc;

use super::link::Sink;
use super::log::{Log, Position};
use super::table::Table;
use super::words::{CLIENT, PEER, REPLICAS, others};

/// A step that follows once a record is durable.
enum Held {
    /// The own batch of this number counts as taken by this replica.
    Own(u64),
    /// The peer that sent the batch is told.
    Acknowledge(InstanceId),
    /// The own batch of this number is executed and answered, and the peers are told.
    Commit(u64),
}

/// One replica without its tasks.
pub(super) struct Node {
    row: ReplicaId,
    pub(super) log: Log,
    table: Table,
    command_bytes: usize,
    encoder: Encoder,
    links: Vec<(ReplicaId, Rc<Sink>)>,
    client: Option<Rc<Sink>>,
    held: VecDeque<(Position, Held)>,
    /// Own batches that are not executed, with the tags of their requests.
    own: VecDeque<(u64, Bytes)>,
    /// Batches of each peer that are not committed, with their numbers.
    theirs: [VecDeque<(u64, Bytes)>; REPLICAS],
    /// Own batches so far.
    proposed: u64,
    /// Own batches that are durable here.
    synced: u64,
    /// Own batches that each peer has acknowledged.
    acknowledged: [u64; REPLICAS],
    /// Own batches that are committed.
    committed: u64,
    /// Own commands that are executed.
    decisions: u64,
}

impl Node {
    pub(super) fn new(
        row: ReplicaId,
        log: Log,
        table: Table,
        command_bytes: usize,
        links: Vec<(ReplicaId, Rc<Sink>)>,
    ) -> Node {
        Node {
            row,
            log,
            table,
            command_bytes,
            encoder: Encoder::default(),
            links,
            client: None,
            held: VecDeque::new(),
            own: VecDeque::new(),
            theirs: Default::default(),
            proposed: 0,
            synced: 0,
            acknowledged: [0; REPLICAS],
            committed: 0,
            decisions: 0,
        }
    }

    /// The load has connected.
    pub(super) fn on_client(&mut self, sink: Rc<Sink>) {
        self.client = Some(sink);
    }

    /// A request is logged and forwarded at once, its bytes as they came.
    pub(super) fn on_client_frame(&mut self, frame: Frame) -> Result<()> {
        match frame.decode(CLIENT)? {
            ClientMessage::Request { tag } => self.on_request(tag, frame.payload, frame.payload_crc),
            ClientMessage::StatusRequest => {
                let status = ClientMessage::Status(Box::new(self.status()));
                self.answer(&status);
            }
            other => {
                bail!("the load sent {other:?}, which is unexpected; run the same release on both sides")
            }
        }
        Ok(())
    }

    fn on_request(&mut self, tag: u64, payload: Bytes, crc: u32) {
        self.proposed += 1;
        let id = InstanceId::new(self.row, self.proposed);
        let position = self.log.append(id, &payload, crc);
        self.held.push_back((position, Held::Own(id.seq)));
        let message = PeerMessage::PreAccept { id, deps: Deps::NONE };
        for (_, sink) in &self.links {
            sink.push(&mut self.encoder, PEER, &message, &payload, crc);
        }
        self.own.push_back((tag, payload));
    }

    /// Handles a frame of a peer.
    pub(super) fn on_peer_frame(&mut self, peer: ReplicaId, frame: Frame) -> Result<()> {
        match frame.decode(PEER)? {
            PeerMessage::PreAccept { id, .. } => {
                let position = self.log.append(id, &frame.payload, frame.payload_crc);
                self.held.push_back((position, Held::Acknowledge(id)));
                self.theirs[peer.index()].push_back((id.seq, frame.payload));
            }
            PeerMessage::PreAcceptOk { id, .. } => self.acknowledged[peer.index()] = id.seq,
            PeerMessage::Commit { id, .. } => {
                let theirs = self.theirs[peer.index()].pop_front();
                let (seq, batch) = theirs.context("a commit came before its batch; report this")?;
                ensure!(seq == id.seq, "batch {seq} was committed as {}; report this", id.seq);
                self.log.append(id, &Bytes::new(), 0);
                self.table.execute(&batch, id.seq);
            }
            other => bail!("a peer sent {other:?}, which is unexpected; run the same release everywhere"),
        }
        Ok(())
    }

    /// The log is durable up to here.
    pub(super) fn on_durable(&mut self, durable: Position) {
        while self.held.front().is_some_and(|(position, _)| *position <= durable) {
            let (_, held) = self.held.pop_front().expect("it was just seen");
            match held {
                Held::Own(seq) => self.synced = seq,
                Held::Acknowledge(id) => {
                    let message = PeerMessage::PreAcceptOk { id, deps: Deps::NONE };
                    let link = self.links.iter().find(|(peer, _)| *peer == id.row);
                    let (_, sink) = link.expect("there is a link to each peer");
                    sink.push(&mut self.encoder, PEER, &message, &[], 0);
                }
                Held::Commit(seq) => self.finish(seq),
            }
        }
    }

    fn finish(&mut self, seq: u64) {
        let (tag, batch) = self.own.pop_front().expect("a batch is committed once");
        self.table.execute(&batch, seq);
        self.decisions += (batch.len() / self.command_bytes) as u64;
        self.answer(&ClientMessage::Response { tag });
        let id = InstanceId::new(self.row, seq);
        let (ballot, value) = (Ballot::default(), Value::Known);
        let message = PeerMessage::Commit { id, ballot, value, deps: Deps::NONE, after: Deps::NONE };
        for (_, sink) in &self.links {
            sink.push(&mut self.encoder, PEER, &message, &[], 0);
        }
    }

    fn answer(&mut self, message: &ClientMessage) {
        // A load that has gone hears nothing.
        if let Some(sink) = &self.client {
            sink.push(&mut self.encoder, CLIENT, message, &[], 0);
        }
    }

    /// Commits what is durable here and at one peer, and lets everything leave.
    pub(super) fn end_turn(&mut self) {
        let farthest = others(self.row).map(|peer| self.acknowledged[peer.index()]).max();
        let decided = farthest.unwrap_or_default().min(self.synced);
        while self.committed < decided {
            self.committed += 1;
            let id = InstanceId::new(self.row, self.committed);
            let position = self.log.append(id, &Bytes::new(), 0);
            self.held.push_back((position, Held::Commit(self.committed)));
        }
        self.links.iter().map(|(_, sink)| sink).chain(&self.client).for_each(|sink| sink.flush());
    }

    fn status(&self) -> ShardStatus {
        ShardStatus {
            replica: self.row,
            decisions: self.decisions,
            log_bytes: self.log.bytes,
            log_groups: self.log.groups,
            process_cpu_us: process_cpu_us(),
            durable: true,
            ..ShardStatus::default()
        }
    }
}
