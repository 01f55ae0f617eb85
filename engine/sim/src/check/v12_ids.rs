//! V12: ids are never used twice, and rows have no gaps.

use crate::ghost::Ghost;
use isonomy_protocol::contract::Append;
use std::collections::BTreeMap;

pub(super) fn check(ghost: &Ghost, append: &Append) {
    if let (Some(id), Some(payload)) = (append.record.id(), &append.payload)
        && let Some(known) = ghost.payloads.get(&id)
    {
        assert_eq!(known, payload, "V12: {id:?} was used twice");
    }
}

/// At the end, when everything is decided.
pub fn rows_have_no_gaps(ghost: &Ghost) {
    let mut next = BTreeMap::new();
    for id in ghost.decisions.keys() {
        let expected = next.entry(id.row).or_insert(1);
        assert_eq!(id.seq, *expected, "V12: row {} has a gap", id.row);
        *expected += 1;
    }
}
