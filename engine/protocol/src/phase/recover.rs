//! R1 to R3: an instance that does not get decided is taken over at a higher ballot.

use crate::attempt::{Attempt, Proposal, Report, Stage, Validation, Verdict, asked_at, judge, rescued};
use crate::contract::Time;
use crate::instance::{Choice, Instance};
use crate::log::record::Record;
use crate::marks::Mark;
use crate::mutant::{self, Mutant};
use crate::payload::Payload;
use crate::quorum::ReplicaSet;
use crate::replica::Replica;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{Ballot, InstanceId, ReplicaId};
use isonomy_wire::message::{PeerMessage, Phase, Value};
use std::ops::RangeInclusive;

impl Replica {
    /// R1, for a run of undecided instances of one row, all at one ballot.
    pub(crate) fn recover(&mut self, now: Time, row: ReplicaId, seqs: RangeInclusive<u64>) {
        let (from, to) = (*seqs.start(), *seqs.end());
        let ids = seqs.map(|seq| InstanceId::new(row, seq));
        let above = |instance: &Instance| instance.bal().max(instance.heard());
        let highest = ids.clone().filter_map(|id| self.space.get(id)).map(above).max();
        let ballot = highest.unwrap_or(Ballot::ZERO).next_for(self.me);
        for id in ids {
            let instance = self.space.get_mut(id).expect("what is recovered was seen");
            assert!(!instance.is_committed(), "only what is undecided is recovered");
            instance.on_try(now);
            self.counters.recoveries += 1;
            let stage = Stage::Recovering { reports: Vec::new() };
            self.attempts.insert(id, Attempt { ballot, stage, began: now, sent: now });
            // The own promise is written before another replica hears of the ballot, so that no ballot is used twice,
            // not even after a crash.
            self.on_recover(now, self.me, id, ballot);
        }
        self.broadcast(&PeerMessage::Recover { row, from, to, ballot }, None);
    }

    /// R2: on Recover.
    pub(crate) fn on_recover(&mut self, now: Time, from: ReplicaId, id: InstanceId, ballot: Ballot) {
        if self.answer_forgotten_as_new(from, id, ballot) {
            return;
        }
        let Some(instance) = self.space.get_mut(id) else { return };
        if instance.is_committed() {
            return self.answer_with_commit(from, id);
        }
        instance.hear(ballot);
        let promised = instance.bal();
        // A repeated Recover is answered again only if nothing changed since.
        let unchanged = promised == ballot && instance.abal() < ballot && !instance.is_validated();
        if promised >= ballot && !unchanged {
            let message = PeerMessage::Nack { id, refused: ballot, promised };
            self.marks.set(Mark::R2Nack);
            return self.outbox.send(from, message, None);
        }
        if promised == ballot {
            self.marks.set(Mark::R2Again);
        } else {
            instance.promise(ballot);
            // The recovering replica gets its full time before the next one tries.
            instance.restart_patience(now);
            self.outbox.append(Record::Promised { id, ballot }, None);
            self.give_up_below(now, id, ballot);
        }
        self.send_recover_ok(from, id, ballot);
    }

    fn send_recover_ok(&mut self, to: ReplicaId, id: InstanceId, ballot: Ballot) {
        let instance = self.space.get(id).expect("the caller has it");
        let (message, payload) = (report(id, ballot, instance), instance.payload().cloned());
        if to == self.me {
            self.outbox.send_own(to, message, payload);
        } else {
            self.outbox.send(to, message, payload);
        }
    }

