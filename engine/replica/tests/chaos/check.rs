//! Judges what the clients of all keys were told, twice: by the witness and by a search.

use super::history::{Op, Told};
use super::{search, witness};
use porcupine_rs::CheckResult;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Commands on one key, so that a search ends.
pub(crate) const OPS_PER_KEY_MAX: usize = 1000;

/// How it came out.
#[derive(Default, Debug)]
pub(crate) struct Verdict {
    pub(crate) keys: usize,
    pub(crate) ops: usize,
    /// Commands without an answer.
    pub(crate) unknown: usize,
    /// Commands that certainly had no effect.
    pub(crate) nothing: usize,
    /// Keys for which the search did not end.
    pub(crate) undecided: usize,
    /// The longest search.
    pub(crate) slowest: Duration,
}

impl Verdict {
    /// Judges one more key; the error holds the whole history.
    pub(crate) fn add(&mut self, key: &str, ops: &[Op]) -> Result<(), String> {
        assert!(ops.len() <= OPS_PER_KEY_MAX, "{key} has too many commands for a search");
        self.keys += 1;
        self.ops += ops.len();
        self.unknown += ops.iter().filter(|op| op.told == Told::Unknown).count();
        self.nothing += ops.iter().filter(|op| op.told == Told::Nothing).count();
        witness::judge(ops).map_err(|why| evidence(key, &why, ops))?;
        let began = Instant::now();
        match search::search(ops) {
            CheckResult::Ok => {}
            CheckResult::Illegal => return Err(evidence(key, "not linearizable", ops)),
            CheckResult::Unknown => self.undecided += 1,
        }
        self.slowest = self.slowest.max(began.elapsed());
        Ok(())
    }
}

fn evidence(key: &str, why: &str, ops: &[Op]) -> String {
    let mut text = format!("{key}: {why}\n");
    for op in ops {
        writeln!(text, "{op:?}").expect("writing to memory cannot fail");
    }
    text
}

/// Histories of one key, right and wrong. Commands take the times that are given; the read at the
/// end is the last one.
#[cfg(test)]
mod tests {
    use super::super::history::{Asked, GARBLED, token_of, value_of};
    use super::*;

    fn op(token: u64, asked: Asked, times: (u64, u64), told: Told) -> Op {
        Op { token, asked, began: times.0, ended: times.1, told }
    }

    fn wrote(token: u64, times: (u64, u64), seq: u64) -> Op {
        op(token, Asked::Decide, times, Told::Wrote(seq))
    }

    fn saw(times: (u64, u64), seq: u64, token: Option<u64>) -> Op {
        op(0, Asked::Read, times, Told::Saw(seq, token))
    }

    fn last(seq: u64, token: Option<u64>) -> Op {
        saw((1000, 1001), seq, token)
    }

    fn assert_right(ops: &[Op]) {
        assert_eq!(witness::judge(ops), Ok(()));
        assert_eq!(search::search(ops), CheckResult::Ok);
    }

    /// Both say so.
    #[track_caller]
    fn assert_wrong(ops: &[Op]) {
        assert!(witness::judge(ops).is_err(), "the witness");
        assert_eq!(search::search(ops), CheckResult::Illegal, "the search");
    }

    #[test]
    fn right_histories_pass() {
        assert_right(&[last(0, None)]);
        assert_right(&[wrote(1, (0, 9), 1), wrote(2, (5, 20), 2), last(2, Some(2))]);
        // They overlap, so either order is one.
        assert_right(&[wrote(1, (0, 9), 2), wrote(2, (5, 20), 1), last(2, Some(1))]);
        assert_right(&[wrote(1, (5, 20), 1), saw((0, 9), 0, None), last(1, Some(1))]);
        let lost = op(2, Asked::DecideIf(0), (10, 20), Told::Saw(1, Some(1)));
        let won = op(3, Asked::DecideIf(1), (21, 30), Told::Wrote(2));
        assert_right(&[wrote(1, (0, 9), 1), lost, won, last(2, Some(3))]);
        let bare = op(2, Asked::DecideIf(0), (10, 20), Told::Saw(1, None));
        assert_right(&[wrote(1, (0, 9), 1), bare, last(1, Some(1))]);
        let mut verdict = Verdict::default();
        verdict.add("key", &[wrote(1, (0, 9), 1), last(1, Some(1))]).unwrap();
        assert_eq!((verdict.keys, verdict.ops, verdict.unknown, verdict.undecided), (1, 2, 0, 0));
    }

    #[test]
    fn what_is_unknown_may_have_happened_once_or_not() {
        let open = op(2, Asked::Decide, (10, 20), Told::Unknown);
        assert_right(&[wrote(1, (0, 9), 1), open, last(1, Some(1))]);
        assert_right(&[wrote(1, (0, 9), 1), open, last(2, Some(2))]);
        // Long after its client gave up.
        let after = wrote(3, (30, 40), 2);
        assert_right(&[wrote(1, (0, 9), 1), open, after, saw((50, 60), 2, Some(3)), last(3, Some(2))]);
        assert_wrong(&[wrote(1, (0, 9), 1), open, last(3, Some(2))]);
        let early = saw((1, 5), 2, Some(2));
        assert_wrong(&[wrote(1, (0, 9), 1), early, open, last(2, Some(2))]);
        assert_wrong(&[wrote(1, (0, 9), 1), op(2, Asked::Decide, (10, 20), Told::Nothing), last(2, Some(2))]);
        let open = op(2, Asked::DecideIf(5), (10, 20), Told::Unknown);
        assert_eq!(search::search(&[wrote(1, (0, 9), 1), open, last(2, Some(2))]), CheckResult::Illegal);
    }

