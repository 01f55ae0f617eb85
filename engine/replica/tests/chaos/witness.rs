//! key_seq says which place a command took among those of its key, so that histories of any length
//! are judged without a search.
//!
//! In a key that was deleted the same key_seq comes once per life. There the numbers are counted
//! over all lives; their order is left to the search.

use super::history::{Asked, Op, Told};
use std::collections::{BTreeMap, HashMap};

/// What contradicts that the key is one register; the last command is the read at the end.
pub(crate) fn judge(ops: &[Op]) -> Result<(), String> {
    judge_values(ops)?;
    judge_counts(ops)?;
    let deletes = |op: &Op| op.asked == Asked::Delete && op.told != Told::Nothing;
    if ops.iter().any(deletes) { Ok(()) } else { judge_order(ops) }
}

/// Each value was written by somebody, once, and is seen at its place only.
fn judge_values(ops: &[Op]) -> Result<(), String> {
    let writers: HashMap<u64, &Op> =
        ops.iter().filter(|op| op.may_have_written()).map(|op| (op.token, op)).collect();
    let mut places: HashMap<u64, u64> = HashMap::new();
    for op in ops {
        let (token, seq) = match (op.told, op.asked) {
            (Told::Wrote(seq), Asked::DecideIf(expected)) if seq != expected + 1 => {
                return Err(format!("it decided though it expected something else: {op:?}"));
            }
            (Told::Saw(seq, _), Asked::DecideIf(expected)) if seq == expected => {
                return Err(format!("it was rejected though it expected what it found: {op:?}"));
            }
            (Told::Wrote(seq), _) => (op.token, seq),
            (Told::Saw(seq, Some(token)), _) => (token, seq),
            _ => continue,
        };
        let writer = writers.get(&token).ok_or_else(|| format!("a value from nowhere: {op:?}"))?;
        if writer.began > op.ended {
            return Err(format!("a value from the future: {op:?} {writer:?}"));
        }
        let place = *places.entry(token).or_insert(seq);
        if place != seq {
            return Err(format!("a value was decided twice, as {place} and as {seq}: {op:?}"));
        }
    }
    Ok(())
}

/// As many decisions were told as there are, but for those whose outcome is unknown.
fn judge_counts(ops: &[Op]) -> Result<(), String> {
    let Some(Op { asked: Asked::Read, told: Told::Saw(last, _), .. }) = ops.last() else {
        return Err(format!("the key could not be read in the end: {:?}", ops.last()));
    };
    let mut lives = vec![*last];
    let mut told: BTreeMap<u64, u64> = BTreeMap::new();
    let (mut open_writes, mut open_deletes) = (0, 0);
    for op in ops {
        match op.told {
            Told::Deleted(seq) => lives.push(seq),
            Told::Wrote(seq) => *told.entry(seq).or_default() += 1,
            Told::Unknown => {
                open_writes += u64::from(op.asked.writes());
                open_deletes += u64::from(op.asked == Asked::Delete);
            }
            Told::Saw(..) | Told::Nothing => {}
        }
    }
    for (seq, count) in &told {
        let reached = lives.iter().filter(|length| *length >= seq).count() as u64;
        if *count > reached + open_deletes {
            return Err(format!("decision {seq} was told {count} times and is there {reached} times"));
        }
    }
    let (there, told): (u64, u64) = (lives.iter().sum(), told.values().sum());
    if there > told + open_writes {
        return Err(format!("{there} decisions, of {told} that were told and {open_writes} unknown ones"));
    }
    Ok(())
}

/// What was told before something else was asked comes before it.
fn judge_order(ops: &[Op]) -> Result<(), String> {
    let place = |op: &Op| match op.told {
        Told::Wrote(seq) => Some((seq, true)),
        Told::Saw(seq, _) => Some((seq, false)),
        _ => None,
    };
    let mut told: Vec<(u64, u64)> = ops.iter().filter_map(|op| Some((op.ended, place(op)?.0))).collect();
    told.sort_unstable();
    let mut asked: Vec<&Op> = ops.iter().collect();
    asked.sort_unstable_by_key(|op| op.began);
    let (mut next, mut highest) = (0, 0);
    for op in asked {
        while next < told.len() && told[next].0 < op.began {
            highest = highest.max(told[next].1);
            next += 1;
        }
        let Some((seq, wrote)) = place(op) else { continue };
        if seq < highest + u64::from(wrote) {
            return Err(format!("it was asked after decision {highest} was told: {op:?}"));
        }
    }
    judge_one_value_each(ops)
}

/// A place of the only life holds one value.
fn judge_one_value_each(ops: &[Op]) -> Result<(), String> {
    let mut values: HashMap<u64, u64> = HashMap::new();
    for op in ops {
        let (seq, token) = match op.told {
            Told::Wrote(seq) => (seq, op.token),
            Told::Saw(seq, Some(token)) => (seq, token),
            _ => continue,
        };
        if *values.entry(seq).or_insert(token) != token {
            return Err(format!("decision {seq} has two values: {op:?}"));
        }
    }
    Ok(())
}
