//! The questions and answers of clients, judged by the answers that a single copy could have given that executes one
//! command at a time.
//!
//! key_seq is a witness of the order: it tells the place of a command among those of its key. So no search is needed,
//! and histories of any length are judged in full. V14 (an answer before a question orders the two) follows from the
//! times.

use std::collections::{BTreeMap, BTreeSet};

/// The operation that a command asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// A decision.
    Decide,
    /// A decision if the key has this key_seq.
    DecideIf(u64),
    /// The latest decision.
    Read,
    /// The end of the key's life: the next decision is the first again.
    Delete,
}

/// The effect of a command, as reported to its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// The command became the key's decision of this number.
    Wrote(u64),
    /// The command saw this many decisions, and the token of the last.
    Saw(u64, Option<u64>),
    /// The command ended the key's life, which had this many decisions.
    Deleted(u64),
    /// It certainly had no effect.
    Nothing,
    /// The command may have had an effect.
    Unknown,
}

/// One command. Times are microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// The token that the command writes. It is unique, and higher than that of every command that was asked before.
    pub token: u64,
    /// The client that asks.
    pub client: usize,
    /// The key.
    pub key: usize,
    /// The operation that the client asks for.
    pub what: Asked,
    /// When the command was asked.
    pub asked: u64,
    /// The time and the content of the answer.
    pub told: Option<(u64, Told)>,
    /// How much longer the value is than it must be.
    pub padding: usize,
    /// Whether the command has an idempotency key, and so no place in the order of its client (S6).
    pub is_keyed: bool,
}

impl Op {
    /// Whether a decision of this number would be the one that the command asked for.
    fn may_write(&self, seq: u64) -> bool {
        match self.what {
            Asked::Decide => true,
            Asked::DecideIf(expected) => expected + 1 == seq,
            Asked::Read | Asked::Delete => false,
        }
    }

    /// Whether the command can have had an effect that its client was not told.
    fn is_open(&self) -> bool {
        matches!(self.told, None | Some((_, Told::Unknown)))
    }

    /// Whether the command has ended a life of its key.
    pub fn is_deleted(&self) -> bool {
        matches!(self.told, Some((_, Told::Deleted(_))))
    }
}

/// Asserts that the history is linearizable, given how many decisions each key has in the end. Keys that are not
/// named may have been deleted: nothing is known of them in the end, and less is asserted. With `in_order`, the
/// commands of one client on one key must take effect in the order in which it asked (S2).
pub fn judge(ops: &[Op], last: &BTreeMap<usize, u64>, in_order: bool) {
    let of_key = |key| ops.iter().filter(|op| op.key == key).collect::<Vec<&Op>>();
    for (key, last) in last {
        judge_key(&of_key(*key), *key, *last);
        if in_order {
            judge_order(&of_key(*key), *key);
        }
    }
    let others: BTreeSet<usize> = ops.iter().map(|op| op.key).filter(|key| !last.contains_key(key)).collect();
    for key in others {
        judge_mortal_key(&of_key(key), key);
    }
}

fn judge_key(ops: &[&Op], key: usize, last: u64) {
    let mut writers = BTreeMap::new();
    let mut unknown = 0;
    for op in ops {
        match op.told.map(|(_, told)| told) {
            Some(Told::Wrote(seq)) => {
                let before = writers.insert(seq, *op);
                assert!(before.is_none(), "key {key}: decision {seq} was told twice: {op:?}, {before:?}");
                assert!(seq >= 1 && seq <= last, "key {key}: decision {seq} of {last} is lost: {op:?}");
                assert!(op.may_write(seq), "key {key}: {op:?}");
            }
            Some(Told::Unknown) | None => unknown += u64::from(op.what != Asked::Read),
            Some(Told::Saw(..) | Told::Nothing) => {}
            Some(Told::Deleted(_)) => panic!("key {key}: nobody asked for {op:?}"),
        }
    }
    let untold = last - writers.len() as u64;
    assert!(untold <= unknown, "key {key}: {untold} decisions that nobody can have made");
    for op in ops {
        judge_op(op, key, last, &writers);
    }
    judge_times(ops, key);
}

