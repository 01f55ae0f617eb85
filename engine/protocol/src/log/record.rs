//! The records that a replica writes before it speaks (law, section 7).

// The archived twins that rkyv derives have no documentation of their own.
#![allow(missing_docs)]

use isonomy_wire::deps::{Deps, Floor};
use isonomy_wire::id::{Ballot, InstanceId, REPLICAS_MAX};
use isonomy_wire::message::{Phase, Value};
use rkyv::{Archive, Deserialize, Serialize};

/// One record of the log. A batch follows it, as the payload of its frame, where the value is
/// [`Value::Attached`]; [`Value::Known`] refers to a batch in an earlier record.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// Own sequence numbers up to `end` may be used from now on (C1, D5).
    Reserve { end: u64 },
    /// The replica stopped in good order after it had used sequence numbers up to `used`. No message or reply ever
    /// named a number of the block above (D5).
    Stopped { used: u64 },
    /// G1: all instances up to `upto` are executed and forgotten, because a snapshot covers them or every member has
    /// executed them. Those that neither the snapshot nor earlier records show are Nops.
    Floor { upto: Floor },
    /// G1: this record and those behind it stand for all records before. It begins a segment, so that the segments
    /// before can be cut once the floor allows it. From then on the log needs the snapshot of this barrier, or a
    /// newer one.
    Begin { reserved: u64, floor: Floor, barrier: u64 },
    /// C2: the attached batch was pre-accepted at ballot 0.
    PreAccepted { id: InstanceId, deps: Deps, init_deps: Deps },
    /// R2: no value below the ballot will be taken.
    Promised { id: InstanceId, ballot: Ballot },
    /// R4: the initial batch and deps became known by validation.
    Validated { id: InstanceId, value: Value, init_deps: Deps },
    /// C4: the value was accepted.
    Accepted { id: InstanceId, ballot: Ballot, value: Value, deps: Deps, after: Deps },
    /// C6: the value is final.
    Committed { id: InstanceId, ballot: Ballot, value: Value, deps: Deps, after: Deps },
    /// G1: the whole state of an instance, so that earlier records of the instance can be cut. The batch is attached
    /// if it is known.
    Carried {
        id: InstanceId,
        phase: Phase,
        bal: Ballot,
        abal: Ballot,
        value: Value,
        deps: Deps,
        after: Deps,
        init_deps: Option<Deps>,
        validated: bool,
    },
    /// G6: the least reach of each replica's log, as the replicas have told it. No message rests on this record.
    Heard { positions: [u64; REPLICAS_MAX] },
}

impl Record {
    /// The instance of the record, if the record is about one.
    pub fn id(&self) -> Option<InstanceId> {
        match self {
            Record::Reserve { .. }
            | Record::Stopped { .. }
            | Record::Floor { .. }
            | Record::Begin { .. }
            | Record::Heard { .. } => None,
            Record::PreAccepted { id, .. }
            | Record::Promised { id, .. }
            | Record::Validated { id, .. }
            | Record::Accepted { id, .. }
            | Record::Committed { id, .. }
            | Record::Carried { id, .. } => Some(*id),
        }
    }
}
