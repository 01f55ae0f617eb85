//! What must hold of a replica between any two inputs. For tests: it looks at everything.

use crate::attempt::Stage;
use crate::contract::ClientRef;
use crate::instance::Choice;
use crate::replica::{Pending, Replica};
use isonomy_wire::deps::Deps;
use isonomy_wire::message::Phase;

impl Replica {
    /// Verifies what must hold between any two inputs (V4, V6, and the bounds). For tests: it
    /// looks at everything.
    pub fn check(&self) {
        for (id, instance) in self.space.iter() {
            assert!(instance.abal <= instance.bal, "V4: {id:?}");
            match instance.phase {
                Phase::Init => assert!(instance.abal.round == 0, "V4: {id:?}"),
                Phase::PreAccepted => {
                    let init = instance.init_dep.expect("V6: pre-accepted with initDep");
                    assert!(instance.dep.covers(&init) && instance.payload.is_some(), "V6: {id:?}");
                }
                Phase::Accepted | Phase::Committed => match instance.cmd {
                    Choice::Nop => assert_eq!(instance.dep, Deps::NONE, "V6: {id:?}"),
                    Choice::Initial => assert!(instance.payload.is_some(), "V6: {id:?}"),
                    Choice::None => panic!("V6: {id:?} was taken without a value"),
                },
            }
            if let (Some(init), Choice::Initial) = (instance.init_dep, instance.cmd) {
                assert!(instance.phase == Phase::Init || instance.dep.covers(&init), "V6: {id:?}");
            }
            assert!(instance.is_committed() || !self.executor.committed().contains(id), "{id:?}");
        }
        for (id, attempt) in &self.attempts {
            assert!(!self.floor.contains(*id), "{id:?} is forgotten and still attempted");
            let own = matches!(attempt.stage, Stage::PreAccepting { .. });
            assert!(!own || (id.row == self.me && attempt.ballot.round == 0), "{id:?}");
        }
        self.check_counters();
        assert!(self.executor.committed().covers(self.executor.executed()));
        assert!(self.executor.executed().covers(&self.floor));
    }

    /// Verifies that nothing is kept for anybody when all that was seen has executed, and clients have their
    /// answers. For tests.
    pub fn check_settled(&self) {
        let is_own = |pending: &Pending| pending.clients.iter().all(|client| *client == ClientRef::default());
        assert!(self.pending.iter().all(is_own), "a request waits");
        assert!(self.waiters.is_empty(), "{:?} wait", self.waiters);
        assert!(self.attempts.is_empty() && self.waiting.is_empty(), "something is under way");
    }

    /// What is counted is there, and what is kept for somebody is kept for one who still waits.
    fn check_counters(&self) {
        let bytes = self.pending.iter().map(|pending| pending.payload.batch().payload().len());
        assert_eq!(self.pending_bytes, bytes.sum::<usize>(), "the bytes of requests that wait");
        let parts = |pending: &Pending| pending.payload.batch().parts().len();
        assert!(self.pending.iter().all(|it| it.clients.len() == parts(it)), "a client waits for each part");
        let (executed, used) = (self.executor.executed().of(self.me), self.used);
        let is_open = |seq: &u64| *seq > executed && *seq <= used;
        assert!(self.waiters.keys().all(is_open), "clients wait for what has executed: {:?}", self.waiters);
        let is_decided = |id| self.space.get(id).is_none_or(crate::instance::Instance::is_committed);
        let over = self.attempts.keys().chain(self.waiting.keys()).find(|id| is_decided(**id));
        assert!(over.is_none(), "{over:?} is decided, and something is kept for its recovery");
        for (id, instance) in self.space.iter().filter(|(id, _)| self.executor.executed().contains(*id)) {
            assert!(instance.places.is_empty() || instance.cmd == Choice::Nop, "{id:?} has executed");
        }
        assert!(self.taking.is_some() || !self.machine.state.is_copied(), "nobody takes the copy");
        self.machine.state.check();
        self.machine.streams.check();
        self.outbox.check();
    }
}
