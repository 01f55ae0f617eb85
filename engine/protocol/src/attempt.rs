//! Attempts of a replica to get an instance decided: as its coordinator at ballot 0, or in recovery at a ballot of
//! its own.

use crate::contract::Time;
use crate::instance::Choice;
use crate::marks::Mark;
use crate::mutant::{self, Mutant};
use crate::payload::Payload;
use crate::quorum::ReplicaSet;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{Ballot, InstanceId, ReplicaId};
use isonomy_wire::message::{MessagesDropped, Phase};
use std::collections::{BTreeMap, BTreeSet};

/// One attempt. An instance has at most one.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) ballot: Ballot,
    pub(crate) stage: Stage,
    /// When the stage began.
    pub(crate) began: Time,
    /// When the messages of the stage were last sent.
    pub(crate) sent: Time,
}

impl Attempt {
    /// Whether an answer to a question of this ballot belongs to this attempt. An answer to an earlier ballot of the
    /// same replica says nothing about promises and values taken since.
    fn asked_at(&self, ballot: Ballot) -> bool {
        ballot == self.ballot
            || (mutant::is(Mutant::EarlierAnswersCount) && ballot > Ballot::ZERO && ballot < self.ballot)
    }
}

/// The stage of an attempt.
#[derive(Clone, Debug)]
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

impl Stage {
    /// Whether an answer of this peer would still count.
    pub(crate) fn awaits(&self, peer: ReplicaId) -> bool {
        match self {
            Stage::PreAccepting { oks, .. } | Stage::Accepting { oks, .. } => !oks.contains(peer),
            Stage::Recovering { reports } => reports.iter().all(|report| report.from != peer),
            Stage::Validating(Validation { quorum, oks, .. }) => quorum.contains(peer) && !oks.contains(peer),
            // No peer answers a Waiting, and a peer that missed it may wait as well.
            Stage::Waiting(_) => true,
        }
    }
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
    /// The proposal of a Nop, which executes nothing and has empty deps.
    pub(crate) fn nop() -> Proposal {
        Proposal { cmd: Choice::Nop, dep: Deps::NONE, after: Deps::NONE, payload: None }
    }

    /// The value that a report shows as accepted. A Nop goes on without the batch that the
    /// report may carry besides, since a batch that was not logged must not be learnt.
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
    /// initDep, if the sender knows initCmd.
    pub(crate) init_dep: Option<Deps>,
    pub(crate) payload: Option<Payload>,
}

/// The candidate of R3.5 on its way through R4 to R6.
#[derive(Clone, Debug)]
pub(crate) struct Validation {
    /// Q: the replicas that reported, which must all answer.
    pub(crate) quorum: ReplicaSet,
    pub(crate) oks: ReplicaSet,
    pub(crate) payload: Payload,
    pub(crate) dep: Deps,
    /// k = |M|.
    pub(crate) supporters: usize,
    /// The value that is proposed instead of a Nop, if there is one (Rescue).
    pub(crate) rescue: Option<Proposal>,
    /// The maximum of the floors reported.
    pub(crate) after: Deps,
    /// I: the conflicts, and whether a member reported each as committed.
    pub(crate) conflicts: BTreeMap<InstanceId, bool>,
    /// RecoverOks from outside Q (R6d).
    pub(crate) late: Vec<Report>,
}

/// Attempts by instance.
pub(crate) type Attempts = BTreeMap<InstanceId, Attempt>;

/// The attempt that asked at a ballot. An answer to an attempt that is over is dropped and counted.
pub(crate) fn asked_at<'a>(
    attempts: &'a mut Attempts,
    dropped: &mut MessagesDropped,
    id: InstanceId,
    ballot: Ballot,
) -> Option<&'a mut Attempt> {
    let attempt = attempts.get_mut(&id).filter(|attempt| attempt.asked_at(ballot));
    dropped.late += u64::from(attempt.is_none());
    attempt
}

/// The decision of R3 on the reports of a quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// R3.2, R3.3 or R3.4, as the mark says.
    Propose(Mark, Proposal),
    /// R3.5: this payload and these deps must be validated.
    Validate { payload: Payload, dep: Deps, supporters: usize },
}

