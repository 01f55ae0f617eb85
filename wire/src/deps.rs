//! Vectors with one sequence number per row: deps, floors and frontiers.

use crate::id::{InstanceId, REPLICAS_MAX, ReplicaId};
use core::fmt;
use rkyv::{Archive, Deserialize, Serialize};

/// A set of instances with one sequence number per row. The number stands for *every* instance of the row up to it
/// (law, section 2). Rows beyond the cluster's size stay 0.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Deps(pub [u64; REPLICAS_MAX]);

impl Deps {
    /// The empty set.
    pub const NONE: Deps = Deps([0; REPLICAS_MAX]);

    /// Whether the set contains `id`.
    #[inline]
    pub fn contains(&self, id: InstanceId) -> bool {
        id.seq <= self.0[id.row.index()]
    }

    /// Whether the set contains every instance of `other`.
    #[inline]
    pub fn covers(&self, other: &Deps) -> bool {
        self.0.iter().zip(&other.0).all(|(mine, theirs)| mine >= theirs)
    }

    /// Adds `id` and all instances before it in its row.
    #[inline]
    pub fn add(&mut self, id: InstanceId) {
        let entry = &mut self.0[id.row.index()];
        *entry = (*entry).max(id.seq);
    }

    /// The pointwise maximum: set union.
    #[inline]
    pub fn merge(&mut self, other: &Deps) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine = (*mine).max(*theirs);
        }
    }

    /// The entry of `row`.
    #[inline]
    pub fn of(&self, row: ReplicaId) -> u64 {
        self.0[row.index()]
    }

    /// Sets the entry of `row`.
    #[inline]
    pub fn set(&mut self, row: ReplicaId, seq: u64) {
        self.0[row.index()] = seq;
    }
}

impl fmt::Debug for Deps {
    /// Prints the rows up to the last that is not 0, such as `[4 0 2]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.0.iter().rposition(|seq| *seq != 0).map_or(0, |last| last + 1);
        write!(f, "[")?;
        for (row, seq) in self.0[..used].iter().enumerate() {
            write!(f, "{}{seq}", if row == 0 { "" } else { " " })?;
        }
        write!(f, "]")
    }
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
    fn merge_is_union_and_covers_is_superset() {
        let mut left = Deps::NONE;
        left.set(ReplicaId(0), 3);
        let mut right = Deps::NONE;
        right.set(ReplicaId(2), 4);
        assert!(!left.covers(&right));
        left.merge(&right);
        assert!(left.covers(&right));
        assert_eq!(left.of(ReplicaId(0)), 3);
    }
}
