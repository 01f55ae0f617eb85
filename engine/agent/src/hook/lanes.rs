//! Requests at once: each key has its lane, and a lane has one request under way.

use super::post::{Posted, Poster};
use super::{HookError, Skipped};
use crate::projection::Batch;
use isonomy_kafka::Stop;
use isonomy_kafka::decision::Decision;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a lane waits before it looks whether another one has failed.
const WAIT_STEP: Duration = Duration::from_millis(200);

/// Whether the lanes are to end: because the agent is, or because one of them has failed.
pub(super) struct Over<'a> {
    stop: &'a Stop,
    has_failed: AtomicBool,
}

impl Over<'_> {
    pub(super) fn is_set(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed) || self.stop.is_set()
    }

    /// Waits for so long, or until the lanes are to end.
    pub(super) fn wait(&self, at_most: Duration) {
        let until = Instant::now() + at_most;
        while !self.is_set() && Instant::now() < until {
            self.stop.wait(WAIT_STEP.min(until.saturating_duration_since(Instant::now())));
        }
    }
}

/// Posts all decisions of a batch. Returns those that were refused for good, and are to be skipped.
pub(super) fn post_all<'a>(poster: &Poster, batch: &Batch<'a>) -> Result<Vec<Skipped<'a>>, HookError> {
    let mut lanes: Vec<Vec<&Decision>> = vec![Vec::new(); poster.concurrency()];
    for decision in batch.decisions {
        lanes[lane(&decision.key, poster.concurrency())].push(decision);
    }
    let over = Over { stop: batch.stop, has_failed: AtomicBool::new(false) };
    let run = |lane: &[&'a Decision]| {
        let posted = post_lane(poster, batch, lane, &over);
        over.has_failed.fetch_or(posted.is_err(), Ordering::Relaxed);
        posted
    };
    let run = &run;
    let outcomes: Vec<_> = thread::scope(|scope| {
        let busy = lanes.iter().filter(|lane| !lane.is_empty());
        let started: Vec<_> = busy.map(|lane| scope.spawn(move || run(lane))).collect();
        started.into_iter().map(|lane| lane.join().expect("a lane does not panic")).collect()
    });
    let mut skipped = Vec::new();
    let mut stopped = None;
    for outcome in outcomes {
        match outcome {
            Ok(of_lane) => skipped.extend(of_lane),
            // A lane that has failed by itself says more than those that have stopped for it.
            Err(HookError::Stopped) => stopped = Some(HookError::Stopped),
            Err(error) => return Err(error),
        }
    }
    stopped.map_or(Ok(skipped), Err)
}

fn lane(key: &[u8], lanes: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    (hasher.finish() % lanes as u64) as usize
}

fn post_lane<'a>(
    poster: &Poster,
    batch: &Batch<'a>,
    lane: &[&'a Decision],
    over: &Over<'_>,
) -> Result<Vec<Skipped<'a>>, HookError> {
    let mut skipped = Vec::new();
    for decision in lane {
        if let Posted::Skipped { status, answer } = poster.post(batch.topic, decision, over)? {
            skipped.push(Skipped { decision, status, answer });
        }
    }
    Ok(skipped)
}
