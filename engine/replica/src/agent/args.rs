//! The options of `isonomy agent`.

use crate::fatal::{Fatal, Reason};
use clap::Args;
use isonomy_agent::{Expect, HookSettings, Refused, Settings};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How old what the file shows may be before the agent is not ready, in seconds.
pub(crate) const STALENESS_SECONDS_MAX: u64 = 30;
/// How long a request to the hook may take, in seconds.
pub(crate) const HOOK_TIMEOUT_SECONDS: u64 = 10;
/// How many requests to the hook may be under way at once.
pub(crate) const HOOK_CONCURRENCY: usize = 8;
/// How many decisions for each request at once are read ahead of the hook. So many are posted again after a kill, at most.
const HOOK_AHEAD: usize = 8;

/// `isonomy agent`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  isonomy agent --brokers kafka-1:9092 --file orders.db --metrics 127.0.0.1:9400
  isonomy agent --brokers kafka-1:9092 --file orders.db --hook http://127.0.0.1:8080/decisions --hook-refused skip
  sqlite3 orders.db \"SELECT key, value FROM latest WHERE key = 'order-17'; SELECT * FROM staleness\"

Reads what a cluster has published to Kafka into an SQLite file that has the latest decision of each key. A restart goes on
exactly where the file is. It runs until it is stopped (SIGTERM), and waits for a Kafka that is down. docs/AGENT.md has the tables,
the requests to the hook, and the metrics.")]
pub(crate) struct AgentArgs {
    /// Some brokers of Kafka
    #[arg(long, env = "ISONOMY_AGENT_BROKERS", required = true, value_name = "HOST:PORT,...")]
    brokers: String,
    /// The topic to which the cluster publishes, in either format
    #[arg(long, env = "ISONOMY_AGENT_TOPIC", default_value = "committed", value_name = "NAME")]
    topic: String,
    /// The SQLite file, which is created if there is none
    #[arg(long, env = "ISONOMY_AGENT_FILE", required = true, value_name = "FILE")]
    pub(super) file: PathBuf,
    /// The partitions to read, which are the shards of the cluster [default: all]
    #[arg(long, env = "ISONOMY_AGENT_PARTITIONS", value_delimiter = ',', value_name = "N,...")]
    partitions: Vec<i32>,
    /// Whether the topic has `every` decision, so that a gap is an error, or at least the `latest` of each key, as one that
    /// is compacted
    #[arg(long, env = "ISONOMY_AGENT_EXPECT", default_value = "every", value_name = "WHICH")]
    expect: Expect,
    /// A property of librdkafka, such as `security.protocol=ssl`; may be given again. The variable has one per line
    #[arg(long, env = "ISONOMY_AGENT_RDKAFKA", hide_env_values = true, value_delimiter = '\n', value_parser = property, value_name = "NAME=VALUE")]
    rdkafka: Vec<(String, String)>,
    /// A file with a property of librdkafka on each line, such as a password that no command line shows
    #[arg(long, env = "ISONOMY_AGENT_RDKAFKA_FILE", value_name = "FILE")]
    rdkafka_file: Option<PathBuf>,
    /// How old what the file shows may be before /readyz says that the agent is not ready
    #[arg(long, env = "ISONOMY_AGENT_STALENESS_MAX", default_value_t = STALENESS_SECONDS_MAX, value_name = "SECONDS")]
    staleness_max: u64,
    /// Where /metrics, /livez and /readyz are answered [default: nowhere]
    #[arg(long, env = "ISONOMY_AGENT_METRICS", value_name = "HOST:PORT")]
    pub(super) metrics: Option<String>,
    #[command(flatten)]
    hook: HookArgs,
}

