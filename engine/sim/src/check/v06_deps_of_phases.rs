//! V6: every instance that is pre-accepted, accepted or committed and not a Nop has deps >= initDep; a Nop has none.

use crate::ghost::Ghost;
use isonomy_protocol::log::record::Record;
use isonomy_wire::deps::Deps;
use isonomy_wire::message::Value;

pub(super) fn check(ghost: &Ghost, record: &Record) {
    match record {
        Record::PreAccepted { id, deps, init_deps } => {
            assert!(deps.covers(init_deps), "V6: {id:?} {record:?}");
            assert_eq!(init_deps.of(id.row), id.seq - 1, "V6: {id:?} has its row before it");
        }
        Record::Accepted { id, value, deps, .. } | Record::Committed { id, value, deps, .. } => match value {
            Value::None => panic!("V6: {id:?} was taken without a value"),
            Value::Nop => assert_eq!(*deps, Deps::NONE, "V6: the Nop {id:?} has deps"),
            Value::Known | Value::Attached => {
                let init = ghost.init_deps.get(id).copied().unwrap_or(Deps::NONE);
                assert!(deps.covers(&init), "V6: {id:?} lost deps: {deps:?} of {init:?}");
            }
        },
        _ => {}
    }
}
