//! The guardrail (law, section 4b): the judgement whether a fast quorum can be formed. A coordinator that waits for one
//! that cannot be formed loses the time of the fast path with each command.
//!
//! One own proposal at a time is observed in both modes, whatever path it takes: whether a coordinator that waits would
//! have waited in vain for it. So the judgement is the same in both modes, and nobody has to wait to find out.

use crate::contract::Time;
use crate::quorum::{Quorum, ReplicaSet};
use isonomy_wire::id::ReplicaId;
use isonomy_wire::tuning::{Loss, Tuning};

/// A judgement on fewer observed proposals than this would be one on a hiccup.
pub(crate) const SAMPLES_MIN: u64 = 8;
/// A fast quorum is lost if at least one of so many proposals would have waited in vain.
const LOST_ONE_OF: u64 = 2;
/// A fast quorum can be formed again if at most one of so many would have.
const HEALED_ONE_OF: u64 = 10;
/// A proposal that a slow quorum has not answered within this time says nothing about fast quorums, in microseconds.
const OBSERVE_US_MAX: u64 = 1_000_000;

/// The proposal that is observed.
#[derive(Clone, Copy, Debug)]
struct Observed {
    seq: u64,
    began: Time,
    oks: ReplicaSet,
    equal: usize,
}

/// The judgement of a replica, and that of others as the members have agreed on it.
#[derive(Clone, Debug)]
pub(crate) struct Guardrail {
    quorum: Quorum,
    observed: Option<Observed>,
    /// The proposals that have needed no more time than the fast path has, and those that would have waited in vain.
    prompt: u64,
    vain: u64,
    /// When the present span of the judgement began.
    began: Time,
    /// Whether a fast quorum was reached at some look since, and whether it was not at some look.
    was_enough: bool,
    was_short: bool,
    loss: Option<Loss>,
    is_agreed: bool,
    since: Time,
}

impl Guardrail {
    /// Nothing was observed yet, and nothing speaks against the fast path.
    pub(crate) fn new(quorum: Quorum) -> Guardrail {
        Guardrail {
            quorum,
            observed: None,
            prompt: 0,
            vain: 0,
            began: Time(0),
            was_enough: false,
            was_short: false,
            loss: None,
            is_agreed: false,
            since: Time(0),
        }
    }

    /// Why a fast quorum cannot be formed, if this replica judges so.
    pub(crate) fn loss(&self) -> Option<Loss> {
        self.loss
    }

    /// Whether the members have agreed to take slow paths.
    pub(crate) fn is_agreed(&self) -> bool {
        self.is_agreed
    }

    /// The members have agreed, or not, to take slow paths.
    pub(crate) fn on_agreed(&mut self, is_agreed: bool) {
        self.is_agreed = is_agreed;
    }

    /// When the mode or its reason changed last.
    pub(crate) fn since(&self) -> Time {
        self.since
    }

    /// The mode or its reason has changed.
    pub(crate) fn on_changed(&mut self, now: Time) {
        self.since = now;
    }

    /// The replica begins to take part, or does so again after a while without any look.
    pub(crate) fn start(&mut self, now: Time) {
        self.observed = None;
        self.begin_span(now);
    }

    /// An own proposal leaves. It is observed if no other one is.
    #[inline]
    pub(crate) fn on_proposed(&mut self, now: Time, seq: u64) {
        if self.observed.is_none() {
            self.observed = Some(Observed { seq, began: now, oks: ReplicaSet::default(), equal: 0 });
        }
    }

    /// Whether this own proposal is observed.
    #[inline]
    pub(crate) fn observes(&self, seq: u64) -> bool {
        self.observed.is_some_and(|observed| observed.seq == seq)
    }

    /// A replica has answered the observed proposal, with the coordinator's deps or with others.
    pub(crate) fn on_answer(&mut self, from: ReplicaId, is_equal: bool) {
        let Some(observed) = &mut self.observed else { return };
        if observed.oks.insert(from) {
            observed.equal += usize::from(is_equal);
        }
        if observed.equal >= self.quorum.fast() || observed.oks.len() == self.quorum.n {
            self.prompt += 1;
            self.observed = None;
        }
    }

    /// Judges. `live` are the replicas that are reached, with this one.
    pub(crate) fn look(&mut self, now: Time, me: ReplicaId, live: ReplicaSet, tuning: &Tuning) {
        self.look_at_observed(now, me, live, tuning);
        if live.len() >= self.quorum.fast() {
            self.was_enough = true;
        } else if live.len() >= self.quorum.slow() {
            self.was_short = true;
        } else {
            // Nothing can be decided at all, on either path.
            self.begin_span(now);
        }
        if now.since(self.began) >= tuning.guardrail_us {
            self.loss = self.judge();
            self.begin_span(now);
        }
    }

