//! How old what a projection shows may be.

use crate::projection::Positions;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The most looks that wait until the projection has come so far. Further ones are left out, and what is known is then
/// older than need be, never younger.
const LOOKS_MAX: usize = 64;

/// How old what a projection shows may be: the projection has all that was committed at a moment when every partition was
/// asked for its end, and every end is reached by now.
#[derive(Debug, Default)]
pub(crate) struct Freshness {
    looks: VecDeque<(Instant, Positions)>,
    known_at: Option<Instant>,
}

impl Freshness {
    /// Kafka was asked for the ends of all partitions at this moment or later.
    pub(crate) fn look(&mut self, asked_at: Instant, ends: Positions) {
        if self.looks.len() < LOOKS_MAX {
            self.looks.push_back((asked_at, ends));
        }
    }

    /// The projection has come so far.
    pub(crate) fn reach(&mut self, positions: &Positions) {
        let is_reached = |ends: &Positions| {
            ends.iter().all(|(partition, end)| positions.get(partition).is_some_and(|next| next >= end))
        };
        while let Some((asked_at, _)) = self.looks.front().filter(|(_, ends)| is_reached(ends)) {
            self.known_at = Some(*asked_at);
            self.looks.pop_front();
        }
    }

    /// When the projection was last known to have everything.
    pub(crate) fn known_at(&self) -> Option<Instant> {
        self.known_at
    }

    /// The age of what the projection shows, at most.
    pub(crate) fn age(&self, now: Instant) -> Option<Duration> {
        self.known_at.map(|at| now.saturating_duration_since(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(first: i64, second: i64) -> Positions {
        [(0, first), (1, second)].into()
    }

    #[test]
    fn it_is_known_to_have_all_once_every_end_is_reached() {
        let (mut fresh, begin) = (Freshness::default(), Instant::now());
        let second = |number| begin + Duration::from_secs(number);
        fresh.look(second(1), at(10, 20));
        fresh.look(second(2), at(15, 20));
        fresh.reach(&at(9, 30));
        assert_eq!(fresh.age(second(9)), None);
        fresh.reach(&at(10, 30));
        assert_eq!((fresh.known_at(), fresh.age(second(9))), (Some(second(1)), Some(Duration::from_secs(8))));
        fresh.look(second(3), at(40, 20));
        fresh.reach(&at(39, 30));
        assert_eq!(fresh.known_at(), Some(second(2)));
    }

    #[test]
    fn a_projection_that_is_far_behind_keeps_a_bounded_number_of_looks() {
        let (mut fresh, begin) = (Freshness::default(), Instant::now());
        (0..2 * LOOKS_MAX as u64).for_each(|number| {
            fresh.look(begin + Duration::from_secs(number), at(number as i64, 0));
        });
        fresh.reach(&at(i64::MAX, 0));
        assert_eq!(fresh.age(begin + Duration::from_secs(LOOKS_MAX as u64)), Some(Duration::from_secs(1)));
    }
}
