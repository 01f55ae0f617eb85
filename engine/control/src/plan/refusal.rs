//! Why a change is refused.

use crate::bad::BadRecord;
use crate::id::{ChangeId, MemberId};

/// Why a change is refused. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// One change at a time.
    #[error("the change {0} is under way; wait until it is done, or abandon it first")]
    UnderWay(ChangeId),
    /// There is nothing to abandon.
    #[error("no change is under way; there is nothing to abandon")]
    NoChange,
    /// The change has gone too far to be abandoned.
    #[error(
        "the change {0} cannot be abandoned: a Seal of the epoch was proposed; let any member carry the change on"
    )]
    Sealed(ChangeId),
    /// There is no such member.
    #[error("no member has the number {0}; `isonomy member list` shows who belongs to the cluster")]
    NoMember(MemberId),
    /// Nobody would be left.
    #[error("the last member cannot be removed; stop the replica to end the cluster")]
    Nobody,
    /// Too few live.
    #[error(
        "only {there} of the {needed} members that must decide are alive; start the others first, or replace one \
             that is lost"
    )]
    NoQuorum {
        /// How many live, or are to be started.
        there: usize,
        /// How many must.
        needed: usize,
    },
    /// The member has another data directory.
    #[error(
        "member {0} has taken part with another data directory; start it with that directory or, if the directory \
             is lost, leave this replica stopped and see docs/OPERATIONS.md, \"Lost and damaged replicas\""
    )]
    Claimed(MemberId),
    /// There can be no such membership.
    #[error("there can be no such membership: {0}")]
    Bad(#[from] BadRecord),
}
