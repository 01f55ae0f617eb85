//! Changes of the members of a real cluster, named in a real etcd, while clients go on.

mod named;
mod support;

use named::{World, said};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::process::{Child, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use support::{ends, eventually, program};

/// How many keys the load decides in turn.
const KEYS: u64 = 20;
/// The pause between two lines of the load, so that a small machine also has time for the members.
const PACE: Duration = Duration::from_millis(2);

/// A process that decides lines for as long as it is asked to.
struct Load {
    process: Child,
    stopping: Arc<AtomicBool>,
    feeder: JoinHandle<u64>,
}

impl Load {
    /// Through these replicas, and whomever they name.
    fn start(world: &World, replicas: &[usize]) -> Load {
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
    fn end(mut self, world: &World, replica: usize) {
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

fn read(world: &World, replica: usize, key: &str) -> Value {
    let connect = world.cluster.addresses()[replica].clone();
    let output = program().args(["read", "--connect", &connect, key, "--output", "json"]).output().unwrap();
    assert!(output.status.success(), "{key}: {}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A change that is waited for in the background.
struct Change {
    command: Child,
    log: std::path::PathBuf,
}

impl Change {
    fn begin(world: &World, arguments: &[&str]) -> Change {
        let log =
            world.cluster.dir.path().join(format!("{}.txt", arguments.join("-").replace([':', '/'], "-")));
        let mut command = world.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let command = command.spawn().unwrap();
        eventually("the announcement", || world.listed()["change"] != Value::Null);
        Change { command, log }
    }

    fn end(mut self) {
        ends(&mut self.command);
        let told = fs::read_to_string(&self.log).unwrap();
        assert_eq!(self.command.wait().unwrap().code(), Some(0), "{told}");
    }
}

fn done(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
}

fn epoch(world: &World) -> u64 {
    world.listed()["epoch"].as_u64().unwrap_or_default()
}

fn ids(world: &World) -> Vec<u64> {
    let members = world.listed()["members"].as_array().cloned().unwrap_or_default();
    members.iter().map(|member| member["id"].as_u64().unwrap()).collect()
}

/// Whether the new member is close, as it has told.
fn is_new_close(world: &World) -> bool {
    let members = world.listed()["change"]["members"].as_array().cloned().unwrap_or_default();
    members.iter().any(|member| member["is_new"] == true && member["is_close"] == true)
}

/// Decides a key by one replica.
fn decide(world: &World, replica: usize, key: &str) {
    let connect = world.cluster.addresses()[replica].clone();
    done(&program().args(["propose", "--connect", &connect, key, "value"]).output().unwrap());
}

#[test]
fn three_become_five_and_three_others_again_under_load() {
    let mut world = World::growing(3, 5);
    decide(&world, 0, "before");
    eventually("all live", || world.living() == [true; 3]);
    // The load knows only members that will be gone in the end, and one that stays.
    let load = Load::start(&world, &[0, 1, 2]);
    for index in [3, 4] {
        let change = Change::begin(&world, &["add", &world.address(index)]);
        world.cluster.spawn(index);
        change.end();
        eventually("all live", || world.living() == vec![true; index + 1]);
    }
    assert_eq!((epoch(&world), ids(&world)), (3, vec![0, 1, 2, 3, 4]));
    for (index, left) in [(0, vec![1, 2, 3, 4]), (1, vec![2, 3, 4])] {
        Change::begin(&world, &["remove", &index.to_string()]).end();
        assert_eq!(ids(&world), left);
    }
    load.end(&world, 4);
    assert_eq!(epoch(&world), 5);
    for index in [0, 1] {
        assert_eq!(world.cluster.stop(index), Some(0));
    }
    world.cluster.wait_agreed();
    assert_eq!(read(&world, 3, "before")["key_seq"], json!(1));
    decide(&world, 3, "after");
}

#[test]
fn a_member_whose_directory_was_wiped_is_replaced_while_clients_go_on() {
    let mut world = World::growing(3, 3);
    decide(&world, 0, "before");
    eventually("all live", || world.living() == [true; 3]);
    let load = Load::start(&world, &[0, 2]);
    world.cluster.kill(1);
    fs::remove_dir_all(world.cluster.data_dir(1)).unwrap();
    let refused = world.cluster.run_to_end(1);
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    assert!(said(&refused).contains("isonomy member replace 1"), "{}", said(&refused));
    let change = Change::begin(&world, &["replace", "1"]);
    world.cluster.spawn(1);
    change.end();
    assert_eq!((epoch(&world), ids(&world)), (2, vec![0, 1, 2]));
    load.end(&world, 1);
    world.cluster.wait_agreed();
    // The new one is a full member: with one of the others it decides.
    world.cluster.kill(0);
    decide(&world, 1, "after");
}

#[test]
fn a_member_that_lives_is_replaced_by_one_elsewhere() {
    let mut world = World::growing(3, 4);
    decide(&world, 0, "before");
    eventually("all live", || world.living() == [true; 3]);
    let load = Load::start(&world, &[0, 1, 2]);
    let change = Change::begin(&world, &["replace", "1", &world.address(3)]);
    let config = fs::read_to_string(world.cluster.config_path(3)).unwrap();
    fs::write(world.cluster.config_path(3), config.replace("replica = 3", "replica = 1")).unwrap();
    world.cluster.spawn(3);
    change.end();
    assert_eq!((epoch(&world), ids(&world)), (2, vec![0, 1, 2]));
    load.end(&world, 3);
    assert_eq!(world.cluster.stop(1), Some(0));
    world.cluster.wait_agreed();
    // The old directory has no place any more.
    let refused = world.cluster.run_to_end(1);
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    world.cluster.kill(0);
    decide(&world, 3, "after");
}

#[test]
fn members_that_are_killed_at_any_step_delay_a_change() {
    let mut world = World::growing(3, 4);
    eventually("all live", || world.living() == [true; 3]);
    let load = Load::start(&world, &[0, 1, 2]);
    let change = Change::begin(&world, &["add", &world.address(3)]);
    let restart = |world: &mut World, index: usize| {
        world.cluster.kill(index);
        world.cluster.spawn(index);
    };
    // Before the new member is there, while it copies, and while the epoch ends.
    restart(&mut world, 0);
    world.cluster.spawn(3);
    eventually("the new member takes its place", || {
        world.listed()["change"]["members"][3]["incarnation"] != Value::Null || epoch(&world) == 2
    });
    restart(&mut world, 3);
    eventually("the end of the epoch", || {
        world.listed()["change"]["stage"] == json!("sealing") || epoch(&world) == 2
    });
    restart(&mut world, 1);
    restart(&mut world, 2);
    change.end();
    restart(&mut world, 0);
    load.end(&world, 3);
    world.cluster.wait_agreed();
}

#[test]
fn the_command_that_waits_is_not_needed() {
    let mut world = World::growing(3, 4);
    eventually("all live", || world.living() == [true; 3]);
    let Change { mut command, .. } = Change::begin(&world, &["add", &world.address(3)]);
    kill_process(Pid::from_child(&command), Signal::KILL).unwrap();
    command.wait().unwrap();
    world.cluster.spawn(3);
    eventually("the next epoch", || epoch(&world) == 2);
    done(&world.member(&["list", "--wait"]));
    decide(&world, 3, "after");
    world.cluster.wait_agreed();
}

#[test]
fn a_change_is_cancelled_and_another_one_promoted() {
    let mut world = World::growing(3, 4);
    decide(&world, 0, "before");
    eventually("all live", || world.living() == [true; 3]);
    done(&world.member(&["add", &world.address(3), "--hold", "--no-wait"]));
    world.cluster.spawn(3);
    eventually("the new member is close", || is_new_close(&world));
    assert_eq!((epoch(&world), &world.listed()["change"]["stage"]), (1, &json!("held")));
    done(&world.member(&["cancel"]));
    assert_eq!((epoch(&world), ids(&world), &world.listed()["change"]), (1, vec![0, 1, 2], &Value::Null));
    world.cluster.kill(3);
    fs::remove_dir_all(world.cluster.data_dir(3)).unwrap();
    decide(&world, 1, "between");

    done(&world.member(&["add", &world.address(3), "--hold", "--no-wait"]));
    world.cluster.spawn(3);
    eventually("the new member is close", || {
        is_new_close(&world) && world.listed()["change"]["members"][3]["lives"] == true
    });
    done(&world.member(&["promote"]));
    assert_eq!((epoch(&world), ids(&world)), (2, vec![0, 1, 2, 3]));
    decide(&world, 3, "after");
    world.cluster.wait_agreed();
}
