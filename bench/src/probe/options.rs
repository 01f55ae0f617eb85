//! The options of the probe.

use crate::options::Output;
use anyhow::{Result, bail, ensure};
use clap::Args;
use isonomy_tuning::cores;
use isonomy_wire::command::{BATCH_BYTES_MAX, BATCH_COMMANDS_MAX};
use serde::Serialize;
use std::path::PathBuf;

use super::skeleton::words::command_bytes;

/// The most bytes under way at one replica.
const IN_FLIGHT_BYTES_MAX: u64 = 256 << 20;
/// The most keys. Their table takes up to 8 GiB at each replica.
const KEYS_MAX: u64 = 1 << 27;
/// The most shards. Each has three processes.
const SHARDS_MAX: u64 = 64;
/// The longest measurement, in seconds.
const SECONDS_MAX: u64 = 3_600;

/// Options of `probe`. They come back in the report as they were.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct ProbeOptions {
    /// The directory for the logs during the probe: any directory on the disk that is to be measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// The number of commands in a batch
    #[arg(long, value_name = "N", default_value_t = 1024,
          value_parser = clap::value_parser!(u64).range(1..=BATCH_COMMANDS_MAX as u64))]
    pub(crate) batch: u64,
    /// The number of shards of each replica; each is a process, and the keys are divided among the shards
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=SHARDS_MAX))]
    pub(crate) shards: u64,
    /// Closed loop: the number of batches under way at each shard of each replica
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub(crate) in_flight: u64,
    /// The size of each value, in bytes
    #[arg(long, value_name = "N", default_value_t = 48,
          value_parser = clap::value_parser!(u64).range(0..=1 << 20))]
    pub(crate) value_bytes: u64,
    /// The number of keys, of 16 bytes each
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u64).range(1..=KEYS_MAX))]
    pub(crate) keys: u64,
    /// How many seconds to measure each loop
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    pub(crate) seconds: u64,
    /// Run an open loop as well, at this rate in commands per second over all replicas
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) rate: Option<u64>,
    /// The size of each replica's log, which is written again from the beginning when its end is reached
    #[arg(long, value_name = "MIB", default_value_t = 256,
          value_parser = clap::value_parser!(u64).range(16..=1 << 40))]
    pub(crate) log_mib: u64,
    /// Pin the shards and the load to these cores in turn [default: not pinned]
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    pub(crate) cores: Vec<usize>,
    /// The format in which the report is printed on standard output
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Write the report to this file as well, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

impl ProbeOptions {
    /// Checks what the limits of single options do not cover.
    pub(crate) fn check(&self) -> Result<()> {
        let batch_bytes = self.batch * command_bytes(self.value_bytes) as u64;
        ensure!(
            batch_bytes <= BATCH_BYTES_MAX as u64,
            "a batch would have {batch_bytes} bytes, which is more than {BATCH_BYTES_MAX}; lower --batch or \
             --value-bytes"
        );
        let in_flight_bytes = self.shards * self.in_flight * batch_bytes;
        ensure!(
            in_flight_bytes <= IN_FLIGHT_BYTES_MAX,
            "{in_flight_bytes} bytes would be under way at each replica, which is more than \
             {IN_FLIGHT_BYTES_MAX}; lower --in-flight, --shards or --batch"
        );
        match cores::first_unusable(&self.cores) {
            None => Ok(()),
            Some(unknown) => bail!("this process cannot use core {unknown}; choose other --cores"),
        }
    }

    /// How many keys a shard has.
    pub(crate) fn keys_of_shard(&self) -> u64 {
        self.keys.div_ceil(self.shards)
    }

    /// The core of one of the parties that share the machine: each shard's replicas 0 to 2, then the load.
    pub(crate) fn core(&self, party: usize) -> Option<usize> {
        cores::in_turn(&self.cores, party)
    }
}

/// Options of one shard of one replica of the skeleton: the probe gives them to itself.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReplicaOptions {
    /// The number of the replica, 0 to 2
    #[arg(long)]
    pub(crate) id: u8,
    /// The directory of the replica's log
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// See `probe`
    #[arg(long)]
    pub(crate) value_bytes: u64,
    /// See `probe`
    #[arg(long)]
    pub(crate) keys: u64,
    /// See `probe`
    #[arg(long)]
    pub(crate) log_mib: u64,
    /// The core to which the replica is pinned
    #[arg(long)]
    pub(crate) core: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct ProbeCli {
        #[command(flatten)]
        options: ProbeOptions,
    }

    fn parsed(arguments: &str) -> ProbeOptions {
        ProbeCli::parse_from(["probe"].into_iter().chain(arguments.split_whitespace())).options
    }

    #[test]
    fn what_is_too_much_is_refused_with_a_remedy() {
        assert!(parsed("").check().is_ok());
        for (arguments, remedy) in [
            ("--batch 65536 --value-bytes 100", "lower --batch"),
            ("--in-flight 65536", "lower --in-flight"),
            ("--cores 0,9999", "choose other --cores"),
        ] {
            let error = parsed(arguments).check().unwrap_err().to_string();
            assert!(error.contains(remedy), "{error}");
        }
    }
}
