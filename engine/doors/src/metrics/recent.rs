//! The share of fast paths in the last minute or more. Counters since the start would hide for hours that fast paths have ceased.

use isonomy_wire::id::ShardId;
use isonomy_wire::message::ShardStatus;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time that the share is of, at least. With scrapes further apart it is the time between two of them.
const SPAN: Duration = Duration::from_secs(60);
/// Counts that come sooner than this after the last ones are not kept, however often the metrics are read.
const STEP: Duration = Duration::from_secs(5);
/// So at most so many counts are kept.
const KEPT_MAX: usize = SPAN.as_secs().div_ceil(STEP.as_secs()) as usize + 2;

/// The counts of each shard, as earlier readings had them.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<(Instant, Vec<Counts>)>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Counts {
    shard: ShardId,
    fast: u64,
    slow: u64,
}

impl Counts {
    fn of(status: &ShardStatus) -> Counts {
        Counts { shard: status.shard, fast: status.fast, slow: status.slow }
    }

    /// The share of fast paths since earlier counts; `None` if no instance was committed since then. A shard that has
    /// begun anew has committed all of them since.
    fn ratio_since(self, earlier: Option<&Counts>) -> Option<f64> {
        let earlier = earlier.filter(|earlier| earlier.fast <= self.fast && earlier.slow <= self.slow);
        let (fast, slow) = earlier.map_or((0, 0), |earlier| (earlier.fast, earlier.slow));
        let (fast, slow) = ((self.fast - fast) as f64, (self.slow - slow) as f64);
        (fast + slow > 0.0).then(|| fast / (fast + slow))
    }
}

impl Recent {
    /// The share of fast paths of each shard, and `None` for one that has committed nothing.
    pub(super) fn ratios(&mut self, now: Instant, statuses: &[&ShardStatus]) -> Vec<Option<f64>> {
        let age = |at: Instant| now.saturating_duration_since(at);
        // The newest counts that are old enough are the earliest that are needed.
        while self.0.get(1).is_some_and(|(at, _)| age(*at) >= SPAN) {
            self.0.pop_front();
        }
        let earliest = self.0.front().map(|(_, counts)| &counts[..]).unwrap_or_default();
        let ratio = |status: &&ShardStatus| {
            let earlier = earliest.iter().find(|counts| counts.shard == status.shard);
            Counts::of(status).ratio_since(earlier)
        };
        let ratios = statuses.iter().map(ratio).collect();
        if self.0.back().is_none_or(|(at, _)| age(*at) >= STEP) {
            self.0.push_back((now, statuses.iter().map(|it| Counts::of(it)).collect()));
        }
        debug_assert!(self.0.len() <= KEPT_MAX, "{} counts are kept", self.0.len());
        ratios
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ratio of the only shard at each of these times, in seconds.
    fn ratios(readings: &[(u64, u64, u64)]) -> Vec<Option<f64>> {
        let (mut recent, start) = (Recent::default(), Instant::now());
        let mut read = |&(second, fast, slow): &(u64, u64, u64)| {
            let status = ShardStatus { fast, slow, ..ShardStatus::default() };
            let ratios = recent.ratios(start + Duration::from_secs(second), &[&status]);
            assert!(recent.0.len() <= KEPT_MAX);
            ratios[0]
        };
        readings.iter().map(&mut read).collect()
    }

    #[test]
    fn the_ratio_is_that_of_the_last_minute() {
        let told = ratios(&[(0, 100, 0), (15, 100, 10), (60, 100, 20), (75, 110, 20), (300, 110, 20)]);
        // At first since the start, then since second 0, and at second 75 since second 15.
        assert_eq!(told, [Some(1.0), Some(0.0), Some(0.0), Some(0.5), None]);
    }

    #[test]
    fn a_shard_that_begins_anew_has_all_of_its_instances_since() {
        assert_eq!(ratios(&[(0, 100, 100), (15, 3, 1)]), [Some(0.5), Some(0.75)]);
    }

    #[test]
    fn whoever_reads_often_keeps_no_more() {
        let readings: Vec<_> = (0..500).map(|second| (second, second, 0)).collect();
        assert_eq!(ratios(&readings).last(), Some(&Some(1.0)));
    }
}
