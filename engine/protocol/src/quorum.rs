//! Quorum sizes (law, section 1). This module is the only place that computes them.

use isonomy_wire::id::{PLACES_MAX, REPLICAS_MAX, ReplicaId};

/// The sizes for an epoch of n replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quorum {
    /// The number of replicas.
    pub n: usize,
    /// The number of replicas that may be down.
    pub f: usize,
    /// The number of replicas that may be down while two message delays still suffice.
    pub e: usize,
}

impl Quorum {
    /// The sizes for `replicas`, 1 to 9, with the largest legal e.
    pub fn new(replicas: u8) -> Quorum {
        let n = replicas as usize;
        assert!((1..=REPLICAS_MAX).contains(&n), "a cluster has 1 to {REPLICAS_MAX} replicas");
        let f = (n - 1) / 2;
        let e = f.min((n - f).div_ceil(2));
        let quorum = Quorum { n, f, e };
        assert!(quorum.is_legal(), "quorums of {quorum:?} do not intersect as they must");
        quorum
    }

    /// n >= max(2e + f - 1, 2f + 1).
    fn is_legal(&self) -> bool {
        self.n + 1 >= 2 * self.e + self.f && self.n > 2 * self.f
    }

    /// The fast quorum, the replica itself included.
    pub fn fast(&self) -> usize {
        self.n - self.e
    }

    /// The slow and recovery quorum, the replica itself included.
    pub fn slow(&self) -> usize {
        self.n - self.f
    }
}

/// A set of replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReplicaSet(u32);

const _: () = assert!(PLACES_MAX <= u32::BITS as usize);

impl ReplicaSet {
    /// Adds a replica. Returns whether it was new.
    pub fn insert(&mut self, replica: ReplicaId) -> bool {
        let before = self.0;
        self.0 |= 1 << replica.0;
        self.0 != before
    }

    /// Takes a replica out.
    pub fn remove(&mut self, replica: ReplicaId) {
        self.0 &= !(1 << replica.0);
    }

    /// The replicas of this set that are not in the other.
    pub fn without(self, other: ReplicaSet) -> ReplicaSet {
        ReplicaSet(self.0 & !other.0)
    }

    /// Whether the replica is in.
    pub fn contains(&self, replica: ReplicaId) -> bool {
        self.0 & 1 << replica.0 != 0
    }

    /// The number of replicas in the set.
    pub fn len(&self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<ReplicaId> for ReplicaSet {
    fn from_iter<I: IntoIterator<Item = ReplicaId>>(replicas: I) -> ReplicaSet {
        let mut set = ReplicaSet::default();
        for replica in replicas {
            set.insert(replica);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_law() {
        // n, f, e, fast, slow
        let table = [
            (1, 0, 0, 1, 1),
            (2, 0, 0, 2, 2),
            (3, 1, 1, 2, 2),
            (4, 1, 1, 3, 3),
            (5, 2, 2, 3, 3),
            (6, 2, 2, 4, 4),
            (7, 3, 2, 5, 4),
            (8, 3, 3, 5, 5),
            (9, 4, 3, 6, 5),
        ];
        assert_eq!(table.map(|(n, ..)| n), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        for (n, f, e, fast, slow) in table {
            let quorum = Quorum::new(n);
            assert_eq!((quorum.f, quorum.e, quorum.fast(), quorum.slow()), (f, e, fast, slow), "n = {n}");
        }
    }

    #[test]
    fn quorums_intersect_for_every_legal_choice() {
        for n in 1..=REPLICAS_MAX {
            for f in 0..n {
                for e in 0..=f {
                    let quorum = Quorum { n, f, e };
                    if !quorum.is_legal() {
                        continue;
                    }
                    assert!(2 * quorum.slow() > n, "two slow quorums meet: {quorum:?}");
                    assert!(quorum.slow() + quorum.fast() > n, "a slow and a fast one meet: {quorum:?}");
                    assert!(n + 1 >= f + 2 * e, "n - f - e >= e - 1: {quorum:?}");
                }
            }
        }
    }
}
