//! One instance at one replica (law, section 3), and its transitions.

use crate::attempt::Proposal;
use crate::contract::Time;
use crate::log::record::Record;
use crate::mutant;
use crate::payload::Payload;
use crate::phase::gossip::WHO_IS_WRONG;
use crate::state::Place;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{Ballot, InstanceId};
use isonomy_wire::message::{Phase, Value};

/// The value of an instance. Only two values are possible: the initial coordinator's batch, or a Nop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Choice {
    /// No value yet.
    #[default]
    None,
    /// The Nop, which executes nothing.
    Nop,
    /// The initial coordinator's batch.
    Initial,
}

impl Choice {
    /// The value that a message or record names.
    pub(crate) fn of(value: Value) -> Choice {
        match value {
            Value::None => Choice::None,
            Value::Nop => Choice::Nop,
            Value::Known | Value::Attached => Choice::Initial,
        }
    }

    /// The name of the value in a message or record, with the batch attached or not.
    pub(crate) fn to_value(self, is_attached: bool) -> Value {
        match (self, is_attached) {
            (Choice::None, _) => Value::None,
            (Choice::Nop, _) => Value::Nop,
            (Choice::Initial, true) => Value::Attached,
            (Choice::Initial, false) => Value::Known,
        }
    }
}

/// The state of an instance. The field names are the law's. Only the transitions below change the fields, and
/// handlers and replay share these transitions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Instance {
    phase: Phase,
    bal: Ballot,
    abal: Ballot,
    cmd: Choice,
    dep: Deps,
    after: Deps,
    /// The initial coordinator's batch, wherever it was learnt from.
    payload: Option<Payload>,
    /// initDep, if the initial value is known; initCmd is then the payload.
    init_dep: Option<Deps>,
    /// Whether the payload is in the conflict index.
    indexed: bool,
    /// Entry hints from the conflict index, taken when the instance executes.
    places: Box<[Place]>,
    /// Whether the payload is in the log.
    logged: bool,
    /// Whether a Validate of the ballot `bal` was answered (R4). A Recover of that ballot is then not answered again.
    validated: bool,
    /// The highest ballot heard of, promised or not.
    heard: Ballot,
    /// When the instance was first seen, or recovery was last tried.
    since: Time,
    /// How often recovery was tried.
    tries: u32,
}

impl Instance {
    /// An instance of which nothing is known but its id.
    pub(crate) fn seen(now: Time) -> Instance {
        Instance { since: now, ..Instance::default() }
    }
}

/// The transitions. Each asserts the law's conditions at entry, and V4 and V6 at exit.
impl Instance {
    /// C2: the batch is pre-accepted at ballot 0.
    pub(crate) fn pre_accept(&mut self, dep: Deps, init_dep: Deps, payload: Payload) {
        assert!(self.phase == Phase::Init && self.bal == Ballot::ZERO, "C2: only a fresh instance");
        (self.phase, self.cmd) = (Phase::PreAccepted, Choice::Initial);
        (self.dep, self.init_dep) = (dep, Some(init_dep));
        self.payload = Some(payload);
        self.check();
    }

    /// R2: no value below the ballot is taken from here on.
    pub(crate) fn promise(&mut self, ballot: Ballot) {
        assert!(!self.is_committed() && self.bal < ballot, "R2: a promise is above the one before");
        mutant::on_promise(&mut self.abal, self.bal, self.phase);
        (self.bal, self.validated) = (ballot, false);
        self.hear(ballot);
        self.check();
    }

    /// C4: the value is taken at the ballot.
    pub(crate) fn accept(&mut self, ballot: Ballot, value: Proposal) {
        assert!(!self.is_committed() && self.bal <= ballot, "C4: what was promised stands");
        (self.bal, self.abal, self.phase) = (ballot, ballot, Phase::Accepted);
        self.hear(ballot);
        self.take(value);
        mutant::on_accept(&mut self.after);
        self.check();
    }

