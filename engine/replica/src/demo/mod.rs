//! `isonomy demo`: a whole cluster on this machine. Real processes, sockets and syncs; load; a
//! replica killed under load, and its return; at the end the proof that all agree.

mod cluster;
mod etcd;
mod guide;
mod kafka;
mod load;
mod prober;
mod processes;
mod replace;
mod report;
mod stalls;

use crate::commands::{Output, block_on};
use crate::fatal::{Fatal, Reason};
use crate::logging;
use crate::out;
use crate::status::replica_status;
use anyhow::{Context, Result, bail};
use clap::Args;
use cluster::Cluster;
use etcd::Etcd;
use isonomy_doors::status::hash_text;
use isonomy_kafka::settings::Format;
use isonomy_shard::data_dir::in_memory;
use isonomy_wire::deps::Frontier;
use isonomy_wire::id::{REPLICAS_MAX, SHARDS_MAX};
use isonomy_wire::message::ShardStatus;
use kafka::Kafka;
use load::{Load, Running};
use prober::Probers;
use processes::Interrupt;
use report::{Kill, Report};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long replicas may take to start, to answer, and to agree once the load has ended. The demo judges a pause by
/// its length, so the clients wait for its end.
const PATIENCE: Duration = Duration::from_secs(120);
/// The time between two looks at the replicas.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The load during which a replica is killed: the seconds before the kill, from the kill to the restart, and after
/// the restart.
const KILL_SECONDS: [u64; 3] = [2, 2, 4];
/// The share of the measured rate that this load has, so that there is room for the return of the killed replica.
const KILL_LOAD_SHARE: f64 = 0.25;
/// The longest pause that users of the other replicas may see, while the machine runs.
const PAUSE_MAX: Duration = Duration::from_millis(1000);
/// The seconds of load before the measurement.
const WARMUP_SECONDS: u64 = 2;

/// `isonomy demo`
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  isonomy demo --seconds 30 --shards 2\n  isonomy demo --seconds 1 --keep\n  isonomy demo --etcd\n  isonomy demo --kafka"
)]
pub(crate) struct DemoArgs {
    /// The number of replicas
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=REPLICAS_MAX as i64))]
    replicas: u8,
    /// The number of shards of each replica
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=SHARDS_MAX as i64))]
    shards: u16,
    /// How many seconds of load to measure
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// The load, in decisions per second [default: as many as the cluster takes]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Name the members in an etcd of the demo's own, and replace a replica whose data directory is lost
    #[arg(long)]
    etcd: bool,
    /// The etcd to start
    #[arg(long, default_value = "etcd", requires = "etcd", value_name = "PROGRAM")]
    etcd_program: PathBuf,
    /// Let events come from a Kafka of the demo's own, and read the decisions there, instead of the other loads
    #[arg(long, conflicts_with_all = ["rate", "seconds"])]
    kafka: bool,
    /// The program that starts a Kafka
    #[arg(long, default_value = "deploy/kafka/kafka", requires = "kafka", value_name = "PROGRAM")]
    kafka_program: PathBuf,
    /// What a record of the topic of decisions holds: "record" or "batch"
    #[arg(long, default_value_t, requires = "kafka", value_name = "FORMAT")]
    kafka_format: Format,
    /// How many events go through Kafka
    #[arg(long, default_value_t = 300_000, requires = "kafka", value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Leave the cluster running until Ctrl-C, keep its data and configurations, and print commands to try next
    #[arg(long)]
    keep: bool,
    /// The directory in which a new directory for the data is made, on a file system with direct I/O
    #[arg(long, default_value = "/var/tmp", value_name = "DIR")]
    dir: PathBuf,
    /// The format in which the result is printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Runs the demo; an error if any check fails.
pub(crate) fn run(args: &DemoArgs) -> Result<(), Fatal> {
    block_on(async {
        let failed = || Fatal::new(Reason::Failed, "the demo has failed; see the failed checks above");
        Ok(show(args).await?.then_some(()).ok_or_else(failed)?)
    })
}

/// Reports progress on standard error, since standard output is for the result.
fn say(text: &str) {
    logging::say(&format!("demo: {text}"));
}

