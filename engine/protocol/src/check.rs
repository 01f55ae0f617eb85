//! Invariants of a replica between any two inputs, for tests, since the checks look at everything.

use crate::attempt::Stage;
use crate::instance::Instance;
use crate::replica::Replica;

impl Replica {
    /// Verifies the invariants between any two inputs (V4, V6, and the bounds). This is for tests, since it looks at
    /// everything.
    pub fn check(&self) {
        let (committed, executed) = (self.executor.committed(), self.executor.executed());
        for (id, instance) in self.space.iter() {
            instance.check();
            assert!(instance.is_committed() || !committed.contains(id), "{id:?}");
            // A Nop does not execute, so its hints are never taken.
            let is_over = executed.contains(id) && !instance.is_committed_nop();
            assert!(!is_over || !instance.has_places(), "{id:?} has executed");
        }
        assert!(committed.covers(executed));
        assert!(executed.is_above(self.forgetting.floor()));
        self.check_attempts();
        self.numbers.check();
        self.requests.check(executed.of(self.me), self.numbers.used());
        self.forgetting.check();
        self.peers.check();
        let is_copied = self.machine.state.is_copied();
        assert!(self.forgetting.taking().is_some() || !is_copied, "nobody takes the copy");
        self.machine.state.check();
        self.machine.sessions.check();
        self.outbox.check();
    }

    fn check_attempts(&self) {
        assert!(
            !self.is_sealed() || self.attempts.is_empty(),
            "section 9: something is under way in a sealed epoch"
        );
        for (id, attempt) in &self.attempts {
            assert!(!self.is_forgotten(*id), "{id:?} is forgotten and still attempted");
            let own = matches!(attempt.stage, Stage::PreAccepting { .. });
            assert!(!own || (id.row == self.me && attempt.ballot.round == 0), "{id:?}");
        }
        let is_decided = |id| self.space.get(id).is_none_or(Instance::is_committed);
        let over = self.attempts.keys().chain(self.waiting.keys()).find(|id| is_decided(**id));
        assert!(over.is_none(), "{over:?} is decided, and something is kept for its recovery");
    }

    /// Verifies, for tests, that nothing is kept for any client or peer when all seen instances have executed, and
    /// that clients have their answers.
    pub fn check_settled(&self) {
        self.requests.check_settled();
        assert!(self.attempts.is_empty() && self.waiting.is_empty(), "something is under way");
    }
}
