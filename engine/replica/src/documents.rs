//! What the documents say of limits, deadlines and exit codes is what the code has.

use crate::agent::{HOOK_CONCURRENCY, HOOK_TIMEOUT_SECONDS, STALENESS_SECONDS_MAX};
use crate::backup::TAKE_SECONDS;
use crate::config::publish::{BACKLOG_MIB, RETAIN_MIB};
use crate::config::{CONNECTIONS_MAX, LOG_BUDGET_MIB, LOG_BUDGET_MIB_MIN};
use crate::fatal::Reason;
use crate::propose::{DEADLINE_SECONDS, LINES_BYTES_MAX, LINES_MAX};
use clap::CommandFactory;
use isonomy_control::tuning::Name;
use isonomy_doors::status::tuning_to_json;
use isonomy_kafka::Error as KafkaError;
use isonomy_kafka::consumer::{ConsumerSettings, Poison};
use isonomy_kafka::cursor::{Cursor, TopicId};
use isonomy_kafka::outbox::Lacking;
use isonomy_kafka::settings::Settings as KafkaSettings;
use isonomy_protocol::limits::{
    HUNG_AFTER_US, PENDING_BYTES_MAX, PENDING_REQUESTS_MAX, SESSION_RESULT_BYTES_MAX, SOURCES_MAX,
    UNAVAILABLE_AFTER_US,
};
use isonomy_shard::data_dir::RESTART_PATIENCE;
use isonomy_shard::{CLIENT_PATIENCE, PEER_PATIENCE};
use isonomy_wire::answer::VALUES_BYTES_MAX;
use isonomy_wire::client::connection::{CONNECT_TIMEOUT, STATUS_TIMEOUT};
use isonomy_wire::client::{RECONNECT_PAUSE_MAX, RECONNECT_PAUSE_MIN};
use isonomy_wire::command::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use isonomy_wire::conversation::Config;
use isonomy_wire::id::{ClusterId, REPLICAS_MAX, SHARDS_MAX, ShardId};
use isonomy_wire::source::SOURCE_NAME_BYTES_MAX;
use isonomy_wire::tuning::Tuning;

const OPERATIONS: &str = include_str!("../../../docs/OPERATIONS.md");
const KAFKA: &str = include_str!("../../../docs/KAFKA.md");
const README: &str = include_str!("../../../README.md");
const AGENT: &str = include_str!("../../../docs/AGENT.md");

/// The rows of the table below this heading of docs/OPERATIONS.md, without its head.
fn rows(heading: &str) -> Vec<&'static str> {
    rows_of(OPERATIONS, heading)
}

