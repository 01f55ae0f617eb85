//! The progress of commands that all conflict.

use crate::history::Op;

/// Progress is counted in spans of this many microseconds.
pub const SPAN_US: u64 = 10_000_000;

/// The progress of commands that all conflict.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Contention {
    /// The most instances that executed as one component.
    pub largest_component: usize,
    /// The longest time that a command waited for its answer, in microseconds.
    pub slowest_us: u64,
    /// The fewest answers in a span, of the spans in which clients asked all the time.
    pub quietest_span: u64,
}

impl Contention {
    /// The progress of these commands.
    pub fn of(ops: &[Op], asked_until: u64, largest_component: usize) -> Contention {
        let mut spans = vec![0; (asked_until / SPAN_US) as usize];
        let mut slowest_us = 0;
        for (op, (at, _)) in ops.iter().filter_map(|op| Some((op, op.told?))) {
            slowest_us = slowest_us.max(at - op.asked);
            if let Some(span) = spans.get_mut((at / SPAN_US) as usize) {
                *span += 1;
            }
        }
        Contention { largest_component, slowest_us, quietest_span: spans.into_iter().min().unwrap_or(0) }
    }

    /// Adds the results of another run.
    pub fn merge(&mut self, other: &Contention) {
        self.largest_component = self.largest_component.max(other.largest_component);
        self.slowest_us = self.slowest_us.max(other.slowest_us);
        self.quietest_span = self.quietest_span.min(other.quietest_span);
    }
}