    #[test]
    fn what_is_lost_is_noticed() {
        assert_wrong(&[wrote(1, (0, 9), 1), last(0, None)]);
        assert_wrong(&[wrote(1, (0, 9), 1), wrote(2, (10, 20), 2), last(1, Some(1))]);
        // Somebody else has its place.
        assert_wrong(&[wrote(1, (0, 9), 1), wrote(2, (10, 20), 1), last(1, Some(2))]);
    }

    #[test]
    fn what_is_doubled_is_noticed() {
        assert_wrong(&[wrote(1, (0, 9), 1), last(2, Some(1))]);
        assert_wrong(&[wrote(1, (0, 9), 1), wrote(2, (10, 20), 2), last(3, Some(1))]);
        let open = op(2, Asked::Decide, (0, 9), Told::Unknown);
        let other = op(3, Asked::Decide, (0, 9), Told::Unknown);
        let seen = [saw((10, 20), 1, Some(2)), last(2, Some(2))];
        assert_wrong(&[open, other, seen[0], seen[1]]);
    }

    #[test]
    fn what_is_out_of_order_is_noticed() {
        assert_wrong(&[wrote(1, (0, 9), 2), wrote(2, (10, 20), 1), last(2, Some(1))]);
    }

    #[test]
    fn reads_that_are_stale_or_see_what_is_not_there_are_noticed() {
        let both = [wrote(1, (0, 9), 1), wrote(2, (10, 20), 2)];
        assert_wrong(&[both[0], both[1], saw((21, 30), 1, Some(1)), last(2, Some(2))]);
        assert_wrong(&[both[0], both[1], saw((21, 30), 0, None), last(2, Some(2))]);
        assert_wrong(&[both[0], both[1], saw((21, 30), 2, Some(1)), last(2, Some(2))]);
        assert_wrong(&[both[0], both[1], last(2, Some(GARBLED))]);
        // It went back.
        let overlap = wrote(3, (21, 50), 3);
        let reads = [saw((22, 30), 3, Some(3)), saw((31, 40), 2, Some(2))];
        assert_wrong(&[both[0], both[1], overlap, reads[0], reads[1], last(3, Some(3))]);
        let future = wrote(3, (50, 60), 3);
        assert_wrong(&[both[0], both[1], saw((21, 30), 3, Some(3)), future, last(3, Some(3))]);
    }

    #[test]
    fn conditions_that_were_not_met_are_noticed() {
        let first = wrote(1, (0, 9), 1);
        let won = op(2, Asked::DecideIf(0), (10, 20), Told::Wrote(2));
        assert_wrong(&[first, won, last(2, Some(2))]);
        let lost = op(2, Asked::DecideIf(1), (10, 20), Told::Saw(1, Some(1)));
        assert_wrong(&[first, lost, last(1, Some(1))]);
    }

    #[test]
    fn lives_are_counted_and_ordered() {
        let first = [wrote(1, (0, 9), 1), wrote(2, (10, 19), 2)];
        let end = op(0, Asked::Delete, (20, 29), Told::Deleted(2));
        let again = wrote(3, (30, 39), 1);
        assert_right(&[first[0], first[1], end, again, last(1, Some(3))]);
        assert_right(&[
            first[0],
            first[1],
            end,
            op(0, Asked::Delete, (30, 39), Told::Saw(0, None)),
            last(0, None),
        ]);
        let open = op(0, Asked::Delete, (20, 29), Told::Unknown);
        assert_right(&[first[0], first[1], open, again, last(1, Some(3))]);
        assert_right(&[first[0], first[1], open, last(2, Some(2))]);
        let lost = op(0, Asked::Delete, (20, 29), Told::Deleted(1));
        assert_wrong(&[first[0], first[1], lost, again, last(1, Some(3))]);
        let doubled = op(0, Asked::Delete, (20, 29), Told::Deleted(3));
        assert_wrong(&[first[0], first[1], doubled, again, last(1, Some(3))]);
        // The order of lives is the search's.
        let stale = saw((30, 39), 2, Some(2));
        assert_eq!(search::search(&[first[0], first[1], end, stale, last(0, None)]), CheckResult::Illegal);
    }

    #[test]
    fn values_tell_their_token() {
        for token in [1, 16, 255, 4080] {
            let value = value_of(token);
            assert_eq!(token_of(&value), token);
            assert_eq!(token_of(&value[1..]), GARBLED);
        }
        assert_eq!(token_of(&[]), GARBLED);
        assert_eq!(token_of(&value_of(1).repeat(2)), GARBLED);
    }
}
