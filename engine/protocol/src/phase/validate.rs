//! R4 to R6: the candidate of a recovery must not contradict conflicts that the recovery did not see.

use crate::attempt::{Attempt, Proposal, Report, Stage, Validation, asked_at, standing};
use crate::conflict::Touched;
use crate::contract::Time;
use crate::instance::{Choice, Instance};
use crate::log::record::Record;
use crate::marks::Mark;
use crate::mutant::{self, Mutant};
use crate::payload::Payload;
use crate::replica::Replica;
use isonomy_wire::deps::{Deps, Floor};
use isonomy_wire::id::{Ballot, InstanceId, ReplicaId};
use isonomy_wire::message::{CONFLICTS_MAX, Conflict, PeerMessage, Phase, Value};

impl Replica {
    /// R4: on Validate.
    pub(crate) fn on_validate(
        &mut self,
        _now: Time,
        from: ReplicaId,
        id: InstanceId,
        ballot: Ballot,
        deps: Deps,
        payload: Option<Payload>,
    ) {
        let Some(payload) = payload else { return };
        let Some(instance) = self.space.get(id) else { return };
        if instance.is_committed() {
            return self.answer_with_commit(from, id);
        }
        // A late duplicate after an Accept would break visibility (trap B9).
        let late = instance.abal() >= ballot && !mutant::is(Mutant::LateValidate);
        if instance.bal() != ballot || late {
            return;
        }
        let conflicts = self.conflicts_outside(id, &payload, &deps);
        if !mutant::is(Mutant::ValidateForgets) {
            self.install(id, deps, payload);
        }
        let message = PeerMessage::ValidateOk { id, ballot, conflicts, floor: self.validated_floor() };
        if from == self.me {
            self.outbox.send_own(from, message, None);
        } else {
            self.outbox.send(from, message, None);
        }
    }

    /// R4: the floor, since a validation here no longer sees conflicts at or below it (trap B15).
    fn validated_floor(&self) -> Floor {
        if mutant::is(Mutant::NoAfter) { Floor::NONE } else { *self.forgetting.floor() }
    }

    /// I of R4: the instances that conflict with the batch and are ordered neither before nor after it.
    fn conflicts_outside(&self, id: InstanceId, payload: &Payload, deps: &Deps) -> Vec<Conflict> {
        let mut found = Vec::new();
        let touched = Touched::by(payload);
        for row in (0..self.quorum.n as u8).map(ReplicaId) {
            for (other, instance) in self.space.behind(row, deps.of(row)) {
                let unordered = if instance.is_committed() {
                    instance.cmd() == Choice::Initial && !comes_after(instance, id)
                } else {
                    instance.init_dep().is_some_and(|init| !init.contains(id))
                };
                let conflicting =
                    |theirs: &Payload| other != id && unordered && touched.conflicts_with(theirs);
                if instance.payload().is_some_and(conflicting) {
                    found.push(Conflict { id: other, committed: instance.is_committed() });
                    if found.len() == CONFLICTS_MAX {
                        return found;
                    }
                }
            }
        }
        found
    }

    fn install(&mut self, id: InstanceId, deps: Deps, payload: Payload) {
        self.space.get_mut(id).expect("the caller has it").validate(deps, payload);
        let (value, payload) = self.log_payload(id);
        self.outbox.append(Record::Validated { id, value, init_deps: deps }, payload);
        self.learn(id);
        debug_assert_ne!(value, Value::Nop);
    }

    /// R5: on ValidateOk.
    pub(crate) fn on_validate_ok(
        &mut self,
        now: Time,
        from: ReplicaId,
        id: InstanceId,
        ballot: Ballot,
        conflicts: &[Conflict],
        floor: &Floor,
    ) {
        let n = self.quorum.n;
        let possible = |other: &Conflict| other.id.row.index() < n && other.id.seq > 0;
        if !conflicts.iter().all(possible) {
            return;
        }
        let dropped = &mut self.counters.dropped;
        let Some(attempt) = asked_at(&mut self.attempts, dropped, id, ballot) else { return };
        let Stage::Validating(validation) = &mut attempt.stage else { return };
        if !validation.quorum.contains(from) || !validation.oks.insert(from) {
            return;
        }
        validation.after.merge(&floor.to_deps());
        for conflict in conflicts {
            *validation.conflicts.entry(conflict.id).or_default() |= conflict.committed;
        }
        if validation.oks == validation.quorum {
            self.judge_validation(now, id, ballot);
        }
    }

