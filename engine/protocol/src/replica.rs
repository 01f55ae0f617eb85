//! One replica's part in one shard.
#![allow(unused_variables, missing_docs)]

use crate::contract::*;
use crate::log::record::Record;
use crate::payload::Payload;
use isonomy_wire::id::ReplicaId;
use isonomy_wire::message::{PeerMessage, ShardStatus};

#[derive(Debug)]
pub struct Replica {}

impl Replica {
    /// A replica with nothing in its log. Call `replay` for each record of the log, in order, then `start`.
    pub fn new(config: Config, seed: u64) -> Replica {
        unimplemented!()
    }
    /// A record that the log had when the process started; before `start`.
    pub fn replay(&mut self, record: Record, payload: Option<Payload>) {
        unimplemented!()
    }
    /// The log was replayed; `position` is that of its last record.
    pub fn start(&mut self, now: Time, position: Position) {
        unimplemented!()
    }
    pub fn on_message(
        &mut self,
        now: Time,
        from: ReplicaId,
        message: PeerMessage,
        payload: Option<Payload>,
    ) {
        unimplemented!()
    }
    pub fn on_request(&mut self, now: Time, client: ClientRef, payload: Payload) -> Result<(), Busy> {
        unimplemented!()
    }
    /// `peers` are those whose link works now. Used for `Unavailable` and to choose recoverers.
    pub fn on_links(&mut self, now: Time, peers: &[ReplicaId]) {
        unimplemented!()
    }
    pub fn on_timeout(&mut self, now: Time) {
        unimplemented!()
    }
    /// All records up to `position` are durable.
    pub fn on_durable(&mut self, now: Time, position: Position) {
        unimplemented!()
    }
    /// After a batch of inputs: submits what requests have gathered. Then poll.
    pub fn end_turn(&mut self, now: Time) {
        unimplemented!()
    }
    /// The process is about to stop: no more requests. Still poll and feed messages until `is_idle`, at most a few seconds.
    pub fn on_stop(&mut self, now: Time) {
        unimplemented!()
    }
    /// Nothing own is undecided and nothing waits for the log.
    pub fn is_idle(&self) -> bool {
        unimplemented!()
    }
    pub fn poll_append(&mut self) -> Option<Append> {
        unimplemented!()
    }
    pub fn poll_send(&mut self) -> Option<Send> {
        unimplemented!()
    }
    pub fn poll_reply(&mut self) -> Option<Reply> {
        unimplemented!()
    }
    /// When `on_timeout` wants to be called, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Time> {
        unimplemented!()
    }
    /// Fills what the core knows; log bytes, groups, CPU, durability and peers are the caller's.
    pub fn status(&self) -> ShardStatus {
        unimplemented!()
    }
}