/// R3 without its first case, a committed value, which ends the attempt before. This is a pure function of the
/// reports.
pub(crate) fn judge(id: InstanceId, reports: &[Report], e: usize) -> Verdict {
    // R3.2: the value with the highest `abal` is taken. The highest `bal` would be trap B1.
    let accepted = reports.iter().filter(|report| report.phase == Phase::Accepted);
    if let Some(latest) = accepted.max_by_key(|report| report.accepted) {
        return Verdict::Propose(Mark::R32, Proposal::accepted_in(latest));
    }
    // R3.3: the coordinator answered and has not committed, so it never will at ballot 0.
    if reports.iter().any(|report| report.from == id.row) {
        return Verdict::Propose(Mark::R33, Proposal::nop());
    }
    // R3.4: too few replicas could have taken part in a fast commit.
    let supporting =
        |report: &&Report| report.phase == Phase::PreAccepted && report.init_dep == Some(report.dep);
    let supporters: Vec<&Report> = reports.iter().filter(supporting).collect();
    let needed = reports.len() - e + usize::from(mutant::is(Mutant::ManySupporters));
    if supporters.len() < needed {
        return Verdict::Propose(Mark::R34, Proposal::nop());
    }
    // R3.5. In a cluster of one replica Q holds no other replica, but that replica is the coordinator.
    let Some(first) = supporters.first() else { return Verdict::Propose(Mark::R34, Proposal::nop()) };
    assert!(supporters.iter().all(|other| other.init_dep == first.init_dep), "V5: {id:?} has two initDeps");
    let payload = first.payload.clone().expect("who pre-accepted has the batch");
    Verdict::Validate { payload, dep: first.dep, supporters: supporters.len() }
}

/// Rescue: the value that the coordinator's own slow path could have proposed (C3b), if the reports of a
/// quorum show that all its members pre-accepted and none accepted.
pub(crate) fn rescued(reports: &[Report]) -> Option<Proposal> {
    let dep = reports.iter().try_fold(Deps::NONE, |mut dep, report| {
        dep.merge(&report.dep);
        (report.phase == Phase::PreAccepted).then_some(dep)
    })?;
    let payload = reports.first()?.payload.clone()?;
    Some(Proposal { cmd: Choice::Initial, dep, after: Deps::NONE, payload: Some(payload) })
}

