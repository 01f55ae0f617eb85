//! Which record may follow the one that a replica knows (law, section 9).
//!
//! etcd can be restored from an old backup. Then the epoch goes backwards, or another history begins beside the one
//! that the replicas have lived through. A replica that followed would serve an epoch that the others have sealed.

use crate::id::{ChangeId, Incarnation, MemberId, RecordId};
use crate::record::{Membership, Record, Stage, State};
use isonomy_wire::epoch::{Entered, RecordFound, WentBack, judge};
use isonomy_wire::id::{ClusterId, Epoch, RecordId as WireRecordId};

/// What to do about an etcd that was set back.
pub(crate) const REMEDY: &str = "etcd was restored from an old backup, or the prefix was written by hand. Nothing is \
                                 followed. Stop whoever writes there, and put the newest record back that a member has \
                                 in membership.json of its data directory (docs/MEMBERSHIP.md, \"When etcd was set \
                                 back\", has the commands)";

/// Why a record is not followed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// Another cluster has been initialised under the prefix.
    #[error(
        "the record is of the cluster with id {there}, but this replica belongs to {known}; name the prefix of \
             this replica's cluster, or give the replica the data directory of the other cluster"
    )]
    OtherCluster {
        /// The id in the record.
        there: ClusterId,
        /// The id that the replica knows.
        known: ClusterId,
    },
    /// etcd is not in its newest state.
    #[error("{back} (the record in etcd is {there}, and the known one {known}): {REMEDY}")]
    Back {
        /// What shows that.
        back: WentBack,
        /// The record in etcd.
        there: RecordId,
        /// The record that the replica knows.
        known: RecordId,
    },
    /// The shards differ.
    #[error("the record has {there} shards, but the cluster has {known}, which never changes: {REMEDY}")]
    Shards {
        /// The number in the record.
        there: u16,
        /// The number that the replica knows.
        known: u16,
    },
    /// The members differ within one epoch.
    #[error("epoch {epoch} has other members than this replica has seen in it: {REMEDY}")]
    OtherMembers {
        /// The epoch of both.
        epoch: u32,
    },
    /// The change of an epoch that ends was taken back, or is another one.
    #[error(
        "epoch {epoch} does not go on from the change {change} as this replica has seen it ({stage}): {REMEDY}"
    )]
    OtherChange {
        /// The epoch of both.
        epoch: u32,
        /// The change that the replica knows.
        change: ChangeId,
        /// How far the replica has seen it come.
        stage: Stage,
    },
    /// The next epoch is not the one that the epoch was sealed for.
    #[error("epoch {epoch} is not the one that the change {change} was to begin: {REMEDY}")]
    OtherSuccessor {
        /// The epoch of the record in etcd.
        epoch: u32,
        /// The change for which the epoch before was sealed.
        change: ChangeId,
    },
    /// A member has another data directory within one epoch.
    #[error(
        "member {id} had the incarnation {known} in epoch {epoch}, and the record names another or none: {REMEDY}"
    )]
    OtherIncarnation {
        /// The epoch of both.
        epoch: u32,
        /// The member.
        id: MemberId,
        /// The incarnation that the replica knows.
        known: Incarnation,
    },
}

/// Whether `record` may come after `known`, or be the same.
///
/// # Errors
/// [`Refused`] if the two are of different histories.
pub fn follows(known: &Record, record: &Record) -> Result<(), Refused> {
    if record.cluster_id != known.cluster_id {
        return Err(Refused::OtherCluster { there: record.cluster_id, known: known.cluster_id });
    }
    if record.shards != known.shards {
        return Err(Refused::Shards { there: record.shards, known: known.shards });
    }
    // The first record has no predecessor, and none after it is without.
    let predecessor = record.predecessor.unwrap_or(RecordId(0));
    match judge(entered(known), entered(record), WireRecordId(predecessor.0)) {
        Ok(RecordFound::Same) => follows_within(known, record),
        Ok(RecordFound::Later) if record.epoch == known.epoch + 1 => succeeds(known, record),
        // The epochs between are not known here; whoever wrote the record has followed them.
        Ok(RecordFound::Later) => Ok(()),
        Err(back) => Err(Refused::Back { back, there: record.record, known: known.record }),
    }
}

fn entered(record: &Record) -> Entered {
    Entered { epoch: Epoch(record.epoch), record: WireRecordId(record.record.0) }
}

/// Once an epoch is being sealed, it is known which one comes next. It has the members of the change, or those of the
/// present epoch, if the change is cancelled.
fn succeeds(known: &Record, record: &Record) -> Result<(), Refused> {
    let State::Changing { change, to, stage: Stage::Sealing } = &known.state else { return Ok(()) };
    let begins = |with: &Membership| with.is_kept_in(&record.membership);
    let is_its = record.record == RecordId(change.0) && (begins(to) || begins(&known.membership));
    if is_its { Ok(()) } else { Err(Refused::OtherSuccessor { epoch: record.epoch, change: *change }) }
}

/// Within an epoch a change may come, go on and go, and members may name their first directories. Nothing else changes.
fn follows_within(known: &Record, record: &Record) -> Result<(), Refused> {
    let epoch = record.epoch;
    if !known.membership.has_places_of(&record.membership) {
        return Err(Refused::OtherMembers { epoch });
    }
    if let Some((id, known)) = known.membership.other_directory(&record.membership) {
        return Err(Refused::OtherIncarnation { epoch, id, known });
    }
    goes_on(known, record)
}

/// A change goes on to being sealed, or goes away before that. From then on it can only be cancelled in favour of the
/// present members.
fn goes_on(known: &Record, record: &Record) -> Result<(), Refused> {
    let State::Changing { change, to, stage } = &known.state else { return Ok(()) };
    let refused = Refused::OtherChange { epoch: record.epoch, change: *change, stage: *stage };
    let is_known_sealing = *stage == Stage::Sealing;
    let may = match &record.state {
        State::Changing { change: there, to: after, stage: then } if there == change => {
            let is_sealing = *then == Stage::Sealing;
            (then == stage || is_sealing)
                && (to.is_kept_in(after) || (is_sealing && known.membership.is_kept_in(after)))
        }
        State::Changing { .. } | State::Active => !is_known_sealing,
    };
    if may { Ok(()) } else { Err(refused) }
}

#[cfg(test)]
mod tests;
