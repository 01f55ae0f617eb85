//! `load`: starts the threads, watches them, and puts their figures together.

use crate::options::{Options, Output, Progress};
use crate::record::Record;
use crate::report::{self, Host, Measured, Report};
use crate::status::{Probes, Totals};
use crate::worker::{self, START_US, Shared};
use anyhow::{Context, Result, anyhow, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use isonomy_wire::client::discover;
use isonomy_wire::message::Welcome;
use rustix::time::{ClockId, clock_gettime};
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How often the run is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs the load and prints the report.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let welcome = runtime.block_on(discover(&options.connect))?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends the process at once.
        signal_hook::flag::register_conditional_default(signal, interrupted.clone())?;
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    let (record, measured) = measure(options, welcome, &runtime, &interrupted)?;
    if let Some(path) = &options.hgrm {
        report::write_hgrm(&record.latency, path)
            .with_context(|| format!("cannot write {}; choose another --hgrm", path.display()))?;
    }
    let report = Report::new(options, Host::here(), &record, &measured);
    match options.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Table => print!("{}", report.table()),
    }
    Ok(report)
}

fn measure(
    options: &Options,
    welcome: Welcome,
    runtime: &Runtime,
    interrupted: &AtomicBool,
) -> Result<(Record, Measured)> {
    let mut probes = runtime.block_on(Probes::connect(&welcome));
    let from = START_US + 1_000_000 * options.warmup;
    let shared = Arc::new(Shared {
        options: options.clone(),
        origin: Instant::now(),
        from,
        to: AtomicU64::new(from + 1_000_000 * options.seconds),
        answered: AtomicU64::new(0),
        welcome,
    });
    let threads = start(&shared)?;
    let mut display = Display::new(options);
    watch(&shared, &threads, interrupted, &mut display, from);
    let before = sample(&mut probes, runtime);
    watch(&shared, &threads, interrupted, &mut display, u64::MAX);
    let after = sample(&mut probes, runtime);
    display.finish();

    let mut record = Record::new();
    for thread in threads {
        let theirs = thread.join().map_err(|_| anyhow!("a load thread panicked; see above"))??;
        record.merge(&theirs);
    }
    let span = shared.span();
    ensure!(span.to > span.from, "interrupted during the warm-up: nothing was measured");
    let measured = Measured {
        durable: shared.welcome.durable,
        seconds: (span.to - span.from) as f64 / 1e6,
        load_cpu_us: after.1 - before.1,
        replicas: before.0.zip(after.0),
    };
    Ok((record, measured))
}

fn start(shared: &Arc<Shared>) -> Result<Vec<JoinHandle<Result<Record>>>> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let mut threads = Vec::new();
    for thread in 0..shared.options.threads {
        let core = shared.options.core.map(|first| first + thread as usize);
        let core = core.map(|wanted| {
            let found = cores.iter().find(|core| core.id == wanted);
            found.copied().with_context(|| format!("there is no core {wanted}; choose another --core"))
        });
        let (core, shared) = (core.transpose()?, shared.clone());
        threads.push(std::thread::spawn(move || {
            if let Some(core) = core {
                core_affinity::set_for_current(core);
            }
            worker::run(&shared, thread)
        }));
    }
    Ok(threads)
}

/// What the replicas say, and the CPU time that this process took, in microseconds.
fn sample(probes: &mut Probes, runtime: &Runtime) -> (Option<Totals>, u64) {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let cpu_us = time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000;
    (runtime.block_on(probes.totals()), cpu_us)
}

/// Until the run ends or `until` has come.
fn watch(
    shared: &Shared,
    threads: &[JoinHandle<Result<Record>>],
    interrupted: &AtomicBool,
    display: &mut Display,
    until: u64,
) {
    loop {
        let now = shared.now();
        let until = until.min(shared.to.load(Ordering::Relaxed));
        if interrupted.load(Ordering::Relaxed) {
            shared.to.fetch_min(now, Ordering::Relaxed);
        }
        if now >= until || threads.iter().all(JoinHandle::is_finished) {
            return;
        }
        display.show(shared, now);
        std::thread::sleep(LOOK_EVERY.min(Duration::from_micros(until - now)));
    }
}

/// What the user sees meanwhile.
struct Display {
    kind: Progress,
    bar: Option<ProgressBar>,
    /// Time and commands at the last line.
    last: (u64, u64),
}

impl Display {
    fn new(options: &Options) -> Display {
        let wanted = options.progress == Progress::Bar && std::io::stderr().is_terminal();
        let bar = wanted.then(|| {
            let style = ProgressStyle::with_template("{bar:30} {elapsed_precise} {msg}");
            let total = START_US + 1_000_000 * (options.warmup + options.seconds);
            ProgressBar::new(total).with_style(style.expect("the template is legal"))
        });
        Display { kind: options.progress, bar, last: (START_US, 0) }
    }

    fn show(&mut self, shared: &Shared, now: u64) {
        let (then, before) = self.last;
        if now < then + 1_000_000 {
            return;
        }
        let answered = shared.answered.load(Ordering::Relaxed);
        let rate = (answered - before) * 1_000_000 / (now - then);
        let phase = if now < shared.from { "warming up, " } else { "" };
        let text = format!("{phase}{rate} answers/s");
        if let Some(bar) = &self.bar {
            bar.set_position(now);
            bar.set_message(text);
        } else if self.kind == Progress::Plain {
            eprintln!("{:4} s  {text}", now / 1_000_000);
        }
        self.last = (now, answered);
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