/// S2: of two decisions of one client the one that was asked first is the earlier one.
fn judge_order(ops: &[&Op], key: usize) {
    let mut before: BTreeMap<usize, (u64, &Op)> = BTreeMap::new();
    for op in ops.iter().filter(|op| !op.is_keyed) {
        let Some((_, Told::Wrote(seq))) = op.told else { continue };
        if let Some((earlier, first)) = before.insert(op.client, (seq, op)) {
            assert!(earlier < seq, "S2: key {key}: {op:?} has overtaken {first:?}");
        }
    }
}

/// In each of its lives a key has one decision of each number, and a command that sees a decision sees what was
/// asked.
fn judge_mortal_key(ops: &[&Op], key: usize) {
    let ends = |op: &&&Op| op.what == Asked::Delete && (op.is_open() || op.is_deleted());
    let lives = 1 + ops.iter().filter(ends).count();
    let mut told: BTreeMap<u64, usize> = BTreeMap::new();
    for op in ops {
        match op.told.map(|(_, told)| told) {
            Some(Told::Wrote(seq)) => {
                assert!(op.may_write(seq), "key {key}: {op:?}");
                let times = told.entry(seq).or_default();
                *times += 1;
                assert!(*times <= lives, "key {key}: decision {seq} in {times} of {lives} lives: {op:?}");
            }
            Some(Told::Deleted(seq)) => {
                assert!(seq > 0 && op.what == Asked::Delete, "key {key}: a life without decisions: {op:?}");
            }
            Some(Told::Saw(seq, Some(token))) => {
                assert_refused_rightly(op, seq);
                let writer = ops.iter().find(|other| other.token == token);
                let fits = writer.is_some_and(|writer| match writer.told {
                    Some((_, Told::Wrote(wrote))) => wrote == seq,
                    _ => writer.is_open() && writer.may_write(seq),
                });
                assert!(fits, "key {key}: {op:?} saw what nobody can have decided: {writer:?}");
            }
            Some(Told::Saw(seq, None)) => assert_refused_rightly(op, seq),
            Some(Told::Nothing | Told::Unknown) | None => {}
        }
    }
}

fn assert_refused_rightly(op: &Op, seq: u64) {
    assert!(op.what != Asked::DecideIf(seq), "{op:?} was refused though it expected what it found");
}

fn judge_op(op: &Op, key: usize, last: u64, writers: &BTreeMap<u64, &Op>) {
    let Some((told_at, Told::Saw(seq, token))) = op.told else { return };
    assert!(seq <= last, "key {key}: {op:?} saw more decisions than there are");
    assert_refused_rightly(op, seq);
    if let Some(writer) = writers.get(&seq) {
        assert!(
            token.is_none_or(|token| token == writer.token),
            "key {key}: {op:?} saw another value than {writer:?}"
        );
        assert!(writer.asked <= told_at, "key {key}: {op:?} saw what was not asked yet: {writer:?}");
    }
}

