//! Changes of the members while clients go on.

use super::{World, said};
use crate::support::{ends, eventually, program};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::process::{Child, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How many keys the load decides in turn.
const KEYS: u64 = 20;
/// The pause between two lines of the load, so that a small machine also has time for the members.
const PACE: Duration = Duration::from_millis(2);

/// A process that decides lines for as long as it is asked to.
pub struct Load {
    process: Child,
    stopping: Arc<AtomicBool>,
    feeder: JoinHandle<u64>,
}

impl Load {
    /// Through these replicas, and whomever they name.
    pub fn start(world: &World, replicas: &[usize]) -> Load {
        let addresses = world.cluster.addresses();
        let connect = replicas.iter().map(|index| addresses[*index].clone()).collect::<Vec<_>>().join(",");
        let mut command = program();
        command.args(["propose", "--connect", &connect, "--from", "-", "--key", "key", "--source", "load"]);
        command.args(["--output", "json"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let (stopping, mut lines) = (Arc::new(AtomicBool::new(false)), process.stdin.take().unwrap());
        let is_over = stopping.clone();
        let feed = move || {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                let key = count % KEYS;
                writeln!(lines, r#"{{"key":"load-{key}","line":{count}}}"#).unwrap();
                lines.flush().unwrap();
                count += 1;
                std::thread::sleep(PACE);
            }
            count
        };
        Load { process, stopping, feeder: std::thread::spawn(feed) }
    }

    /// Ends the load. Each line was decided exactly once: each key is at the decision that it has lines.
    pub fn end(mut self, world: &World, replica: usize) {
        self.stopping.store(true, Ordering::Relaxed);
        let lines = self.feeder.join().unwrap();
        ends(&mut self.process);
        let output = self.process.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let counts: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&counts["committed"], &counts["failed"]), (&json!(lines), &json!(0)));
        let mut expected: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for line in 0..lines {
            let (count, last) = expected.entry(line % KEYS).or_default();
            (*count, *last) = (*count + 1, line);
        }
        for (key, (count, last)) in expected {
            let found = read(world, replica, &format!("load-{key}"));
            assert_eq!(found["key_seq"], json!(count), "load-{key}: {found}");
            assert!(
                found["value"].to_string().contains(&format!("line\\\":{last}}}")),
                "load-{key}: {found}"
            );
        }
    }
}

pub fn read(world: &World, replica: usize, key: &str) -> Value {
    let connect = world.cluster.addresses()[replica].clone();
    let output = program().args(["read", "--connect", &connect, key, "--output", "json"]).output().unwrap();
    assert!(output.status.success(), "{key}: {}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A change that is waited for in the background.
pub struct Change {
    pub command: Child,
    log: std::path::PathBuf,
}

impl Change {
    pub fn begin(world: &World, arguments: &[&str]) -> Change {
        let log =
            world.cluster.dir.path().join(format!("{}.txt", arguments.join("-").replace([':', '/'], "-")));
        let mut command = world.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let command = command.spawn().unwrap();
        eventually("the announcement", || world.listed()["change"] != Value::Null);
        Change { command, log }
    }

    pub fn end(mut self) {
        ends(&mut self.command);
        let told = fs::read_to_string(&self.log).unwrap();
        assert_eq!(self.command.wait().unwrap().code(), Some(0), "{told}");
    }
}

pub fn done(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
}

pub fn epoch(world: &World) -> u64 {
    world.listed()["epoch"].as_u64().unwrap_or_default()
}

pub fn ids(world: &World) -> Vec<u64> {
    let members = world.listed()["members"].as_array().cloned().unwrap_or_default();
    members.iter().map(|member| member["id"].as_u64().unwrap()).collect()
}

/// Whether the new member is close, as it has told.
pub fn is_new_close(world: &World) -> bool {
    let members = world.listed()["change"]["members"].as_array().cloned().unwrap_or_default();
    members.iter().any(|member| member["is_new"] == true && member["is_close"] == true)
}

/// Decides a key by one replica.
pub fn decide(world: &World, replica: usize, key: &str) {
    let connect = world.cluster.addresses()[replica].clone();
    done(&program().args(["propose", "--connect", &connect, key, "value"]).output().unwrap());
}
