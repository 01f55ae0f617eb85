//! V4: bal never falls, abal <= bal, the phase never falls, what is committed never changes.

use crate::ghost::{Ghost, id_of};
use isonomy_protocol::log::record::Record;
use isonomy_wire::id::Ballot;
use isonomy_wire::message::Phase;

pub(super) fn check(ghost: &Ghost, node: u8, record: &Record) {
    let Some(id) = id_of(record) else { return };
    let seen = ghost.books[usize::from(node)].written.of(id);
    let who = format!("V4: replica {node}, {id:?}, {record:?} after {seen:?}");
    assert!(seen.phase != Phase::Committed, "{who}");
    match record {
        Record::PreAccepted { .. } => assert!(seen.phase == Phase::Init && seen.bal == Ballot::ZERO, "{who}"),
        Record::Promised { ballot, .. } => assert!(*ballot > seen.bal, "{who}"),
        Record::Accepted { ballot, .. } => {
            let again = seen.phase == Phase::Accepted && seen.abal == *ballot;
            assert!(*ballot >= seen.bal && *ballot >= seen.abal && !again, "{who}");
        }
        Record::Validated { .. } => assert!(seen.abal < seen.bal, "{who}"),
        Record::Committed { .. }
        | Record::Reserve { .. }
        | Record::Stopped { .. }
        | Record::Settled { .. } => {}
    }
}