/// V14: an effect that was told before a command was asked comes before that command.
fn judge_times(ops: &[&Op], key: usize) {
    let place = |op: &Op| match op.told {
        Some((at, Told::Wrote(seq))) => Some((at, seq, true)),
        Some((at, Told::Saw(seq, _))) => Some((at, seq, false)),
        _ => None,
    };
    let mut told: Vec<(u64, u64)> =
        ops.iter().filter_map(|op| place(op)).map(|(at, seq, _)| (at, seq)).collect();
    told.sort_unstable();
    let mut asked: Vec<&&Op> = ops.iter().filter(|op| place(op).is_some()).collect();
    asked.sort_unstable_by_key(|op| op.asked);
    let (mut next, mut highest) = (0, 0);
    for op in asked {
        while next < told.len() && told[next].0 < op.asked {
            highest = highest.max(told[next].1);
            next += 1;
        }
        let (_, seq, wrote) = place(op).expect("only those are here");
        let ordered = if wrote { seq > highest } else { seq >= highest };
        assert!(ordered, "V14: key {key}: {op:?} was asked after decision {highest} was told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(token: u64, asked: u64, told: Option<(u64, Told)>) -> Op {
        Op { token, client: 0, key: 0, what: Asked::Decide, asked, told, padding: 0, is_keyed: false }
    }

    fn is_fine(ops: &[Op], last: u64) -> bool {
        std::panic::catch_unwind(|| judge(ops, &BTreeMap::from([(0, last)]), false)).is_ok()
    }

    #[test]
    fn a_history_is_fine_if_one_copy_could_have_told_it() {
        let first = op(1, 0, Some((10, Told::Wrote(1))));
        let second = op(2, 5, Some((20, Told::Wrote(2))));
        assert!(is_fine(&[first, second], 2));
        assert!(!is_fine(&[first, second], 1), "lost");
        assert!(!is_fine(&[first, second], 3), "from nowhere");
        assert!(is_fine(&[first, second, op(3, 6, None)], 3));
        assert!(!is_fine(&[first, op(2, 5, Some((20, Told::Wrote(1))))], 2), "twice");
        let swapped = [op(1, 0, Some((10, Told::Wrote(2)))), op(2, 11, Some((20, Told::Wrote(1))))];
        assert!(!is_fine(&swapped, 2), "V14");
    }

    #[test]
    fn what_one_client_asks_takes_effect_in_its_order() {
        let write = |token, client, seq| Op { client, ..op(token, 0, Some((10, Told::Wrote(seq)))) };
        let is_fine = |ops: &[Op]| {
            let last = BTreeMap::from([(0, ops.len() as u64)]);
            std::panic::catch_unwind(|| judge(ops, &last, true)).is_ok()
        };
        assert!(is_fine(&[write(1, 0, 1), write(2, 1, 3), write(3, 0, 2)]));
        assert!(!is_fine(&[write(1, 0, 3), write(2, 1, 1), write(3, 0, 2)]));
    }

    #[test]
    fn reads_see_what_is_there_and_never_go_back() {
        let first = op(1, 0, Some((10, Told::Wrote(1))));
        let read = |asked, told, seq, token| Op {
            what: Asked::Read,
            ..op(9, asked, Some((told, Told::Saw(seq, token))))
        };
        assert!(is_fine(&[first, read(11, 12, 1, Some(1))], 1));
        assert!(is_fine(&[first, read(5, 12, 0, None)], 1), "they overlap");
        assert!(!is_fine(&[first, read(11, 12, 0, None)], 1), "stale");
        assert!(!is_fine(&[first, read(11, 12, 1, Some(7))], 1), "another value");
        let late = op(1, 20, Some((30, Told::Wrote(1))));
        assert!(!is_fine(&[late, read(1, 5, 1, Some(1))], 1), "from the future");
    }

    #[test]
    fn a_deleted_key_begins_again() {
        let write = |token, seq| op(token, 0, Some((10, Told::Wrote(seq))));
        let delete = |told| Op { what: Asked::Delete, ..op(8, 0, told) };
        let read = |seq, token| Op { what: Asked::Read, ..op(9, 0, Some((10, Told::Saw(seq, token)))) };
        let is_fine = |ops: &[Op]| std::panic::catch_unwind(|| judge(ops, &BTreeMap::new(), false)).is_ok();
        let deleted = delete(Some((10, Told::Deleted(1))));
        assert!(is_fine(&[write(1, 1), deleted, write(2, 1), read(1, Some(2)), read(0, None)]));
        assert!(is_fine(&[write(1, 1), delete(None), write(2, 1)]), "it may have had its effect");
        assert!(!is_fine(&[write(1, 1), write(2, 1)]), "twice in one life");
        assert!(!is_fine(&[write(1, 1), delete(Some((10, Told::Nothing))), write(2, 1)]));
        assert!(!is_fine(&[delete(Some((10, Told::Deleted(0))))]), "nothing to end");
        assert!(!is_fine(&[write(1, 1), read(1, Some(7))]), "another value");
        assert!(!is_fine(&[write(1, 1), deleted, write(2, 1), read(2, Some(2))]), "another number");
    }
}
