//! Planning of changes (law, section 9): which record comes next, or why none does. Nothing here does I/O.
//!
//! [`Store::replace`](crate::store::Store::replace) writes what is planned here, if etcd still has the record that the
//! plan began with.

use crate::bad::BadRecord;
use crate::check::check;
use crate::id::{ChangeId, Incarnation, MemberId, RecordId};
use crate::record::{Address, Member, Membership, Record, Stage, State, VERSION};
use isonomy_wire::id::{ClusterId, REPLICAS_MAX};
use std::collections::{BTreeMap, BTreeSet};

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
    /// The epoch in which it begins: 1, or that of the backup from which it was restored.
    pub epoch: u32,
}

/// The record of the first epoch.
///
/// # Errors
/// [`BadRecord`] if there can be no such cluster.
pub fn found(founding: Founding, id: RecordId) -> Result<Record, BadRecord> {
    let Founding { cluster, cluster_id, shards, addresses, stands: Stands { f, e }, epoch } = founding;
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
        epoch,
        record: id,
        // The records before are those of the cluster from which the backup comes.
        predecessor: (epoch > 1).then_some(RecordId(0)),
        shards,
        membership,
        state: State::Active,
    };
    check(&record)?;
    Ok(record)
}

/// Step 1 of the law: the record that announces a change. `stands` tells what a cluster of a size is to stand, and
/// `living` which data directories live now. A change that is held is carried on when [`promote`] says so.
///
/// Whoever is new is taken for alive: the epoch goes on as before until the new members are close.
///
/// # Errors
/// [`Refusal`] if the change is not possible now, or never.
pub fn announce(
    record: &Record,
    change: &Change,
    id: ChangeId,
    is_held: bool,
    stands: impl Fn(usize) -> Stands,
    living: &BTreeSet<Incarnation>,
) -> Result<Record, Refusal> {
    if let State::Changing { change, .. } = record.state {
        return Err(Refusal::UnderWay(change));
    }
    let now = &record.membership;
    let members = members_after(&now.members, change)?;
    match members.len() {
        0 => return Err(Refusal::Nobody),
        n if n > REPLICAS_MAX => return Err(Refusal::Full),
        _ => {}
    }
    let Stands { f, e } = stands(members.len());
    let to = Membership { members, f, e };
    let stage = if is_held { Stage::Held } else { Stage::Learning };
    let next = Record { state: State::Changing { change: id, to: to.clone(), stage }, ..record.clone() };
    check(&next)?;
    decides(now, living)?;
    let there = to.members.iter().filter(|member| now.is_new(member)).count()
        + to.count(|it| now.count(|known| known == it) > 0 && living.contains(&it));
    let needed = to.slow_quorum();
    if there < needed { Err(Refusal::TooFewAfter { there, needed }) } else { Ok(next) }
}

/// Step 2 of the law: the record that lets members propose the Seal. `close` are the data directories that have told that
/// they are close, and `living` those that live now. All new members must be both, and so many of the next epoch that they
/// can decide in it.
///
/// # Errors
/// [`Refusal`] if there is no change that waits for this, or too few are close.
pub fn promote(
    record: &Record,
    close: &BTreeSet<Incarnation>,
    living: &BTreeSet<Incarnation>,
) -> Result<Record, Refusal> {
    let State::Changing { change, to, stage } = &record.state else {
        return Err(Refusal::NoChange);
    };
    if *stage == Stage::Sealing {
        return Err(Refusal::Sealing(*change));
    }
    decides(&record.membership, living)?;
    let is_ready = |it: Incarnation| close.contains(&it) && living.contains(&it);
    let is_behind = |member: &&Member| !member.incarnation.is_some_and(is_ready);
    let behind: Vec<_> = record.learners().filter(is_behind).map(|member| member.id).collect();
    let (there, needed) = (to.count(is_ready), to.slow_quorum());
    if there < needed || !behind.is_empty() {
        return Err(Refusal::NotClose { behind, there, needed });
    }
    let state = State::Changing { change: *change, to: to.clone(), stage: Stage::Sealing };
    Ok(Record { state, ..record.clone() })
}

/// Takes an announced change back. Once a Seal may have been proposed, the epoch ends nevertheless, and the next one has
/// the members of this one (step 4 of the law).
///
/// # Errors
/// [`Refusal`] if there is no change, or it was cancelled before.
pub fn cancel(record: &Record) -> Result<Record, Refusal> {
    let State::Changing { change, to, stage } = &record.state else {
        return Err(Refusal::NoChange);
    };
    let now = &record.membership;
    let state = match stage {
        Stage::Learning | Stage::Held => State::Active,
        Stage::Sealing if to == now => return Err(Refusal::Cancelled(*change)),
        Stage::Sealing => State::Changing { change: *change, to: now.clone(), stage: *stage },
    };
    Ok(Record { state, ..record.clone() })
}

/// Step 3 of the law: the record of the next epoch, whose id is that of the change. `holders` are the data directories
/// whose members hold the state at the Seal, and its hash.
///
/// # Errors
/// [`Refusal`] if the epoch is not being sealed, too few hold the state, or two hold different states.
pub fn activate(record: &Record, holders: &BTreeMap<Incarnation, u64>) -> Result<Record, Refusal> {
    let State::Changing { change, to, stage } = &record.state else {
        return Err(Refusal::NoChange);
    };
    if *stage != Stage::Sealing {
        return Err(Refusal::NotSealing(*change));
    }
    let hash_of = |member: &Member| Some((member.id, *holders.get(&member.incarnation?)?));
    let hashes: Vec<_> = to.members.iter().filter_map(hash_of).collect();
    if let Some(pair) = hashes.windows(2).find(|pair| pair[0].1 != pair[1].1) {
        return Err(Refusal::Differ(pair[0].0, pair[1].0));
    }
    let (there, needed) = (hashes.len(), to.slow_quorum());
    if there < needed {
        return Err(Refusal::NotHeld { there, needed });
    }
    Ok(Record {
        epoch: record.epoch + 1,
        record: RecordId(change.0),
        predecessor: Some(record.record),
        membership: to.clone(),
        state: State::Active,
        ..record.clone()
    })
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
            if member.incarnation.take().is_none() {
                return Err(Refusal::NeverStarted(*id));
            }
            if let Some(address) = address {
                member.address = address.clone();
            }
        }
    }
    Ok(after)
}

/// Whether enough members live to decide.
fn decides(now: &Membership, living: &BTreeSet<Incarnation>) -> Result<(), Refusal> {
    let (there, needed) = (now.count(|it| living.contains(&it)), now.slow_quorum());
    if there < needed { Err(Refusal::TooFew { there, needed }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
