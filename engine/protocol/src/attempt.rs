//! What a replica has under way to get an instance decided: as its coordinator at ballot 0, or in
//! recovery at a ballot of its own.

use crate::contract::Time;
use crate::instance::Choice;
use crate::marks::Mark;
use crate::mutant::{self, Mutant};
use crate::payload::Payload;
use crate::quorum::ReplicaSet;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{Ballot, InstanceId, ReplicaId};
use isonomy_wire::message::Phase;
use std::collections::{BTreeMap, BTreeSet};

/// One attempt; at most one per instance.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) ballot: Ballot,
    pub(crate) stage: Stage,
    /// When the stage began.
    pub(crate) began: Time,
    /// When its messages were last sent.
    pub(crate) sent: Time,
}

/// How far an attempt has come.
#[derive(Debug)]
pub(crate) enum Stage {
    /// C1 to C3.
    PreAccepting { oks: ReplicaSet, equal: usize, union: Deps },
    /// C3b, R3, R5, R6, up to C5.
    Accepting { oks: ReplicaSet, value: Proposal },
    /// R1, until a quorum has reported.
    Recovering { reports: Vec<Report> },
    /// R3.5, until all of the quorum have answered.
    Validating(Validation),
    /// R5.4.
    Waiting(Validation),
}

/// A value that is proposed in Accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) cmd: Choice,
    pub(crate) dep: Deps,
    pub(crate) after: Deps,
    /// The batch, for `Choice::Initial`.
    pub(crate) payload: Option<Payload>,
}

impl Proposal {
    /// Nothing is executed; the deps of a Nop are empty.
    pub(crate) fn nop() -> Proposal {
        Proposal { cmd: Choice::Nop, dep: Deps::NONE, after: Deps::NONE, payload: None }
    }

    /// The value that a report shows as accepted. A Nop goes on without the batch that the
    /// report may carry besides: what has not been logged must not be learnt.
    pub(crate) fn accepted_in(report: &Report) -> Proposal {
        let payload = report.payload.clone().filter(|_| report.cmd == Choice::Initial);
        Proposal { cmd: report.cmd, dep: report.dep, after: report.after, payload }
    }
}

/// A RecoverOk (R2).
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) from: ReplicaId,
    pub(crate) accepted: Ballot,
    pub(crate) phase: Phase,
    pub(crate) cmd: Choice,
    pub(crate) dep: Deps,
    pub(crate) after: Deps,
    /// initDep, if initCmd is known there.
    pub(crate) init_dep: Option<Deps>,
    pub(crate) payload: Option<Payload>,
}

/// The candidate of R3.5 on its way through R4 to R6.
#[derive(Debug)]
pub(crate) struct Validation {
    /// Q: who reported, and must all answer.
    pub(crate) quorum: ReplicaSet,
    pub(crate) oks: ReplicaSet,
    pub(crate) payload: Payload,
    pub(crate) dep: Deps,
    /// k = |M|.
    pub(crate) supporters: usize,
    /// The maximum of the floors reported.
    pub(crate) after: Deps,
    /// I, and whether a member reported it committed.
    pub(crate) conflicts: BTreeMap<InstanceId, bool>,
    /// RecoverOks from outside Q (R6d).
    pub(crate) late: Vec<Report>,
}

/// Attempts by instance.
pub(crate) type Attempts = BTreeMap<InstanceId, Attempt>;

/// What R3 decides from the reports of a quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// R3.2, R3.3 or R3.4, as the mark says.
    Propose(Mark, Proposal),
    /// R3.5: these payload and deps have to be validated.
    Validate { payload: Payload, dep: Deps, supporters: usize },
}

/// R3 without its first case, a committed value, which ends the attempt before it comes here.
/// A pure function of the reports.
pub(crate) fn judge(id: InstanceId, reports: &[Report], e: usize) -> Verdict {
    // R3.2: the value with the highest abal. By `abal`, not by `bal` (trap B1).
    let accepted = reports.iter().filter(|report| report.phase == Phase::Accepted);
    if let Some(latest) = accepted.max_by_key(|report| report.accepted) {
        return Verdict::Propose(Mark::R32, Proposal::accepted_in(latest));
    }
    // R3.3: the coordinator answered and has not committed: it never will at ballot 0.
    if reports.iter().any(|report| report.from == id.row) {
        return Verdict::Propose(Mark::R33, Proposal::nop());
    }
    // R3.4: too few could have taken part in a fast commit.
    let supporting =
        |report: &&Report| report.phase == Phase::PreAccepted && report.init_dep == Some(report.dep);
    let supporters: Vec<&Report> = reports.iter().filter(supporting).collect();
    let needed = reports.len() - e + usize::from(mutant::is(Mutant::ManySupporters));
    if supporters.len() < needed {
        return Verdict::Propose(Mark::R34, Proposal::nop());
    }
    // R3.5. With one replica Q can be empty of others, but then it is the coordinator.
    let Some(first) = supporters.first() else { return Verdict::Propose(Mark::R34, Proposal::nop()) };
    assert!(supporters.iter().all(|other| other.init_dep == first.init_dep), "V5: {id:?} has two initDeps");
    let payload = first.payload.clone().expect("who pre-accepted has the batch");
    Verdict::Validate { payload, dep: first.dep, supporters: supporters.len() }
}

/// The conflicts that still stand, once everything at or below `after` is taken out (R5).
pub(crate) fn standing(validation: &Validation) -> BTreeSet<InstanceId> {
    let standing = validation.conflicts.keys().filter(|id| !validation.after.contains(**id));
    standing.copied().collect()
}