/// The conflicts that still stand once all instances at or below `after` are taken out (R5).
pub(crate) fn standing(validation: &Validation) -> BTreeSet<InstanceId> {
    let standing = validation.conflicts.keys().filter(|id| !validation.after.contains(**id));
    standing.copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quorum::Quorum;
    use isonomy_wire::command::{Numbering, RequestBuilder};
    use isonomy_wire::id::SessionId;

    const ID: InstanceId = InstanceId { row: ReplicaId(0), seq: 1 };

    /// The state of an instance that a replica can report if the instance is not committed there. The coordinator
    /// proposed deps 0.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Answer {
        Nothing,
        /// The replica learnt the proposal from a Validate.
        Validated,
        Equal,
        /// The replica named one conflict more.
        Unequal,
        AcceptedNop(u32),
        AcceptedBatch(u32),
    }

    const ANSWERS: [Answer; 8] = [
        Answer::Nothing,
        Answer::Validated,
        Answer::Equal,
        Answer::Unequal,
        Answer::AcceptedNop(1),
        Answer::AcceptedNop(2),
        Answer::AcceptedBatch(1),
        Answer::AcceptedBatch(2),
    ];

    fn batch() -> Payload {
        let mut builder = RequestBuilder::default();
        builder.decide(b"k", b"v").unwrap();
        let bytes = builder.encode(SessionId::named("s"), Numbering::at(1));
        let crc = crc32c::crc32c(&bytes);
        Payload::parse(bytes, crc).unwrap()
    }

    fn named_one_more() -> Deps {
        let mut deps = Deps::NONE;
        deps.set(ReplicaId(1), 1);
        deps
    }

    fn report(from: u8, answer: Answer, batch: &Payload) -> Report {
        let nothing = Report {
            from: ReplicaId(from),
            accepted: Ballot::ZERO,
            phase: Phase::Init,
            cmd: Choice::None,
            dep: Deps::NONE,
            after: Deps::NONE,
            init_dep: None,
            payload: None,
        };
        let (init_dep, payload, cmd) = (Some(Deps::NONE), Some(batch.clone()), Choice::Initial);
        let proposed = Report { init_dep, payload: payload.clone(), cmd, ..nothing.clone() };
        let (phase, accepted) = (Phase::Accepted, |round| Ballot { round, replica: ReplicaId(1) });
        match answer {
            Answer::Nothing => nothing,
            Answer::Validated => proposed,
            Answer::Equal => Report { phase: Phase::PreAccepted, ..proposed },
            Answer::Unequal => Report { phase: Phase::PreAccepted, dep: named_one_more(), ..proposed },
            Answer::AcceptedNop(round) => {
                Report { phase, accepted: accepted(round), cmd: Choice::Nop, ..nothing }
            }
            Answer::AcceptedBatch(round) => {
                let dep = named_one_more();
                Report { phase, accepted: accepted(round), cmd, dep, payload, ..nothing }
            }
        }
    }

    /// Whether a fast commit may have happened: some choice of replicas that did not answer completes a fast quorum
    /// with the coordinator in it. A coordinator that was asked would have told of a fast commit.
    fn may_be_fast(n: u8, members: &[u8], answers: &[Answer]) -> bool {
        // The law's fast quorums, row by row.
        let fast = [1, 2, 2, 3, 3, 4, 5, 5, 6][usize::from(n) - 1];
        let silent: Vec<u8> = (0..n).filter(|id| !members.contains(id)).collect();
        let equal = answers.iter().filter(|answer| **answer == Answer::Equal).count();
        let worlds = 0u32..1 << silent.len();
        worlds.into_iter().any(|world| {
            let took: Vec<u8> =
                silent.iter().enumerate().filter(|(at, _)| world & 1 << at != 0).map(|(_, id)| *id).collect();
            took.contains(&ID.row.0) && equal + took.len() >= fast
        })
    }

    /// States R3 without its cases: the value that was accepted last may have been chosen, a value that may have been
    /// committed fast must be validated, and a Nop is proposed otherwise.
    fn check(n: u8, members: &[u8], answers: &[Answer], verdict: &Verdict) {
        let what = format!("{members:?} {answers:?}: {verdict:?}");
        let round = |answer: &&Answer| match answer {
            Answer::AcceptedNop(round) | Answer::AcceptedBatch(round) => *round,
            _ => 0,
        };
        match answers.iter().max_by_key(round).filter(|latest| round(latest) > 0) {
            Some(latest) => {
                let cmd = match latest {
                    Answer::AcceptedNop(_) => Choice::Nop,
                    _ => Choice::Initial,
                };
                assert!(matches!(verdict, Verdict::Propose(Mark::R32, value) if value.cmd == cmd), "{what}");
            }
            None if may_be_fast(n, members, answers) => {
                let equal = answers.iter().filter(|answer| **answer == Answer::Equal).count();
                let same = matches!(verdict, Verdict::Validate { dep: Deps::NONE, supporters, .. } if *supporters == equal);
                assert!(same, "{what}");
            }
            None => {
                assert!(matches!(verdict, Verdict::Propose(_, value) if *value == Proposal::nop()), "{what}")
            }
        }
    }

    /// Whether no two values were accepted at one ballot (V3).
    fn is_possible(answers: &[Answer]) -> bool {
        let has = |answer| answers.contains(&answer);
        [1, 2].iter().all(|round| !(has(Answer::AcceptedNop(*round)) && has(Answer::AcceptedBatch(*round))))
    }

    /// Sets of `size` replicas. If there are more than 5 replicas, these are one set with the coordinator and one
    /// without it. Both are as good as all sets, since R3 tells the other replicas apart by their answers only.
    fn quorums(n: u8, size: u32) -> Vec<Vec<u8>> {
        let sets = (0u32..1 << n).filter(|set| set.count_ones() == size);
        let mut sets: Vec<Vec<u8>> =
            sets.map(|set| (0..n).filter(|id| set & 1 << id != 0).collect()).collect();
        if n > 5 {
            let with = |has: bool| sets.iter().find(|set| set.contains(&ID.row.0) == has).cloned();
            sets = [true, false].into_iter().filter_map(with).collect();
        }
        sets
    }

    /// The sizes cover e = 1, 2 and 3.
    #[test]
    fn r3_every_combination_of_answers_is_judged_as_it_must_be() {
        let batch = batch();
        let slow_quorums = [(3u8, 2, 180), (5, 3, 4280), (7, 4, 5880), (8, 5, 39256), (9, 5, 39256)];
        for (n, slow, expected) in slow_quorums {
            let (quorum, mut judged) = (Quorum::new(n), 0);
            for members in quorums(n, slow) {
                for code in 0..ANSWERS.len().pow(slow) {
                    let place = |at: u32| ANSWERS[code / ANSWERS.len().pow(at) % ANSWERS.len()];
                    let answers: Vec<Answer> = (0..slow).map(place).collect();
                    if !is_possible(&answers) {
                        continue;
                    }
                    let reports: Vec<Report> = members
                        .iter()
                        .zip(&answers)
                        .map(|(from, answer)| report(*from, *answer, &batch))
                        .collect();
                    check(n, &members, &answers, &judge(ID, &reports, quorum.e));
                    judged += 1;
                }
            }
            println!("n = {n}: {judged} combinations");
            assert_eq!(judged, expected);
        }
    }
}
