//! Events in the order of their time; those of one time in the order of their making.

use std::collections::BTreeMap;

/// Events in the order of their time.
pub struct Queue<E> {
    /// By time in microseconds and number.
    events: BTreeMap<(u64, u64), (usize, E)>,
    made: u64,
    /// The epoch of the events that are pushed from now on.
    pub era: usize,
}

impl<E> Default for Queue<E> {
    fn default() -> Queue<E> {
        Queue { events: BTreeMap::new(), made: 0, era: 0 }
    }
}

impl<E> Queue<E> {
    /// Adds an event at `at` microseconds.
    pub fn push(&mut self, at: u64, event: E) {
        self.made += 1;
        self.events.insert((at, self.made), (self.era, event));
    }

    /// What happens next, when, and in which epoch.
    pub fn pop(&mut self) -> Option<(u64, usize, E)> {
        self.events.pop_first().map(|((at, _), (era, event))| (at, era, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_and_making() {
        let mut queue = Queue::default();
        for (at, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b')] {
            queue.push(at, event);
        }
        let all: String = std::iter::from_fn(|| queue.pop().map(|(_, _, event)| event)).collect();
        assert_eq!(all, "abcd");
    }
}
