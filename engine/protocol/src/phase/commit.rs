//! C6, execution and replies: a value is final, and what follows from it.

use crate::attempt::Proposal;
use crate::contract::Time;
use crate::execute::Step;
use crate::instance::Choice;
use crate::limits::{PULL_BYTES_MAX, PULL_COMMITS_MAX};
use crate::log::record::Record;
use crate::marks::Mark;
use crate::mutant::{self, Mutant};
use crate::payload::Payload;
use crate::phase::accept::{accept_of, value_of};
use crate::replica::{Pending, Replica};
use isonomy_wire::answer::ResponseBuilder;
use isonomy_wire::id::{Ballot, InstanceId, ReplicaId, StreamId};
use isonomy_wire::message::PeerMessage;
use isonomy_wire::route::hash_key;

impl Replica {
    /// C3a and C5: the value is chosen. Commit it, and say so to all; lazily (C6) if nobody waits for
    /// it elsewhere.
    pub(crate) fn decide(&mut self, now: Time, id: InstanceId, ballot: Ballot, value: Proposal) {
        self.commit(now, id, ballot, value);
        // The batch is not attached: nearly everybody has it, and who has not says so.
        let Some((message, _)) = self.commit_of(id, false) else { return };
        let lazy = id.row == self.me && id.seq > self.named;
        for to in self.others() {
            match lazy {
                true => self.outbox.send_lazily(to, message.clone()),
                false => self.outbox.send(to, message.clone(), None),
            }
        }
    }

    /// C6: on Commit.
    pub(crate) fn on_commit(
        &mut self,
        now: Time,
        from: ReplicaId,
        id: InstanceId,
        ballot: Ballot,
        value: Option<Proposal>,
    ) {
        let Some(instance) = self.space.get(id) else { return };
        let Some(value) = value else {
            if !instance.is_committed() {
                self.outbox.send(from, PeerMessage::Lacking { id, ballot }, None);
            }
            return;
        };
        // R3.1: whoever recovers it tells the others what it found.
        let recovering = !instance.is_committed() && self.attempts.contains_key(&id);
        self.commit(now, id, ballot, value);
        if recovering {
            self.marks.set(Mark::R31);
            for to in self.others().filter(|to| *to != from) {
                self.answer_with_commit(to, id);
            }
        }
    }

    /// C6: takes the value, writes it down, executes what can be, and wakes who waits for it.
    pub(crate) fn commit(&mut self, now: Time, id: InstanceId, ballot: Ballot, value: Proposal) {
        let Some(instance) = self.space.get_mut(id) else { return };
        if instance.payload.is_none() {
            instance.payload = value.payload;
        }
        if !self.take_commit(id, ballot, value.cmd, value.dep, value.after) {
            self.marks.set(Mark::C6Again);
            return;
        }
        self.attempts.remove(&id);
        self.waiting.remove(&id);
        let (named, payload) = self.log_payload(id);
        let record = Record::Committed { id, ballot, value: named, deps: value.dep, after: value.after };
        self.outbox.append(record, payload);
        self.learn(id);
        if id.row == self.me && value.cmd == Choice::Nop {
            self.submit_again(id);
        }
        if mutant::is(Mutant::ReplyAtCommit) {
            self.reply_too_early(id);
        }
        self.execute(now);
        self.on_progress(now);
    }

    /// A fault for tests, see [`Mutant::ReplyAtCommit`]: each Decide is told the next key_seq.
    fn reply_too_early(&mut self, id: InstanceId) {
        let Some(payload) = self.space.get(id).and_then(|instance| instance.payload.clone()) else { return };
        let Some(waiters) = (id.row == self.me).then(|| self.waiters.remove(&id.seq)).flatten() else {
            return;
        };
        for (part, client) in payload.batch().parts().iter().zip(waiters) {
            let mut answers = ResponseBuilder::new(self.config.epoch, self.config.shard);
            for (index, command) in (part.index..).zip(payload.batch().commands_of(part)) {
                let now = {
                    let state = &self.machine.state;
                    state.get(&mut state.look_up(hash_key(command.key)), command.key)
                };
                answers.committed(id, index, now.map_or(0, |now| now.key_seq) + 1);
            }
            self.outbox.reply(client, Ok(answers.encode()));
        }
    }

