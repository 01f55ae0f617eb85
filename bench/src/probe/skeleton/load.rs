//! The load on the skeleton: whole batches, to the replicas in turn.

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use isonomy_wire::command::BATCH_BYTES_MAX;
use isonomy_wire::message::ShardStatus;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::time::{Duration, Instant};

use super::wire::PlainWire;
use super::words::{KEY_AT, REPLICAS, command_bytes};
use super::{BatchLatency, LoopFigures};
use crate::probe::options::ProbeOptions;

/// The time before each measurement that does not count.
const WARMUP_US: u64 = 1_000_000;
/// The most bytes under way at a replica, all its shards together, in an open loop that falls behind.
const BEHIND_BYTES_MAX: usize = 64 << 20;
const _: () = assert!(BEHIND_BYTES_MAX >= BATCH_BYTES_MAX);
/// The longest wait for anything to happen.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest sleep.
const WAIT_US_MAX: u64 = 10_000;
/// Longer latencies count as this.
const LATENCY_US_MAX: u64 = 600_000_000;

/// When batches are due.
#[derive(Clone, Copy)]
pub(super) enum BatchPace {
    /// A batch is due as soon as fewer than so many are under way at a replica.
    Closed { in_flight: usize },
    /// Batches are due at fixed times.
    Open { batches_per_second: f64 },
}

/// The batch that is sent again and again, with other keys.
struct Template {
    bytes: Vec<u8>,
    command_bytes: usize,
    keys: u64,
    random: SmallRng,
}

impl Template {
    fn new(options: &ProbeOptions) -> Template {
        let command_bytes = command_bytes(options.value_bytes);
        let bytes = vec![0; options.batch as usize * command_bytes];
        Template { bytes, command_bytes, keys: options.keys_of_shard(), random: SmallRng::seed_from_u64(1) }
    }

    fn next(&mut self) -> &[u8] {
        for command in self.bytes.chunks_exact_mut(self.command_bytes) {
            let key = self.random.random_range(0..self.keys);
            command[KEY_AT..KEY_AT + 8].copy_from_slice(&key.to_le_bytes());
        }
        &self.bytes
    }
}

/// One measurement.
struct Run<'a> {
    wires: &'a mut [PlainWire],
    pace: BatchPace,
    template: Template,
    origin: Instant,
    /// The measured time, in microseconds since the origin.
    from: u64,
    to: u64,
    /// Batches that became due in an open loop.
    sent: u64,
    answered: u64,
    latency: Histogram<u64>,
    heard: Instant,
}

/// Loads the replicas and measures; nothing is under way when it returns.
pub(super) fn run(options: &ProbeOptions, wires: &mut [PlainWire], pace: BatchPace) -> Result<LoopFigures> {
    let mut run = Run {
        wires,
        pace,
        template: Template::new(options),
        origin: Instant::now(),
        from: WARMUP_US,
        to: WARMUP_US + 1_000_000 * options.seconds,
        sent: 0,
        answered: 0,
        latency: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?,
        heard: Instant::now(),
    };
    run.until(run.from)?;
    run.ask();
    run.until(run.to)?;
    run.ask();
    while run.wires.iter().any(PlainWire::is_waiting) {
        run.turn(WAIT_US_MAX)?;
    }
    run.figures(options)
}

