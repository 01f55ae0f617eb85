//! Planning of changes (law, section 9): which record comes next, or why none does. Nothing here does I/O.
//!
//! [`Store::replace`](crate::store::Store::replace) writes what is planned here, if etcd still has the record that the
//! plan began with.

use crate::bad::BadRecord;
use crate::check::check;
use crate::id::{ChangeId, Incarnation, MemberId, RecordId};
use crate::record::{Address, Member, Membership, Record, State, VERSION};
use isonomy_wire::id::{ClusterId, REPLICAS_MAX};
use std::collections::BTreeSet;

mod refusal;

pub use refusal::Refusal;

/// A change of the members that an operator asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Another member joins.
    Add(Address),
    /// A member leaves.
    Remove(MemberId),
    /// A member whose data directory was lost begins anew, at another address or at its own.
    Replace(MemberId, Option<Address>),
}

/// The failures that a cluster is to stand: f and e of the law's section 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stands {
    /// How many members may be down.
    pub f: u8,
    /// How many may be down while two message delays still suffice.
    pub e: u8,
}

/// What is needed to begin a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Founding {
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's identity.
    pub cluster_id: ClusterId,
    /// The number of shards, for ever.
    pub shards: u16,
    /// The members' addresses; members are numbered from 0 in this order.
    pub addresses: Vec<Address>,
    /// The failures that it is to stand.
    pub stands: Stands,
}

/// The record of the first epoch.
///
/// # Errors
/// [`BadRecord`] if there can be no such cluster.
pub fn found(founding: Founding, id: RecordId) -> Result<Record, BadRecord> {
    let Founding { cluster, cluster_id, shards, addresses, stands: Stands { f, e } } = founding;
    if addresses.len() > REPLICAS_MAX {
        return Err(BadRecord::Members(addresses.len()));
    }
    let member = |(id, address)| Member { id: MemberId(id), incarnation: None, address };
    let members = (0..).zip(addresses).map(member).collect();
    let membership = Membership { members, f, e };
    let record = Record {
        version: VERSION,
        cluster,
        cluster_id,
        epoch: 1,
        record: id,
        predecessor: None,
        shards,
        membership,
        state: State::Active,
    };
    check(&record)?;
    Ok(record)
}

/// Step 1 of the law: the record that announces a change. `stands` tells what a cluster of a size is to stand, and
/// `living` who is alive now.
///
/// # Errors
/// [`Refusal`] if the change is not possible now, or never.
pub fn announce(
    record: &Record,
    change: &Change,
    id: ChangeId,
    stands: impl Fn(usize) -> Stands,
    living: &BTreeSet<MemberId>,
) -> Result<Record, Refusal> {
    if let State::Changing { change, .. } = record.state {
        return Err(Refusal::UnderWay(change));
    }
    let members = members_after(&record.membership.members, change)?;
    if members.is_empty() {
        return Err(Refusal::Nobody);
    }
    let Stands { f, e } = stands(members.len());
    let to = Membership { members, f, e };
    let mut next = record.clone();
    next.state = State::Changing { change: id, to: to.clone() };
    check(&next)?;
    has_quorum(&record.membership, &record.membership, living)?;
    has_quorum(&record.membership, &to, living)?;
    Ok(next)
}

/// Takes an announced change back. That is possible until a Seal has been proposed in any shard, which the caller knows.
///
/// # Errors
/// [`Refusal`] if there is none or it is too late.
pub fn abandon(record: &Record, is_sealed: bool) -> Result<Record, Refusal> {
    match record.state {
        State::Active => Err(Refusal::NoChange),
        State::Changing { change, .. } if is_sealed => Err(Refusal::Sealed(change)),
        State::Changing { .. } => Ok(Record { state: State::Active, ..record.clone() }),
    }
}

/// Step 3 of the law: the record of the next epoch. If the change was abandoned after a Seal had been proposed, and the
/// Seal has executed, the next epoch has the same members (step 4).
#[must_use]
pub fn activate(record: &Record, id: RecordId) -> Record {
    Record {
        epoch: record.epoch + 1,
        record: id,
        predecessor: Some(record.record),
        membership: record.changing_to().unwrap_or(&record.membership).clone(),
        state: State::Active,
        ..record.clone()
    }
}

/// A member names the data directory that it has made. A member does so once: another directory is another
/// incarnation, which only a change lets in.
///
/// # Errors
/// [`Refusal`] if the member does not belong to the cluster or has another directory.
pub fn claim(record: &Record, id: MemberId, incarnation: Incarnation) -> Result<Record, Refusal> {
    let mut next = record.clone();
    let coming = match &mut next.state {
        State::Changing { to, .. } => to.members.as_mut_slice(),
        State::Active => &mut [],
    };
    // Whoever is replaced is in both lists, and only the directory to come has no name yet.
    let is_it = |member: &&mut Member| member.id == id;
    let mut entries: Vec<_> = next.membership.members.iter_mut().chain(coming).filter(is_it).collect();
    if entries.is_empty() {
        return Err(Refusal::NoMember(id));
    }
    if entries.iter().any(|member| member.incarnation == Some(incarnation)) {
        return Ok(next);
    }
    let is_open = |member: &&mut &mut Member| member.incarnation.is_none();
    let mut open: Vec<_> = entries.iter_mut().filter(is_open).collect();
    if open.is_empty() {
        return Err(Refusal::Claimed(id));
    }
    open.iter_mut().for_each(|member| member.incarnation = Some(incarnation));
    check(&next)?;
    Ok(next)
}

fn members_after(members: &[Member], change: &Change) -> Result<Vec<Member>, Refusal> {
    let place = |id: MemberId| members.iter().position(|member| member.id == id).ok_or(Refusal::NoMember(id));
    let mut after = members.to_vec();
    match change {
        Change::Add(address) => {
            let is_free = |id: &u8| members.iter().all(|member| member.id != MemberId(*id));
            let id =
                (0..=u8::MAX).find(is_free).expect("a cluster has far fewer members than there are numbers");
            after.push(Member { id: MemberId(id), incarnation: None, address: address.clone() });
            after.sort_by_key(|member| member.id);
        }
        Change::Remove(id) => drop(after.remove(place(*id)?)),
        Change::Replace(id, address) => {
            let member = &mut after[place(*id)?];
            member.incarnation = None;
            if let Some(address) = address {
                member.address = address.clone();
            }
        }
    }
    Ok(after)
}

/// Whether enough members of `to` live. Whoever is new in it is yet to be started, and is taken for alive.
fn has_quorum(now: &Membership, to: &Membership, living: &BTreeSet<MemberId>) -> Result<(), Refusal> {
    let is_new =
        |member: &Member| now.member(member.id).is_none_or(|old| old.incarnation != member.incarnation);
    let there = to.members.iter().filter(|member| is_new(member) || living.contains(&member.id)).count();
    let needed = to.slow_quorum();
    if there < needed { Err(Refusal::NoQuorum { there, needed }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
