//! The options of the user.

use crate::load::shape::{Distribution, Ramp};
use clap::{Args, FromArgMatches, ValueEnum};
use isonomy_wire::command::VALUE_BYTES_MAX;
use isonomy_wire::conversation::{Config, FRAME_COMMANDS_MAX, Routing};
use isonomy_wire::id::ClusterId;
use serde::{Serialize, Serializer};
use std::path::PathBuf;

/// Commands outstanding in a closed loop unless told otherwise.
const WINDOW: u64 = 24 * 1024;
/// Most commands outstanding, and so the most of an open loop that falls behind.
pub(crate) const WINDOW_MAX: u64 = 1 << 20;
/// Most commands per second.
pub(crate) const RATE_MAX: u64 = 100_000_000;
/// Longest time to measure, and to warm up, in seconds.
pub(crate) const SECONDS_MAX: u64 = 43_200;
/// Most threads.
const THREADS_MAX: u64 = 64;
/// Most clients, with a connection each.
const CLIENTS_MAX: u64 = 20_000;
/// Most rates one after the other.
const STEPS_MAX: usize = 64;
/// The most keys of which the answers are remembered.
pub(crate) const KEYS_KNOWN_MAX: u64 = 1 << 22;
/// Frames of a lane under way: enough for any window.
const FRAMES_IN_FLIGHT: usize = 64;
/// The most bytes that a command takes in a frame besides key and value.
const COMMAND_BYTES: usize = 16;

/// An id as it is shown everywhere.
fn as_text<S: Serializer>(id: &Option<ClusterId>, serializer: S) -> Result<S::Ok, S::Error> {
    id.map(|id| id.to_string()).serialize(serializer)
}

/// Options of `load`. They come back in the report as they were.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct Options {
    /// The addresses of one or more replicas, each with the client port of shard 0; these replicas name the others
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', required = true, env = "ISONOMY_CONNECT")]
    pub(crate) connect: Vec<String>,
    /// Talk only to members of this cluster, named by its name or by the id that `isonomy status` shows
    #[arg(long, value_name = "NAME|ID", env = "ISONOMY_CLUSTER")]
    #[serde(serialize_with = "as_text")]
    pub(crate) cluster: Option<ClusterId>,
    /// Closed loop: the number of commands outstanding, over all threads [default: 24576]
    #[arg(long, value_name = "N", conflicts_with = "rate",
          value_parser = clap::value_parser!(u64).range(1..=WINDOW_MAX))]
    pub(crate) window: Option<u64>,
    /// Open loop: the rate in commands per second, over all threads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    pub(crate) rate: Option<u64>,
    /// Open loop: these rates one after the other, each for `--seconds` and each with its own result
    #[arg(long, value_name = "RATE,...", value_delimiter = ',', conflicts_with_all = ["rate", "window"],
          value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    pub(crate) steps: Vec<u64>,
    /// Open loop: a rate that changes evenly within `--seconds`, with a result for each tenth of that time
    #[arg(long, value_name = "FROM:TO", conflicts_with_all = ["rate", "window", "steps"])]
    pub(crate) ramp: Option<Ramp>,
    /// Closed loop: the number of small clients, over all threads; each is connected to one replica (replicas are
    /// taken in turn) and has one command at a time outstanding
    #[arg(long, value_name = "N", conflicts_with_all = ["window", "routing", "batch"],
          value_parser = clap::value_parser!(u64).range(1..=CLIENTS_MAX))]
    pub(crate) clients: Option<u64>,
    /// How many seconds to measure; with `--steps`, how many seconds to measure each rate
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    pub(crate) seconds: u64,
    /// How many seconds of load come before the measurement and do not count
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=SECONDS_MAX))]
    pub(crate) warmup: u64,
    /// The number of keys, of 16 bytes each
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    pub(crate) keys: u64,
    /// How often each key comes: uniform, zipf:THETA with THETA above 0 and up to 10, or hot:N:SHARE, where N keys
    /// get SHARE percent of the commands
    #[arg(long, default_value = "uniform")]
    pub(crate) distribution: Distribution,
    /// The share of commands that read a key
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) reads: u8,
    /// The share of commands that decide a key only if its latest decision is the last one that the load knows
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) decide_ifs: u8,
    /// The size of each value, in bytes
    #[arg(long, value_name = "N", default_value_t = 48,
          value_parser = clap::value_parser!(u64).range(0..=VALUE_BYTES_MAX as u64))]
    pub(crate) value_bytes: u64,
    /// The choice of the replica for a command: the home of the command's key, or all replicas in turn
    #[arg(long, value_enum, default_value_t = RoutingOption::Home)]
    pub(crate) routing: RoutingOption,
    /// The largest number of commands in a request frame
    #[arg(long, value_name = "N", default_value_t = 1024,
          value_parser = clap::value_parser!(u64).range(1..=FRAME_COMMANDS_MAX as u64))]
    pub(crate) batch: u64,
    /// How long a command may take before the load gives the command up and counts an error
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    pub(crate) deadline: u64,
    /// The number of threads, each with connections of its own
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=THREADS_MAX))]
    pub(crate) threads: u64,
    /// Pin thread i to core N + i
    #[arg(long, value_name = "N")]
    pub(crate) core: Option<usize>,
    /// The seed of the keys and of the mix of commands
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Check every answer against all earlier answers; no other client may delete keys during the run
    #[arg(long)]
    pub(crate) verify: bool,
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) results: Results,
}

