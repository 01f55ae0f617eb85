//! What a member does next for the change that is under way. Nothing here does I/O.

use super::Report;
use crate::mark::{Fact, Mark};
use crate::plan::{Refusal, activate, promote};
use crate::presence::Presence;
use crate::record::{Record, Stage, State};
use crate::service::View;
use std::sync::Arc;

/// What a member does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Tell something of itself.
    Mark(Mark),
    /// Write the record that comes next.
    Replace {
        /// The record that it replaces.
        known: Arc<Record>,
        /// The next record.
        next: Record,
    },
    /// Tell the operator why the change cannot go on.
    Tell(Refusal),
}

/// What the member `own` does next: first it tells what it has to tell, and then it takes the step for which enough members
/// have told enough. `None` if nothing is to be done before something new is known.
#[must_use]
pub fn decide(view: &View, report: &Report, own: &Presence) -> Option<Action> {
    let record = view.record.as_ref().filter(|_| view.unfollowed.is_none())?;
    let State::Changing { change, to, stage } = &record.state else { return None };
    if !record.has(own.id, own.incarnation) {
        return None;
    }
    let is_in_next = to.member(own.id).is_some_and(|member| member.incarnation == Some(own.incarnation));
    let held = report.held.filter(|held| held.change == *change && *stage == Stage::Sealing);
    let facts = [report.is_close.then_some(Fact::Close), held.map(|held| Fact::Holds(held.hash))];
    let mark = |fact| Mark { change: *change, member: own.id, incarnation: own.incarnation, fact };
    let untold = facts.into_iter().flatten().map(mark).find(|mark| !view.marks.has(mark));
    if let Some(mark) = untold.filter(|_| is_in_next) {
        return Some(Action::Mark(mark));
    }
    let next = match stage {
        Stage::Held => return None,
        Stage::Learning => promote(record, &view.marks.close(*change), &view.living()),
        Stage::Sealing => activate(record, &view.marks.holders(*change)),
    };
    match next {
        Ok(next) => Some(Action::Replace { known: record.clone(), next }),
        Err(refusal @ Refusal::Differ(..)) => Some(Action::Tell(refusal)),
        Err(_not_yet) => None,
    }
}

/// Whether a member of the next epoch lives that does not hold the state at the Seal yet. It would have to copy the whole
/// state anew if the next epoch began without it.
#[must_use]
pub fn is_holder_missing(view: &View) -> bool {
    let Some(State::Changing { change, to, stage: Stage::Sealing }) =
        view.record.as_ref().map(|it| &it.state)
    else {
        return false;
    };
    let holders = view.marks.holders(*change);
    let incarnations = to.members.iter().filter_map(|member| member.incarnation);
    incarnations.filter(|it| view.alive.contains_key(it)).any(|it| !holders.contains_key(&it))
}

#[cfg(test)]
mod tests;
