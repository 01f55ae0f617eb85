//! `load`: starts the threads, watches them, and puts their figures together.

mod crowd;
mod generator;
pub(crate) mod ledger;
mod members;
pub(crate) mod record;
pub(crate) mod schedule;
pub(crate) mod series;
pub(crate) mod shape;
mod socket;
pub(crate) mod status;
mod wires;
mod worker;
pub(crate) mod workload;

use crate::options::{Options, Progress};
use crate::out::say;
use crate::report::{Files, Host, Report, probe_file};
use anyhow::{Context, Result, anyhow, bail, ensure};
use generator::Shared;
use indicatif::{ProgressBar, ProgressStyle};
use isonomy_tuning::cpu::{cpu_us_of, process_cpu_us};
use isonomy_tuning::limits::{Resource, raise};
use isonomy_tuning::{cores, signals};
use isonomy_wire::client::contact;
use isonomy_wire::message::Role;
use ledger::{Contradictions, Ledger};
use members::Members;
use record::{Recorded, Second};
use schedule::{START_US, Schedule};
use series::{Point, Series};
use status::{Probes, Totals};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Runtime;

/// How often the run is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The most files that are open besides the clients' connections.
const OTHER_FILES_MAX: u64 = 5_000;
const SECOND_US: u64 = 1_000_000;

/// Everything that a run has measured.
pub(crate) struct Measured {
    pub(crate) began_unix_seconds: u64,
    pub(crate) recorded: Recorded,
    /// The steps that began before the run ended, with how long each lasted, in seconds.
    pub(crate) steps: Vec<MeasuredStep>,
    pub(crate) series: Vec<Point>,
    pub(crate) durable: bool,
    pub(crate) contradictions: Option<Contradictions>,
}

/// The figures of a step besides the threads' own records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MeasuredStep {
    pub(crate) rate: Option<f64>,
    pub(crate) seconds: f64,
    pub(crate) before: Sample,
    pub(crate) after: Sample,
}

/// The reports of the replicas at a moment, and the CPU time that this process had taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) replicas: Option<Totals>,
    /// The CPU time that those servers had taken whose processes are known.
    pub(crate) servers_cpu_us: Option<u64>,
    pub(crate) load_cpu_us: u64,
}

/// Runs the load and puts the report where it was asked for. Returns the report, and whether that went well.
pub(crate) fn run(options: &Options) -> Result<(Report, Result<()>)> {
    let files = Files::open(&options.results)?;
    let probe = options.results.probe.as_deref().map(probe_file::read).transpose()?;
    let interrupted = signals::watch_end()?;
    let measured = measure(options, &interrupted, &[])?;
    let report = Report::new(options, Host::here(), &measured, probe);
    let published = report.publish(options.results.output, files, &measured);
    Ok((report, published))
}

/// Runs the load. `servers` are the processes of the replicas, where they are known.
pub(crate) fn measure(options: &Options, interrupted: &AtomicBool, servers: &[u32]) -> Result<Measured> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let welcome = match runtime.block_on(contact(&options.connect, options.cluster, Role::Client)) {
        Ok(contact) => contact.welcome,
        Err(error) => {
            // A name that is still looked up holds nobody up, as at the end.
            runtime.shutdown_background();
            return Err(error.into());
        }
    };
    allow_files(options.clients.unwrap_or_default() * u64::from(welcome.shards))?;
    let durable = welcome.durable;
    let members = Arc::new(Members::of(&welcome)?);
    let probes = runtime.block_on(Probes::connect(&members));
    let schedule = Schedule::new(options);
    let began_unix_seconds = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let shared = Arc::new(Shared {
        ledger: options.is_tracked().then(|| Ledger::new(options)),
        to: AtomicU64::new(schedule.span().to),
        options: options.clone(),
        origin: Instant::now(),
        schedule,
        members,
    });
    let (sender, seconds) = channel();
    let threads = start(&shared, &sender)?;
    drop(sender);
    let total = (shared.schedule.span().seconds()).round() as u64;
    let mut watch = Watch {
        series: Series::new(options.threads, options.warmup, total),
        display: Display::new(options, shared.schedule.span().to),
        samples: BTreeMap::new(),
        shared: &shared,
        probes,
        runtime: &runtime,
        seconds,
        servers,
    };
    watch.watch(&threads, interrupted);
    let mut recorded = Recorded::new(shared.schedule.steps.len());
    for thread in threads {
        recorded.merge(
            &thread
                .join()
                .map_err(|_| anyhow!("a thread of the load panicked; report the message above"))??,
        );
    }
    let (steps, series) = watch.finish();
    // A name that is still looked up holds nobody up.
    runtime.shutdown_background();
    let contradictions = shared.ledger.as_ref().and_then(Ledger::contradictions);
    let is_wrong = contradictions.as_ref().is_some_and(|found| found.count > 0);
    ensure!(
        is_wrong || !steps.is_empty(),
        "the run was interrupted during the warm-up, and nothing was measured"
    );
    Ok(Measured { began_unix_seconds, recorded, steps, series, durable, contradictions })
}

