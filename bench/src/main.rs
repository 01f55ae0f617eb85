//! Load generator of Isonomy, and the probe of the machine.

mod canonical;
mod cluster;
mod compare;
mod load;
mod options;
mod out;
mod probe;
mod report;
mod servers;

use canonical::CanonicalOptions;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser};
use compare::CompareOptions;
use isonomy_tuning::{environment, file_size};
use options::Options;
use out::{ReaderLeft, say};
use report::Report;
use std::io::Error;
use std::process::ExitCode;

/// Measures an Isonomy cluster, and the machine on which it runs.
#[derive(Parser)]
#[command(name = "isonomy-bench", version)]
enum Cli {
    /// Puts load on a running cluster and reports throughput and latency.
    ///
    /// In a closed loop (`--window`, `--clients`) a fixed number of commands is outstanding. In an open loop (`--rate`,
    /// `--steps`, `--ramp`) each command is due at a fixed time, and its latency counts from that time, however late
    /// the command is sent.
    ///
    /// Exit codes: 0: all requests were answered; 1: the cluster could not be reached, or the report could not be
    /// written; 2: the arguments are wrong; 3: some requests failed, or some clients never connected; 4: an answer
    /// contradicts another (`--verify`).
    #[command(
        after_help = "Example:\n  isonomy-bench load --connect 127.0.0.1:7200 --seconds 10 --rate 200000"
    )]
    Load(Box<Options>),
    /// Measures Isonomy and another system in turn, and starts three servers of each itself.
    ///
    /// Every put is durable on a majority before it is answered. Each round starts both systems on fresh data and
    /// ends their servers.
    #[command(after_help = "Example:\n  isonomy-bench compare --against etcd --clients 1000 --rounds 3")]
    Compare(Box<CompareOptions>),
    /// Starts three replicas on this machine, and measures them under the two loads by which commits are compared.
    ///
    /// Both loads have events of 64 bytes and 1,000,000 keys: a closed loop of 24,576 commands, then an open loop.
    #[command(after_help = "Example:\n  isonomy-bench canonical --append target/bench.jsonl")]
    Canonical(CanonicalOptions),
    /// Measures the most that a cluster could do on this machine.
    ///
    /// Three processes and a load do the I/O of an Isonomy cluster without its protocol: batches are forwarded, synced,
    /// acknowledged and executed. The disk, TCP and memory are measured separately. Exit codes: 0: everything was
    /// measured; 1: a measurement failed; 2: the arguments are wrong.
    #[command(after_help = "Example:\n  isonomy-bench probe --dir /var/lib/isonomy --json probe.json")]
    Probe(probe::ProbeOptions),
    /// Runs one replica of the probe; `isonomy-bench probe` starts it
    #[command(hide = true)]
    ProbeReplica(probe::ReplicaOptions),
}

/// Some requests failed, or some clients never connected.
const EXIT_FAILED_REQUESTS: u8 = 3;
/// An answer contradicts another.
const EXIT_CONTRADICTION: u8 = 4;

fn main() -> ExitCode {
    file_size::outlive_signal();
    let command = Cli::command();
    let matches = environment::ignore_empty(command.clone()).try_get_matches();
    for name in environment::empty_names(&command, matches.as_ref().ok()) {
        say(format_args!(
            "warning: the variable {name} is set but empty, which counts as not set; unset {name}, or give it \
             a value"
        ));
    }
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(told) => return show(&told),
    };
    let result = match cli {
        Cli::Load(options) => {
            if let Err(wrong) = options.check() {
                Cli::command().error(ErrorKind::ValueValidation, wrong).exit();
            }
            load::run(&options).map(|(report, published)| conclude(&report, published))
        }
        Cli::Probe(options) => probe::run(&options).map(|()| ExitCode::SUCCESS),
        Cli::ProbeReplica(options) => probe::run_replica(&options).map(|()| ExitCode::SUCCESS),
        Cli::Compare(options) => compare::run(&options).map(|()| ExitCode::SUCCESS),
        Cli::Canonical(options) => canonical::run(&options).map(|reports| judge_all(&reports)),
    };
    result.unwrap_or_else(tell)
}

/// Shows the help that was asked for, or what is wrong with the command line. Help is a result; a broken standard
/// error changes no code.
fn show(told: &clap::Error) -> ExitCode {
    let is_shown = told.print().is_ok() || told.use_stderr();
    if is_shown { ExitCode::from(told.exit_code() as u8) } else { ExitCode::FAILURE }
}

/// Says what went wrong.
fn tell(error: anyhow::Error) -> ExitCode {
    let remedy = error.chain().find_map(|cause| file_size::remedy(cause.downcast_ref::<Error>()?));
    let remedy = remedy.map_or(String::new(), |remedy| format!("; {remedy}"));
    if !error.is::<ReaderLeft>() {
        say(format_args!("error: {error:#}{remedy}"));
    }
    ExitCode::FAILURE
}

/// The exit code of a run whose report may not have got everywhere. Wrong answers weigh more than that.
fn conclude(report: &Report, published: anyhow::Result<()>) -> ExitCode {
    let judged = judge(report);
    match published.map_err(tell) {
        Err(failed) if judged != ExitCode::from(EXIT_CONTRADICTION) => failed,
        _ => judged,
    }
}

/// The first exit code that is not good, or success.
fn judge_all(reports: &[Report]) -> ExitCode {
    reports.iter().map(judge).find(|code| *code != ExitCode::SUCCESS).unwrap_or(ExitCode::SUCCESS)
}

/// The exit code of a result.
fn judge(report: &Report) -> ExitCode {
    if report.contradictions.is_some_and(|count| count > 0) {
        report.contradictions_told.iter().for_each(|text| say(format_args!("contradiction: {text}")));
        say(
            "the cluster has given answers that cannot all be true; keep its data directories and logs, and \
             report this with the text above",
        );
        return ExitCode::from(EXIT_CONTRADICTION);
    }
    let missing = report.clients_missing();
    if missing > 0 {
        say(format_args!(
            "{missing} clients never connected; raise `connections_max` of the replicas, --warmup or --seconds, or \
             lower --clients"
        ));
    }
    if !report.errors.is_empty() {
        let errors: Vec<_> = report.errors.iter().map(|(name, count)| format!("{count} {name}")).collect();
        say(format_args!(
            "some requests failed: {}; see the replicas' logs and `isonomy status`",
            errors.join(", ")
        ));
    }
    if missing > 0 || !report.errors.is_empty() {
        return ExitCode::from(EXIT_FAILED_REQUESTS);
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_these_exit_codes() {
        let manual = include_str!("../../docs/OPERATIONS.md");
        let codes = format!(
            "{EXIT_FAILED_REQUESTS}: some requests failed, or some clients never connected; {EXIT_CONTRADICTION}: an answer"
        );
        assert!(manual.contains(&codes), "{codes}");
    }
}
