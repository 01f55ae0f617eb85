//! The membership record of an epoch (law, section 9), as it lies in etcd: JSON that is read strictly.

use crate::bad::BadRecord;
use crate::check::check;
use crate::id::{ChangeId, Incarnation, MemberId, RecordId, cluster};
use isonomy_wire::address::with_port;
use isonomy_wire::id::ClusterId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The version of the record that this release reads and writes.
pub const VERSION: u32 = 1;
/// The longest record that is read, in bytes. Nine members with long names, twice, take a tenth of it.
pub const RECORD_BYTES_MAX: usize = 64 << 10;

/// Who the members of a cluster are, in which epoch, and what is to become of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The version of this layout.
    pub version: u32,
    /// The name of the cluster.
    pub cluster: String,
    /// The identity of the cluster for its whole life.
    #[serde(with = "cluster")]
    pub cluster_id: ClusterId,
    /// Counts from 1.
    pub epoch: u32,
    /// The same for all records of this epoch.
    pub record: RecordId,
    /// The record of the epoch before; none in epoch 1.
    pub predecessor: Option<RecordId>,
    /// The number of shards, which never changes.
    pub shards: u16,
    /// The members of this epoch.
    pub membership: Membership,
    /// Whether a change is under way.
    pub state: State,
}

/// A set of members and the failures that it stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// In the order of their ids. The place of a member is its replica's id in the epoch.
    pub members: Vec<Member>,
    /// How many may be down.
    pub f: u8,
    /// How many may be down while two message delays still suffice.
    pub e: u8,
}

/// One member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The number that operators use.
    pub id: MemberId,
    /// The data directory that the member takes part with; none until the member has started for the first time.
    pub incarnation: Option<Incarnation>,
    /// Where the member listens, unless the member has published another address.
    pub address: Address,
}

/// Where a member listens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// A name or an address, without a port.
    pub host: String,
    /// Shard `s` listens for peers on this port plus `s`.
    pub peer_base: u16,
    /// Shard `s` listens for clients on this port plus `s`.
    pub client_base: u16,
}

/// Whether a change of the members is under way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum State {
    /// No change is under way.
    Active,
    /// The next epoch is to have other members.
    Changing {
        /// Names this change.
        change: ChangeId,
        /// The members of the next epoch.
        to: Membership,
        /// How far the change has come.
        stage: Stage,
    },
}

/// How far a change has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The new members copy the state. The epoch is sealed as soon as enough members are close.
    Learning,
    /// The new members copy the state. The epoch is sealed when an operator says so.
    Held,
    /// A Seal may have been proposed: the epoch ends. No Seal is proposed before.
    Sealing,
}

/// What is read first: a newer record may have fields that this release does not know.
#[derive(Deserialize)]
struct RecordVersion {
    version: u32,
}

impl Record {
    /// Reads and checks the record of a cluster.
    ///
    /// # Errors
    /// One variant of [`BadRecord`] for each way in which the bytes are no record of this cluster.
    pub fn parse(bytes: &[u8], cluster: &str) -> Result<Record, BadRecord> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(BadRecord::Long(bytes.len()));
        }
        let RecordVersion { version } = serde_json::from_slice(bytes).map_err(BadRecord::no_json)?;
        if version > VERSION {
            return Err(BadRecord::Newer(version));
        }
        let record: Record = serde_json::from_slice(bytes).map_err(BadRecord::no_json)?;
        if record.cluster != cluster {
            return Err(BadRecord::OtherCluster { there: record.cluster, expected: cluster.into() });
        }
        check(&record)?;
        Ok(record)
    }

    /// The record as it lies in etcd.
    ///
    /// # Panics
    /// When memory is exhausted: a record always has a JSON form.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record has a JSON form")
    }

    /// The members of the next epoch, if a change is under way.
    #[must_use]
    pub fn changing_to(&self) -> Option<&Membership> {
        match &self.state {
            State::Active => None,
            State::Changing { to, .. } => Some(to),
        }
    }

    /// The change that is under way, and how far it has come.
    #[must_use]
    pub fn change(&self) -> Option<(ChangeId, Stage)> {
        match self.state {
            State::Active => None,
            State::Changing { change, stage, .. } => Some((change, stage)),
        }
    }

    /// The members of the next epoch that this epoch does not have, or has with another directory. They copy the state
    /// of this epoch without a vote.
    pub fn learners(&self) -> impl Iterator<Item = &Member> {
        let all = self.changing_to().map_or(&[][..], |to| &to.members);
        all.iter().filter(|member| self.membership.is_new(member))
    }

    /// Whether a member takes part in this epoch or the next one with this data directory.
    #[must_use]
    pub fn has(&self, id: MemberId, incarnation: Incarnation) -> bool {
        let is_there = |membership: &Membership| {
            membership.member(id).is_some_and(|member| member.incarnation == Some(incarnation))
        };
        is_there(&self.membership) || self.changing_to().is_some_and(is_there)
    }
}

impl Membership {
    /// A member by its id.
    #[must_use]
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Whether a member of another epoch is none of these, or one with another directory.
    #[must_use]
    pub fn is_new(&self, member: &Member) -> bool {
        self.member(member.id).is_none_or(|known| known.incarnation != member.incarnation)
    }

    /// How many of the members have a data directory that is in a set.
    #[must_use]
    pub fn count(&self, is_in: impl Fn(Incarnation) -> bool) -> usize {
        self.members.iter().filter(|member| member.incarnation.is_some_and(&is_in)).count()
    }

    /// Whether a membership is this one at a later time: members may have named their first directories meanwhile.
    #[must_use]
    pub fn is_kept_in(&self, later: &Membership) -> bool {
        self.has_places_of(later) && self.other_directory(later).is_none()
    }

    /// Whether both have the same members at the same addresses, and stand the same failures.
    pub(crate) fn has_places_of(&self, other: &Membership) -> bool {
        let sizes = |membership: &Membership| (membership.members.len(), membership.f, membership.e);
        let is_same = |(old, new): (&Member, &Member)| old.id == new.id && old.address == new.address;
        sizes(self) == sizes(other) && self.members.iter().zip(&other.members).all(is_same)
    }

    /// The first member that has another directory later, and the one that it has here.
    pub(crate) fn other_directory(&self, later: &Membership) -> Option<(MemberId, Incarnation)> {
        self.members.iter().zip(&later.members).find_map(|(old, new)| {
            let known = old.incarnation.filter(|_| old.incarnation != new.incarnation)?;
            Some((old.id, known))
        })
    }

    /// How many members decide and recover (law, section 1).
    #[must_use]
    pub fn slow_quorum(&self) -> usize {
        self.members.len() - usize::from(self.f)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (clients {})", with_port(&self.host, self.peer_base), self.client_base)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Learning => "learning",
            Stage::Held => "held",
            Stage::Sealing => "sealing",
        })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { cluster, epoch, record, membership, .. } = self;
        let ids: Vec<_> = membership.members.iter().map(|member| member.id.to_string()).collect();
        write!(f, "cluster {cluster}, epoch {epoch}, record {record}, members {}", ids.join(", "))?;
        match &self.state {
            State::Active => Ok(()),
            State::Changing { change, to, stage } => {
                let ids: Vec<_> = to.members.iter().map(|member| member.id.to_string()).collect();
                write!(f, ", changing to {} (change {change}, {stage})", ids.join(", "))
            }
        }
    }
}