/// Raises the limit of open files, so that so many connections may be open.
pub(crate) fn allow_files(connections: u64) -> Result<()> {
    let wanted = connections + OTHER_FILES_MAX;
    let limit = raise(Resource::NOFILE, wanted).context("the limit on open files cannot be raised")?;
    // A lower limit is enough without clients.
    ensure!(
        limit >= wanted || connections == 0,
        "{connections} connections need more open files than are allowed; run `ulimit -Hn {wanted}` as root \
         first"
    );
    Ok(())
}

fn start(shared: &Arc<Shared>, seconds: &Sender<Second>) -> Result<Vec<JoinHandle<Result<Recorded>>>> {
    let run = if shared.options.clients.is_some() { crowd::run } else { worker::run };
    let mut threads = Vec::new();
    for thread in 0..shared.options.threads {
        let core = shared.options.core.map(|first| first + thread as usize);
        if let Some(unknown) = cores::first_unusable(core.as_slice()) {
            bail!("this process cannot use core {unknown}; choose another --core");
        }
        let (shared, seconds) = (shared.clone(), seconds.clone());
        threads.push(std::thread::spawn(move || {
            if let Some(core) = core {
                cores::pin(core);
            }
            run(&shared, thread, seconds)
        }));
    }
    Ok(threads)
}

/// Watches a run from outside.
struct Watch<'a> {
    shared: &'a Shared,
    probes: Probes,
    runtime: &'a Runtime,
    seconds: Receiver<Second>,
    servers: &'a [u32],
    series: Series,
    display: Display,
    /// The samples, by the time when they were due.
    samples: BTreeMap<u64, Sample>,
}

impl Watch<'_> {
    /// Watches until the run ends.
    fn watch(&mut self, threads: &[JoinHandle<Result<Recorded>>], interrupted: &AtomicBool) {
        let from = self.shared.span().from;
        let mut next = from;
        loop {
            let now = self.shared.now();
            // A thread that has ended early has failed.
            let failed = threads.iter().any(JoinHandle::is_finished);
            if failed || interrupted.load(Ordering::Relaxed) || self.is_wrong() {
                self.shared.to.fetch_min(now, Ordering::Relaxed);
            }
            let end = self.shared.end();
            if now >= next.min(end) {
                self.sample(next.min(end));
                next += SECOND_US;
            }
            while let Ok(second) = self.seconds.try_recv() {
                self.on_second(&second);
            }
            if self.samples.contains_key(&end) {
                return;
            }
            let until = next.min(end).saturating_sub(self.shared.now());
            std::thread::sleep(LOOK_EVERY.min(Duration::from_micros(until)));
        }
    }

    fn is_wrong(&self) -> bool {
        let found = self.shared.ledger.as_ref().and_then(Ledger::contradictions);
        found.is_some_and(|found| found.count > 0)
    }

    fn sample(&mut self, due: u64) {
        let load_cpu_us = process_cpu_us();
        let replicas = self.runtime.block_on(self.probes.totals());
        let servers_cpu_us = if self.servers.is_empty() { None } else { cpu_us_of(self.servers) };
        self.samples.insert(due, Sample { replicas, servers_cpu_us, load_cpu_us });
        if let Some(passed) = due.checked_sub(self.shared.span().from) {
            self.series.on_totals(passed / SECOND_US, replicas);
        }
    }

    fn on_second(&mut self, second: &Second) {
        if let Some(text) = self.series.on_second(second) {
            self.display.show(second.index + 1, &text);
        }
    }

    /// The threads have ended. Returns what was measured of each step, and of each second.
    fn finish(mut self) -> (Vec<MeasuredStep>, Vec<Point>) {
        while let Ok(second) = self.seconds.try_recv() {
            self.on_second(&second);
        }
        self.display.finish();
        let end = self.shared.end();
        let at = |time: u64| self.samples.get(&time).copied().unwrap_or_default();
        let began = self.shared.schedule.steps.iter().filter(|step| step.span.from < end);
        let steps = began.map(|step| {
            let to = step.span.to.min(end);
            MeasuredStep {
                rate: step.rate,
                seconds: (to - step.span.from) as f64 / 1e6,
                before: at(step.span.from),
                after: at(to),
            }
        });
        (steps.collect(), self.series.finish())
    }
}

/// The display for the user during the run.
struct Display {
    kind: Progress,
    bar: Option<ProgressBar>,
}

impl Display {
    fn new(options: &Options, end: u64) -> Display {
        let wanted = options.results.progress == Progress::Bar && std::io::stderr().is_terminal();
        let bar = wanted.then(|| {
            let style = ProgressStyle::with_template("{bar:30} {elapsed_precise} of {msg}");
            let seconds = (end - START_US) / SECOND_US;
            let bar = ProgressBar::new(seconds).with_style(style.expect("the template is legal"));
            bar.with_message(format!("{seconds} s"))
        });
        Display { kind: options.results.progress, bar }
    }

    /// A second is over.
    fn show(&self, second: u64, text: &str) {
        if let Some(bar) = &self.bar {
            bar.println(format!("{second:4} s  {text}"));
            bar.set_position(second);
        } else if self.kind == Progress::Plain {
            say(format_args!("{second:4} s  {text}"));
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
