//! Events in the order of their time; those of one time in the order of their making.

use std::collections::BTreeMap;

/// Events in the order of their time.
pub struct Queue<E> {
    /// The events by time in microseconds and by number.
    events: BTreeMap<(u64, u64), E>,
    made: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Queue<E> {
        Queue { events: BTreeMap::new(), made: 0 }
    }
}

impl<E> Queue<E> {
    /// Adds an event at `at` microseconds.
    pub fn push(&mut self, at: u64, event: E) {
        self.made += 1;
        self.events.insert((at, self.made), event);
    }

    /// The next event, and its time.
    pub fn pop(&mut self) -> Option<(u64, E)> {
        self.events.pop_first().map(|((at, _), event)| (at, event))
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
        let all: String = std::iter::from_fn(|| queue.pop().map(|(_, event)| event)).collect();
        assert_eq!(all, "abcd");
    }
}
