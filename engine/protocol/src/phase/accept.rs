//! C4 and C5: a value is accepted at a ballot, by the slow path or by a recovery.

use crate::attempt::{Attempt, Proposal, Stage, asked_at};
use crate::contract::Time;
use crate::instance::Choice;
use crate::log::record::Record;
use crate::marks::Mark;
use crate::payload::Payload;
use crate::quorum::ReplicaSet;
use crate::replica::Replica;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{Ballot, InstanceId, ReplicaId};
use isonomy_wire::message::{PeerMessage, Phase, Value};

impl Replica {
    /// The value that an Accept or Commit names; `None` if it is the batch and the batch is
    /// neither attached nor known here.
    pub(crate) fn proposal_of(
        &self,
        id: InstanceId,
        value: Value,
        dep: Deps,
        after: Deps,
        payload: Option<Payload>,
    ) -> Option<Proposal> {
        let cmd = Choice::of(value);
        let known = || self.space.get(id).and_then(|instance| instance.payload().cloned());
        let payload = match cmd {
            Choice::None => return None,
            Choice::Nop => None,
            Choice::Initial => Some(payload.or_else(known)?),
        };
        let dep = if cmd == Choice::Nop { Deps::NONE } else { dep };
        Some(Proposal { cmd, dep, after, payload })
    }

    /// Proposes a value at a ballot of this replica: C3b at ballot 0, R3, R5 and R6 above.
    pub(crate) fn propose(&mut self, now: Time, id: InstanceId, ballot: Ballot, mut value: Proposal) {
        let instance = self.space.get(id).expect("what is proposed was seen");
        if value.cmd == Choice::Initial && value.payload.is_none() {
            value.payload = instance.payload().cloned();
        }
        let oks = ReplicaSet::default();
        let stage = Stage::Accepting { oks, value: value.clone() };
        self.attempts.insert(id, Attempt { ballot, stage, began: now, sent: now });
        for to in self.peers.others() {
            // At ballot 0 the batch is on its way to every replica. A replica that lacks it answers Lacking.
            let (message, payload) = accept_of(id, ballot, &value, ballot > Ballot::ZERO);
            self.outbox.send(to, message, payload);
        }
        self.on_accept(now, self.me, id, ballot, Some(value));
    }

    /// C4: on Accept.
    pub(crate) fn on_accept(
        &mut self,
        now: Time,
        from: ReplicaId,
        id: InstanceId,
        ballot: Ballot,
        value: Option<Proposal>,
    ) {
        let Some(instance) = self.space.get(id) else { return };
        if instance.is_committed() {
            return self.answer_with_commit(from, id);
        }
        if instance.bal() > ballot {
            let message = PeerMessage::Nack { id, refused: ballot, promised: instance.bal() };
            self.marks.set(Mark::C4Nack);
            return self.outbox.send(from, message, None);
        }
        let Some(value) = value else {
            self.marks.set(Mark::C4Lacking);
            return self.outbox.send(from, PeerMessage::Lacking { id, ballot }, None);
        };
        let again = instance.phase() == Phase::Accepted && instance.abal() == ballot;
        if again {
            self.marks.set(Mark::C4Again);
        } else {
            self.give_up_below(now, id, ballot);
            self.take_accept(id, ballot, value);
        }
        let message = PeerMessage::AcceptOk { id, ballot };
        if from == self.me {
            self.outbox.send_own(self.me, message, None);
        } else {
            self.outbox.send(from, message, None);
        }
    }

    fn take_accept(&mut self, id: InstanceId, ballot: Ballot, value: Proposal) {
        let (deps, after) = (value.dep, value.after);
        self.space.get_mut(id).expect("the caller has it").accept(ballot, value);
        let (value, payload) = self.log_payload(id);
        self.outbox.append(Record::Accepted { id, ballot, value, deps, after }, payload);
        self.learn(id);
    }

    /// The name of an instance's value in the next record, and the batch. Only the first record carries the batch.
    pub(crate) fn log_payload(&mut self, id: InstanceId) -> (Value, Option<Payload>) {
        self.space.get_mut(id).expect("the caller has it").name_in_log()
    }

    /// Ends the own attempt at an instance if its ballot is below this one, which was promised or comes with an
    /// Accept.
    pub(crate) fn give_up_below(&mut self, now: Time, id: InstanceId, ballot: Ballot) {
        if self.attempts.get(&id).is_some_and(|attempt| attempt.ballot < ballot) {
            self.attempts.remove(&id);
            let instance = self.space.get_mut(id).expect("attempts are about what was seen");
            instance.restart_patience(now);
        }
    }

    /// C5: on AcceptOk at the proposer.
    pub(crate) fn on_accept_ok(&mut self, now: Time, from: ReplicaId, id: InstanceId, ballot: Ballot) {
        let dropped = &mut self.counters.dropped;
        let Some(attempt) = asked_at(&mut self.attempts, dropped, id, ballot) else { return };
        let Stage::Accepting { oks, value } = &mut attempt.stage else { return };
        oks.insert(from);
        if oks.len() < self.quorum.slow() {
            return;
        }
        let value = value.clone();
        let promised = self.space.get(id).expect("attempts are about what was seen").bal();
        assert_eq!(promised, ballot, "C5: an attempt ends when its ballot is overtaken");
        self.decide(now, id, ballot, value);
    }

    /// A promise of another replica stood in the way, so this attempt is over. A later attempt starts above that
    /// promise.
    pub(crate) fn on_nack(&mut self, now: Time, id: InstanceId, refused: Ballot, promised: Ballot) {
        let Some(instance) = self.space.get_mut(id) else { return };
        instance.hear(promised);
        if promised > refused && self.attempts.get(&id).is_some_and(|attempt| attempt.ballot == refused) {
            self.attempts.remove(&id);
            instance.on_try(now);
        }
    }
}

/// An Accept, with the batch or without it.
pub(crate) fn accept_of(
    id: InstanceId,
    ballot: Ballot,
    value: &Proposal,
    attach: bool,
) -> (PeerMessage, Option<Payload>) {
    let payload = value.payload.clone().filter(|_| attach);
    let (named, deps, after) = (value.cmd.to_value(attach), value.dep, value.after);
    (PeerMessage::Accept { id, ballot, value: named, deps, after }, payload)
}
