//! The Python example reads what the agent reads.

use crate::support::{History, Rows, Topic, await_that, broker, rows};
use isonomy_kafka::settings::Format;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The packages of the example, which `.ci/tests` installs there.
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/python");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/kafka/project.py");

fn project(topic: &Topic, file: &Path) -> Command {
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", PACKAGES)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(SCRIPT)
        .arg("--file")
        .arg(file);
    command.args(["--brokers", &topic.publishing.brokers, "--topic", &topic.publishing.topic]);
    command
}

fn run(topic: &Topic, file: &Path) -> String {
    let output = project(topic, file).output().expect("python3 can be run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() || said.starts_with("project.py: "), "{said}");
    said
}

/// What the file has, nothing before there are tables.
fn there(file: &PathBuf) -> Rows {
    let db = rusqlite::Connection::open(file).unwrap();
    let exists = "SELECT count(*) FROM sqlite_schema WHERE name = 'latest'";
    let exists = db.query_row(exists, [], |row| row.get::<_, i64>(0)).unwrap_or(0);
    if exists == 0 { Rows::new() } else { rows(file) }
}

#[test]
fn the_python_example_has_the_same_table() {
    for format in [Format::Record, Format::Batch] {
        let topic = Topic::empty(broker::shared(), format, History::new(31, 200));
        let file = topic.file();
        topic.publish_some(80);
        let mut following = project(&topic, &file).arg("--follow").spawn().expect("python3 can be run");
        await_that("the first rows", || !there(&file).is_empty());
        following.kill().unwrap();
        following.wait().unwrap();
        topic.publish();
        assert_eq!(run(&topic, &file), "");
        assert!(there(&file) == topic.expected(), "{format}");
        // Without its rows, the next decision of a key does not follow.
        let db = rusqlite::Connection::open(&file).unwrap();
        db.execute_batch("DELETE FROM latest; UPDATE positions SET next_offset = next_offset / 2").unwrap();
        assert!(run(&topic, &file).contains("make the file anew"));
    }
}