/// The whole demo. The replicas end when the demo ends, however it ends.
async fn show(args: &DemoArgs) -> Result<bool> {
    let interrupt = Interrupt::watch()?;
    // What is told of it must mean the same wherever it is typed.
    let made = fs::canonicalize(&args.dir).and_then(|parent| {
        tempfile::Builder::new().prefix("isonomy-demo-").disable_cleanup(args.keep).tempdir_in(parent)
    });
    let dir = made.with_context(|| {
        format!("{}: the directory cannot be used; choose another directory with --dir", args.dir.display())
    })?;
    say(&format!(
        "{} replicas with {} shard(s) each, in {}",
        args.replicas,
        args.shards,
        dir.path().display()
    ));
    if let Some(warning) = in_memory(dir.path()) {
        say(&format!("warning: {warning}, by --dir"));
    }
    let etcd = args.etcd.then(|| Etcd::start(&args.etcd_program, dir.path())).transpose()?;
    let start = || Kafka::start(&args.kafka_program, dir.path(), args.shards, args.kafka_format);
    let kafka = args.kafka.then(start).transpose()?;
    let mut cluster = Cluster::start(dir.path(), args.replicas, args.shards, etcd, kafka)?;
    let report = tokio::select! {
        report = check_all(args, &mut cluster) => report?,
        () = interrupt.wanted() => bail!("the demo was interrupted, and the replicas were stopped"),
    };
    match args.output {
        Output::Table => out::print(report.table())?,
        Output::Json => out::print(report.to_json())?,
    }
    if args.keep {
        logging::say(&guide::text(&cluster)?);
        interrupt.wanted().await;
    }
    cluster.stop()?;
    Ok(report.ok())
}

async fn check_all(args: &DemoArgs, cluster: &mut Cluster) -> Result<Report> {
    let mut report = Report { replicas: args.replicas, shards: args.shards, ..Report::default() };
    wait_ready(cluster, args.replicas).await?;
    say(&format!("each replica shows itself in a browser; the first one at http://{}/", cluster.http(0)));
    say(&format!("each replica answers gRPC; the first one at {}", cluster.grpc(0)));
    if args.kafka {
        kafka::run_pipeline(args, cluster, &mut report).await?;
        wait_agreed(cluster, args.replicas, &mut report, "after the events").await?;
        return Ok(report);
    }
    let rate = measure(args, cluster, &mut report).await?;
    wait_agreed(cluster, args.replicas, &mut report, "after the load").await?;
    if args.replicas >= 3 {
        kill_one(args, cluster, rate, &mut report).await?;
        wait_agreed(cluster, args.replicas, &mut report, "after kill and return").await?;
    }
    if args.etcd && args.replicas >= 3 {
        replace::replace_one(usize::from(args.replicas) - 2, cluster, rate, &mut report).await?;
        wait_agreed(cluster, args.replicas, &mut report, "after the replacement").await?;
    }
    Ok(report)
}

/// The statuses of these replicas, by replica and shard; `None` while one does not answer.
async fn statuses(addresses: &[String]) -> Option<Vec<Vec<ShardStatus>>> {
    let mut all = Vec::new();
    for address in addresses {
        all.push(replica_status(address, None).await.ok()?.1);
    }
    Some(all)
}

