//! The settings that change at run time (law, section 4b): how long the replica waits, and whether its coordinator waits
//! for the fast path at all.

use crate::contract::{Config, Time, Timing};
use crate::marks::Mark;
use crate::replica::Replica;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{InstanceId, ReplicaId};
use isonomy_wire::tuning::{PathMode, PathReason, PathStatus, Tuning, WINDOW_MAX};

/// The settings with which a replica starts.
pub(crate) fn tuning_of(config: &Config) -> Tuning {
    let Timing { fast_path_us, resend_us, recover_us, suspect_us, .. } = config.timing;
    Tuning { fast_path_us, resend_us, recover_us, suspect_us, rescue: config.rescue, ..Tuning::default() }
}

impl Replica {
    /// The settings are these from now on, and the members have agreed, or not, to take slow paths because a fast quorum
    /// cannot be formed. Both may come at any moment and may differ between replicas (law, section 4b). What is under way
    /// follows at the next tick.
    ///
    /// # Panics
    ///
    /// When the window is 0 or larger than [`WINDOW_MAX`].
    pub fn apply(&mut self, now: Time, tuning: Tuning, is_slow_agreed: bool) {
        assert!((1..=WINDOW_MAX).contains(&tuning.window), "the window is 1 to {WINDOW_MAX}");
        let before = self.path();
        self.tuning = tuning;
        self.guardrail.on_agreed(is_slow_agreed);
        self.note_path(now, before);
    }

    /// The settings that were applied last, and whether the members have agreed on slow paths.
    pub fn settings(&self) -> (Tuning, bool) {
        (self.tuning, self.guardrail.is_agreed())
    }

    /// When the mode of the path began, or its reason.
    pub fn path_since(&self) -> Time {
        self.guardrail.since()
    }

    pub(crate) fn path_status(&self) -> PathStatus {
        let (is_slow, reason) = self.path();
        PathStatus { is_slow, reason, for_ms: 0, loss: self.guardrail.loss() }
    }

    /// C3b: whether the slow path is taken as soon as a slow quorum has answered.
    pub(crate) fn is_slow(&self) -> bool {
        self.path().0
    }

    fn path(&self) -> (bool, PathReason) {
        match (self.tuning.path, self.guardrail.loss()) {
            (PathMode::Slow, _) => (true, PathReason::Set),
            (PathMode::Fast, _) => (false, PathReason::Set),
            (PathMode::Auto, Some(loss)) => (true, PathReason::Judged(loss)),
            (PathMode::Auto, None) if self.guardrail.is_agreed() => (true, PathReason::Agreed),
            (PathMode::Auto, None) => (false, PathReason::Usual),
        }
    }

    /// An answer to a proposal counts for the guardrail if the proposal is the one that it observes.
    pub(crate) fn observe_answer(&mut self, from: ReplicaId, id: InstanceId, deps: &Deps) {
        if id.row == self.me && self.guardrail.observes(id.seq) {
            let is_equal = self.space.get(id).is_some_and(|instance| instance.init_dep() == Some(deps));
            self.guardrail.on_answer(from, is_equal);
        }
    }

    /// The guardrail judges whether a fast quorum can be formed.
    pub(crate) fn look_at_guardrail(&mut self, now: Time) {
        let before = self.path();
        let was_lost = self.guardrail.loss().is_some();
        self.guardrail.look(now, self.me, self.peers.live(), &self.tuning);
        match (was_lost, self.guardrail.loss().is_some()) {
            (false, true) => self.marks.set(Mark::GuardrailLost),
            (true, false) => self.marks.set(Mark::GuardrailHealed),
            (false, false) | (true, true) => {}
        }
        self.note_path(now, before);
    }

    fn note_path(&mut self, now: Time, before: (bool, PathReason)) {
        if self.path() != before {
            self.guardrail.on_changed(now);
        }
    }
}
