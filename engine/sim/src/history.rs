//! What clients asked and were told, judged by what a single copy that executes one command at a
//! time could have said.
//!
//! key_seq is a witness of the order: it says which place a command took among those of its key.
//! So no search is needed, and histories of any length are judged in full. V14 (an answer before a
//! question orders the two) follows from the times.

use std::collections::BTreeMap;

/// What a command did, as its client was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// It decided, as the key's decision of this number.
    Wrote(u64),
    /// It saw this many decisions, and the token of the last.
    Saw(u64, Option<u64>),
    /// It certainly had no effect.
    Nothing,
    /// It may have had one.
    Unknown,
}

/// One command. Times are microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// What it writes; unique.
    pub token: u64,
    /// On which key.
    pub key: usize,
    /// Whether it is a read.
    pub reads: bool,
    /// The key_seq that it asked for, of a conditional decision.
    pub expected: Option<u64>,
    /// When it was asked.
    pub asked: u64,
    /// When it was answered, and what.
    pub told: Option<(u64, Told)>,
}

/// Asserts that the history is linearizable, given how many decisions each key has in the end.
pub fn judge(ops: &[Op], last: &BTreeMap<usize, u64>) {
    for (key, last) in last {
        let of_key: Vec<&Op> = ops.iter().filter(|op| op.key == *key).collect();
        judge_key(&of_key, *key, *last);
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
                assert!(op.expected.is_none_or(|expected| expected + 1 == seq), "key {key}: {op:?}");
            }
            Some(Told::Unknown) | None => unknown += u64::from(!op.reads),
            Some(Told::Saw(..) | Told::Nothing) => {}
        }
    }
    let untold = last - writers.len() as u64;
    assert!(untold <= unknown, "key {key}: {untold} decisions that nobody can have made");
    for op in ops {
        judge_op(op, key, last, &writers);
    }
    judge_times(ops, key);
}

fn judge_op(op: &Op, key: usize, last: u64, writers: &BTreeMap<u64, &Op>) {
    let Some((told_at, Told::Saw(seq, token))) = op.told else { return };
    assert!(seq <= last, "key {key}: {op:?} saw more decisions than there are");
    assert!(op.expected != Some(seq), "key {key}: {op:?} was refused though it expected what it found");
    if let Some(writer) = writers.get(&seq) {
        assert!(
            token.is_none_or(|token| token == writer.token),
            "key {key}: {op:?} saw another value than {writer:?}"
        );
        assert!(writer.asked <= told_at, "key {key}: {op:?} saw what was not asked yet: {writer:?}");
    }
}

/// V14: what was told before something was asked comes before it.
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
        Op { token, key: 0, reads: false, expected: None, asked, told }
    }

    fn is_fine(ops: &[Op], last: u64) -> bool {
        std::panic::catch_unwind(|| judge(ops, &BTreeMap::from([(0, last)]))).is_ok()
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
    fn reads_see_what_is_there_and_never_go_back() {
        let first = op(1, 0, Some((10, Told::Wrote(1))));
        let read =
            |asked, told, seq, token| Op { reads: true, ..op(9, asked, Some((told, Told::Saw(seq, token)))) };
        assert!(is_fine(&[first, read(11, 12, 1, Some(1))], 1));
        assert!(is_fine(&[first, read(5, 12, 0, None)], 1), "they overlap");
        assert!(!is_fine(&[first, read(11, 12, 0, None)], 1), "stale");
        assert!(!is_fine(&[first, read(11, 12, 1, Some(7))], 1), "another value");
        let late = op(1, 20, Some((30, Told::Wrote(1))));
        assert!(!is_fine(&[late, read(1, 5, 1, Some(1))], 1), "from the future");
    }
}