    /// R3: on RecoverOk.
    pub(crate) fn on_recover_ok(
        &mut self,
        now: Time,
        from: ReplicaId,
        message: PeerMessage,
        payload: Option<Payload>,
    ) {
        let PeerMessage::RecoverOk { id, ballot, .. } = message else { return };
        let Some(report) = report_of(from, message, payload) else { return };
        let dropped = &mut self.counters.dropped;
        let Some(attempt) = asked_at(&mut self.attempts, dropped, id, ballot) else { return };
        match &mut attempt.stage {
            Stage::Recovering { reports } => {
                if reports.iter().any(|other| other.from == from) {
                    return;
                }
                reports.push(report);
                if reports.len() >= self.quorum.slow() {
                    let reports = std::mem::take(reports);
                    self.conclude(now, id, ballot, &reports);
                }
            }
            // R6d: reports from outside Q are kept.
            Stage::Validating(validation) | Stage::Waiting(validation) => {
                let known = validation.late.iter().any(|other| other.from == from);
                if !known && !validation.quorum.contains(from) {
                    validation.late.push(report);
                    self.on_progress(now);
                }
            }
            Stage::PreAccepting { .. } | Stage::Accepting { .. } => {}
        }
    }

    /// R3: a quorum has reported.
    fn conclude(&mut self, now: Time, id: InstanceId, ballot: Ballot, reports: &[Report]) {
        let rescue = if self.tuning.rescue { rescued(reports) } else { None };
        let (payload, dep, supporters) = match judge(id, reports, self.quorum.e) {
            Verdict::Propose(rule, value) => {
                self.marks.set(rule);
                let value = self.rescue_or(rescue, value);
                return self.propose(now, id, ballot, value);
            }
            Verdict::Validate { payload, dep, supporters } => (payload, dep, supporters),
        };
        self.marks.set(Mark::R35);
        if mutant::is(Mutant::SkipValidate) {
            let (cmd, after) = (Choice::Initial, Deps::NONE);
            return self.propose(now, id, ballot, Proposal { cmd, dep, after, payload: Some(payload) });
        }
        let quorum: ReplicaSet = reports.iter().map(|report| report.from).collect();
        let validation = Validation {
            quorum,
            oks: ReplicaSet::default(),
            payload: payload.clone(),
            dep,
            supporters,
            rescue,
            after: Deps::NONE,
            conflicts: Default::default(),
            late: Vec::new(),
        };
        let attempt = self.attempts.get_mut(&id).expect("the caller has it");
        (attempt.stage, attempt.began, attempt.sent) = (Stage::Validating(validation), now, now);
        let message = PeerMessage::Validate { id, ballot, deps: dep };
        for to in self.peers.others().filter(|to| quorum.contains(*to)) {
            self.outbox.send(to, message.clone(), Some(payload.clone()));
        }
        self.on_validate(now, self.me, id, ballot, dep, Some(payload));
    }

    /// Rescue: the rescued value, if there is one, instead of the Nop that a rule gives. There is no rescue where
    /// R3.2 has found an accepted value.
    pub(crate) fn rescue_or(&mut self, rescue: Option<Proposal>, value: Proposal) -> Proposal {
        if rescue.is_some() {
            self.marks.set(Mark::Rescue);
        }
        rescue.unwrap_or(value)
    }
}

/// The RecoverOk with all that is known of an instance.
pub(crate) fn report(id: InstanceId, ballot: Ballot, instance: &Instance) -> PeerMessage {
    let knows_init = instance.init_dep().is_some() && instance.payload().is_some();
    PeerMessage::RecoverOk {
        id,
        ballot,
        accepted: instance.abal(),
        phase: instance.phase(),
        value: instance.cmd().to_value(true),
        deps: *instance.dep(),
        after: *instance.after(),
        init_value: if knows_init { Value::Attached } else { Value::None },
        init_deps: instance.init_dep().copied().unwrap_or(Deps::NONE),
    }
}

/// The report in a RecoverOk; `None` if the message contradicts itself.
fn report_of(from: ReplicaId, message: PeerMessage, payload: Option<Payload>) -> Option<Report> {
    let PeerMessage::RecoverOk { accepted, phase, value, deps, after, init_value, init_deps, .. } = message
    else {
        return None;
    };
    let init_dep = (init_value != Value::None).then_some(init_deps);
    let cmd = Choice::of(value);
    let needs_payload = init_dep.is_some() || cmd == Choice::Initial;
    if (needs_payload && payload.is_none()) || phase == Phase::Committed {
        return None;
    }
    Some(Report { from, accepted, phase, cmd, dep: deps, after, init_dep, payload })
}
