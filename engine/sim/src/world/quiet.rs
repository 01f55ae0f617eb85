//! Checks of what retries would hide: where nothing fails, nothing is done twice, and every answer comes soon.
//! Elsewhere a client that was told no outcome had a reason for it.

use super::World;
use crate::history::{Op, Told};
use isonomy_protocol::marks::{Mark, Marks};
use isonomy_wire::answer::{Answer, Answers};
use isonomy_wire::failure::Failure;

/// The branches of the law that a run without faults may take: the two paths, the guardrail, which judges times,
/// barriers, own snapshots, and components.
const USUAL: [Mark; 10] = [
    Mark::C3Fast,
    Mark::C3Slow,
    Mark::C3Hurried,
    Mark::GuardrailLost,
    Mark::GuardrailHealed,
    Mark::Settled,
    Mark::BarrierProposed,
    Mark::SnapshotTaken,
    Mark::Cycle,
    Mark::LongCycle,
];
/// Clients ask from this time on, when all replicas have been admitted and connected.
pub(super) const BEGUN_US: u64 = 100_000;
/// A round is the time of the slow path: four messages and three writes, each of which waits for the one before. A
/// command may have to wait for others of its client and of its key, which take as long.
const ROUNDS_MAX: u64 = 3;
/// The further wait of a command: a tick of the core, and the way to a client and back.
const BESIDES_US: u64 = 10_000;
/// A session that is idle for less may end under a client's hands.
const SESSION_LIVES_US: u64 = 1_000_000;

impl World {
    /// Asserts that a client is told only what it can be told where nothing fails.
    pub(super) fn expect_fresh(&self, outcome: &Result<Answers, Failure>) {
        let is_stale =
            |answer: &Answer| matches!(answer, Answer::Expired | Answer::Duplicate | Answer::Early);
        let is_fresh = outcome.as_ref().is_ok_and(|answers| !answers.to_vec().iter().any(is_stale));
        assert!(is_fresh || !self.plan.quiet, "quiet: a client is told {outcome:?}");
    }

    /// Judges a run in which nothing has failed.
    pub(super) fn judge_quiet(&self) {
        let mut marks = Marks::default();
        self.nodes.iter().filter_map(|node| node.core.as_ref()).for_each(|core| marks.merge(core.marks()));
        let unusual: Vec<_> =
            Mark::ALL.iter().filter(|mark| marks.has(**mark) && !USUAL.contains(mark)).collect();
        assert!(unusual.is_empty(), "quiet: nothing fails, and there was {unusual:?}");
        assert_eq!(self.asked, self.ops.len() as u64, "quiet: each command is asked once");
        let round = 4 * 2 * self.plan.delay_us + 3 * 2 * self.plan.sync_us + BESIDES_US;
        for op in &self.ops {
            let (at, told) = op.told.expect("all are told in the end");
            assert!(!matches!(told, Told::Unknown | Told::Nothing), "quiet: {op:?}");
            let took = at - op.asked;
            assert!(took <= ROUNDS_MAX * round, "quiet: {op:?} took {took} us, {round} us are one round");
        }
    }

    /// A client that was told no outcome has waited as long as it wanted, or its session ended meanwhile.
    pub(super) fn judge_untold(&mut self) {
        for client in &self.clients {
            self.summary.untold.add(client.untold);
        }
        self.summary.commands = self.ops.len() as u64;
        assert_eq!(self.summary.untold.duplicate, 0, "S3: the answer was dropped that a client waits for");
        let may_expire = self.plan.timing.session_idle_us < SESSION_LIVES_US;
        let deadline = self.plan.deadline_us;
        // A command is given up with those of its frame, and with those before it on its session.
        let is_given_up = |op: &Op, by: u64| {
            op.asked + deadline <= by && op.told.is_none_or(|(at, _)| op.asked + deadline <= at)
        };
        for op in &self.ops {
            let Some((at, Told::Unknown)) = op.told else { continue };
            // A source that was started again is told that it is done, and no more.
            if self.plan.source && op.client == 0 {
                continue;
            }
            let mut of_client = self.ops.iter().filter(|other| other.client == op.client);
            let has_waited = of_client.any(|other| is_given_up(other, at));
            assert!(has_waited || may_expire, "{op:?} was told nothing after {} us", at - op.asked);
        }
    }
}
