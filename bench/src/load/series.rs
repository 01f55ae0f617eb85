//! The run second by second.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;

use super::record::{Second, latencies};
use super::status::Totals;

/// Most points that are kept; a longer run has points of several seconds.
pub(crate) const POINTS_MAX: u64 = 3600;

/// Latencies of a point, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct PointLatency {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

/// A second, or several of them.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Point {
    /// When it began, counted from when measuring began.
    pub(crate) second: u64,
    pub(crate) decisions_per_second: f64,
    /// The figures of the commands that were answered in this time.
    pub(crate) latency_us: Option<PointLatency>,
    pub(crate) fast_path_ratio: Option<f64>,
}

/// Puts the seconds of all threads together.
pub(crate) struct Series {
    threads: u64,
    warmup: u64,
    /// Measured seconds, and how many of them make a point.
    seconds: u64,
    width: u64,
    /// Seconds that not all threads have reported yet.
    open: BTreeMap<u64, Sum>,
    /// The present point, its first second and how many seconds it has.
    last: Option<(u64, u64, Sum)>,
    totals: BTreeMap<u64, Option<Totals>>,
    points: Vec<Point>,
}

struct Sum {
    told: u64,
    latency: Histogram<u64>,
    decisions: u64,
}

impl Sum {
    fn new() -> Sum {
        Sum { told: 0, latency: latencies(), decisions: 0 }
    }

    fn add(&mut self, latency: &Histogram<u64>, decisions: u64) {
        self.told += 1;
        self.latency.add(latency).expect("all histograms have the same bounds");
        self.decisions += decisions;
    }

    fn latency(&self) -> Option<PointLatency> {
        let at = |quantile| self.latency.value_at_quantile(quantile);
        let some = || PointLatency { p50: at(0.5), p99: at(0.99), max: self.latency.max() };
        (!self.latency.is_empty()).then(some)
    }
}

impl Series {
    /// A series for so many threads, seconds of warm-up and seconds after that.
    pub(crate) fn new(threads: u64, warmup: u64, seconds: u64) -> Series {
        Series {
            threads,
            warmup,
            seconds,
            width: seconds.div_ceil(POINTS_MAX).max(1),
            open: BTreeMap::new(),
            last: None,
            totals: BTreeMap::new(),
            points: Vec::new(),
        }
    }

    /// A thread has finished a second. Once all threads have, returns a text about the second, for people.
    pub(crate) fn on_second(&mut self, second: &Second) -> Option<String> {
        let sum = self.open.entry(second.index).or_insert_with(Sum::new);
        sum.add(&second.latency, second.decisions);
        if sum.told < self.threads {
            return None;
        }
        let sum = self.open.remove(&second.index).expect("it was just told");
        // Late answers make no second of their own.
        if second.index >= self.warmup + self.seconds {
            return None;
        }
        let text = self.describe(second.index, &sum);
        if let Some(index) = second.index.checked_sub(self.warmup) {
            self.add(index, sum);
        }
        Some(text)
    }

    fn describe(&self, index: u64, sum: &Sum) -> String {
        let phase = if index < self.warmup { "warm-up, " } else { "" };
        let mut text = format!("{phase}{} decisions/s", sum.decisions);
        if let Some(PointLatency { p50, p99, max }) = sum.latency() {
            let [p50, p99, max] = [p50, p99, max].map(|us| us as f64 / 1e3);
            text += &format!(", p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms");
        }
        if let Some(ratio) = index.checked_sub(self.warmup).and_then(|second| self.ratio(second, second + 1))
        {
            text += &format!(", fast path {:.2} %", 100.0 * ratio);
        }
        text
    }

    fn add(&mut self, index: u64, sum: Sum) {
        let first = index - index % self.width;
        if self.last.as_ref().is_none_or(|last| last.0 != first) {
            self.close_point();
            self.last = Some((first, 0, Sum::new()));
        }
        let last = self.last.as_mut().expect("it was just made");
        last.1 += 1;
        last.2.add(&sum.latency, sum.decisions);
    }

    fn close_point(&mut self) {
        let Some((second, seconds, sum)) = self.last.take() else { return };
        self.points.push(Point {
            second,
            decisions_per_second: sum.decisions as f64 / seconds as f64,
            latency_us: sum.latency(),
            fast_path_ratio: self.ratio(second, second + seconds),
        });
        // The totals before the next point's beginning are not needed any more.
        self.totals = self.totals.split_off(&(second + seconds));
    }

    /// The status of the replicas when a measured second began.
    pub(crate) fn on_totals(&mut self, second: u64, totals: Option<Totals>) {
        self.totals.insert(second, totals);
    }

    fn ratio(&self, from: u64, to: u64) -> Option<f64> {
        let at = |second| self.totals.get(&second).copied().flatten();
        let (before, after) = Totals::comparable(at(from)?, at(to)?)?;
        Totals::fast_path_ratio(&before, &after)
    }

    /// The points, now that the run has ended.
    pub(crate) fn finish(mut self) -> Vec<Point> {
        self.close_point();
        self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(index: u64, us: u64, decisions: u64) -> Second {
        let mut latency = latencies();
        latency.record(us).unwrap();
        Second { index, latency, decisions }
    }

    #[test]
    fn a_second_is_over_when_all_threads_have_told_it() {
        let mut series = Series::new(2, 1, 2);
        assert_eq!(series.on_second(&second(0, 5, 1)), None);
        assert!(series.on_second(&second(0, 7, 1)).unwrap().starts_with("warm-up, 2 decisions/s"));
        series.on_totals(0, Some(Totals { fast: 10, slow: 10, ..Totals::default() }));
        series.on_totals(1, Some(Totals { fast: 13, slow: 11, ..Totals::default() }));
        series.on_second(&second(1, 5, 10));
        let text = series.on_second(&second(1, 2000, 20)).unwrap();
        assert_eq!(text, "30 decisions/s, p50 0.01 ms, p99 2.00 ms, max 2.00 ms, fast path 75.00 %");
        series.on_second(&second(3, 5, 10));
        series.on_second(&second(3, 5, 10));
        let latency_us = Some(PointLatency { p50: 5, p99: 2000, max: 2000 });
        let point = Point { second: 0, decisions_per_second: 30.0, latency_us, fast_path_ratio: Some(0.75) };
        assert_eq!(series.finish(), [point], "neither the warm-up nor what comes after");
    }

    #[test]
    fn a_long_run_has_points_of_several_seconds() {
        let mut series = Series::new(1, 0, 2 * POINTS_MAX);
        for index in 0..2 * POINTS_MAX {
            series.on_totals(index, Some(Totals { fast: index, ..Totals::default() }));
            series.on_second(&second(index, index + 1, index));
        }
        let points = series.finish();
        assert_eq!(points.len() as u64, POINTS_MAX);
        assert_eq!((points[3].second, points[3].decisions_per_second), (6, 6.5));
        assert_eq!(points[3].fast_path_ratio, Some(1.0));
    }
}