    /// Whether a coordinator would have waited in vain for the observed proposal, by C3.
    fn look_at_observed(&mut self, now: Time, me: ReplicaId, live: ReplicaSet, tuning: &Tuning) {
        let Some(Observed { began, oks, equal, .. }) = self.observed else { return };
        let waited_us = now.since(began);
        if waited_us < tuning.fast_path_us {
            return;
        }
        if oks.len() >= self.quorum.slow() && oks.contains(me) {
            let outstanding = live.without(oks).len();
            let is_possible = equal + outstanding >= self.quorum.fast();
            if is_possible || live.len() < self.quorum.fast() {
                self.vain += 1;
            } else {
                self.prompt += 1;
            }
            self.observed = None;
        } else if waited_us >= OBSERVE_US_MAX {
            self.observed = None;
        }
    }

    /// The judgement at the end of a span. Between the two shares it stays what it was.
    fn judge(&mut self) -> Option<Loss> {
        let (prompt, vain) = (self.prompt, self.vain);
        let samples = prompt + vain;
        if samples < SAMPLES_MIN {
            return self.judge_by_links();
        }
        (self.prompt, self.vain) = (0, 0);
        if vain * LOST_ONE_OF >= samples {
            Some(if self.was_enough { Loss::InVain } else { Loss::Unreached })
        } else if vain * HEALED_ONE_OF <= samples {
            None
        } else {
            self.loss
        }
    }

    /// Without enough proposals, the links tell. They do not tell that replicas which answered too late do better now.
    fn judge_by_links(&self) -> Option<Loss> {
        match (self.was_enough, self.was_short) {
            (false, true) => Some(Loss::Unreached),
            (true, false) if self.loss == Some(Loss::Unreached) => None,
            _ => self.loss,
        }
    }

