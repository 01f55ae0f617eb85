//! One thread of load: a session, its connections, and what is due.

use crate::options::{Options, RATE_MAX, SECONDS_MAX};
use crate::record::{Record, Span};
use crate::wires::{Event, Wires};
use crate::workload::Workload;
use anyhow::Result;
use isonomy_wire::message::Welcome;
use isonomy_wire::session::{LinkError, Received, Session, SubmitError};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Connections are made in this time, in microseconds, before the warm-up begins.
pub(crate) const START_US: u64 = 300_000;
/// The longest sleep, so that the end of the run is noticed.
const WAIT_MAX_US: u64 = 20_000;
/// The shortest sleep of an open loop: what falls due in between leaves together. It counts in
/// the latencies.
const OPEN_TURN_US: u64 = 200;
/// How long streams may take to end, in microseconds.
const CLOSE_US_MAX: u64 = 2_000_000;

// The last command's place times a million still fits.
const _: () = assert!((2 * RATE_MAX * SECONDS_MAX).checked_mul(1_000_000).is_some());

/// What all threads know.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) welcome: Welcome,
    /// Time zero.
    pub(crate) origin: Instant,
    /// When measuring begins, in microseconds.
    pub(crate) from: u64,
    /// When the run ends; an interrupt moves it.
    pub(crate) to: AtomicU64,
    /// Commands answered so far, for the progress display.
    pub(crate) answered: AtomicU64,
}

impl Shared {
    pub(crate) fn now(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }

    pub(crate) fn span(&self) -> Span {
        Span { from: self.from, to: self.to.load(Ordering::Relaxed) }
    }
}

/// When commands are due.
enum Pace {
    /// As soon as another was answered.
    Closed { window: usize },
    /// At fixed times: the `next`-th of all threads' commands so long after the start.
    Open { rate: u64, next: u64, threads: u64 },
}

impl Pace {
    fn new(options: &Options, thread: u64) -> Pace {
        match options.rate {
            None => Pace::Closed { window: options.window_per_thread() },
            // Threads take turns.
            Some(rate) => Pace::Open { rate, next: thread, threads: options.threads },
        }
    }

    /// A command was submitted.
    #[inline]
    fn advance(&mut self) {
        if let Pace::Open { next, threads, .. } = self {
            *next += *threads;
        }
    }

    /// When the next command is due, in microseconds, if that can be said.
    #[inline]
    fn due(&self) -> Option<u64> {
        match self {
            Pace::Closed { .. } => None,
            Pace::Open { rate, next, .. } => Some(START_US + next * 1_000_000 / rate),
        }
    }
}

/// Runs one thread until the end; returns what it measured.
pub(crate) fn run(shared: &Shared, thread: u64) -> Result<Record> {
    let members = shared.welcome.members.len() as u8;
    let mut worker = Worker {
        shared,
        session: Session::new(shared.options.session(members, shared.welcome.shards)),
        workload: Workload::new(&shared.options, thread),
        pace: Pace::new(&shared.options, thread),
        record: Record::new(),
        held: false,
    };
    worker.run()?;
    Ok(worker.record)
}

struct Worker<'a> {
    shared: &'a Shared,
    session: Session,
    workload: Workload,
    pace: Pace,
    record: Record,
    /// An open loop has fallen behind by as much as may be outstanding.
    held: bool,
}

impl Worker<'_> {
    fn run(&mut self) -> Result<()> {
        let mut wires = Wires::new(&self.shared.welcome);
        let mut closing_since = None;
        loop {
            let now = self.shared.now();
            if now < self.shared.span().to {
                self.generate(now);
            } else if self.session.outstanding() == 0 {
                self.session.close();
                let since = *closing_since.get_or_insert(now);
                if self.session.is_closed() || now > since + CLOSE_US_MAX {
                    return Ok(());
                }
            }
            while let Some(transmit) = self.session.poll_transmit(now) {
                match wires.link(transmit.replica, transmit.shard) {
                    Some((link, out)) => link.request(out, transmit.tag, &transmit.payload),
                    None => self.session.on_disconnected(transmit.replica, transmit.shard),
                }
            }
            let wait = Duration::from_micros(self.wait_us(now));
            let (session, shared) = (&mut self.session, self.shared);
            wires.turn(wait, |replica, shard, event| {
                match event {
                    Event::Connected => session.on_connected(replica, shard),
                    Event::Lost => session.on_disconnected(replica, shard),
                    Event::Received(Received::Response { tag, answers }) => {
                        session.on_response(replica, tag, answers)?;
                    }
                    Event::Received(Received::Failed { tag, failure }) => {
                        session.on_failure(shared.now(), replica, tag, failure);
                    }
                    Event::Received(Received::Welcome(_) | Received::Status(_)) => {
                        return Err(LinkError::Unexpected);
                    }
                }
                Ok(())
            })?;
            self.take_outcomes();
        }
    }

    /// Submits what is due.
    fn generate(&mut self, now: u64) {
        loop {
            let due = match self.pace {
                Pace::Closed { window } if self.session.outstanding() < window => now,
                Pace::Closed { .. } => return,
                Pace::Open { .. } => match self.pace.due() {
                    Some(due) if due <= now => due,
                    _ => return,
                },
            };
            match self.session.submit(now, &self.workload.next(), due) {
                Ok(()) => self.held = false,
                // What is due stays due: its latency goes on counting.
                Err(SubmitError::Full) => {
                    self.held = true;
                    return;
                }
                Err(error) => unreachable!("the workload makes legal commands: {error}"),
            }
            self.pace.advance();
        }
    }

    fn wait_us(&self, now: u64) -> u64 {
        let mut until = now + WAIT_MAX_US;
        if let Some(deadline) = self.session.next_deadline() {
            until = until.min(deadline);
        }
        if let Some(due) = self.pace.due()
            && !self.held
            && due < self.shared.span().to
        {
            until = until.min(due.max(now + OPEN_TURN_US));
        }
        until.saturating_sub(now)
    }

    fn take_outcomes(&mut self) {
        let now = self.shared.now();
        self.session.on_timeout(now);
        let span = self.shared.span();
        let mut answered = 0;
        while let Some(outcome) = self.session.poll_outcome() {
            self.record.on_outcome(now, span, &outcome);
            answered += outcome.tokens.len() as u64;
            self.session.recycle(outcome);
        }
        self.shared.answered.fetch_add(answered, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::tests::parsed;

    #[test]
    fn commands_of_an_open_loop_are_due_at_fixed_times() {
        let options = parsed("--rate 1000 --threads 2");
        let due = |thread| {
            let mut pace = Pace::new(&options, thread);
            let mut due = Vec::new();
            for _ in 0..3 {
                due.push(pace.due().unwrap() - START_US);
                pace.advance();
            }
            due
        };
        assert_eq!((due(0), due(1)), (vec![0, 2000, 4000], vec![1000, 3000, 5000]));
        assert_eq!(Pace::new(&parsed("--window 5"), 0).due(), None);
    }
}
