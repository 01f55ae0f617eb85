//! V7: of two conflicting ids of different rows that one replica pre-accepted, the later has the earlier in its deps.
//! A replica's proposals that others were told of count even if a crash took its own records (D8).

use crate::ghost::Ghost;
use crate::restated::Touches;
use isonomy_protocol::contract::Append;
use isonomy_protocol::log::record::Record;

pub(super) fn check(ghost: &Ghost, node: u8, append: &Append) {
    let Record::PreAccepted { id, deps, .. } = append.record else { return };
    let payload = append.payload.as_ref().expect("the record carries the batch");
    let book = &ghost.books[usize::from(node)];
    for (thing, writes_too) in Touches::of(ghost.epoch, id, payload).things {
        let Some(earlier) = book.pre_accepted.get(&thing) else { continue };
        for (other, writes) in earlier.outside(deps).filter(|(other, _)| other.row != id.row) {
            let conflicting = writes || writes_too;
            // An instance that the replica forgot in a crash and that has become a Nop since does not count (D8).
            let is_nop = ghost.decisions.get(&other).is_some_and(|decision| decision.choice.nop);
            assert!(
                !conflicting || is_nop,
                "V7: replica {node} pre-accepted {id:?} after {other:?} and does not name it"
            );
        }
    }
}
