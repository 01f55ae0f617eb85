//! Load generator of Isonomy.

mod crowd;
mod generator;
mod ledger;
mod load;
mod options;
mod record;
mod report;
mod schedule;
mod series;
mod shape;
mod socket;
mod status;
mod wires;
mod worker;
mod workload;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use options::Options;
use report::Report;
use std::process::ExitCode;

/// Measures an Isonomy cluster.
#[derive(Parser)]
#[command(name = "isonomy-bench", version)]
enum Cli {
    /// Puts load on a running cluster and reports throughput and latency.
    ///
    /// In a closed loop (`--window`, `--clients`) a fixed number of commands is outstanding. In an
    /// open loop (`--rate`, `--steps`, `--ramp`) commands are due at fixed times, and the latency
    /// of each counts from when it was due, however late it was sent.
    ///
    /// Exit codes: 0 all requests were answered; 1 the cluster could not be reached or the
    /// report not written; 2 the arguments are wrong; 3 some requests failed; 4 an answer
    /// contradicts another (`--verify`).
    #[command(
        after_help = "Example:\n  isonomy-bench load --connect 127.0.0.1:7200 --seconds 10 --rate 200000"
    )]
    Load(Box<Options>),
}

/// Some requests failed.
const EXIT_FAILED_REQUESTS: u8 = 3;
/// An answer contradicts another.
const EXIT_CONTRADICTION: u8 = 4;

fn main() -> ExitCode {
    let result = match Cli::parse() {
        Cli::Load(options) => {
            if let Err(wrong) = options.check() {
                Cli::command().error(ErrorKind::ValueValidation, wrong).exit();
            }
            load::run(&options).map(|report| judge(&report))
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// What the exit code says of a result.
fn judge(report: &Report) -> ExitCode {
    if report.contradictions.is_some_and(|count| count > 0) {
        report.contradictions_told.iter().for_each(|text| eprintln!("contradiction: {text}"));
        eprintln!(
            "the cluster has given answers that cannot all be true; keep its data directories and logs, and \
             report this with the text above"
        );
        return ExitCode::from(EXIT_CONTRADICTION);
    }
    if !report.errors.is_empty() {
        let errors: Vec<_> = report.errors.iter().map(|(name, count)| format!("{count} {name}")).collect();
        eprintln!("some requests failed: {}; see the replicas' logs and status", errors.join(", "));
        return ExitCode::from(EXIT_FAILED_REQUESTS);
    }
    ExitCode::SUCCESS
}