impl Run<'_> {
    fn now(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }

    /// Sends the batches that are due and takes the answers, up to a time.
    fn until(&mut self, end: u64) -> Result<()> {
        loop {
            let now = self.now();
            if now >= end {
                return Ok(());
            }
            let next = self.send_due(now);
            self.turn(next.min(end).saturating_sub(now).min(WAIT_US_MAX))?;
        }
    }

    fn ask(&mut self) {
        self.wires.iter_mut().for_each(PlainWire::request_status);
    }

    /// Sends the batches that are due. Returns when more will be.
    fn send_due(&mut self, now: u64) -> u64 {
        match self.pace {
            BatchPace::Closed { in_flight } => {
                for wire in self.wires.iter_mut() {
                    while wire.under_way() < in_flight {
                        wire.request(now, self.template.next());
                    }
                }
                u64::MAX
            }
            BatchPace::Open { batches_per_second } => {
                let wires = self.wires.len() as u64;
                let shards = self.wires.len() / REPLICAS;
                let most = (BEHIND_BYTES_MAX / shards / self.template.bytes.len()).max(1);
                loop {
                    let due = (self.sent as f64 * 1e6 / batches_per_second) as u64;
                    let wire = &mut self.wires[(self.sent % wires) as usize];
                    if due > now {
                        return due;
                    }
                    if wire.under_way() >= most {
                        return u64::MAX;
                    }
                    wire.request(due, self.template.next());
                    self.sent += 1;
                }
            }
        }
    }

    /// Writes the queued bytes, waits for bytes, room or time, and reads.
    fn turn(&mut self, wait_us: u64) -> Result<()> {
        self.wires.iter_mut().try_for_each(PlainWire::write)?;
        let readable = self.wait(wait_us)?;
        let now = self.now();
        let in_time = self.from <= now && now < self.to;
        for wire in
            self.wires.iter_mut().zip(readable).filter_map(|(wire, readable)| readable.then_some(wire))
        {
            self.heard = Instant::now();
            wire.read(|due| {
                self.answered += u64::from(in_time);
                if self.from <= due && due < self.to {
                    self.latency.saturating_record(now.saturating_sub(due).max(1));
                }
            })?;
        }
        if !self.wires.iter().any(PlainWire::is_waiting) {
            self.heard = Instant::now();
        }
        ensure!(
            self.heard.elapsed() < PATIENCE,
            "the replicas of the probe have answered nothing for {PATIENCE:?}; check the disk, and try a lower \
             --rate or a quieter machine"
        );
        Ok(())
    }

    /// Waits. Returns which wires have something to read.
    fn wait(&self, wait_us: u64) -> Result<Vec<bool>> {
        let interest = |wire: &PlainWire| match wire.has_backlog() {
            true => PollFlags::IN | PollFlags::OUT,
            false => PollFlags::IN,
        };
        let mut fds: Vec<_> =
            self.wires.iter().map(|wire| PollFd::new(&wire.stream, interest(wire))).collect();
        let timeout = Timespec { tv_sec: 0, tv_nsec: 1_000 * wait_us as i64 };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("the wait for sockets failed; report this"),
        }
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        Ok(fds.iter().map(|fd| fd.revents().intersects(readable)).collect())
    }

    /// CPU time is divided by what the replicas executed between the same two moments.
    fn figures(&self, options: &ProbeOptions) -> Result<LoopFigures> {
        let seconds = (self.to - self.from) as f64 / 1e6;
        let delta = |of: fn(&ShardStatus) -> u64| {
            let last_two = self.wires.iter().filter_map(|wire| wire.statuses.last_chunk());
            last_two.map(|[before, after]| of(after) - of(before)).sum::<u64>() as f64
        };
        let decisions = delta(|status| status.decisions);
        ensure!(
            self.answered > 0 && decisions > 0.0 && !self.latency.is_empty(),
            "no batch was answered in the measured time; measure for more --seconds or with a smaller --batch"
        );
        let at = |quantile| self.latency.value_at_quantile(quantile);
        Ok(LoopFigures {
            decisions_per_second: (self.answered * options.batch) as f64 / seconds,
            cpu_us_per_decision: delta(|status| status.process_cpu_us) / decisions,
            latency_us: BatchLatency { p50: at(0.5), p99: at(0.99), p999: at(0.999) },
            groups_per_second: delta(|status| status.log_groups) / seconds,
            log_bytes_per_decision: delta(|status| status.log_bytes) / decisions,
        })
    }
}
