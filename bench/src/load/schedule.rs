//! When commands are due, and which part of the time is measured.

use crate::options::{Options, RATE_MAX, SECONDS_MAX};

/// Connections are made in this time, in microseconds, before the warm-up begins.
pub(crate) const START_US: u64 = 300_000;
/// The most stairs in which a ramp climbs.
const RAMP_PIECES_MAX: u64 = 1000;
/// The shortest length of such a stair, in microseconds.
const RAMP_PIECE_US_MIN: u64 = 100_000;
/// A ramp is reported in so many steps, or fewer if it is shorter than as many seconds.
const RAMP_STEPS_MAX: u64 = 10;

// The last command's place in a piece, times a million, still fits; so does the place itself.
const _: () = assert!((2 * RATE_MAX * SECONDS_MAX).checked_mul(1_000_000).is_some());

/// A time in microseconds, the end not included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Span {
    #[inline]
    pub(crate) fn contains(self, time: u64) -> bool {
        self.from <= time && time < self.to
    }

    pub(crate) fn seconds(self) -> f64 {
        self.to.saturating_sub(self.from) as f64 / 1e6
    }
}

/// A part of the measured time with a result of its own.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Step {
    pub(crate) span: Span,
    /// Commands per second that were asked for; the mean, on a ramp.
    pub(crate) rate: Option<f64>,
}

/// A time with one rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) start_us: u64,
    /// The number of the command, counted from 0 over all pieces, that is due first at or after the start.
    pub(crate) first: u64,
    /// The part of the wait for that command that is left at the start, in millionths of the time between two
    /// commands.
    missing: u64,
    pub(crate) rate: u64,
}

/// The times when commands are due, and the part of the time that is measured.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// The pieces, one after the other; none in a closed loop.
    pub(crate) pieces: Vec<Piece>,
    /// The steps, one after the other, whole seconds each.
    pub(crate) steps: Vec<Step>,
}

impl Schedule {
    pub(crate) fn new(options: &Options) -> Schedule {
        let warmup = (START_US, 1_000_000 * options.warmup);
        let from = warmup.0 + warmup.1;
        if let Some(ramp) = options.ramp {
            let total = 1_000_000 * options.seconds;
            let count = (total / RAMP_PIECE_US_MIN).clamp(1, RAMP_PIECES_MAX);
            let at = |part: f64| ramp.from as f64 + (ramp.to as f64 - ramp.from as f64) * part;
            let steps = RAMP_STEPS_MAX.min(options.seconds);
            let bound = |step| options.seconds * step / steps;
            let steps = (0..steps).map(|step| {
                let middle = (bound(step) + bound(step + 1)) as f64 / 2.0 / options.seconds as f64;
                step_of(from, bound(step), bound(step + 1), Some(at(middle)))
            });
            let rates = (0..count).map(|piece| at((piece as f64 + 0.5) / count as f64).round() as u64);
            let parts = rates.map(|rate| (rate, total / count));
            return Schedule { pieces: pieces(warmup, ramp.from, parts), steps: steps.collect() };
        }
        let rates: Vec<u64> = options.rate.into_iter().chain(options.steps.iter().copied()).collect();
        let steps = (0..rates.len().max(1) as u64).map(|step| {
            let rate = rates.get(step as usize).map(|rate| *rate as f64);
            step_of(from, options.seconds * step, options.seconds * (step + 1), rate)
        });
        let steps = steps.collect();
        let parts = rates.iter().map(|rate| (*rate, 1_000_000 * options.seconds));
        let pieces = rates.first().map(|first| pieces(warmup, *first, parts));
        Schedule { pieces: pieces.unwrap_or_default(), steps }
    }

    /// When measuring begins and ends.
    pub(crate) fn span(&self) -> Span {
        let (first, last) = (self.steps.first(), self.steps.last());
        let (first, last) = first.zip(last).expect("there is always a step");
        Span { from: first.span.from, to: last.span.to }
    }
}

fn step_of(origin: u64, from: u64, to: u64, rate: Option<f64>) -> Step {
    Step { span: Span { from: origin + 1_000_000 * from, to: origin + 1_000_000 * to }, rate }
}

/// The pieces: the warm-up at the first rate, then parts with a rate and a length each.
fn pieces(warmup: (u64, u64), rate: u64, parts: impl Iterator<Item = (u64, u64)>) -> Vec<Piece> {
    let (mut start_us, length) = warmup;
    let (mut first, mut missing) = (0, 0);
    let mut pieces = Vec::new();
    for (rate, length) in std::iter::once((rate, length)).chain(parts) {
        pieces.push(Piece { start_us, first, missing, rate });
        let count = (length * rate).saturating_sub(missing).div_ceil(1_000_000);
        start_us += length;
        first += count;
        missing = missing + count * 1_000_000 - length * rate;
    }
    pieces
}

/// When a thread's commands are due.
pub(crate) enum Pace {
    /// A command is due as soon as another was answered.
    Closed { window: usize },
    /// Commands are due at fixed times.
    Open(OpenLoop),
}

