//! A plan as text, for `--dry-run` and for whoever confirms a change.

use crate::record::{Member, Membership, Record};
use std::fmt::Write;

/// What an announced change does, a line for each member and one for the failures that the cluster stands. Without a
/// change, who belongs to the cluster.
#[must_use]
pub fn describe(record: &Record) -> String {
    let now = &record.membership;
    let to = record.changing_to().unwrap_or(now);
    let mut text = format!("cluster {}, epoch {}", record.cluster, record.epoch);
    match record.changing_to() {
        Some(_) => writeln!(text, " -> {}", record.epoch + 1),
        None => writeln!(text),
    }
    .expect(WRITTEN);
    let mut all: Vec<&Member> = now.members.iter().chain(&to.members).collect();
    all.sort_by_key(|member| member.id);
    all.dedup_by_key(|member| member.id);
    for Member { id, .. } in all {
        let line = match (now.member(*id), to.member(*id)) {
            (Some(old), Some(new)) => kept(old, new),
            (None, Some(new)) => format!("+ member {id} at {}", new.address),
            (Some(old), None) => format!("- member {id} at {}", old.address),
            (None, None) => unreachable!("it is in one of the two"),
        };
        writeln!(text, "{line}").expect(WRITTEN);
    }
    let stands = |Membership { members, f, e }: &Membership| {
        format!("{} members; {f} may be down, {e} without a third message delay", members.len())
    };
    let (before, after) = (stands(now), stands(to));
    let line = if before == after { before } else { format!("{before} -> {after}") };
    writeln!(text, "{line}").expect(WRITTEN);
    text
}

/// Why writing into a text does not fail.
const WRITTEN: &str = "a text takes what is written into it";

fn kept(old: &Member, new: &Member) -> String {
    let id = new.id;
    match (old.incarnation == new.incarnation, old.address == new.address) {
        (true, _) => format!("  member {id} at {}", new.address),
        (false, true) => format!("~ member {id} begins anew at {}", new.address),
        (false, false) => format!("~ member {id} begins anew at {}, not at {}", new.address, old.address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MemberId;
    use crate::plan::Change;
    use crate::sample::{address, announced, started};

    #[test]
    fn a_plan_shows_who_comes_goes_and_begins_anew() {
        assert!(
            describe(&started(3))
                .starts_with("cluster orders, epoch 1\n  member 0 at h0:7100 (clients 7400)\n")
        );
        let plan = |change| announced(&change, false);
        let added = describe(&plan(Change::Add(address(3))));
        assert!(added.contains("epoch 1 -> 2\n"), "{added}");
        assert!(added.contains("+ member 3 at h3:7100 (clients 7400)\n"), "{added}");
        assert!(
            added.ends_with("delay -> 4 members; 1 may be down, 1 without a third message delay\n"),
            "{added}"
        );
        let removed = describe(&plan(Change::Remove(MemberId(0))));
        assert!(removed.contains("- member 0 at h0:7100"), "{removed}");
        let replaced = describe(&plan(Change::Replace(MemberId(2), Some(address(8)))));
        assert!(
            replaced.contains("~ member 2 begins anew at h8:7100 (clients 7400), not at h2:7100"),
            "{replaced}"
        );
    }
}
