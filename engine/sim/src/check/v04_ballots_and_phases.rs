//! V4: bal never falls, abal <= bal, the phase never falls, and a committed value never changes.

use crate::ghost::Ghost;
use crate::view::Seen;
use isonomy_protocol::contract::Append;
use isonomy_protocol::log::record::Record;
use isonomy_wire::id::Ballot;
use isonomy_wire::message::Phase;

pub(super) fn check(ghost: &Ghost, node: u8, append: &Append) {
    let record = &append.record;
    let Some(id) = record.id() else { return };
    let seen = ghost.books[usize::from(node)].written.of(id);
    let is_lawful = match record {
        Record::PreAccepted { .. } => seen.phase == Phase::Init && seen.bal == Ballot::ZERO,
        Record::Promised { ballot, .. } => *ballot > seen.bal,
        Record::Accepted { ballot, .. } => {
            let again = seen.phase == Phase::Accepted && seen.abal == *ballot;
            *ballot >= seen.bal && *ballot >= seen.abal && !again
        }
        Record::Validated { .. } => seen.abal < seen.bal,
        Record::Committed { .. }
        | Record::Reserve { .. }
        | Record::Stopped { .. }
        | Record::Floor { .. }
        | Record::Begin { .. }
        | Record::Heard { .. } => true,
        // A record that carries an instance forward has its whole state (G1).
        Record::Carried { .. } => Seen::carried(record, append.payload.as_ref()) == Some((id, seen)),
    };
    let again = matches!(record, Record::Carried { .. });
    assert!(
        is_lawful && (again || seen.phase != Phase::Committed),
        "V4: replica {node}, {id:?}, {record:?} after {seen:?}"
    );
}
