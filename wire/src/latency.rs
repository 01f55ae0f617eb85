//! Durations, counted in buckets: what a shard has measured, small enough for a status.

// The archived twins that rkyv derives have no documentation of their own.
#![allow(missing_docs)]

use rkyv::{Archive, Deserialize, Serialize};

/// Durations of about the same length.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bucket {
    /// The longest duration that falls into the bucket, in microseconds.
    pub upto_us: u64,
    /// How many durations have fallen into it.
    pub count: u64,
}

/// Durations since a shard began to count. The durations of one bucket differ by a sixteenth at most, and all shards
/// have the same buckets.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct Latency {
    /// The buckets that are not empty, the shortest durations first.
    pub buckets: Vec<Bucket>,
    /// The sum of all durations, in microseconds.
    pub sum_us: u64,
}

impl Latency {
    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.count).sum()
    }

    /// How many durations were no longer than this.
    pub fn count_upto(&self, us: u64) -> u64 {
        self.buckets.iter().take_while(|bucket| bucket.upto_us <= us).map(|bucket| bucket.count).sum()
    }

    /// The duration that this share of all durations does not exceed, in microseconds; `None` if none was counted.
    pub fn quantile_us(&self, share: f64) -> Option<u64> {
        let rank = (share * self.count() as f64).ceil().max(1.0) as u64;
        let mut passed = 0;
        let bucket = self.buckets.iter().find(|bucket| {
            passed += bucket.count;
            passed >= rank
        });
        bucket.or(self.buckets.last()).map(|bucket| bucket.upto_us)
    }

    /// What was counted since an earlier moment. A shard that has begun anew since then has counted all.
    #[must_use]
    pub fn since(&self, earlier: &Latency) -> Latency {
        let mut before = earlier.buckets.iter().peekable();
        let mut buckets = Vec::new();
        for &Bucket { upto_us, count } in &self.buckets {
            while before.next_if(|bucket| bucket.upto_us < upto_us).is_some() {}
            let counted = before.next_if(|bucket| bucket.upto_us == upto_us).map_or(0, |bucket| bucket.count);
            if counted > count {
                return self.clone();
            }
            if counted < count {
                buckets.push(Bucket { upto_us, count: count - counted });
            }
        }
        if earlier.count() > self.count() {
            return self.clone();
        }
        Latency { buckets, sum_us: self.sum_us.saturating_sub(earlier.sum_us) }
    }

    /// Adds what another shard has counted.
    pub fn add(&mut self, other: &Latency) {
        for bucket in &other.buckets {
            match self.buckets.binary_search_by_key(&bucket.upto_us, |known| known.upto_us) {
                Ok(index) => self.buckets[index].count += bucket.count,
                Err(index) => self.buckets.insert(index, *bucket),
            }
        }
        self.sum_us += other.sum_us;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(buckets: &[(u64, u64)], sum_us: u64) -> Latency {
        let bucket = |&(upto_us, count)| Bucket { upto_us, count };
        Latency { buckets: buckets.iter().map(bucket).collect(), sum_us }
    }

    #[test]
    fn a_quantile_is_the_end_of_the_bucket_in_which_it_falls() {
        let hundred = latency(&[(10, 50), (20, 49), (900, 1)], 0);
        let told = [0.0, 0.5, 0.501, 0.99, 0.991, 1.0].map(|share| hundred.quantile_us(share).unwrap());
        assert_eq!(told, [10, 10, 20, 20, 900, 900]);
        assert_eq!(Latency::default().quantile_us(0.5), None);
        assert_eq!([9, 10, 899, 900].map(|us| hundred.count_upto(us)), [0, 50, 99, 100]);
    }

    #[test]
    fn what_was_counted_since_then_is_the_difference() {
        let (earlier, later) = (latency(&[(10, 5), (30, 1)], 80), latency(&[(10, 5), (20, 2), (30, 4)], 210));
        assert_eq!(later.since(&earlier), latency(&[(20, 2), (30, 3)], 130));
        assert_eq!(later.since(&later), latency(&[], 0));
        assert_eq!(later.since(&Latency::default()), later);
    }

    #[test]
    fn a_shard_that_has_begun_anew_has_counted_all() {
        let earlier = latency(&[(10, 5), (30, 1)], 80);
        for anew in [latency(&[(10, 4), (20, 9)], 220), latency(&[(20, 3)], 60), latency(&[], 0)] {
            assert_eq!(anew.since(&earlier), anew);
        }
    }

    #[test]
    fn the_counts_of_two_shards_are_added_bucket_by_bucket() {
        let mut both = latency(&[(10, 1), (30, 1)], 40);
        both.add(&latency(&[(10, 2), (20, 3)], 80));
        assert_eq!(both, latency(&[(10, 3), (20, 3), (30, 1)], 120));
    }
}