    /// R4: the initial value is known from here on, and a Recover of the ballot `bal` is not answered again.
    pub(crate) fn validate(&mut self, init_dep: Deps, payload: Payload) {
        assert!(!self.is_committed(), "R4: only what is undecided is validated");
        assert!(self.init_dep.is_none_or(|known| known == init_dep), "V5: two initDeps");
        (self.validated, self.init_dep, self.cmd) = (true, Some(init_dep), Choice::Initial);
        self.payload.get_or_insert(payload);
        self.check();
    }

    /// C6: the value is final. Returns false if the instance was committed before; two values are a broken invariant
    /// (V1).
    pub(crate) fn commit(&mut self, id: InstanceId, ballot: Ballot, value: Proposal) -> bool {
        if self.is_committed() {
            let same = self.cmd == value.cmd && (self.cmd == Choice::Nop || self.dep == value.dep);
            assert!(same, "V1: {id:?} is committed with two values. {WHO_IS_WRONG}");
            return false;
        }
        (self.bal, self.abal, self.phase) = (self.bal.max(ballot), ballot, Phase::Committed);
        self.take(value);
        self.check();
        true
    }

    /// G1: one record tells the whole state, and more of it than the records before it where the log was cut between
    /// these. Returns false if the instance was committed before.
    pub(crate) fn carry(&mut self, state: Carried, value: Proposal) -> bool {
        let is_new = !self.is_committed();
        let Carried { phase, bal, abal, init_dep, validated } = state;
        if phase < Phase::Committed && !is_new {
            return false;
        }
        assert!(phase >= self.phase && bal >= self.bal && abal >= self.abal, "V4: a log that goes back");
        (self.phase, self.bal, self.abal) = (phase, bal, abal);
        (self.init_dep, self.validated, self.heard) = (init_dep, validated, bal);
        self.take(value);
        self.check();
        is_new
    }

    fn take(&mut self, value: Proposal) {
        (self.cmd, self.dep, self.after) = (value.cmd, value.dep, value.after);
        if self.payload.is_none() {
            self.payload = value.payload;
        }
    }

    /// A ballot was heard of, promised or not.
    pub(crate) fn hear(&mut self, ballot: Ballot) {
        self.heard = self.heard.max(ballot);
    }

    /// A record of the instance was read back, with the batch if the record carries it.
    pub(crate) fn on_record(&mut self, payload: Option<Payload>) {
        if payload.is_some() {
            (self.payload, self.logged) = (payload, true);
        }
    }

    /// G1: a Begin record was read back. All before it may be cut, even if a crash has left too few records behind it, so
    /// the next record of the instance carries the batch again, unless one behind the Begin does.
    pub(crate) fn on_begin(&mut self) {
        self.logged = false;
    }

    /// The name of the value in the next record, and the batch. Only the first record carries the batch.
    pub(crate) fn name_in_log(&mut self) -> (Value, Option<Payload>) {
        if self.cmd != Choice::Initial {
            return (self.cmd.to_value(false), None);
        }
        let is_first = !std::mem::replace(&mut self.logged, true);
        (Choice::Initial.to_value(is_first), self.payload.clone().filter(|_| is_first))
    }

    /// G1: the whole state as one record, with the batch.
    pub(crate) fn carry_forward(&mut self, id: InstanceId) -> (Record, Option<Payload>) {
        self.logged |= self.payload.is_some();
        self.carried(id)
    }

    /// The index has learnt the payload.
    pub(crate) fn learn(&mut self, places: Box<[Place]>) {
        (self.indexed, self.places) = (true, places);
    }

    /// Takes the entry hints, since the instance executes now.
    pub(crate) fn take_places(&mut self) -> Box<[Place]> {
        std::mem::take(&mut self.places)
    }

    /// Recovery is tried, or was overtaken.
    pub(crate) fn on_try(&mut self, now: Time) {
        (self.since, self.tries) = (now, self.tries + 1);
    }

    /// The wait before the next try starts again, so that a replica at work on the instance has its full time.
    pub(crate) fn restart_patience(&mut self, now: Time) {
        self.since = now;
    }