/// Where the figures go.
#[derive(Args, Clone, Debug)]
pub(crate) struct Results {
    /// The format in which the result is printed on standard output
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Write the latencies to this file as well, in the percentile format of HdrHistogram
    #[arg(long, value_name = "FILE")]
    pub(crate) hgrm: Option<PathBuf>,
    /// Write a page with charts to this file as well; the page loads nothing from other places
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Compare the result with the limits of this machine, which this file of `isonomy-bench probe --json` holds
    #[arg(long, value_name = "FILE")]
    pub(crate) probe: Option<PathBuf>,
    /// Append the result to this file as well, as one line of JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) append: Option<PathBuf>,
    /// The progress that is shown on standard error; a bar needs a terminal
    #[arg(long, value_enum, default_value_t = Progress::Bar, num_args = 0..=1,
          default_missing_value = "bar")]
    pub(crate) progress: Progress,
}

impl Options {
    /// Commands outstanding per thread: the window of a closed loop, the bound of an open one.
    pub(crate) fn window_per_thread(&self) -> usize {
        let window = if self.is_open() { WINDOW_MAX } else { self.window.unwrap_or(WINDOW) };
        window.div_ceil(self.threads) as usize
    }

    fn is_open(&self) -> bool {
        self.rate.is_some() || self.ramp.is_some() || !self.steps.is_empty()
    }

    /// The options that these arguments of `load` give; they must be right.
    pub(crate) fn of(arguments: &str) -> Options {
        let command = Options::augment_args(clap::Command::new("load").no_binary_name(true));
        let matches = command.get_matches_from(arguments.split_whitespace());
        let options = Options::from_arg_matches(&matches).expect("the arguments were just parsed");
        options.check().expect("the arguments go together");
        options
    }

    /// How many of the clients belong to a thread.
    pub(crate) fn clients_of(&self, thread: u64) -> Option<u64> {
        let clients = self.clients?;
        Some(clients / self.threads + u64::from(thread < clients % self.threads))
    }

    /// Whether the answers about each key must be remembered.
    pub(crate) fn is_tracked(&self) -> bool {
        self.verify || self.decide_ifs > 0
    }

