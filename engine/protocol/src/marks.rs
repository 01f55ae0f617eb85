//! The branches of the law that a replica has taken. A simulation that never reaches a branch proves nothing about
//! it.

use crate::listed::listed;

listed! {
    /// A branch worth reaching.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    #[allow(missing_docs)] // Named after the rules.
    #[repr(u8)]
    pub enum Mark {
        C2Nack,
        C2Again,
        C3Fast,
        C3Slow,
        /// In slow mode, though the fast path was possible.
        C3Hurried,
        GuardrailLost,
        GuardrailHealed,
        C4Nack,
        C4Again,
        C4Lacking,
        C6Again,
        D8Open,
        R2Nack,
        R2Again,
        R31,
        R32,
        R33,
        R34,
        R35,
        R51,
        R52,
        R53,
        R54,
        R6a,
        R6b,
        R6c,
        R6dAccepted,
        R6dCoordinator,
        R6e,
        Rescue,
        NopSubmitAgain,
        Pulled,
        Settled,
        Gone,
        BarrierProposed,
        SnapshotTaken,
        SnapshotInstalled,
        FetchFailed,
        SnapshotDamaged,
        FloorAdopted,
        Resent,
        SessionEnded,
        Stalled,
        LearnerHelped,
        /// A component of two.
        Cycle,
        /// A component of three or more.
        LongCycle,
    }
}

/// A set of marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks(u64);

impl Marks {
    /// The branch was taken.
    #[inline]
    pub fn set(&mut self, mark: Mark) {
        self.0 |= 1 << mark as u8;
    }

    /// Whether the branch was taken.
    pub fn has(&self, mark: Mark) -> bool {
        self.0 & 1 << mark as u8 != 0
    }

    /// Adds the marks of another replica.
    pub fn merge(&mut self, other: Marks) {
        self.0 |= other.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_listed_once_and_kept_apart() {
        for (place, mark) in Mark::ALL.iter().copied().enumerate() {
            assert_eq!(mark as usize, place);
            let mut marks = Marks::default();
            marks.set(mark);
            assert_eq!(
                Mark::ALL.iter().copied().filter(|other| marks.has(*other)).collect::<Vec<_>>(),
                [mark]
            );
        }
    }
}
