//! A model cluster for tests: one shard that executes requests as the law's section 6b says,
//! number by number, and remembers how often each value was decided.

use crate::answer::{Answer, ResponseBuilder};
use crate::command::{Batch, Command, KEYED_NUMBER_MAX, Op, Part};
use crate::id::{CommandId, Epoch, InstanceId, ReplicaId, SessionId, ShardId};
use crate::message::SourceStatus;
use crate::source::{Owner, Said};
use bytes::Bytes;
use std::collections::BTreeMap;

#[derive(Debug)]
struct Session {
    answers: BTreeMap<u64, Answer>,
    low: u64,
    owner: Owner,
    said: Said,
}

impl Default for Session {
    fn default() -> Session {
        Session { answers: BTreeMap::new(), low: 1, owner: Owner::NOBODY, said: Said::default() }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    shard: ShardId,
    epoch: Epoch,
    instances: u64,
    sessions: BTreeMap<SessionId, Session>,
    keys: BTreeMap<Vec<u8>, (u64, Bytes, CommandId)>,
    /// How often each value was decided.
    pub(crate) decided: BTreeMap<Vec<u8>, u32>,
    /// The values of each key in the order in which they were decided.
    pub(crate) orders: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
}

impl Model {
    pub(crate) fn new(shard: ShardId) -> Model {
        Model { shard, epoch: Epoch(1), ..Model::default() }
    }

    /// The next epoch begins, with the state and the sessions of this one.
    pub(crate) fn begin_epoch(&mut self) {
        (self.epoch, self.instances) = (Epoch(self.epoch.0 + 1), 0);
    }

    /// The latest decision of a key.
    pub(crate) fn value(&self, key: &[u8]) -> Option<&Bytes> {
        self.keys.get(key).map(|(_, value, _)| value)
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The named sessions.
    pub(crate) fn sources(&self) -> Vec<SourceStatus> {
        let named = self.sessions.iter().filter(|(id, _)| id.is_named());
        let status = |(id, session): (&SessionId, &Session)| SourceStatus {
            session: *id,
            owner: session.owner,
            low: session.low,
            ..SourceStatus::default()
        };
        named.map(status).collect()
    }

    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Ends all sessions, as if they had been idle.
    pub(crate) fn end_all(&mut self) {
        self.sessions.clear();
    }

    /// Executes a request and encodes its response.
    pub(crate) fn execute(&mut self, payload: &Bytes) -> Bytes {
        let batch = Batch::parse(payload.clone(), 0, |_| ()).expect("conversations send valid requests");
        let [part] = batch.parts() else { panic!("a frame is one request") };
        self.instances += 1;
        let instance = InstanceId::new(ReplicaId(0), self.instances);
        let mut response = ResponseBuilder::new(self.epoch, self.shard);
        for (index, command) in (0..).zip(batch.commands_of(part)) {
            let id = CommandId { epoch: self.epoch, shard: self.shard, instance, index };
            let answer = self.execute_one(part, &command, id);
            response.repeat(instance, index, &answer);
        }
        response.encode()
    }

    fn execute_one(&mut self, part: &Part, command: &Command<'_>, id: CommandId) -> Answer {
        if part.session == SessionId::NONE {
            return self.apply(command, id);
        }
        if part.session.is_named() {
            self.sessions.entry(part.session).or_default();
        }
        if part.session.is_keyed() {
            self.sessions.entry(part.session).or_insert(Session { low: part.first, ..Session::default() });
        }
        let Some(session) = self.sessions.get_mut(&part.session) else { return Answer::Expired };
        if let Some(attach) = command.attach().filter(|_| command.op == Op::Attach) {
            if session.owner == attach.expected {
                (session.owner, session.answers) = (attach.owner, BTreeMap::new());
            }
            return Answer::Standing(Box::new(session.said.standing(session.owner, session.low)));
        }
        if let Some(seen) = command.seen().filter(|_| command.op == Op::End && command.number == 0) {
            let low = session.low;
            if seen != (low, session.owner) {
                return Answer::Done;
            }
            self.sessions.remove(&part.session);
            return Answer::Ended { low };
        }
        if part.owner != session.owner {
            return Answer::Fenced;
        }
        if part.session.is_named() {
            session.low = session.low.max(part.answered_below);
        }
        if command.op == Op::End {
            let low = session.low;
            self.sessions.remove(&part.session);
            return Answer::Ended { low };
        }
        if command.number > session.low {
            return Answer::Early;
        }
        if command.number + command.run <= session.low {
            return session.answers.get(&command.number).cloned().unwrap_or(Answer::Duplicate);
        }
        let answer = self.apply(command, id);
        let session = self.sessions.get_mut(&part.session).expect("it is open");
        session.answers.insert(command.number, answer.clone());
        session.low =
            if part.session.is_keyed() { KEYED_NUMBER_MAX + 1 } else { command.number + command.run };
        if command.op != Op::Skip {
            session.said.on_command(command);
        }
        answer
    }

    fn apply(&mut self, command: &Command<'_>, id: CommandId) -> Answer {
        let now = self.keys.get(command.key);
        let key_seq = now.map_or(0, |(key_seq, ..)| *key_seq);
        match command.op {
            Op::DecideIf if key_seq != command.expected => {
                let value = now.map(|(_, value, _)| value.clone());
                Answer::Rejected { key_seq, value }
            }
            Op::Decide | Op::DecideIf => {
                *self.decided.entry(command.value.to_vec()).or_default() += 1;
                self.orders.entry(command.key.to_vec()).or_default().push(command.value.to_vec());
                let value = Bytes::copy_from_slice(command.value);
                self.keys.insert(command.key.to_vec(), (key_seq + 1, value, id));
                Answer::Committed { id, key_seq: key_seq + 1 }
            }
            Op::Read => now.map_or(Answer::Missing, |(key_seq, value, id)| Answer::Found {
                key_seq: *key_seq,
                value: value.clone(),
                id: *id,
            }),
            Op::Delete => match self.keys.remove(command.key) {
                Some((key_seq, ..)) => Answer::Deleted { id, key_seq },
                None => Answer::Missing,
            },
            Op::Open => {
                self.sessions.insert(SessionId::opened_by(id), Session::default());
                Answer::Opened { session: SessionId::opened_by(id) }
            }
            Op::End | Op::Skip | Op::Barrier | Op::Attach | Op::Seal => Answer::Done,
        }
    }
}