    /// R5: all of Q have answered.
    fn judge_validation(&mut self, now: Time, id: InstanceId, ballot: Ballot) {
        let attempt = self.attempts.remove(&id).expect("the caller has it");
        let Stage::Validating(validation) = attempt.stage else { unreachable!("the caller has checked") };
        let standing = standing(&validation);
        let full = validation.supporters == validation.quorum.len() - self.quorum.e;
        if standing.is_empty() {
            self.marks.set(Mark::R51);
            return self.propose(now, id, ballot, candidate(&validation));
        }
        let committed = standing.iter().any(|other| validation.conflicts[other]);
        let foreign = standing.iter().any(|other| !validation.quorum.contains(other.row));
        if committed || (full && foreign) {
            self.marks.set(if committed { Mark::R52 } else { Mark::R53 });
            let value = self.rescue_or(validation.rescue, Proposal::nop());
            return self.propose(now, id, ballot, value);
        }
        self.marks.set(Mark::R54);
        let supporters = validation.supporters as u8;
        let stage = Stage::Waiting(validation);
        self.attempts.insert(id, Attempt { ballot, stage, began: now, sent: now });
        self.broadcast(&PeerMessage::Waiting { id, supporters }, None);
        for other in standing {
            self.space.see_all(&deps_of(other), now);
            let undecided = self.space.get(other).is_some_and(|instance| !instance.is_committed());
            if undecided && !self.attempts.contains_key(&other) {
                self.recover(now, other.row, other.seq..=other.seq);
            }
        }
        if !mutant::is(Mutant::DeafWaiting) {
            self.on_waiting(now, id, supporters);
        }
    }

    /// R6c: a replica waits with its recovery of `id`.
    pub(crate) fn on_waiting(&mut self, now: Time, id: InstanceId, supporters: u8) {
        if self.space.get(id).is_none_or(Instance::is_committed) {
            return;
        }
        let known = self.waiting.entry(id).or_default();
        *known = supporters.max(*known);
        self.on_progress(now);
    }

    /// R6: an instance was committed, or a message came, for which a recovery may have waited.
    pub(crate) fn on_progress(&mut self, now: Time) {
        let waiting = |attempt: &&Attempt| matches!(attempt.stage, Stage::Waiting(_));
        if self.attempts.values().find(waiting).is_none() {
            return;
        }
        let ids: Vec<InstanceId> = self.attempts.keys().copied().collect();
        for id in ids {
            let Some(attempt) = self.attempts.get(&id) else { continue };
            let Stage::Waiting(validation) = &attempt.stage else { continue };
            let ballot = attempt.ballot;
            if let Some((rule, value)) = self.end_of_waiting(id, validation) {
                self.marks.set(rule);
                self.attempts.remove(&id);
                self.propose(now, id, ballot, value);
            }
        }
    }

    /// The first of R6a to R6d that is true.
    fn end_of_waiting(&self, id: InstanceId, validation: &Validation) -> Option<(Mark, Proposal)> {
        let mut standing = standing(validation);
        // An instance at or below the floor has executed here, and so comes before.
        standing.retain(|other| !self.is_forgotten(*other));
        let committed = |other: &InstanceId| self.space.get(*other).filter(|it| it.is_committed());
        let is_after = |other: &Instance| other.is_committed_nop() || comes_after(other, id);
        if standing.iter().filter_map(committed).any(|other| !is_after(other)) {
            return Some((Mark::R6a, Proposal::nop()));
        }
        if standing.iter().all(|other| committed(other).is_some()) {
            let mut value = candidate(validation);
            value.after.merge(&self.forgetting.floor().to_deps());
            return Some((Mark::R6b, value));
        }
        let eager = if mutant::is(Mutant::EagerWaiting) { 2 } else { 0 };
        let threshold = (self.quorum.n - self.quorum.f - self.quorum.e).saturating_sub(eager);
        let strong =
            |other: &InstanceId| self.waiting.get(other).is_some_and(|k| usize::from(*k) > threshold);
        if standing.iter().any(strong) {
            return Some((Mark::R6c, Proposal::nop()));
        }
        validation.late.iter().find_map(|report| from_outside(id, report)) // R6d
    }
}

/// R6d: the decision that follows from a report from outside Q.
fn from_outside(id: InstanceId, report: &Report) -> Option<(Mark, Proposal)> {
    if report.phase == Phase::Accepted {
        return Some((Mark::R6dAccepted, Proposal::accepted_in(report)));
    }
    (report.from == id.row).then(|| (Mark::R6dCoordinator, Proposal::nop()))
}

/// The validated value.
fn candidate(validation: &Validation) -> Proposal {
    Proposal {
        cmd: Choice::Initial,
        dep: validation.dep,
        after: validation.after,
        payload: Some(validation.payload.clone()),
    }
}

/// Whether a committed instance is ordered behind `id`, by its deps or by its `after` (trap B24).
fn comes_after(instance: &Instance, id: InstanceId) -> bool {
    let after = instance.after().contains(id) && !mutant::is(Mutant::AfterIsNoOrder);
    instance.dep().contains(id) || after
}

fn deps_of(id: InstanceId) -> Deps {
    let mut deps = Deps::NONE;
    deps.add(id);
    deps
}