    fn begin_span(&mut self, now: Time) {
        self.began = now;
        (self.was_enough, self.was_short) = (false, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ReplicaId = ReplicaId(0);
    const FAST_US: u64 = 10_000;
    const PERIOD_US: u64 = 1_000_000;
    const LOOK_US: u64 = 5_000;

    fn replicas(ids: std::ops::Range<u8>) -> ReplicaSet {
        ids.map(ReplicaId).collect()
    }

    /// A guardrail of replica 0 of seven (FQ = 5, SQ = 4), its time, and its next proposal.
    struct Rig {
        guardrail: Guardrail,
        now: Time,
        seq: u64,
    }

    impl Rig {
        fn new() -> Rig {
            let mut guardrail = Guardrail::new(Quorum::new(7));
            guardrail.start(Time(77));
            Rig { guardrail, now: Time(77), seq: 0 }
        }

        fn look(&mut self, live: ReplicaSet) {
            self.now = self.now.after(LOOK_US);
            let tuning = Tuning { fast_path_us: FAST_US, guardrail_us: PERIOD_US, ..Tuning::DEFAULT };
            self.guardrail.look(self.now, ME, live, &tuning);
        }

        /// Looks for so long that a span has ended.
        fn idle(&mut self, live: ReplicaSet) -> Option<Loss> {
            (0..PERIOD_US / LOOK_US).for_each(|_| self.look(live));
            self.guardrail.loss()
        }

        /// One proposal that these replicas answer with equal deps, and these others with different ones.
        fn propose(&mut self, equal: ReplicaSet, unequal: ReplicaSet, live: ReplicaSet) {
            self.seq += 1;
            self.guardrail.on_proposed(self.now, self.seq);
            assert!(self.guardrail.observes(self.seq), "the one before is judged");
            for id in (0..7).map(ReplicaId) {
                if equal.contains(id) || unequal.contains(id) {
                    self.guardrail.on_answer(id, equal.contains(id));
                }
            }
            (0..FAST_US / LOOK_US).for_each(|_| self.look(live));
        }

        /// A span in which so many proposals are answered by four of seven, and so many by five.
        fn span(&mut self, vain: u32, prompt: u32) -> Option<Loss> {
            let (all, none) = (replicas(0..7), ReplicaSet::default());
            (0..vain).for_each(|_| self.propose(replicas(0..4), none, all));
            (0..prompt).for_each(|_| self.propose(replicas(0..5), none, all));
            self.idle(all)
        }
    }

    #[test]
    fn too_few_links_for_the_whole_time_lose_the_fast_quorum_and_links_bring_it_back() {
        let mut rig = Rig::new();
        assert_eq!(rig.idle(replicas(0..5)), None);
        (0..PERIOD_US / LOOK_US - 1).for_each(|_| rig.look(replicas(0..4)));
        assert_eq!(rig.guardrail.loss(), None, "not before the time is over");
        rig.look(replicas(0..4));
        assert_eq!(rig.guardrail.loss(), Some(Loss::Unreached));
        rig.look(replicas(0..4));
        assert_eq!(rig.idle(replicas(0..5)), Some(Loss::Unreached), "it was short for one look of the span");
        assert_eq!(rig.idle(replicas(0..5)), None);
        rig.look(replicas(0..5));
        assert_eq!(rig.idle(replicas(0..4)), None, "it was reached for one look of the span");
    }

    #[test]
    fn without_a_slow_quorum_nothing_is_judged() {
        let mut rig = Rig::new();
        assert_eq!(rig.idle(replicas(0..3)), None);
        assert_eq!(rig.idle(replicas(0..4)), Some(Loss::Unreached));
        assert_eq!(rig.idle(replicas(0..3)), Some(Loss::Unreached));
    }

    #[test]
    fn the_time_begins_with_the_start() {
        let mut rig = Rig::new();
        rig.now = Time(10 * PERIOD_US);
        rig.guardrail.start(rig.now);
        rig.look(replicas(0..4));
        assert_eq!(rig.guardrail.loss(), None);
    }

    #[test]
    fn half_in_vain_lose_the_fast_quorum_and_a_tenth_brings_it_back() {
        let mut rig = Rig::new();
        assert_eq!(rig.span(9, 11), None);
        assert_eq!(rig.span(10, 10), Some(Loss::InVain));
        assert_eq!(rig.span(3, 17), Some(Loss::InVain), "more than a tenth");
        assert_eq!(rig.idle(replicas(0..7)), Some(Loss::InVain), "links tell nothing of late answers");
        assert_eq!(rig.span(2, 18), None);
    }

    #[test]
    fn a_few_proposals_are_gathered_over_several_spans() {
        let mut rig = Rig::new();
        assert_eq!(rig.span(7, 0), None);
        assert_eq!(rig.span(1, 0), Some(Loss::InVain));
        assert_eq!(rig.span(0, 7), Some(Loss::InVain));
        assert_eq!(rig.span(0, 1), None);
    }

    #[test]
    fn conflicts_are_no_waits_in_vain() {
        let mut rig = Rig::new();
        for _ in 0..20 {
            rig.propose(replicas(0..3), replicas(3..6), replicas(0..7));
        }
        assert_eq!(rig.idle(replicas(0..7)), None, "only four equal answers were possible");
        for _ in 0..20 {
            rig.propose(replicas(0..3), replicas(3..5), replicas(0..7));
        }
        assert_eq!(
            rig.idle(replicas(0..7)),
            Some(Loss::InVain),
            "two answers might have made five equal ones"
        );
    }

    #[test]
    fn proposals_that_too_few_replicas_could_answer_count_as_lost() {
        let mut rig = Rig::new();
        (0..20).for_each(|_| rig.propose(replicas(0..4), ReplicaSet::default(), replicas(0..4)));
        assert_eq!(rig.idle(replicas(0..4)), Some(Loss::Unreached));
    }

    #[test]
    fn a_proposal_that_no_slow_quorum_answers_says_nothing() {
        let mut rig = Rig::new();
        rig.guardrail.on_proposed(rig.now, 1);
        (0..3).for_each(|id| rig.guardrail.on_answer(ReplicaId(id), true));
        rig.idle(replicas(0..7));
        assert!(!rig.guardrail.observes(1));
        assert_eq!((rig.guardrail.prompt, rig.guardrail.vain), (0, 0));
        // Four answered, and the coordinator's own answer is not durable.
        rig.guardrail.on_proposed(rig.now, 2);
        (1..5).for_each(|id| rig.guardrail.on_answer(ReplicaId(id), true));
        rig.idle(replicas(0..7));
        assert_eq!((rig.guardrail.prompt, rig.guardrail.vain), (0, 0));
    }

    #[test]
    fn a_doubled_answer_counts_once() {
        let mut rig = Rig::new();
        rig.guardrail.on_proposed(rig.now, 1);
        (0..9).for_each(|_| rig.guardrail.on_answer(ME, true));
        assert!(rig.guardrail.observes(1));
    }
}
