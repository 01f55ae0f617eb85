//! A search for an order in which one register could have told all that was told.

use super::history::{Asked, Op, Told};
use porcupine_rs::{CheckResult, Model, Operation, check_operations_timeout};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// How long the search for the order of one key may take.
pub(crate) const SEARCH_TIME_MAX: Duration = Duration::from_secs(60);

/// A command, and what keeps the search from trying everything that is unknown everywhere.
#[derive(Clone, Debug)]
struct Step {
    op: Op,
    /// In a key that was never deleted: the decisions that were told. Nobody else can have made them.
    taken: Option<Arc<HashSet<u64>>>,
}

impl Step {
    /// Whether a command of unknown outcome may come at this place, and not rather at a later one.
    fn may_come_now(&self, seq: u64, applies: bool) -> bool {
        let Some(taken) = &self.taken else { return true };
        match self.op.asked {
            Asked::DecideIf(expected) if !applies => seq > expected,
            Asked::Decide | Asked::DecideIf(_) => !taken.contains(&(seq + 1)),
            Asked::Read | Asked::Delete => true,
        }
    }
}

/// A key: how many decisions its present life has, and the token of the last.
#[derive(Clone, Debug)]
struct Register;

impl Model for Register {
    type State = (u64, Option<u64>);
    type Op = Step;
    type Metadata = ();

    fn init() -> Self::State {
        (0, None)
    }

    fn step(state: &Self::State, step: &Step) -> (bool, Self::State) {
        let op = &step.op;
        let (seq, token) = *state;
        let applies = match op.asked {
            Asked::Decide => true,
            Asked::DecideIf(expected) => expected == seq,
            Asked::Read => false,
            Asked::Delete => seq > 0,
        };
        let next = match (applies, op.asked) {
            (false, _) => *state,
            (true, Asked::Delete) => Self::init(),
            (true, _) => (seq + 1, Some(op.token)),
        };
        let fits = match op.told {
            Told::Wrote(told) => applies && told == seq + 1,
            Told::Saw(told, seen) => {
                let bare = seen.is_none() && matches!(op.asked, Asked::DecideIf(_));
                !applies && told == seq && (bare || seen == token)
            }
            Told::Deleted(told) => applies && told == seq,
            Told::Unknown => step.may_come_now(seq, applies),
            Told::Nothing => true,
        };
        (fits, next)
    }
}

/// Whether there is an order.
pub(crate) fn search(ops: &[Op]) -> CheckResult {
    let deleted = ops.iter().any(|op| op.asked == Asked::Delete);
    let wrote = |op: &Op| if let Told::Wrote(seq) = op.told { Some(seq) } else { None };
    let taken = (!deleted).then(|| Arc::new(ops.iter().filter_map(wrote).collect()));
    let highest = ops.iter().filter_map(|op| op.told.seq()).max().unwrap_or(0);
    let steps = ops.iter().filter(|op| counts(op, highest));
    let history: Vec<_> = steps.map(|op| operation(Step { op: *op, taken: taken.clone() })).collect();
    check_operations_timeout(&history, SEARCH_TIME_MAX)
}

/// Whether anybody can have seen an effect of it.
fn counts(op: &Op, highest: u64) -> bool {
    match (op.told, op.asked) {
        (Told::Nothing, _) | (Told::Unknown, Asked::Read) => false,
        (Told::Unknown, Asked::DecideIf(expected)) => expected <= highest,
        _ => true,
    }
}

/// What of an unknown outcome may have an effect has it at any later time: last of all, it is as
/// if it had none.
fn operation(step: Step) -> Operation<Register> {
    let Op { began, ended, told, .. } = step.op;
    let return_time = if told == Told::Unknown { i64::MAX } else { ended as i64 };
    Operation { client_id: None, call_time: began as i64, return_time, op: step, metadata: None }
}