/// Waits until every shard of every replica reaches all its peers.
async fn wait_ready(cluster: &mut Cluster, replicas: u8) -> Result<()> {
    let addresses = cluster.addresses(0..usize::from(replicas));
    let began = Instant::now();
    loop {
        cluster.check_running()?;
        let others = usize::from(replicas) - 1;
        let linked = |shard: &ShardStatus| shard.peers_connected.len() == others;
        if statuses(&addresses).await.is_some_and(|all| all.iter().flatten().all(linked)) {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            bail!(
                "the replicas do not reach each other after {PATIENCE:?}; run the demo again with --keep and \
                 read the replicas' logs"
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Runs the main load. Returns the rate that it reached.
async fn measure(args: &DemoArgs, cluster: &Cluster, report: &mut Report) -> Result<f64> {
    say(&format!("load for {} + {} seconds", WARMUP_SECONDS, args.seconds));
    let load = Load {
        addresses: cluster.addresses(0..usize::from(args.replicas)),
        seconds: args.seconds,
        warmup: WARMUP_SECONDS,
        rate: args.rate,
        core: cluster.load_core(),
        progress: true,
    };
    let running = load.start()?;
    let figures = running.finish().await?;
    let number = |name: &str| figures.get(name).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
    let (decisions, rate) = (number("decisions"), number("decisions_per_second"));
    let (none, errors) = errors_of(&figures);
    report.check(
        "every request was answered",
        decisions > 0.0 && none,
        format!("{decisions:.0} decisions, {errors}"),
    );
    report.load = Some(figures);
    Ok(rate)
}

/// Whether a load met no errors, and the errors that it met.
fn errors_of(figures: &serde_json::Value) -> (bool, String) {
    let errors = figures.get("errors").and_then(serde_json::Value::as_object);
    let kinds = errors.into_iter().flatten().map(|(name, count)| format!("{count} {name}"));
    let kinds: Vec<String> = kinds.collect();
    match kinds.is_empty() {
        true => (errors.is_some(), "no errors".into()),
        false => (false, format!("errors: {}", kinds.join(", "))),
    }
}

/// Waits until all replicas have executed the same instances: frontiers and states are equal, and nothing is left
/// over.
async fn wait_agreed(cluster: &mut Cluster, replicas: u8, report: &mut Report, when: &str) -> Result<()> {
    let addresses = cluster.addresses(0..usize::from(replicas));
    let began = Instant::now();
    let name = "all replicas agree";
    loop {
        cluster.check_running()?;
        let all = statuses(&addresses).await.unwrap_or_default();
        report.agree = !all.is_empty() && all.iter().all(|replica| same(replica, &all[0]));
        report.state_hashes = all
            .iter()
            .map(|replica| replica.iter().map(|shard| hash_text(shard.state_hash)).collect())
            .collect();
        if report.agree {
            let keys: u64 = all[0].iter().map(|shard| shard.keys).sum();
            let hashes = report.state_hashes[0].join(" ");
            report.check(name, true, format!("{when}: equal frontiers, state {hashes}, {keys} keys"));
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            let hashes = format!("{:?}", report.state_hashes);
            report.check(
                name,
                false,
                format!("{when}: the replicas did not agree within {PATIENCE:?}; states {hashes}"),
            );
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn same(a: &[ShardStatus], b: &[ShardStatus]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| {
            a.unexecuted == 0 && b.unexecuted == 0 && a.frontier == b.frontier && a.state_hash == b.state_hash
        })
}

/// A load on all replicas but one, to which something is to happen, and clients that see how long the others pause.
struct LoadOnOthers {
    survivors: Vec<usize>,
    addresses: Vec<String>,
    running: Running,
    probers: Probers,
}

impl LoadOnOthers {
    /// Starts a load of a share of the measured rate.
    async fn start(cluster: &Cluster, victim: usize, rate: f64, seconds: u64) -> Result<LoadOnOthers> {
        let replicas = cluster.client_bases.len();
        let survivors: Vec<usize> = (0..replicas).filter(|index| *index != victim).collect();
        let addresses = cluster.addresses(survivors.iter().copied());
        let rate = ((rate * KILL_LOAD_SHARE) as u64).max(1);
        say(&format!("load of {rate} decisions per second on all replicas but {victim}"));
        let running = Load {
            addresses: addresses.clone(),
            seconds,
            warmup: 0,
            rate: Some(rate),
            core: cluster.load_core(),
            progress: false,
        };
        let running = running.start()?;
        let probers = Probers::start(&addresses, &survivors, replicas as u8).await?;
        Ok(LoadOnOthers { survivors, addresses, running, probers })
    }
}

/// Kills the last replica under load and brings it back.
async fn kill_one(args: &DemoArgs, cluster: &mut Cluster, rate: f64, report: &mut Report) -> Result<()> {
    let victim = usize::from(args.replicas) - 1;
    let load = LoadOnOthers::start(cluster, victim, rate, KILL_SECONDS.iter().sum()).await?;
    let LoadOnOthers { survivors, running, probers, .. } = load;
    say(&format!("kill -9 of replica {victim}"));
    let [before, down, after] = KILL_SECONDS.map(Duration::from_secs);
    tokio::time::sleep(before).await;
    probers.take_worst();
    cluster.kill(victim)?;
    tokio::time::sleep(down).await;
    let at_kill = probers.take_worst();
    say(&format!("replica {victim} starts again"));
    cluster.spawn(victim)?;
    let returned = Instant::now();
    let caught_up = catch_up(cluster, victim, &survivors).await?;
    tokio::time::sleep(after.saturating_sub(returned.elapsed())).await;
    let at_return = probers.finish().await.context("a client of the other replicas got an error")?;
    let figures = running.finish().await?;
    let (none, errors) = errors_of(&figures);
    report.check("no request failed while one replica was down", none, errors);
    report.check_pause("the other replicas went on without the killed one", at_kill, PAUSE_MAX);
    report.check_pause("the other replicas went on at its return", at_return, PAUSE_MAX);
    let detail = match caught_up {
        Some(after) => format!("{:.0} ms after its start", after.as_secs_f64() * 1e3),
        None => format!("the replica did not catch up within {PATIENCE:?}"),
    };
    report.check("the killed replica caught up", caught_up.is_some(), detail);
    report.kill = Some(Kill { at_kill, at_return, caught_up });
    Ok(())
}

/// How long the returned replica takes until it has executed everything that the others had executed a moment ago.
async fn catch_up(cluster: &mut Cluster, victim: usize, survivors: &[usize]) -> Result<Option<Duration>> {
    let began = Instant::now();
    let (others, own) = (cluster.addresses(survivors.iter().copied()), cluster.addresses([victim]));
    while began.elapsed() < PATIENCE {
        cluster.check_running()?;
        if let Some(others) = statuses(&others).await
            && let Some(own) = statuses(&own).await
        {
            let behind = |(shard, mine): (usize, &ShardStatus)| {
                let mut all = Frontier::NONE;
                others.iter().for_each(|replica| all.merge(&replica[shard].frontier));
                !mine.frontier.covers(&all)
            };
            if !own[0].iter().enumerate().any(behind) {
                return Ok(Some(began.elapsed()));
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(None)
}
