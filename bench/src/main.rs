//! Load generator of Isonomy, and the probe of the machine.

mod load;
mod options;
mod probe;
mod record;
mod report;
mod status;
mod wires;
mod worker;
mod workload;

use clap::Parser;
use options::Options;
use std::process::ExitCode;

/// Measures an Isonomy cluster, and the machine below it.
#[derive(Parser)]
#[command(name = "isonomy-bench", version)]
enum Cli {
    /// Puts load on a running cluster and reports throughput and latency.
    ///
    /// In a closed loop (`--window`) a fixed number of commands is outstanding. In an open loop
    /// (`--rate`) commands are due at fixed times, and the latency of each counts from when it
    /// was due, however late it was sent.
    ///
    /// Exit codes: 0 all requests were answered; 1 the cluster could not be reached or the
    /// report not written; 2 the arguments are wrong; 3 some requests failed.
    #[command(
        after_help = "Example:\n  isonomy-bench load --connect 127.0.0.1:7200 --seconds 10 --rate 200000"
    )]
    Load(Options),
    /// Measures this machine: what a cluster could do here at most.
    ///
    /// Three processes and a load do the I/O of an Isonomy cluster without its protocol: batches
    /// are forwarded, synced, acknowledged and executed. The disk and TCP are measured by
    /// themselves. Exit codes: 0 all was measured; 1 something failed; 2 the arguments are wrong.
    #[command(after_help = "Example:\n  isonomy-bench probe --dir /var/lib/isonomy --json probe.json")]
    Probe(probe::Options),
    /// One replica of the probe, which starts it
    #[command(hide = true)]
    ProbeReplica(probe::ReplicaOptions),
}

/// Some requests failed.
const EXIT_FAILED_REQUESTS: u8 = 3;

fn main() -> ExitCode {
    match Cli::parse() {
        Cli::Load(options) => load(&options),
        Cli::Probe(options) => finish(probe::run(&options)),
        Cli::ProbeReplica(options) => finish(probe::run_replica(&options)),
    }
}

fn finish(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn load(options: &Options) -> ExitCode {
    match load::run(options) {
        Ok(report) if report.errors.is_empty() => ExitCode::SUCCESS,
        Ok(report) => {
            let errors: Vec<_> =
                report.errors.iter().map(|(name, count)| format!("{count} {name}")).collect();
            eprintln!("some requests failed: {}; see the replicas' logs and status", errors.join(", "));
            ExitCode::from(EXIT_FAILED_REQUESTS)
        }
        Err(error) => finish(Err(error)),
    }
}