    /// Checks the options together. The error says what is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.reads + self.decide_ifs > 100 {
            return Err(
                "--reads and --decide-ifs are more than 100 percent together; lower one of the two".into()
            );
        }
        if self.steps.len() > STEPS_MAX {
            return Err(format!("--steps has more than {STEPS_MAX} rates; leave some rates out"));
        }
        if let Distribution::Hot { keys, .. } = self.distribution
            && keys >= self.keys
        {
            return Err(format!("--distribution hot:{keys} needs more --keys than {keys}"));
        }
        if self.is_tracked() && self.keys > KEYS_KNOWN_MAX {
            return Err(format!(
                "--verify and --decide-ifs remember each key; lower --keys to {KEYS_KNOWN_MAX}"
            ));
        }
        if self.clients.is_some_and(|clients| clients < self.threads) {
            return Err("there are more --threads than --clients; lower --threads".into());
        }
        Ok(())
    }

    /// The settings of a thread's conversation.
    pub(crate) fn conversation(&self, replicas: u8, shards: u16) -> Config {
        let mut config = Config::new(replicas, shards);
        let command = crate::load::workload::KEY_BYTES + self.value_bytes as usize + COMMAND_BYTES;
        config.routing = match self.routing {
            RoutingOption::Home => Routing::Home,
            RoutingOption::Any => Routing::Any,
        };
        config.deadline_us = 1_000_000 * self.deadline;
        config.frame_commands = self.batch as usize;
        // `--batch` decides, unless values are large.
        config.frame_bytes = (config.frame_commands * command).clamp(config.frame_bytes, 1 << 20);
        config.frames_in_flight = FRAMES_IN_FLIGHT;
        config.commands_max = self.window_per_thread();
        config.bytes_max = 1 << 30;
        config
    }
}

/// See [`Routing`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RoutingOption {
    Home,
    Any,
}

/// What goes to stdout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Output {
    /// A table for people
    Table,
    /// One JSON object, whose names are a contract
    Json,
}

/// What goes to stderr.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Progress {
    /// A bar, if standard error is a terminal
    Bar,
    /// A line per second
    Plain,
    /// No progress
    None,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct LoadCli {
        #[command(flatten)]
        options: Options,
    }

    /// The options that these arguments give, besides a place to connect to.
    pub(crate) fn parsed(arguments: &str) -> Options {
        let arguments = ["load", "--connect", "h:1"].into_iter().chain(arguments.split_whitespace());
        LoadCli::parse_from(arguments).options
    }

    #[test]
    fn a_window_is_shared_by_the_threads_and_a_batch_fits_its_frame() {
        assert_eq!(parsed("--window 10 --threads 4").window_per_thread(), 3);
        let config = parsed("--batch 2048 --routing any --deadline 60").conversation(3, 1);
        assert_eq!((config.frame_commands, config.routing), (2048, Routing::Any));
        assert_eq!(config.deadline_us, 60_000_000);
        assert!(config.frame_bytes >= 2048 * (16 + 48 + 8));
        let large = parsed("--value-bytes 1048576").conversation(3, 1);
        assert_eq!(large.frame_bytes, 1 << 20);
        let wrong = LoadCli::try_parse_from("load --connect h:1 --rate 5 --window 5".split(' '));
        assert!(wrong.is_err_and(|error| error.to_string().contains("--window")));
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_what_to_do() {
        for (arguments, advice) in [
            ("--reads 60 --decide-ifs 50", "lower one"),
            ("--distribution hot:10:90 --keys 10", "needs more --keys"),
            ("--verify --keys 5000000", "lower --keys"),
            ("--decide-ifs 1 --keys 5000000", "lower --keys"),
            ("--clients 2 --threads 3", "lower --threads"),
        ] {
            let error = parsed(arguments).check().unwrap_err();
            assert!(error.contains(advice), "{error}");
        }
        parsed("--reads 50 --decide-ifs 50 --verify --clients 5").check().unwrap();
    }

    #[test]
    fn clients_are_shared_by_the_threads() {
        let options = parsed("--clients 10 --threads 4");
        assert_eq!([0, 1, 2, 3].map(|thread| options.clients_of(thread)), [3, 3, 2, 2].map(Some));
        assert_eq!(parsed("").clients_of(0), None);
    }
}
