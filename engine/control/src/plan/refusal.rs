//! Why a change is refused.

use crate::bad::BadRecord;
use crate::id::{ChangeId, MemberId};
use isonomy_wire::id::REPLICAS_MAX;

/// Why a change is refused. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// One change at a time.
    #[error(
        "the change {0} is under way; wait until it is done (`isonomy member list` shows how far it is), or cancel it \
         (`isonomy member cancel`)"
    )]
    UnderWay(ChangeId),
    /// There is nothing to carry on or to cancel.
    #[error("no change of the members is under way; `isonomy member list` shows who belongs to the cluster")]
    NoChange,
    /// The epoch is being sealed already.
    #[error(
        "the epoch is being sealed for the change {0} already; `isonomy member list` shows what is waited for"
    )]
    Sealing(ChangeId),
    /// The epoch goes on.
    #[error("the epoch is not being sealed for the change {0}; wait until its new members are close")]
    NotSealing(ChangeId),
    /// The change was cancelled when the epoch was being sealed.
    #[error(
        "the change {0} is cancelled already; the epoch ends nevertheless, and the next one has the same members: \
         wait for that"
    )]
    Cancelled(ChangeId),
    /// There is no such member.
    #[error("no member has the number {0}; `isonomy member list` shows who belongs to the cluster")]
    NoMember(MemberId),
    /// Nobody would be left.
    #[error("the last member cannot be removed; stop the replica to end the cluster")]
    Nobody,
    /// The cluster is as large as it can be.
    #[error("a cluster has at most {REPLICAS_MAX} members; remove or replace one")]
    Full,
    /// The member has no directory that could be lost.
    #[error(
        "member {0} has not started yet, so that there is nothing to replace; start it (`isonomy serve --replica {0}`), \
         with `advertise` if it is not where the record says"
    )]
    NeverStarted(MemberId),
    /// Too few live to decide.
    #[error(
        "only {there} of the {needed} members that must decide are alive; start the others first, because a change is \
         decided by the members that are there"
    )]
    TooFew {
        /// How many live.
        there: usize,
        /// How many must.
        needed: usize,
    },
    /// Too few would be left to decide.
    #[error(
        "after the change only {there} of the {needed} members that must decide would be there; start the others \
         first, or remove or replace one that is lost"
    )]
    TooFewAfter {
        /// How many live, or are to be started.
        there: usize,
        /// How many must.
        needed: usize,
    },
    /// Too few are close to what the others have.
    #[error(
        "only {there} of the {needed} members that must decide after the change are alive and close to what the others \
         have{}; start those that are missing, and wait until they have copied the state", waited_for(.behind)
    )]
    NotClose {
        /// The new members that are not close.
        behind: Vec<MemberId>,
        /// How many are close.
        there: usize,
        /// How many must.
        needed: usize,
    },
    /// Too few hold the state with which the next epoch begins.
    #[error(
        "only {there} of the {needed} members that must decide after the change hold the state; start the others"
    )]
    NotHeld {
        /// How many hold it.
        there: usize,
        /// How many must.
        needed: usize,
    },
    /// Two members hold different states.
    #[error(
        "the members {0} and {1} hold different states, so that no epoch can begin; see docs/OPERATIONS.md, \"When \
         replicas differ\""
    )]
    Differ(MemberId, MemberId),
    /// The member has another data directory.
    #[error(
        "member {0} has taken part with another data directory; start it with that directory or, if the directory \
         is lost, leave this replica stopped, and let the member begin anew with an empty one: \
         `isonomy member replace {0}`"
    )]
    Claimed(MemberId),
    /// The data directory belonged to a member that was replaced or removed.
    #[error(
        "this data directory has taken part in the cluster before, and member {0} is another one now; start member \
         {0} with an empty directory"
    )]
    Former(MemberId),
    /// There can be no such membership.
    #[error("there can be no such membership: {0}")]
    Bad(#[from] BadRecord),
}

/// Which new members are waited for, if there are any.
fn waited_for(behind: &[MemberId]) -> String {
    if behind.is_empty() {
        return String::new();
    }
    let ids: Vec<_> = behind.iter().map(ToString::to_string).collect();
    format!(", and of the new members not {}", ids.join(", "))
}
