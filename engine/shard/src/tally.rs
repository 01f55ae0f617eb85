//! What a shard counts of the time that its work takes.

use hdrhistogram::Histogram;
use isonomy_protocol::contract::{Reply, Time};
use isonomy_wire::failure::Failure;
use isonomy_wire::latency::{Bucket, Latency};
use isonomy_wire::message::RequestsFailed;

/// The longest duration that is told from longer ones: beyond ten minutes nobody asks how long exactly.
const LONGEST_US: u64 = 600_000_000;
/// The digits to which durations are told apart: 16 buckets for each doubling.
const DIGITS: u8 = 1;

/// Durations, counted. All memory is taken at the beginning.
pub(crate) struct Tally {
    counts: Histogram<u64>,
    sum_us: u64,
}

impl Default for Tally {
    fn default() -> Tally {
        let counts = Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("the bounds are possible");
        Tally { counts, sum_us: 0 }
    }
}

impl Tally {
    /// Counts a duration so many times.
    pub(crate) fn record(&mut self, us: u64, times: u64) {
        self.counts.saturating_record_n(us, times);
        self.sum_us += us * times;
    }

    /// What was counted, without the empty buckets.
    pub(crate) fn latency(&self) -> Latency {
        let recorded = self.counts.iter_recorded();
        let bucket =
            recorded.map(|it| Bucket { upto_us: it.value_iterated_to(), count: it.count_at_value() });
        Latency { buckets: bucket.collect(), sum_us: self.sum_us }
    }
}

/// A request that was not answered yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    pub(crate) tag: u64,
    /// The number of its commands.
    pub(crate) commands: u32,
    /// When its last bytes had arrived.
    pub(crate) at: Time,
}

/// What clients have asked, and how it was answered.
#[derive(Default)]
pub(crate) struct Answers {
    /// The commands that clients have sent.
    pub(crate) proposals: u64,
    pub(crate) failed: RequestsFailed,
    pub(crate) tally: Tally,
}

impl Answers {
    /// Counts the answer to a request.
    pub(crate) fn on_reply(&mut self, now: Time, asked: Asked, reply: &Reply) {
        let failed = &mut self.failed;
        let count = match &reply.outcome {
            Ok(_) => return self.tally.record(now.since(asked.at), u64::from(asked.commands)),
            Err(Failure::Overloaded { .. }) => &mut failed.overloaded,
            Err(Failure::Unavailable(_)) => &mut failed.unavailable,
            Err(Failure::Unknown(_)) => &mut failed.unknown,
            Err(Failure::Invalid { .. }) => &mut failed.invalid,
        };
        *count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_protocol::contract::ClientRef;
    use isonomy_wire::failure::Reason;

    #[test]
    fn durations_are_told_apart_to_a_sixteenth_and_none_is_lost() {
        let mut tally = Tally::default();
        for us in [0, 1, 700, 2_000_000, u64::from(u32::MAX)] {
            tally.record(us, 3);
        }
        let latency = tally.latency();
        assert_eq!((latency.count(), latency.sum_us), (15, 3 * (701 + 2_000_000 + u64::from(u32::MAX))));
        let upto = [0.2, 0.4, 0.6, 0.8].map(|share| latency.quantile_us(share).unwrap());
        for (upto, us) in upto.into_iter().zip([0, 1, 700, 2_000_000]) {
            assert!((us..=us + us / 16).contains(&upto), "{upto} for {us}");
        }
        assert!(latency.quantile_us(1.0).unwrap() >= LONGEST_US, "what is longer counts as the longest");
    }

    #[test]
    fn an_answer_counts_all_commands_of_its_request_and_a_failure_counts_once() {
        let mut answers = Answers::default();
        let asked = Asked { tag: 7, commands: 40, at: Time(1_000) };
        let mut reply = |outcome| {
            answers.on_reply(Time(1_500), asked, &Reply { client: ClientRef::default(), outcome });
        };
        reply(Ok(Default::default()));
        let failures = [
            Failure::Overloaded { retry_after_ms: 1, reason: Reason::Stopping },
            Failure::Unavailable(Reason::Stopping),
            Failure::Unknown(Reason::Stopping),
            Failure::Invalid { why: String::new() },
        ];
        for (times, failure) in failures.into_iter().enumerate() {
            (0..=times).for_each(|_| reply(Err(failure.clone())));
        }
        let RequestsFailed { overloaded, unavailable, unknown, invalid } = answers.failed;
        assert_eq!([overloaded, unavailable, unknown, invalid], [1, 2, 3, 4]);
        let latency = answers.tally.latency();
        assert_eq!((latency.count(), latency.sum_us), (40, 40 * 500));
    }
}
