//! `isonomy-sim`: runs seeds until one fails.

use anyhow::Result;
use clap::Parser;
use isonomy_protocol::mutant::{Mutant, plant};
use isonomy_sim::client::Untold;
use isonomy_sim::contention::{Contention, SPAN_US};
use isonomy_sim::coverage::Coverage;
use isonomy_sim::plan::Plan;
use isonomy_sim::world::{Summary, run_plan};
use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One of so many seeds is run twice, to see that it gives the same events.
const TWICE_EVERY: u64 = 50;
/// A batch of so many seeds must reach every corner except the rare ones.
const COVERING_BATCH: u64 = 10_000;
/// The marks that a batch may miss, each of which has tests of its rule.
///
/// - A wait that ends by a commit without the instance, or by another wait, takes some hundred seeds of their own class;
///   `seeds.txt` has some that reach one.
/// - A member takes over no floor while all keep the law. A floor that rests on a barrier covers what all members have
///   executed and what the barriers up to that one name in their deps, which has executed wherever the barrier has; what
///   `after` names beyond that was below a floor before.
const RARE: [&str; 3] = ["R6a", "R6c", "FloorAdopted"];

/// Between two changes of the members, where they change in every seed.
const CHANGE_EVERY_US: u64 = 200_000;

/// The share of commands of a batch of which nobody can say what became of them: clients are impatient in
/// some seeds, and replicas down.
const UNTOLD_PERCENT_MAX: u64 = 3;

/// Simulates whole clusters; one seed is one run.
#[derive(Parser, Debug)]
#[command(name = "isonomy-sim", version)]
struct Args {
    /// The first seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Stop after this many seconds, however many seeds are left
    #[arg(long, value_name = "SECONDS")]
    time: Option<u64>,
    /// Seeds that failed once, one per line, which are run first
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Break this rule of the law on purpose; the run must fail
    #[arg(long, value_name = "NAME", value_parser = mutant_of)]
    mutant: Option<Mutant>,
    /// Instead of what the seeds plan: every command on one key, all replicas coordinating, for so
    /// many simulated seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(10..))]
    hot_key: Option<u64>,
    /// Change the members in every seed
    #[arg(long)]
    changing: bool,
    /// Tell what happens, on standard error
    #[arg(long)]
    trace: bool,
    /// Threads
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
}

fn mutant_of(name: &str) -> Result<Mutant, String> {
    let found = Mutant::ALL.iter().copied().find(|mutant| format!("{mutant:?}") == name);
    found.ok_or_else(|| format!("none of {:?}", Mutant::ALL))
}

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

#[derive(Default)]
struct Total {
    seeds: u64,
    events: u64,
    micros: u64,
    decisions: u64,
    commands: u64,
    untold: Untold,
    coverage: Coverage,
    contention: Option<Contention>,
}

impl Total {
    fn add(&mut self, summary: &Summary) {
        self.contention.get_or_insert(summary.contention).merge(&summary.contention);
        self.seeds += 1;
        self.events += summary.events;
        self.micros += summary.micros;
        self.decisions += summary.decisions;
        self.commands += summary.commands;
        self.untold.add(summary.untold);
        self.coverage.merge(&summary.coverage);
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        let seed = SEED.get();
        eprintln!("seed {seed} failed; this repeats it: make sim SEED={seed} COUNT=1");
        std::process::exit(1);
    }));
    let mut replay = Coverage::default();
    for seed in replayed(args.replay.as_deref())? {
        replay.merge(&run_one(Plan::of(seed), args.trace).coverage);
    }
    let began = Instant::now();
    let mut total = run_all(&args, began);
    total.coverage.merge(&replay);
    report(&args, &total, began.elapsed());
    Ok(())
}

/// The seeds of a file. Text behind a # is a comment.
fn replayed(path: Option<&std::path::Path>) -> Result<Vec<u64>> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text = std::fs::read_to_string(path)?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    Ok(lines.filter(|line| !line.is_empty()).map(str::parse).collect::<Result<_, _>>()?)
}

fn run_one(plan: Plan, trace: bool) -> Summary {
    SEED.set(plan.seed);
    let again = plan.clone();
    let summary = run_plan(Plan { trace, ..plan });
    if again.seed.is_multiple_of(TWICE_EVERY) {
        assert_eq!(run_plan(again), summary, "a seed must give the same events each time");
    }
    summary
}

fn run_all(args: &Args, began: Instant) -> Total {
    let (next, total) = (AtomicU64::new(0), Mutex::new(Total::default()));
    let limit = args.time.map_or(Duration::MAX, Duration::from_secs);
    std::thread::scope(|scope| {
        for _ in 0..args.threads.max(1) {
            scope.spawn(|| {
                plant(args.mutant);
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= args.count || began.elapsed() >= limit {
                        return;
                    }
                    let seed = args.seed + at;
                    let plan = match args.hot_key {
                        Some(seconds) => Plan::hot_key(seed, seconds),
                        None if args.changing => Plan::of(seed).changing(CHANGE_EVERY_US),
                        None => Plan::of(seed),
                    };
                    let summary = run_one(plan, args.trace);
                    total.lock().expect("a panic ends the process").add(&summary);
                }
            });
        }
    });
    total.into_inner().expect("a panic ends the process")
}

fn report(args: &Args, total: &Total, took: Duration) {
    let seconds = took.as_secs_f64();
    let simulated = total.micros as f64 / 1e6;
    println!(
        "{} seeds from {} passed in {seconds:.1} s: {:.1} seeds per second, {:.0} simulated seconds per second; \
         {} events, {} decisions",
        total.seeds,
        args.seed,
        total.seeds as f64 / seconds,
        simulated / seconds,
        total.events,
        total.decisions
    );
    let Untold { timed_out, expired, .. } = total.untold;
    println!(
        "{timed_out} of {} commands timed out, {expired} came too late for their session",
        total.commands
    );
    if total.seeds >= COVERING_BATCH && (timed_out + expired) * 100 > total.commands * UNTOLD_PERCENT_MAX {
        eprintln!(
            "more than {UNTOLD_PERCENT_MAX} % of the commands have no answer: something hides behind retries"
        );
        std::process::exit(1);
    }
    if args.hot_key.is_some() {
        return report_contention(total);
    }
    let missing = total.coverage.missing();
    if !missing.is_empty() && total.seeds > 1 {
        println!("not reached: {}", missing.join(", "));
        let is_rare = |name: &String| RARE.contains(&name.as_str());
        if total.seeds >= COVERING_BATCH && !missing.iter().all(is_rare) {
            eprintln!("a batch of {COVERING_BATCH} seeds or more must reach every corner");
            std::process::exit(1);
        }
    }
}

fn report_contention(total: &Total) {
    let Contention { largest_component, slowest_us, quietest_span } = total.contention.unwrap_or_default();
    println!(
        "one hot key: components of {largest_component} instances at most, no answer took longer than {} ms, \
         and the quietest {} s had {quietest_span} answers, of {:.0} on average",
        slowest_us / 1000,
        SPAN_US / 1_000_000,
        total.decisions as f64 * SPAN_US as f64 / total.micros as f64
    );
}