/// The options of the hook.
#[derive(Args, Debug)]
struct HookArgs {
    /// Post each decision to this address, at least once
    #[arg(long, env = "ISONOMY_AGENT_HOOK", value_name = "URL")]
    hook: Option<String>,
    /// How long a request to the hook may take
    #[arg(long, env = "ISONOMY_AGENT_HOOK_TIMEOUT", default_value_t = HOOK_TIMEOUT_SECONDS, value_name = "SECONDS")]
    hook_timeout: u64,
    /// How many requests may be under way at once; those of a key follow each other
    #[arg(long, env = "ISONOMY_AGENT_HOOK_CONCURRENCY", default_value_t = HOOK_CONCURRENCY, value_name = "N")]
    hook_concurrency: usize,
    /// What becomes of a decision that the hook refuses for good (4xx): `stop` the agent, or `skip` it and keep it in a table
    #[arg(long, env = "ISONOMY_AGENT_HOOK_REFUSED", default_value = "stop", value_name = "WHAT")]
    hook_refused: Refused,
    /// A header of each request, such as `Authorization: Bearer ...`; may be given again. The variable has one per line
    #[arg(long, env = "ISONOMY_AGENT_HOOK_HEADERS", hide_env_values = true, value_delimiter = '\n', value_parser = header, value_name = "NAME: VALUE")]
    hook_header: Vec<(String, String)>,
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("give a name and a value as NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("give a name and a value as 'NAME: VALUE'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

impl AgentArgs {
    /// What is read into the table.
    pub(super) fn settings(&self) -> Result<Settings, Fatal> {
        let mut properties = self.rdkafka_file.as_ref().map_or(Ok(BTreeMap::new()), |file| {
            let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
            let found = text.and_then(|text| properties_of(&text));
            found.map_err(|why| {
                Fatal::new(Reason::Config, format!("--rdkafka-file {}: {why}", file.display()))
            })
        })?;
        properties.extend(self.rdkafka.iter().cloned());
        let settings = Settings {
            brokers: self.brokers.clone(),
            topic: self.topic.clone(),
            partitions: (!self.partitions.is_empty()).then(|| self.partitions.iter().copied().collect()),
            expect: self.expect,
            properties,
            ..Settings::default()
        };
        settings.check().map_err(|bad| Fatal::new(Reason::Config, bad.to_string()))?;
        Ok(settings)
    }

    /// How the hook is called, if there is one.
    pub(super) fn hook(&self) -> Option<HookSettings> {
        let HookArgs { hook, hook_timeout, hook_concurrency, hook_refused, hook_header } = &self.hook;
        Some(HookSettings {
            url: hook.clone()?,
            timeout: Duration::from_secs(*hook_timeout),
            concurrency: *hook_concurrency,
            refused: *hook_refused,
            headers: hook_header.iter().cloned().collect(),
        })
    }

    pub(super) fn staleness_max(&self) -> Duration {
        Duration::from_secs(self.staleness_max)
    }
}

/// What is read for the hook: not far ahead of it.
pub(super) fn ahead_of_hook(settings: &Settings, hook: &HookSettings) -> Settings {
    Settings { batch_decisions: HOOK_AHEAD * hook.concurrency, ..settings.clone() }
}

/// The properties of a file: one on each line, besides empty lines and comments.
fn properties_of(text: &str) -> Result<BTreeMap<String, String>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| property(line).map_err(|why| format!("a line is no property; {why}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{FromArgMatches, Parser};

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        agent: AgentArgs,
    }

    fn args(more: &[&str]) -> AgentArgs {
        let usual = ["isonomy", "--brokers", "b:1", "--file", "f.db"];
        let command = <Only as clap::CommandFactory>::command();
        let matches = command.try_get_matches_from(usual.iter().chain(more)).unwrap();
        Only::from_arg_matches(&matches).unwrap().agent
    }

    #[test]
    fn properties_and_headers_are_pairs() {
        let args =
            args(&["--rdkafka", "sasl.password=a=b", "--hook", "http://h", "--hook-header", "X-A: b:c"]);
        assert_eq!(args.settings().unwrap().properties["sasl.password"], "a=b");
        assert_eq!(args.hook().unwrap().headers["X-A"], "b:c");
        assert!(property("a").is_err() && header("a=b").is_err());
    }

    #[test]
    fn a_file_of_properties_has_comments() {
        let properties = properties_of("# secret\n\nsasl.username = u\nsasl.password=p\n").unwrap();
        assert_eq!(
            properties,
            [("sasl.password".into(), "p".into()), ("sasl.username".into(), "u".into())].into()
        );
        let bad = properties_of("sasl.password p").unwrap_err();
        assert!(bad.contains("NAME=VALUE") && !bad.contains("sasl.password p"));
    }

    #[test]
    fn what_reading_rests_on_is_refused_as_configuration() {
        let refused = args(&["--rdkafka", "isolation.level=read_uncommitted"]).settings().unwrap_err();
        assert!(refused.reason == Reason::Config && refused.text().contains("isolation.level"));
    }
}
