//! A conversation and a model cluster that answers it, for tests of the requests and the outcomes.

use super::model::Model;
use super::*;
use crate::answer::{Answer, Answers};
use crate::command::{Batch, Op};
use crate::failure::Failure;
use crate::id::SessionId;
use std::collections::BTreeMap;

/// A conversation, the cluster that answers it, and what it sent and learnt.
pub(super) struct Rig {
    pub(super) conversation: Conversation,
    pub(super) shards: BTreeMap<ShardId, Model>,
    pub(super) now: u64,
    pub(super) outcomes: BTreeMap<u64, Result<Answer, Error>>,
}

impl Rig {
    pub(super) fn with(conversation: Conversation, shards: u16) -> Rig {
        let shards = (0..shards).map(|shard| (ShardId(shard), Model::new(ShardId(shard)))).collect();
        Rig { conversation, shards, now: 1, outcomes: BTreeMap::new() }
    }

    /// Three replicas and one shard, all connected.
    pub(super) fn new(change: impl FnOnce(&mut Config)) -> Rig {
        let mut config = Config::new(3, 1);
        change(&mut config);
        let mut rig = Rig::with(Conversation::new(config), 1);
        (0..3).for_each(|replica| rig.conversation.on_connected(ReplicaId(replica), ShardId(0)));
        rig
    }

    /// The next epoch begins, with so many members, which are all connected.
    pub(super) fn change(&mut self, replicas: u8) {
        self.shards.values_mut().for_each(Model::begin_epoch);
        self.conversation.on_members_changed(replicas);
        let shards: Vec<ShardId> = self.shards.keys().copied().collect();
        for replica in (0..replicas).map(ReplicaId) {
            shards.iter().for_each(|shard| self.conversation.on_connected(replica, *shard));
        }
    }

    pub(super) fn decide(&mut self, key: &[u8], token: u64) {
        let value = token.to_string();
        self.conversation.submit(self.now, &Action::Decide { key, value: value.as_bytes() }, token).unwrap();
    }

    pub(super) fn sent(&mut self) -> Vec<Transmit> {
        let sent = std::iter::from_fn(|| self.conversation.poll_transmit(self.now)).collect();
        self.collect();
        sent
    }

    pub(super) fn one(&mut self) -> Transmit {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    pub(super) fn answer(&mut self, transmit: &Transmit) {
        let response = self.shards.get_mut(&transmit.shard).unwrap().execute(&transmit.payload);
        self.give(transmit, response);
    }

    pub(super) fn give(&mut self, transmit: &Transmit, response: Bytes) {
        let answers = Answers::parse(response).unwrap();
        self.conversation.on_response(transmit.replica, transmit.tag, answers).unwrap();
        self.collect();
    }

    pub(super) fn fail(&mut self, transmit: &Transmit, failure: Failure) {
        self.conversation.on_failure(self.now, transmit.replica, transmit.tag, failure);
        self.collect();
    }

    pub(super) fn collect(&mut self) {
        while let Some(outcome) = self.conversation.poll_outcome() {
            for (token, answer) in outcome.each() {
                assert!(self.outcomes.insert(token, answer).is_none(), "token {token} came twice");
            }
            self.conversation.recycle(outcome);
        }
    }

    pub(super) fn pass(&mut self, micros: u64) {
        self.now += micros;
        self.conversation.on_timeout(self.now);
        self.collect();
    }

    /// Answers Attaches until the source is this conversation's.
    pub(super) fn attach(&mut self) {
        while !self.conversation.lanes.iter().any(|lane| matches!(lane.session, LaneSession::Attached(_))) {
            let attach = self.one();
            self.answer(&attach);
        }
    }

    /// Answers all requests that are sent, until none is sent any more.
    pub(super) fn settle(&mut self) {
        loop {
            let sent = self.sent();
            if sent.is_empty() {
                return;
            }
            sent.iter().for_each(|transmit| self.answer(transmit));
        }
    }

    pub(super) fn is_committed(&self, token: u64) -> bool {
        matches!(self.outcomes.get(&token), Some(Ok(Answer::Committed { .. })))
    }
}

/// The (operation, number, run) of each command, the session, and the number below which all is answered.
pub(super) fn look(transmit: &Transmit) -> (Vec<(Op, u64, u64)>, SessionId, u64) {
    let batch = Batch::parse(transmit.payload.clone(), 0, |_| ()).unwrap();
    let part = batch.parts()[0];
    let commands = batch.commands_of(&part).map(|command| (command.op, command.number, command.run));
    (commands.collect(), part.session, part.answered_below)
}

pub(super) fn ops(transmit: &Transmit) -> Vec<Op> {
    look(transmit).0.into_iter().map(|(op, ..)| op).collect()
}

/// A key whose home among three members is this one.
pub(super) fn key_of_home(home: u8) -> Vec<u8> {
    key_of_homes(&[(3, home)])
}

/// A key that has, among so many members, each of these homes.
pub(super) fn key_of_homes(homes: &[(u8, u8)]) -> Vec<u8> {
    let mut keys = (0u32..).map(|n| n.to_le_bytes().to_vec());
    let fits =
        |key: &Vec<u8>| homes.iter().all(|(replicas, home)| home_of(hash_key(key), *replicas).0 == *home);
    keys.find(fits).expect("every combination has keys that a new member does not forbid")
}