    /// V4 and V6, as far as one instance shows them.
    pub(crate) fn check(&self) {
        assert!(self.abal <= self.bal, "V4: {}", self.told());
        match self.phase {
            Phase::Init => assert!(self.abal.round == 0, "V4: {}", self.told()),
            Phase::PreAccepted => {
                let init = self.init_dep.expect("V6: pre-accepted with initDep");
                assert!(self.dep.covers(&init) && self.payload.is_some(), "V6: {}", self.told());
            }
            Phase::Accepted | Phase::Committed => match self.cmd {
                Choice::Nop => assert_eq!(self.dep, Deps::NONE, "V6: {}", self.told()),
                Choice::Initial => assert!(self.payload.is_some(), "V6: {}", self.told()),
                Choice::None => panic!("V6: taken without a value: {}", self.told()),
            },
        }
        if let (Some(init), Choice::Initial) = (self.init_dep, self.cmd) {
            assert!(self.phase == Phase::Init || self.dep.covers(&init), "V6: {}", self.told());
        }
    }

    /// The state without the batch, for a broken invariant.
    fn told(&self) -> String {
        let Instance { phase, bal, abal, cmd, dep, after, init_dep, .. } = self;
        format!(
            "{phase:?} bal {bal:?} abal {abal:?} {cmd:?} dep {dep:?} after {after:?} initDep {init_dep:?}"
        )
    }
}

/// The getters.
impl Instance {
    /// The phase of the instance at this replica.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// The highest ballot promised.
    pub(crate) fn bal(&self) -> Ballot {
        self.bal
    }

    /// The ballot at which the present value was taken.
    pub(crate) fn abal(&self) -> Ballot {
        self.abal
    }

    /// The highest ballot heard of, promised or not.
    pub(crate) fn heard(&self) -> Ballot {
        self.heard
    }

    /// The law's `cmd`.
    pub(crate) fn cmd(&self) -> Choice {
        self.cmd
    }

    /// The law's `dep`.
    pub(crate) fn dep(&self) -> &Deps {
        &self.dep
    }

    /// The instances that must be executed before this one besides its deps (R5).
    pub(crate) fn after(&self) -> &Deps {
        &self.after
    }

    /// The initial coordinator's batch, if it is known here.
    pub(crate) fn payload(&self) -> Option<&Payload> {
        self.payload.as_ref()
    }

    /// initDep, if it is known here.
    pub(crate) fn init_dep(&self) -> Option<&Deps> {
        self.init_dep.as_ref()
    }

    /// Whether a Validate of the ballot `bal` was answered.
    pub(crate) fn is_validated(&self) -> bool {
        self.validated
    }

    /// The batch that the index has not learnt yet.
    pub(crate) fn unlearnt(&self) -> Option<&Payload> {
        self.payload.as_ref().filter(|_| !self.indexed)
    }

    /// Whether the instance holds entry hints for its execution.
    pub(crate) fn has_places(&self) -> bool {
        !self.places.is_empty()
    }

    /// The time since the instance was first seen or recovery was last tried, in microseconds.
    pub(crate) fn waits(&self, now: Time) -> u64 {
        now.since(self.since)
    }

    /// How often recovery was tried.
    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }

    /// Whether the value is final.
    pub(crate) fn is_committed(&self) -> bool {
        self.phase == Phase::Committed
    }

    /// Whether the value is final, and nothing is executed.
    pub(crate) fn is_committed_nop(&self) -> bool {
        self.is_committed() && self.cmd == Choice::Nop
    }

    /// Whether the log has records of the instance that still matter.
    pub(crate) fn has_records(&self) -> bool {
        self.phase != Phase::Init || self.bal.round > 0 || self.cmd != Choice::None
    }

    /// The whole state as one record, with the batch.
    pub(crate) fn carried(&self, id: InstanceId) -> (Record, Option<Payload>) {
        let record = Record::Carried {
            id,
            phase: self.phase,
            bal: self.bal,
            abal: self.abal,
            value: self.cmd.to_value(true),
            deps: self.dep,
            after: self.after,
            init_deps: self.init_dep,
            validated: self.validated,
        };
        (record, self.payload.clone())
    }
}

/// The state that a record carries over a cut of the log (G1), besides the value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried {
    pub(crate) phase: Phase,
    pub(crate) bal: Ballot,
    pub(crate) abal: Ballot,
    pub(crate) init_dep: Option<Deps>,
    pub(crate) validated: bool,
}

#[cfg(test)]
mod tests;
