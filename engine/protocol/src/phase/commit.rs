//! C6, execution and replies: what follows from a final value.

use crate::attempt::Proposal;
use crate::contract::{Executed, Time};
use crate::execute::{Step, Vertex};
use crate::instance::Choice;
use crate::log::record::Record;
use crate::marks::Mark;
use crate::payload::Payload;
use crate::phase::accept::accept_of;
use crate::replica::Replica;
use isonomy_wire::id::{Ballot, InstanceId, ReplicaId, SessionId};
use isonomy_wire::message::PeerMessage;

impl Replica {
    /// C3a and C5: the value is chosen. Commits it, and tells all others; lazily (C6) if no other replica waits for
    /// the Commit.
    pub(crate) fn decide(&mut self, now: Time, id: InstanceId, ballot: Ballot, value: Proposal) {
        self.commit(now, id, ballot, value);
        // The batch is not attached, since nearly every replica has it, and a replica that lacks it answers Lacking.
        let Some((message, _)) = self.commit_of(id, false) else { return };
        let lazy = id.row == self.me && !self.numbers.is_named(id.seq);
        for to in self.peers.others() {
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
        // R3.1: a replica that recovers the instance tells the others the value that it found.
        let recovering = !instance.is_committed() && self.attempts.contains_key(&id);
        self.commit(now, id, ballot, value);
        if recovering {
            self.marks.set(Mark::R31);
            for to in self.peers.others().filter(|to| *to != from) {
                self.answer_with_commit(to, id);
            }
        }
    }

    /// C6: takes the value, logs it, executes all instances that can execute, and wakes the recoveries that wait for
    /// it.
    pub(crate) fn commit(&mut self, now: Time, id: InstanceId, ballot: Ballot, value: Proposal) {
        let (cmd, deps, after) = (value.cmd, value.dep, value.after);
        if self.space.get(id).is_none() {
            return;
        }
        if !self.take_commit(id, ballot, value) {
            self.marks.set(Mark::C6Again);
            return;
        }
        self.attempts.remove(&id);
        self.waiting.remove(&id);
        let (value, payload) = self.log_payload(id);
        self.outbox.append(Record::Committed { id, ballot, value, deps, after }, payload);
        self.learn(id);
        if id.row == self.me && cmd == Choice::Nop {
            self.submit_again(id);
        }
        self.reply_too_early(id);
        self.execute(now);
        self.on_progress(now);
    }

    /// The change of state of C6: the value is final. Returns false if the instance was committed before.
    pub(crate) fn take_commit(&mut self, id: InstanceId, ballot: Ballot, value: Proposal) -> bool {
        let is_new = self.space.get_mut(id).is_some_and(|instance| instance.commit(id, ballot, value));
        if is_new {
            self.on_final(id);
        }
        is_new
    }

    /// An instance has its final value, so the executor gets it.
    pub(crate) fn on_final(&mut self, id: InstanceId) {
        let instance = self.space.get(id).expect("the caller has it");
        let payload = instance.payload().filter(|_| instance.cmd() == Choice::Initial).cloned();
        let (dep, after) = (*instance.dep(), *instance.after());
        self.space.see_all(&dep, self.last_tick);
        self.space.see_all(&after, self.last_tick);
        self.executor.on_commit(id, Vertex { dep, after, payload });
    }

    /// A Nop means that the batch was not executed, so its requests get a new instance.
    fn submit_again(&mut self, id: InstanceId) {
        let Some(clients) = self.requests.take_waiters(id.seq) else { return };
        self.marks.set(Mark::NopSubmitAgain);
        let payload = self.space.get(id).and_then(|instance| instance.payload().cloned());
        self.requests.put_back(payload.expect("the coordinator has what it proposed"), clients);
    }

    /// Executes whatever the graph allows, and answers those who wait here. Without the state in which the epoch
    /// began nothing executes (section 9).
    pub(crate) fn execute(&mut self, now: Time) {
        if self.lacks_state() {
            return;
        }
        while let Some(step) = self.executor.poll() {
            let (id, payload, has_more) = match step {
                Step::Execute(id, payload, has_more) => (id, payload, has_more),
                Step::Barrier(barrier) => {
                    self.on_barrier(now, &barrier);
                    continue;
                }
            };
            let waiters = if id.row == self.me { self.requests.take_waiters(id.seq) } else { None };
            let Some(payload) = payload else { continue };
            let places = self.space.take_places(id);
            let Replica { machine, index, outbox, idle, config, .. } = self;
            let mut responses = Vec::new();
            let found = machine.execute(id, &payload, &places, waiters.is_some(), |part, response| {
                if config.publishes {
                    responses.push((part, response.clone()));
                }
                if let Some(client) = waiters.as_ref().and_then(|waiters| waiters.get(part)) {
                    outbox.reply(*client, Ok(response));
                }
            });
            index.note(&found);
            for part in payload.batch().parts().iter().filter(|part| part.session != SessionId::NONE) {
                idle.on_use(now, part.session);
            }
            if config.publishes {
                outbox.tell(Executed::Batch { id, payload, responses, has_more });
            }
        }
    }

    /// The Commit of a committed value, with its batch or its name. `None` if a floor that was raised meanwhile has
    /// taken the instance.
    fn commit_of(&self, id: InstanceId, attach: bool) -> Option<(PeerMessage, Option<Payload>)> {
        let instance = self.space.get(id)?;
        let message = PeerMessage::Commit {
            id,
            ballot: instance.abal(),
            value: instance.cmd().to_value(attach),
            deps: *instance.dep(),
            after: *instance.after(),
        };
        let payload = instance.payload().filter(|_| attach && instance.cmd() == Choice::Initial).cloned();
        Some((message, payload))
    }

    /// Answers a message about a committed instance with its value.
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
}
