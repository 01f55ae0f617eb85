//! `canonical`: the two loads that commits are compared by, on a cluster started for them.

use crate::cluster::{self, Cluster};
use crate::load;
use crate::options::{Options, Output, SECONDS_MAX};
use crate::out::{self, ResultFile, say};
use crate::probe::tell_file_system;
use crate::report::{Host, Report, commit, probe_file};
use anyhow::{Result, ensure};
use clap::Args;
use isonomy_tuning::signals;
use serde_json::json;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// Options of `canonical`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CanonicalOptions {
    /// How many seconds to measure each load
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,
    /// The rate of the open loop, in commands per second
    #[arg(long, default_value_t = 1_500_000,
          value_parser = clap::value_parser!(u64).range(1..=crate::options::RATE_MAX))]
    rate: u64,
    /// The path of the isonomy program [default: the program beside this one]
    #[arg(long, value_name = "PATH")]
    isonomy: Option<PathBuf>,
    /// The directory in which new directories for the data are made and removed again
    #[arg(long, default_value = "/var/tmp", value_name = "DIR")]
    dir: PathBuf,
    /// Compare the result with the limits of this machine, which this file of `isonomy-bench probe --json` holds
    #[arg(long, value_name = "FILE")]
    probe: Option<PathBuf>,
    /// The format in which the result is printed on standard output
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Append the result to this file as well, as one line of JSON
    #[arg(long, value_name = "FILE")]
    append: Option<PathBuf>,
}

/// Runs both loads; the closed loop first.
pub(crate) fn run(options: &CanonicalOptions) -> Result<Vec<Report>> {
    let program = cluster::program(options.isonomy.as_deref())?;
    let append = ResultFile::append(options.append.as_deref())?;
    let probe = options.probe.as_deref().map(probe_file::read).transpose()?;
    tell_file_system(&options.dir)?;
    let interrupted = signals::watch_end()?;
    let (mut reports, mut printed) = (Vec::new(), Ok(()));
    for (name, shape) in [("closed loop", String::new()), ("open loop", format!("--rate {}", options.rate))] {
        // Each load gets a fresh cluster, so that it finds nothing that the other has left.
        let cluster = Cluster::start(&program, &options.dir, 0)?;
        say(format_args!("canonical: {name}, {} s", options.seconds));
        let arguments = format!(
            "--connect {} --cluster {} --seconds {} {shape}",
            cluster.addresses.join(","),
            cluster::NAME,
            options.seconds
        );
        let load = Options { core: cluster::core_of(cluster::REPLICAS), ..Options::of(&arguments) };
        let measured = load::measure(&load, &interrupted, &[])?;
        ensure!(!interrupted.load(Ordering::Relaxed), "the run was interrupted, and nothing was written");
        let report = Report::new(&load, Host::here(), &measured, probe);
        if options.output == Output::Table {
            printed = printed.and(out::print(format_args!("{name}\n{}\n", report.table())));
        }
        reports.push(report);
    }
    let line = json!({
        "commit": commit(),
        "probe_decisions_per_second": probe,
        "closed_loop": reports[0],
        "open_loop": reports[1],
    });
    if options.output == Output::Json {
        printed = out::print(format_args!("{line}\n"));
    }
    printed.and(append.map_or(Ok(()), |mut file| file.write(format!("{line}\n").as_bytes())))?;
    Ok(reports)
}