    /// A Nop means that the batch was not executed: its requests get a new instance.
    fn submit_again(&mut self, id: InstanceId) {
        let Some(clients) = self.waiters.remove(&id.seq) else { return };
        self.marks.set(Mark::NopSubmitAgain);
        let payload = self.space.get(id).and_then(|instance| instance.payload.clone());
        let payload = payload.expect("the coordinator has what it proposed");
        self.pending_bytes += payload.batch().payload().len();
        self.pending.push_front(Pending { payload, clients });
    }

    /// Executes whatever the graph allows, and answers those who wait here.
    pub(crate) fn execute(&mut self, now: Time) {
        while let Some(step) = self.executor.poll() {
            let (id, payload) = match step {
                Step::Execute(id, payload) => (id, payload),
                Step::Fence(fence) => {
                    self.on_fence(now, &fence);
                    continue;
                }
            };
            let waiters = if id.row == self.me { self.waiters.remove(&id.seq) } else { None };
            let Some(payload) = payload else { continue };
            let places = self.space.take_places(id);
            let Replica { machine, index, outbox, stream_used, .. } = self;
            let found = machine.execute(id, &payload, &places, waiters.is_some(), |part, response| {
                if let Some(client) = waiters.as_ref().and_then(|waiters| waiters.get(part)) {
                    outbox.reply(*client, Ok(response));
                }
            });
            index.note(&found);
            for part in payload.batch().parts().iter().filter(|part| part.stream != StreamId::NONE) {
                stream_used.insert(part.stream, now);
            }
        }
    }

    /// The Commit of a committed value, with its batch or its name. None if a floor that was raised
    /// meanwhile has taken it.
    fn commit_of(&self, id: InstanceId, attach: bool) -> Option<(PeerMessage, Option<Payload>)> {
        let instance = self.space.get(id)?;
        let message = PeerMessage::Commit {
            id,
            ballot: instance.abal,
            value: value_of(instance.cmd, attach),
            deps: instance.dep,
            after: instance.after,
        };
        let payload = instance.payload.clone().filter(|_| attach && instance.cmd == Choice::Initial);
        Some((message, payload))
    }

    /// Any message about a committed instance is answered with its value.
    pub(crate) fn answer_with_commit(&mut self, to: ReplicaId, id: InstanceId) {
        if to != self.me
            && let Some((message, payload)) = self.commit_of(id, true)
        {
            self.outbox.send(to, message, payload);
        }
    }

    /// The receiver of an Accept or Commit lacks the batch.
    pub(crate) fn on_lacking(&mut self, from: ReplicaId, id: InstanceId, ballot: Ballot) {
        let Some(instance) = self.space.get(id) else { return };
        if instance.is_committed() {
            return self.answer_with_commit(from, id);
        }
        let attempt = self.attempts.get(&id).filter(|attempt| attempt.ballot == ballot);
        if let Some(crate::attempt::Stage::Accepting { value, .. }) = attempt.map(|attempt| &attempt.stage) {
            let (message, payload) = accept_of(id, ballot, value, true);
            self.outbox.send(from, message, payload);
        }
    }

    /// G5: a replica that missed commits asks for them by range.
    pub(crate) fn on_pull(&mut self, from: ReplicaId, row: ReplicaId, first: u64, to: u64) {
        if row.index() >= self.quorum.n {
            return;
        }
        if self.floor.of(row) >= first {
            self.say_gone(from);
        }
        let (first, mut bytes) = (first.max(1), 0);
        for seq in first..=to.min(first.saturating_add(PULL_COMMITS_MAX)) {
            let id = InstanceId::new(row, seq);
            let Some(instance) = self.space.get(id).filter(|instance| instance.is_committed()) else {
                continue;
            };
            let attached = instance.payload.as_ref().filter(|_| instance.cmd == Choice::Initial);
            bytes += attached.map_or(0, |payload| payload.batch().payload().len());
            self.answer_with_commit(from, id);
            if bytes > PULL_BYTES_MAX {
                return;
            }
        }
    }
}