/// The rows of the table below this heading of a document, without its head.
fn rows_of(document: &'static str, heading: &str) -> Vec<&'static str> {
    let text = document.split_once(&format!("\n{heading}\n")).expect(heading).1;
    let table =
        text.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    table.skip(2).collect()
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

fn assert_table(heading: &str, expected: &[(&str, String)]) {
    let found: Vec<_> =
        rows(heading).into_iter().map(|row| (cells(row)[0], cells(row)[1].to_owned())).collect();
    assert_eq!(found, expected, "{heading} of docs/OPERATIONS.md");
}

/// 65536 as 65,536.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    String::from_utf8(groups.join(&b',')).expect("digits are ASCII")
}

fn mib(bytes: usize) -> String {
    assert_eq!(bytes % (1 << 20), 0);
    format!("{} MiB", bytes >> 20)
}

fn seconds(micros: u64) -> String {
    format!("{} s", micros as f64 / 1e6)
}

#[test]
fn the_keys_of_consume_have_the_documented_defaults() {
    let ConsumerSettings { topic, dead_letter_topic, .. } = ConsumerSettings::default();
    assert_eq!(dead_letter_topic, format!("{topic}-dlq"));
    assert_table(
        "## Consuming proposals",
        &[
            ("`brokers`", String::new()),
            ("`topic`", format!("`{topic}`")),
            ("`dead_letter_topic`", "`TOPIC-dlq`".into()),
            ("`group`", "`isonomy-CLUSTER-ID`".into()),
            ("`rdkafka`", String::new()),
        ],
    );
}

#[test]
fn each_kind_of_dead_letter_is_documented() {
    let kinds = [Poison::NoKey, Poison::KeyTooLong(0), Poison::ValueTooLong(0)];
    let table = rows_of(KAFKA, "## Proposals from a topic");
    let documented = |name: &str| table.iter().any(|row| row.contains(&format!("dead letter, `{name}`")));
    assert_eq!(table.iter().filter(|row| row.contains("dead letter,")).count(), kinds.len());
    assert!(kinds.iter().all(|kind| documented(kind.name())));
}

#[test]
fn the_keys_of_publish_have_the_documented_defaults() {
    let KafkaSettings {
        topic, cursor_topic, format, batch_bytes, batch_time, replicas_min, insync_min, ..
    } = KafkaSettings::default();
    assert_table(
        "## Publishing decisions",
        &[
            ("`to`", "nowhere".into()),
            ("`retain_mib`", RETAIN_MIB.to_string()),
            ("`backlog_mib`", BACKLOG_MIB.to_string()),
            ("`brokers`", String::new()),
            ("`topic`, `cursor_topic`", format!("`{topic}`, `{cursor_topic}`")),
            ("`format`", format!("`\"{format}\"`")),
            ("`batch_kib`, `batch_ms`", format!("{}, {}", batch_bytes >> 10, batch_time.as_millis())),
            ("`replicas_min`, `insync_min`", format!("{replicas_min}, {insync_min}")),
            ("`rdkafka`", String::new()),
        ],
    );
}

/// Each trouble with Kafka names the command of the table, with the arguments that it takes.
#[test]
fn the_commands_that_errors_name_are_documented_and_exist() {
    let (shard, cluster, topic) = (ShardId(2), ClusterId(7), || "t".to_owned());
    let there = Box::new(Cursor::nothing(ClusterId(8), shard, TopicId::default()));
    let partition = 2;
    let errors = [
        KafkaError::Replaced { topic: topic(), cursor: there.clone() }.to_string(),
        KafkaError::Truncated { topic: topic(), partition, end: 1, reached: 2 }.to_string(),
        KafkaError::NoCursor { topic: topic(), partition }.to_string(),
        Lacking { shard, barrier: 3 }.to_string(),
        KafkaError::Owned { topic: topic(), cluster, shard, there }.to_string(),
    ];
    let rows = rows_of(KAFKA, "## When a shard cannot be published");
    assert_eq!(rows.len(), errors.len());
    for (error, row) in errors.iter().zip(rows) {
        let words = error[error.rfind("isonomy publish").expect("a command")..].split([' ', ',']);
        let words: Vec<&str> = words.take_while(|word| !["or", ""].contains(word)).collect();
        crate::Cli::command().try_get_matches_from(&words).unwrap_or_else(|bad| panic!("{words:?}: {bad}"));
        let documented = cells(row)[1].trim_matches('`').replace('N', "2");
        assert_eq!(words.join(" "), documented.replace("CLUSTER", &ClusterId(8).to_string()));
    }
}

#[test]
fn the_limits_are_those_of_the_code() {
    let conversation = Config::new(3, 1);
    assert_table(
        "### Limits",
        &[
            ("a key", format!("1 to {} bytes", grouped(KEY_BYTES_MAX as u64))),
            ("a value, and a line of an import", format!("up to {} bytes", grouped(VALUE_BYTES_MAX as u64))),
            ("replicas of a cluster", format!("1 to {REPLICAS_MAX}")),
            ("shards of a cluster", format!("1 to {SHARDS_MAX}")),
            ("client connections of a shard", grouped(CONNECTIONS_MAX.into())),
            ("log of a shard", format!("{} MiB, at least {LOG_BUDGET_MIB_MIN}", grouped(LOG_BUDGET_MIB))),
            (
                "requests that wait at a shard",
                format!("{}, and {}", grouped(PENDING_REQUESTS_MAX as u64), mib(PENDING_BYTES_MAX)),
            ),
            ("answers that a shard keeps for a client's retries", mib(SESSION_RESULT_BYTES_MAX)),
            ("values in one response", mib(VALUES_BYTES_MAX)),
            (
                "commands of one client without an answer",
                format!("{}, and {}", grouped(conversation.commands_max as u64), mib(conversation.bytes_max)),
            ),
            (
                "sources that a shard knows",
                format!("{}, with names of up to {SOURCE_NAME_BYTES_MAX} bytes", grouped(SOURCES_MAX as u64)),
            ),
            (
                "lines of an import under way",
                format!(
                    "{}, and {} of lines that were read",
                    grouped(LINES_MAX as u64),
                    mib(LINES_BYTES_MAX)
                ),
            ),
        ],
    );
}

#[test]
fn the_deadlines_are_those_of_the_code() {
    let conversation = Config::new(3, 1);
    assert_eq!(conversation.deadline_us, 1_000_000 * DEADLINE_SECONDS);
    assert_table(
        "### Deadlines",
        &[
            ("a decision or a read", seconds(conversation.deadline_us)),
            ("a line of an import with `--source`", "none".to_owned()),
            ("until a request goes to another replica", seconds(conversation.retry_us)),
            (
                "until a client connects again",
                format!(
                    "{} ms, doubled at each failure up to {} s",
                    RECONNECT_PAUSE_MIN.as_millis(),
                    RECONNECT_PAUSE_MAX.as_secs()
                ),
            ),
            ("a name that a client looks up", seconds(CONNECT_TIMEOUT.as_micros() as u64)),
            ("a connection until it is welcomed", seconds(CONNECT_TIMEOUT.as_micros() as u64)),
            ("a status", seconds(STATUS_TIMEOUT.as_micros() as u64)),
            ("`snapshot take`", seconds(1_000_000 * TAKE_SECONDS)),
            (
                "a port or a data directory that another process has",
                seconds(RESTART_PATIENCE.as_micros() as u64),
            ),
            ("a write of the log", seconds(HUNG_AFTER_US)),
            ("a replica without a majority", seconds(UNAVAILABLE_AFTER_US)),
            ("a link between replicas without a sign of life", seconds(PEER_PATIENCE.as_micros() as u64)),
            ("a client whose machine is silent", seconds(CLIENT_PATIENCE.as_micros() as u64)),
        ],
    );
}

#[test]
fn the_settings_are_those_of_the_code() {
    let defaults = tuning_to_json(&Tuning::DEFAULT);
    let cell = |name: Name| {
        let default = &defaults[name.text()];
        match name.range() {
            Some(range) => {
                let [default, least, most] =
                    [default.as_u64().unwrap(), *range.start(), *range.end()].map(grouped);
                format!("{default}; {least} to {most}")
            }
            None if name == Name::Path => format!("{}; auto, fast or slow", default.as_str().unwrap()),
            None => format!("{default}; true or false"),
        }
    };
    let names = Name::ALL.map(|name| format!("`{name}`"));
    let expected: Vec<_> = names.iter().map(String::as_str).zip(Name::ALL.map(cell)).collect();
    assert_table("### Settings that change while replicas run", &expected);
}

#[test]
fn the_options_of_the_agent_have_the_documented_defaults() {
    let default = |option: &str| {
        let row = rows_of(AGENT, "## Options").into_iter().find(|row| cells(row)[0] == format!("`{option}`"));
        cells(row.expect(option))[1].to_owned()
    };
    let expected = [
        ("--topic", isonomy_agent::Settings::default().topic),
        ("--staleness-max", STALENESS_SECONDS_MAX.to_string()),
        ("--hook-timeout", HOOK_TIMEOUT_SECONDS.to_string()),
        ("--hook-concurrency", HOOK_CONCURRENCY.to_string()),
    ];
    for (option, expected) in expected {
        assert_eq!(default(option), expected, "{option} of docs/AGENT.md");
    }
}

#[test]
fn the_exit_codes_are_those_of_the_code() {
    use Reason::*;
    let all = [
        Failed,
        CommandLine,
        Config,
        Machine,
        DataDir,
        Damaged,
        Disk,
        OtherCommand,
        Fenced,
        Missing,
        Rejected,
        Unfollowed,
    ];
    for reason in all {
        // A new code must be added above and to the table.
        match reason {
            Failed | CommandLine | Config | Machine | DataDir | Damaged | Disk | OtherCommand | Fenced
            | Missing | Rejected | Unfollowed => {}
        }
    }
    let codes = all.iter().map(|reason| u32::from(*reason as u8));
    let abort = 128 + libc::SIGABRT as u32;
    let expected: Vec<u32> = [0].into_iter().chain(codes).chain([abort]).collect();
    let told: Vec<u32> =
        rows("### Exit codes").into_iter().map(|row| cells(row)[0].parse().unwrap()).collect();
    assert_eq!(told, expected);
}

#[test]
fn the_readme_shows_the_example_that_is_built() {
    let example = include_str!("../../../wire/examples/decide.rs");
    let program = example.split_once("\n\n").expect("a comment comes first").1;
    assert!(
        README.contains(&format!("```rust\n{program}```\n")),
        "README.md has another program:\n{program}"
    );
}
