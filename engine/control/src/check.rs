//! What a record must be, besides being JSON of the right shape.

use crate::bad::BadRecord;
use crate::id::MemberId;
use crate::record::{Member, Membership, Record, VERSION};
use isonomy_wire::address::is_host;
use isonomy_wire::id::{REPLICAS_MAX, SHARDS_MAX};
use std::ops::Range;

/// Whether a record can be the record of a cluster.
pub(crate) fn check(record: &Record) -> Result<(), BadRecord> {
    if record.version != VERSION {
        return Err(BadRecord::NoVersion(record.version));
    }
    if record.cluster.is_empty() {
        return Err(BadRecord::NoCluster);
    }
    if record.epoch == 0 || (record.epoch == 1) != record.predecessor.is_none() {
        return Err(BadRecord::Epoch(record.epoch));
    }
    if !(1..=SHARDS_MAX).contains(&usize::from(record.shards)) {
        return Err(BadRecord::Shards(record.shards));
    }
    check_membership(&record.membership, record.shards)?;
    let mut all: Vec<&Member> = record.membership.members.iter().collect();
    if let Some(to) = record.changing_to() {
        check_membership(to, record.shards)?;
        // The members of both epochs run at the same time, except those that take another's place.
        all.extend(to.members.iter().filter(|member| record.membership.member(member.id).is_none()));
    }
    check_ports(&all, record.shards)
}

fn check_membership(membership: &Membership, shards: u16) -> Result<(), BadRecord> {
    let Membership { members, f, e } = membership;
    let n = members.len();
    if !(1..=REPLICAS_MAX).contains(&n) {
        return Err(BadRecord::Members(n));
    }
    for pair in members.windows(2) {
        match pair[0].id.cmp(&pair[1].id) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => return Err(BadRecord::Twice(pair[1].id)),
            std::cmp::Ordering::Greater => return Err(BadRecord::Order(pair[1].id)),
        }
    }
    let (f, e) = (usize::from(*f), usize::from(*e));
    if n + 1 < 2 * e + f || n < 2 * f + 1 || e > f {
        return Err(BadRecord::Quorums { n, f: membership.f, e: membership.e });
    }
    for member in members {
        check_member(member, shards)?;
    }
    for (index, member) in members.iter().enumerate() {
        let is_same =
            |other: &&Member| member.incarnation.is_some() && other.incarnation == member.incarnation;
        if let Some(other) = members[..index].iter().find(is_same) {
            return Err(BadRecord::SameIncarnation(other.id, member.id));
        }
    }
    check_ports(&members.iter().collect::<Vec<_>>(), shards)
}

fn check_member(member: &Member, shards: u16) -> Result<(), BadRecord> {
    let (id, address) = (member.id, &member.address);
    if !is_host(&address.host) {
        return Err(BadRecord::Host { id, host: address.host.clone() });
    }
    for base in [address.peer_base, address.client_base] {
        if base == 0 || base.checked_add(shards - 1).is_none() {
            return Err(BadRecord::Ports { id, base, shards });
        }
    }
    Ok(())
}

/// No two ranges of ports may overlap on one host.
fn check_ports(members: &[&Member], shards: u16) -> Result<(), BadRecord> {
    let mut taken: Vec<(MemberId, &str, Range<u32>)> = Vec::new();
    for member in members {
        for base in [member.address.peer_base, member.address.client_base] {
            let (host, from) = (member.address.host.as_str(), u32::from(base));
            let range = from..from + u32::from(shards);
            let overlaps = |(_, other, ports): &&(_, &str, Range<u32>)| {
                *other == host && ports.start < range.end && range.start < ports.end
            };
            if let Some((other, _, ports)) = taken.iter().find(overlaps) {
                let port = ports.start.max(range.start) as u16;
                return Err(BadRecord::PortInUse { between: (*other, member.id), host: host.into(), port });
            }
            taken.push((member.id, host, range));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
