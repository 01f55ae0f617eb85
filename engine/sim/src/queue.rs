//! Events in the order of their time; those of one time in the order of their making.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

struct Entry<E> {
    key: Reverse<(u64, u64)>,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

/// See the module.
pub struct Queue<E> {
    heap: BinaryHeap<Entry<E>>,
    made: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Queue<E> {
        Queue { heap: BinaryHeap::new(), made: 0 }
    }
}

impl<E> Queue<E> {
    /// Something happens at `at` microseconds.
    pub fn push(&mut self, at: u64, event: E) {
        self.made += 1;
        self.heap.push(Entry { key: Reverse((at, self.made)), event });
    }

    /// What happens next, and when.
    pub fn pop(&mut self) -> Option<(u64, E)> {
        let Entry { key: Reverse((at, _)), event } = self.heap.pop()?;
        Some((at, event))
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
