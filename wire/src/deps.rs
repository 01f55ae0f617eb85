//! Vectors with one sequence number per row. Deps, frontiers and floors mean different things, so each has a type of
//! its own.

use crate::id::{InstanceId, REPLICAS_MAX, ReplicaId};
use core::fmt;
use rkyv::{Archive, Deserialize, Serialize};

/// Each vector means, for each row, *every* instance of the row up to the number (law, section 2). Rows beyond the
/// cluster's size stay 0.
macro_rules! vector {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default,
        )]
        pub struct $name(pub [u64; REPLICAS_MAX]);

        impl $name {
            /// The empty set.
            pub const NONE: $name = $name([0; REPLICAS_MAX]);

            /// Whether the set contains `id`.
            #[inline]
            pub fn contains(&self, id: InstanceId) -> bool {
                id.seq <= self.0[id.row.index()]
            }

            /// Whether the set contains every instance of `other`.
            #[inline]
            pub fn covers(&self, other: &$name) -> bool {
                self.0.iter().zip(&other.0).all(|(mine, theirs)| mine >= theirs)
            }

            /// Adds `id` and all before it in its row.
            #[inline]
            pub fn add(&mut self, id: InstanceId) {
                let entry = &mut self.0[id.row.index()];
                *entry = (*entry).max(id.seq);
            }

            /// The pointwise maximum: set union.
            #[inline]
            pub fn merge(&mut self, other: &$name) {
                for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
                    *mine = (*mine).max(*theirs);
                }
            }

            /// The pointwise minimum: the instances that both sets contain.
            #[inline]
            #[must_use]
            pub fn common(&self, other: &$name) -> $name {
                let mut common = *self;
                for (mine, theirs) in common.0.iter_mut().zip(&other.0) {
                    *mine = (*mine).min(*theirs);
                }
                common
            }

            /// The entry of `row`; 0 for the place of a learner, which has no row.
            #[inline]
            pub fn of(&self, row: ReplicaId) -> u64 {
                self.0.get(row.index()).copied().unwrap_or(0)
            }

            /// Sets the entry of `row`.
            #[inline]
            pub fn set(&mut self, row: ReplicaId, seq: u64) {
                self.0[row.index()] = seq;
            }
        }

        impl From<[u64; REPLICAS_MAX]> for $name {
            fn from(entries: [u64; REPLICAS_MAX]) -> $name {
                $name(entries)
            }
        }

        impl fmt::Debug for $name {
            /// Rows up to the last that is not 0: `[4 0 2]`.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(&self.0, f)
            }
        }
    };
}

vector! {
    /// The instances behind which an instance is ordered, or after which it is executed.
    Deps
}

vector! {
    /// The progress of each row without a gap: the instances that have executed, or that are committed.
    Frontier
}

vector! {
    /// The instances that have executed and may be forgotten.
    Floor
}

impl Frontier {
    /// Everything up to here may be forgotten.
    #[inline]
    pub fn to_floor(self) -> Floor {
        Floor(self.0)
    }

    /// Whether everything up to a floor has been passed.
    #[inline]
    pub fn is_above(&self, floor: &Floor) -> bool {
        self.covers(&Frontier(floor.0))
    }

    /// Whether every instance of a set has been passed.
    #[inline]
    pub fn has_passed(&self, deps: &Deps) -> bool {
        self.covers(&Frontier(deps.0))
    }

    /// Passes every instance of a set.
    #[inline]
    pub fn pass(&mut self, deps: &Deps) {
        self.merge(&Frontier(deps.0));
    }

    /// All that was passed, as a set of instances.
    #[inline]
    pub fn to_deps(self) -> Deps {
        Deps(self.0)
    }
}

impl Floor {
    /// All that may be forgotten, as a set of instances.
    #[inline]
    pub fn to_deps(self) -> Deps {
        Deps(self.0)
    }
}

fn write(entries: &[u64], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let used = entries.iter().rposition(|seq| *seq != 0).map_or(0, |last| last + 1);
    write!(f, "[")?;
    for (row, seq) in entries[..used].iter().enumerate() {
        write!(f, "{}{seq}", if row == 0 { "" } else { " " })?;
    }
    write!(f, "]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_means_the_whole_row_up_to_it() {
        let mut deps = Deps::NONE;
        deps.add(InstanceId::new(ReplicaId(1), 5));
        assert!(deps.contains(InstanceId::new(ReplicaId(1), 1)));
        assert!(deps.contains(InstanceId::new(ReplicaId(1), 5)));
        assert!(!deps.contains(InstanceId::new(ReplicaId(1), 6)));
        assert!(!deps.contains(InstanceId::new(ReplicaId(0), 1)));
        deps.add(InstanceId::new(ReplicaId(1), 3));
        assert_eq!(deps.of(ReplicaId(1)), 5);
        assert_eq!(format!("{deps:?}"), "[0 5]");
    }

    #[test]
    fn merge_is_union_common_is_intersection_and_covers_is_superset() {
        let mut left = Deps::NONE;
        left.set(ReplicaId(0), 3);
        let mut right = Deps::NONE;
        right.set(ReplicaId(2), 4);
        assert!(!left.covers(&right));
        left.merge(&right);
        assert!(left.covers(&right));
        assert_eq!(left.of(ReplicaId(0)), 3);
        assert_eq!(left.common(&right), right);
    }

    #[test]
    fn a_frontier_is_above_the_floor_that_it_becomes_and_passes_deps() {
        let (mut frontier, deps) = (Frontier::NONE, Deps([0, 4, 0, 0, 0, 0, 0, 0, 0]));
        frontier.set(ReplicaId(0), 3);
        assert!(frontier.is_above(&frontier.to_floor()) && !frontier.has_passed(&deps));
        frontier.pass(&deps);
        assert!(frontier.has_passed(&deps));
        assert_eq!(frontier.to_deps(), Deps([3, 4, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(frontier.to_floor().to_deps(), frontier.to_deps());
    }
}
