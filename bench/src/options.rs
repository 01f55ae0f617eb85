//! What the user asks for.

use clap::{Args, ValueEnum};
use isonomy_wire::command::VALUE_BYTES_MAX;
use isonomy_wire::session::{Config, FRAME_COMMANDS_MAX, Routing};
use serde::{Serialize, Serializer};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

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
/// Frames of a lane under way: enough for any window.
const FRAMES_IN_FLIGHT: usize = 64;
/// What a command takes in a frame besides key and value, in bytes, at most.
const COMMAND_BYTES: usize = 16;

/// Options of `load`. They come back in the report as they were.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct Options {
    /// Client ports of shard 0 of any replicas; they name the others
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', required = true, env = "ISONOMY_CONNECT")]
    pub(crate) connect: Vec<String>,
    /// Closed loop: commands outstanding, over all threads [default: 24576]
    #[arg(long, value_name = "N", conflicts_with = "rate",
          value_parser = clap::value_parser!(u64).range(1..=WINDOW_MAX))]
    pub(crate) window: Option<u64>,
    /// Open loop: commands per second, over all threads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    pub(crate) rate: Option<u64>,
    /// How long to measure
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    pub(crate) seconds: u64,
    /// Seconds before that, which do not count
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=SECONDS_MAX))]
    pub(crate) warmup: u64,
    /// How many keys there are, of 16 bytes each
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    pub(crate) keys: u64,
    /// How often each key comes: uniform, or zipf:THETA with THETA above 0
    #[arg(long, default_value = "uniform")]
    pub(crate) distribution: Distribution,
    /// Share of reads
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) reads: u8,
    /// The size of each value
    #[arg(long, value_name = "N", default_value_t = 48,
          value_parser = clap::value_parser!(u64).range(0..=VALUE_BYTES_MAX as u64))]
    pub(crate) value_bytes: u64,
    /// Which replica gets a command: its key's home, or one after the other
    #[arg(long, value_enum, default_value_t = RoutingOption::Home)]
    pub(crate) routing: RoutingOption,
    /// Most commands in a request frame
    #[arg(long, value_name = "N", default_value_t = 1024,
          value_parser = clap::value_parser!(u64).range(1..=FRAME_COMMANDS_MAX as u64))]
    pub(crate) batch: u64,
    /// How long a command may take before it is given up and counted as an error
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    pub(crate) deadline: u64,
    /// Threads, each with connections of its own
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=THREADS_MAX))]
    pub(crate) threads: u64,
    /// Pin thread i to core N + i
    #[arg(long, value_name = "N")]
    pub(crate) core: Option<usize>,
    /// Seed of keys and of the mix of reads
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// What to print on stdout
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Also write the latencies as an HdrHistogram percentile file
    #[arg(long, value_name = "FILE")]
    pub(crate) hgrm: Option<PathBuf>,
    /// What to show on stderr meanwhile; a bar needs a terminal
    #[arg(long, value_enum, default_value_t = Progress::Bar, num_args = 0..=1,
          default_missing_value = "bar")]
    pub(crate) progress: Progress,
}

impl Options {
    /// Commands outstanding per thread: the window of a closed loop, the bound of an open one.
    pub(crate) fn window_per_thread(&self) -> usize {
        let window = if self.rate.is_some() { WINDOW_MAX } else { self.window.unwrap_or(WINDOW) };
        window.div_ceil(self.threads) as usize
    }

    /// How a thread's session behaves.
    pub(crate) fn session(&self, replicas: u8, shards: u16) -> Config {
        let mut config = Config::new(replicas, shards);
        let command = crate::workload::KEY_BYTES + self.value_bytes as usize + COMMAND_BYTES;
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

/// How often each key comes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Distribution {
    /// All alike.
    Uniform,
    /// The n-th key as often as n to the power of minus theta.
    Zipf(f64),
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Distribution, String> {
        let wrong =
            || format!("{text:?} is neither `uniform` nor `zipf:THETA` with THETA above 0 and up to 10");
        match text.split_once(':') {
            None if text == "uniform" => Ok(Distribution::Uniform),
            Some(("zipf", theta)) => match theta.parse() {
                Ok(theta) if theta > 0.0 && theta <= 10.0 => Ok(Distribution::Zipf(theta)),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Distribution::Uniform => write!(f, "uniform"),
            Distribution::Zipf(theta) => write!(f, "zipf:{theta}"),
        }
    }
}

impl Serialize for Distribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
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
    /// For people.
    Table,
    /// One object; its names are a contract.
    Json,
}

/// What goes to stderr.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Progress {
    /// A bar, if stderr is a terminal.
    Bar,
    /// A line per second.
    Plain,
    /// Nothing.
    None,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    /// The options that these arguments give, besides a place to connect to.
    pub(crate) fn parsed(arguments: &str) -> Options {
        let arguments = ["load", "--connect", "h:1"].into_iter().chain(arguments.split_whitespace());
        Cli::parse_from(arguments).options
    }

    #[test]
    fn a_window_is_shared_by_the_threads_and_a_batch_fits_its_frame() {
        assert_eq!(parsed("--window 10 --threads 4").window_per_thread(), 3);
        let config = parsed("--batch 2048 --routing any --deadline 60").session(3, 1);
        assert_eq!((config.frame_commands, config.routing), (2048, Routing::Any));
        assert_eq!(config.deadline_us, 60_000_000);
        assert!(config.frame_bytes >= 2048 * (16 + 48 + 8));
        let large = parsed("--value-bytes 1048576").session(3, 1);
        assert_eq!(large.frame_bytes, 1 << 20);
        let wrong = Cli::try_parse_from("load --connect h:1 --rate 5 --window 5".split(' '));
        assert!(wrong.is_err_and(|error| error.to_string().contains("--window")));
    }

    #[test]
    fn distributions_are_written_as_they_are_read() {
        for text in ["uniform", "zipf:0.99", "zipf:2"] {
            assert_eq!(text.parse::<Distribution>().unwrap().to_string(), text);
        }
        for text in ["", "zipf", "zipf:", "zipf:0", "zipf:-1", "zipf:nan", "normal"] {
            assert!(text.parse::<Distribution>().unwrap_err().contains("zipf:THETA"));
        }
    }
}
