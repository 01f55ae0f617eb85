//! One replica as its records show it: everything that a replay would know, and nothing else.

use isonomy_protocol::contract::Append;
use isonomy_protocol::log::record::Record;
use isonomy_protocol::payload::Payload;
use isonomy_wire::deps::{Deps, Floor, Frontier};
use isonomy_wire::id::{Ballot, InstanceId, REPLICAS_MAX, ReplicaId};
use isonomy_wire::message::{Phase, Value};
use std::collections::BTreeMap;

/// A value as Accept, Commit and records name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Whether the value is a Nop, which executes nothing; otherwise it is the initial coordinator's batch.
    pub nop: bool,
    /// The value's deps, zero for a Nop.
    pub deps: Deps,
}

impl Choice {
    /// The value of a message or record.
    pub fn of(value: Value, deps: Deps) -> Choice {
        let nop = value == Value::Nop;
        Choice { nop, deps: if nop { Deps::NONE } else { deps } }
    }
}

/// The state of an instance, as the records of one replica tell it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// The phase of the instance.
    pub phase: Phase,
    /// bal.
    pub bal: Ballot,
    /// abal.
    pub abal: Ballot,
    /// cmd; a batch is `Known`, whether it was attached or not.
    pub value: Value,
    /// dep.
    pub deps: Deps,
    /// after.
    pub after: Deps,
    /// initDep, from a proposal or a validation.
    pub init_deps: Option<Deps>,
    /// Whether a Validate of the ballot `bal` was answered (R4).
    pub validated: bool,
    /// Whether the batch is in some record.
    pub has_batch: bool,
}

impl Seen {
    /// The state in a record that stands for all others of its instance, and that instance.
    pub fn carried(record: &Record, payload: Option<&Payload>) -> Option<(InstanceId, Seen)> {
        let Record::Carried { id, phase, bal, abal, value, deps, after, init_deps, validated } = *record
        else {
            return None;
        };
        let (value, has_batch) = (bare(value), payload.is_some());
        Some((id, Seen { phase, bal, abal, value, deps, after, init_deps, validated, has_batch }))
    }

    /// The committed value, if there is one.
    pub fn decided(&self) -> Option<Choice> {
        (self.phase == Phase::Committed).then(|| Choice::of(self.value, self.deps))
    }
}

/// The value as `Known` if it is a batch, attached or not.
pub fn bare(value: Value) -> Value {
    if value == Value::Attached { Value::Known } else { value }
}

/// One replica as its records show it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The state of each instance.
    pub seen: BTreeMap<InstanceId, Seen>,
    /// dep of each pre-acceptance at ballot 0, whatever came after it.
    pub pre_accepted: BTreeMap<InstanceId, Deps>,
    /// The instances that are committed without gaps, per row; those that a floor covers count.
    pub committed: Frontier,
    /// The instances that a floor or a snapshot covers.
    pub floor: Floor,
    /// The end of the last block of own numbers.
    pub reserved: u64,
    /// How far the log of each replica reaches at least (G6).
    pub heard: [u64; REPLICAS_MAX],
}

impl View {
    /// Takes a record in.
    pub fn apply(&mut self, append: &Append) {
        match append.record {
            Record::Reserve { end } | Record::Stopped { used: end } => self.reserved = end,
            Record::Begin { reserved, floor, .. } => {
                self.reserved = reserved;
                self.raise_floor(&floor);
            }
            Record::Floor { upto } => self.raise_floor(&upto),
            Record::Heard { positions } => self.heard = positions,
            Record::PreAccepted { id, deps, .. } => {
                self.pre_accepted.insert(id, deps);
                self.apply_to(id, append);
            }
            Record::Promised { id, .. }
            | Record::Validated { id, .. }
            | Record::Accepted { id, .. }
            | Record::Committed { id, .. }
            | Record::Carried { id, .. } => self.apply_to(id, append),
        }
    }

    fn apply_to(&mut self, id: InstanceId, append: &Append) {
        let seen = self.seen.entry(id).or_default();
        seen.has_batch |= append.payload.is_some();
        match append.record {
            Record::PreAccepted { deps, init_deps, .. } => {
                (seen.phase, seen.value, seen.deps) = (Phase::PreAccepted, Value::Known, deps);
                seen.init_deps = Some(init_deps);
            }
            Record::Promised { ballot, .. } => (seen.bal, seen.validated) = (ballot, false),
            Record::Validated { init_deps, .. } => {
                (seen.value, seen.init_deps, seen.validated) = (Value::Known, Some(init_deps), true);
            }
            Record::Accepted { ballot, value, deps, after, .. } => {
                (seen.phase, seen.bal, seen.abal) = (Phase::Accepted, ballot, ballot);
                (seen.value, seen.deps, seen.after) = (bare(value), deps, after);
            }
            Record::Committed { ballot, value, deps, after, .. } => {
                (seen.phase, seen.bal, seen.abal) = (Phase::Committed, seen.bal.max(ballot), ballot);
                (seen.value, seen.deps, seen.after) = (bare(value), deps, after);
            }
            _ => {
                let (_, carried) =
                    Seen::carried(&append.record, append.payload.as_ref()).expect("the caller has looked");
                *seen = carried;
            }
        }
        if seen.phase == Phase::Committed {
            self.count_committed(id.row);
        }
    }

    fn count_committed(&mut self, row: ReplicaId) {
        let is_committed = |seq| {
            self.seen.get(&InstanceId::new(row, seq)).is_some_and(|seen| seen.phase == Phase::Committed)
        };
        let mut upto = self.committed.of(row);
        while is_committed(upto + 1) {
            upto += 1;
        }
        self.committed.set(row, upto);
    }

    /// A floor, or the frontier of a snapshot that the disk keeps.
    pub fn raise_floor(&mut self, upto: &Floor) {
        self.floor.merge(upto);
        self.committed.pass(&upto.to_deps());
        (0..REPLICAS_MAX as u8).for_each(|row| self.count_committed(ReplicaId(row)));
    }

    /// The state of an instance.
    pub fn of(&self, id: InstanceId) -> Seen {
        self.seen.get(&id).copied().unwrap_or_default()
    }

    /// Whether an instance is committed, or below a floor.
    pub fn is_committed(&self, id: InstanceId) -> bool {
        self.floor.contains(id) || self.of(id).phase == Phase::Committed
    }
}
