//! Places in an epoch (law, section 9): those of the members come first, in the order of the record, and behind them
//! those of the learners of a change that is under way.

use crate::id::{Incarnation, MemberId};
use crate::plan::Refusal;
use crate::record::{Member, Record};

/// Who takes part in the epoch of a record, by places.
pub fn places(record: &Record) -> impl Iterator<Item = &Member> {
    record.membership.members.iter().chain(record.learners())
}

/// The place of a member with a data directory, which may be none yet. A directory without a place takes one that is
/// open: a learner's before a member's.
///
/// # Errors
///
/// [`Refusal::NoMember`] if the member has no place, [`Refusal::Claimed`] if another directory has it.
pub fn own_place(record: &Record, own: MemberId, incarnation: Option<Incarnation>) -> Result<usize, Refusal> {
    let its: Vec<(usize, &Member)> =
        places(record).enumerate().filter(|(_, member)| member.id == own).collect();
    let is_own = |(_, member): &&(usize, &Member)| incarnation.is_some() && member.incarnation == incarnation;
    let is_open = |(_, member): &&(usize, &Member)| member.incarnation.is_none();
    let found = its.iter().find(is_own).or_else(|| its.iter().rev().find(is_open));
    match found {
        Some((place, _)) => Ok(*place),
        None if its.is_empty() => Err(Refusal::NoMember(own)),
        None => Err(Refusal::Claimed(own)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Membership, Stage, State};
    use crate::sample::record;

    const OLD: Option<Incarnation> = Some(Incarnation(7));
    const NEW: Option<Incarnation> = Some(Incarnation(8));

    /// Member 1 of three is replaced, and member 3 is to join.
    fn changing(new: Option<Incarnation>) -> Record {
        let mut record = record(3);
        record.membership.members[1].incarnation = OLD;
        let mut members = record.membership.members.clone();
        members[1].incarnation = new;
        members.push(Member { id: MemberId(3), incarnation: None, address: members[0].address.clone() });
        let to = Membership { members, ..record.membership };
        record.state = State::Changing { change: crate::id::ChangeId(1), to, stage: Stage::Learning };
        record
    }

    #[test]
    fn learners_come_behind_the_members() {
        let record = changing(None);
        let ids: Vec<u8> = places(&record).map(|member| member.id.0).collect();
        assert_eq!(ids, [0, 1, 2, 1, 3]);
    }

    #[test]
    fn a_directory_keeps_its_place_and_a_new_one_takes_an_open_one() {
        let record = changing(None);
        assert_eq!(own_place(&record, MemberId(1), OLD), Ok(1), "who is replaced takes part until then");
        assert_eq!(own_place(&record, MemberId(1), None), Ok(3));
        assert_eq!(own_place(&record, MemberId(1), NEW), Ok(3));
        assert_eq!(own_place(&record, MemberId(3), None), Ok(4));
        assert_eq!(own_place(&changing(NEW), MemberId(1), NEW), Ok(3), "it has its place now");
    }

    #[test]
    fn a_place_that_another_directory_has_is_refused() {
        assert_eq!(own_place(&changing(NEW), MemberId(1), None), Err(Refusal::Claimed(MemberId(1))));
        assert_eq!(own_place(&changing(NEW), MemberId(9), None), Err(Refusal::NoMember(MemberId(9))));
    }
}
