//! `compare`: the same puts on Isonomy and on another system, in turn, on this machine.

mod etcd;
mod result;

use crate::cluster::{self, Cluster};
use crate::load::record::Recorded;
use crate::load::{self, MeasuredStep};
use crate::options::{Options, Output};
use crate::out::{ResultFile, say};
use crate::probe::tell_file_system;
use crate::report::Host;
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use etcd::{Etcd, Measurement, Plan};
use isonomy_tuning::signals;
use isonomy_wire::command::VALUE_BYTES_MAX;
use result::{Comparison, Round, System};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Options of `compare`. They come back in the result as they were.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct CompareOptions {
    /// The system to compare with
    #[arg(long, value_enum, value_name = "SYSTEM")]
    against: Against,
    /// The name or the path of the etcd program
    #[arg(long, value_name = "PATH", default_value = "etcd")]
    #[serde(skip)]
    etcd: PathBuf,
    /// The path of the isonomy program [default: the program beside this one]
    #[arg(long, value_name = "PATH")]
    #[serde(skip)]
    isonomy: Option<PathBuf>,
    /// How many times each system is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// The number of clients, over all threads; each has one put at a time under way
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    clients: u64,
    /// How many seconds to measure each system in each round
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How many seconds of load come before the measurement and do not count
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=3600))]
    warmup: u64,
    /// The number of keys, of 16 bytes each
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    keys: u64,
    /// The size of each value, in bytes
    #[arg(long, value_name = "N", default_value_t = 48,
          value_parser = clap::value_parser!(u64).range(0..=VALUE_BYTES_MAX as u64))]
    value_bytes: u64,
    /// The number of threads of the load
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    threads: u64,
    /// Measure Isonomy in each round also with one client that has 24,576 commands outstanding and sends them in
    /// frames
    #[arg(long)]
    pipelined: bool,
    /// The directory in which new directories for the data are made and removed again
    #[arg(long, default_value = "/var/tmp", value_name = "DIR")]
    #[serde(skip)]
    dir: PathBuf,
    /// The format in which the result is printed on standard output
    #[arg(long, value_enum, default_value_t = Output::Table)]
    #[serde(skip)]
    output: Output,
    /// Append the result to this file as well, as one line of JSON
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    append: Option<PathBuf>,
}

/// What Isonomy is compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Against {
    Etcd,
}

/// Measures both in turn and prints the result.
pub(crate) fn run(options: &CompareOptions) -> Result<()> {
    let append = ResultFile::append(options.append.as_deref())?;
    let isonomy = cluster::program(options.isonomy.as_deref())?;
    let version = etcd::version(&options.etcd)?;
    tell_file_system(&options.dir)?;
    let interrupted = signals::watch_end()?;
    let mut systems = vec![System::Etcd, System::Isonomy];
    systems.extend(options.pipelined.then_some(System::Pipelined));
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        for system in &systems {
            say(format_args!("compare: round {round} of {}: {}", options.rounds, system.name()));
            rounds.push(match system {
                System::Etcd => on_etcd(options, &interrupted)?,
                _ => on_isonomy(options, *system, &isonomy, &interrupted)?,
            });
            ensure!(
                !interrupted.load(Ordering::Relaxed),
                "the run was interrupted, and nothing was compared"
            );
        }
    }
    let comparison = Comparison::new(options, Host::here(), version, rounds);
    comparison.publish(options.output, append)
}

/// The load that both get.
fn load_options(options: &CompareOptions, system: System, addresses: &[String]) -> Options {
    let CompareOptions { clients, seconds, warmup, keys, value_bytes, threads, .. } = options;
    let loop_ = if system == System::Pipelined { String::new() } else { format!("--clients {clients}") };
    let arguments = format!(
        "--connect {} --cluster {} {loop_} --seconds {seconds} --warmup {warmup} --keys {keys} --value-bytes {value_bytes} \
         --threads {threads} --progress none",
        addresses.join(","),
        cluster::NAME
    );
    Options::of(&arguments)
}

fn on_etcd(options: &CompareOptions, interrupted: &AtomicBool) -> Result<Round> {
    let etcd = Etcd::start(&options.etcd, &options.dir)?;
    let load = load_options(options, System::Etcd, &["none:1".to_owned()]);
    load::allow_files(options.clients)?;
    let Measurement { recorded, before, after } = etcd.measure(&Arc::new(Plan::new(&load)), interrupted)?;
    let servers = before.0.zip(after.0).map(|(before, after)| after.saturating_sub(before));
    Ok(round(System::Etcd, &recorded, options.seconds as f64, servers, after.1.saturating_sub(before.1)))
}

fn on_isonomy(
    options: &CompareOptions,
    system: System,
    program: &std::path::Path,
    interrupted: &AtomicBool,
) -> Result<Round> {
    let cluster = Cluster::start(program, &options.dir, options.clients)?;
    let load = load_options(options, system, &cluster.addresses);
    let measured = load::measure(&load, interrupted, &cluster.servers.ids())?;
    let connected = measured.recorded.clients_connected;
    ensure!(
        system == System::Pipelined || connected == options.clients,
        "only {connected} of {} clients connected; lower --clients",
        options.clients
    );
    ensure!(measured.durable, "the replicas do not sync what they write; unset `durability`");
    let MeasuredStep { seconds, before, after, .. } =
        *measured.steps.first().context("nothing was measured; measure for more --seconds")?;
    let servers = before.servers_cpu_us.zip(after.servers_cpu_us);
    let servers = servers.map(|(before, after)| after.saturating_sub(before));
    let load_cpu_us = after.load_cpu_us.saturating_sub(before.load_cpu_us);
    Ok(round(system, &measured.recorded, seconds, servers, load_cpu_us))
}

fn round(
    system: System,
    recorded: &Recorded,
    seconds: f64,
    servers_cpu_us: Option<u64>,
    load_cpu_us: u64,
) -> Round {
    let tally = &recorded.steps[0];
    let puts = tally.counts.committed;
    let per_put = |us: u64| (puts > 0).then(|| us as f64 / puts as f64);
    let at = |quantile| (!tally.latency.is_empty()).then(|| tally.latency.value_at_quantile(quantile));
    Round {
        system,
        puts_per_second: puts as f64 / seconds,
        p50_us: at(0.5),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: at(1.0),
        servers_cpu_us_per_put: servers_cpu_us.and_then(per_put),
        load_cpu_us_per_put: per_put(load_cpu_us),
        errors: recorded.errors.values().sum(),
    }
}
