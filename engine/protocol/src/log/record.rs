//! What a replica writes down before it speaks (law, section 7).

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
    /// The replica stopped in good order having used sequence numbers up to `used`: nothing of
    /// the block above was ever said (D5).
    Stopped { used: u64 },
    /// G1: everything up to here is executed, and forgotten: by a snapshot, or because every member
    /// has executed it. What the records before and the snapshot do not show of it are Nops.
    Floor { upto: Floor },
    /// G1: this record and those behind it stand for all before. A segment begins with it, so that
    /// the segments before can be cut once the floor says so. From then on the log needs the snapshot
    /// of this barrier, or a newer one.
    Begin { reserved: u64, floor: Floor, barrier: u64 },
    /// C2: taken at ballot 0, batch attached.
    PreAccepted { id: InstanceId, deps: Deps, init_deps: Deps },
    /// R2: nothing below the ballot will be taken.
    Promised { id: InstanceId, ballot: Ballot },
    /// R4: the initial batch and deps became known by validation.
    Validated { id: InstanceId, value: Value, init_deps: Deps },
    /// C4.
    Accepted { id: InstanceId, ballot: Ballot, value: Value, deps: Deps, after: Deps },
    /// C6.
    Committed { id: InstanceId, ballot: Ballot, value: Value, deps: Deps, after: Deps },
    /// G1: all of an instance's state, so that earlier records of it can be cut. The batch is
    /// attached if it is known.
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
    /// G6: how far the log of each replica reaches at least, as they have said. Nothing that is said
    /// rests on it.
    Heard { positions: [u64; REPLICAS_MAX] },
}

impl Record {
    /// The instance that it is about, if it is about one.
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