/// The commands of an open loop. Of `threads` threads each takes every `threads`-th command.
pub(crate) struct OpenLoop {
    pieces: Vec<Piece>,
    /// The present piece, and the first command behind it.
    piece: usize,
    end: u64,
    next: u64,
    threads: u64,
}

impl Pace {
    pub(crate) fn new(options: &Options, schedule: &Schedule, thread: u64) -> Pace {
        if schedule.pieces.is_empty() {
            return Pace::Closed { window: options.window_per_thread() };
        }
        let mut open = OpenLoop {
            pieces: schedule.pieces.clone(),
            piece: 0,
            end: 0,
            next: thread,
            threads: options.threads,
        };
        open.find_piece();
        Pace::Open(open)
    }

    /// A command was submitted.
    #[inline]
    pub(crate) fn advance(&mut self) {
        if let Pace::Open(open) = self {
            open.next += open.threads;
            if open.next >= open.end {
                open.find_piece();
            }
        }
    }

    /// When the next command is due, in microseconds, if that can be said.
    #[inline]
    pub(crate) fn due(&self) -> Option<u64> {
        match self {
            Pace::Closed { .. } => None,
            Pace::Open(open) => {
                let piece = &open.pieces[open.piece];
                let millionths = piece.missing + (open.next - piece.first) * 1_000_000;
                Some(piece.start_us + millionths / piece.rate)
            }
        }
    }

    /// How many commands were due before `to` and have not been submitted.
    pub(crate) fn count_left(&mut self, to: u64) -> u64 {
        let mut left = 0;
        while self.due().is_some_and(|due| due < to) {
            left += 1;
            self.advance();
        }
        left
    }
}

impl OpenLoop {
    fn find_piece(&mut self) {
        let first_of = |piece: usize| self.pieces.get(piece).map_or(u64::MAX, |piece| piece.first);
        while self.next >= first_of(self.piece + 1) {
            self.piece += 1;
        }
        self.end = first_of(self.piece + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::tests::parsed;

    /// When the first commands of a thread are due, after the start.
    fn due(arguments: &str, thread: u64, count: usize) -> Vec<u64> {
        let options = parsed(arguments);
        let mut pace = Pace::new(&options, &Schedule::new(&options), thread);
        let mut due = Vec::new();
        for _ in 0..count {
            due.push(pace.due().unwrap() - START_US);
            pace.advance();
        }
        due
    }

    #[test]
    fn commands_of_an_open_loop_are_due_at_fixed_times() {
        let of = |thread| due("--rate 1000 --threads 2", thread, 3);
        assert_eq!((of(0), of(1)), (vec![0, 2000, 4000], vec![1000, 3000, 5000]));
        let options = parsed("--window 5");
        assert_eq!(Pace::new(&options, &Schedule::new(&options), 0).due(), None);
    }

    #[test]
    fn each_step_has_its_rate_and_its_seconds() {
        let schedule = Schedule::new(&parsed("--steps 2,4 --seconds 1 --warmup 1"));
        let rates: Vec<_> = schedule.steps.iter().map(|step| (step.span.seconds(), step.rate)).collect();
        assert_eq!(rates, [(1.0, Some(2.0)), (1.0, Some(4.0))]);
        assert_eq!(schedule.span(), Span { from: START_US + 1_000_000, to: START_US + 3_000_000 });
        let expected = [0, 500, 1000, 1500, 2000, 2250, 2500, 2750].map(|ms| 1000 * ms);
        assert_eq!(due("--steps 2,4 --seconds 1 --warmup 1", 0, 8), expected);
        // Threads share the commands whatever the rate.
        let shared = |thread| due("--steps 2,4 --seconds 1 --warmup 1 --threads 3", thread, 2);
        assert_eq!([shared(0), shared(1), shared(2)].concat(), [0, 3, 1, 4, 2, 5].map(|n| expected[n]));
    }

    #[test]
    fn a_ramp_climbs_evenly_and_is_reported_in_steps() {
        let options = parsed("--ramp 1000:3000 --seconds 20 --warmup 0");
        let schedule = Schedule::new(&options);
        assert_eq!(schedule.steps.len(), 10);
        let rates: Vec<_> = schedule.steps.iter().map(|step| step.rate.unwrap()).collect();
        assert_eq!((rates[0], rates[9]), (1100.0, 2900.0));
        let mut pace = Pace::new(&options, &schedule, 0);
        assert_eq!(pace.count_left(schedule.span().from + 10_000_000), 15_000);
        assert_eq!(pace.count_left(schedule.span().to), 25_000);
    }

    #[test]
    fn a_slow_ramp_keeps_its_rate_over_pieces_without_a_command() {
        let options = parsed("--ramp 1:3 --seconds 10 --warmup 0");
        let schedule = Schedule::new(&options);
        let left = Pace::new(&options, &schedule, 0).count_left(schedule.span().to);
        assert!((18..=21).contains(&left), "{left}");
    }

    #[test]
    fn a_closed_loop_is_one_step_without_a_rate() {
        let schedule = Schedule::new(&parsed("--seconds 3 --warmup 0"));
        let span = Span { from: START_US, to: START_US + 3_000_000 };
        assert_eq!((schedule.steps, schedule.pieces), (vec![Step { span, rate: None }], vec![]));
    }
}
