//! Load generator of Isonomy.

mod load;
mod options;
mod record;
mod report;
mod status;
mod wires;
mod worker;
mod workload;

use clap::Parser;
use options::Options;
use std::process::ExitCode;

/// Measures an Isonomy cluster.
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
}

/// Some requests failed.
const EXIT_FAILED_REQUESTS: u8 = 3;

fn main() -> ExitCode {
    let Cli::Load(options) = Cli::parse();
    match load::run(&options) {
        Ok(report) if report.errors.is_empty() => ExitCode::SUCCESS,
        Ok(report) => {
            let errors: Vec<_> =
                report.errors.iter().map(|(name, count)| format!("{count} {name}")).collect();
            eprintln!("some requests failed: {}; see the replicas' logs and status", errors.join(", "));
            ExitCode::from(EXIT_FAILED_REQUESTS)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
