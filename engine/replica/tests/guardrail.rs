//! Settings that change while replicas run, and a fast quorum that is lost and comes back.

mod support;

#[allow(dead_code)]
#[path = "../../control/tests/etcd/support/certificates.rs"]
mod certificates;
#[allow(dead_code)]
#[path = "../../control/tests/etcd/support/server.rs"]
mod server;

use isonomy_wire::command::{Numbering, RequestBuilder};
use isonomy_wire::id::{SessionId, ShardId};
use isonomy_wire::message::{ClientMessage, ShardStatus};
use isonomy_wire::tuning::{Loss, PathMode, PathReason, Tuning};
use rustix::process::Signal;
use serde_json::{Value, json};
use server::Etcd;
use std::fs;
use std::process::Output;
use support::{CLUSTER, Cluster, PATIENCE, RawClient, eventually, program, stderr};
use tokio::runtime::Runtime;

/// Reads that one replica coordinates, one after the other.
struct Reader {
    client: RawClient,
    tag: u64,
}

impl Reader {
    fn at(cluster: &Cluster, index: usize) -> Reader {
        Reader { client: RawClient::connect(cluster.client_bases[index], ShardId(0)).unwrap(), tag: 0 }
    }

    fn read(&mut self) {
        self.tag += 1;
        let mut builder = RequestBuilder::default();
        builder.read(b"key").unwrap();
        let request = builder.encode(SessionId::NONE, Numbering::NONE);
        self.client.send(&ClientMessage::Request { tag: self.tag }, &request);
        let answer = self.client.receive().expect("an answer").0;
        assert_eq!(answer, ClientMessage::Response { tag: self.tag });
    }

    /// Reads until the replica that coordinates stands so.
    fn read_until(
        &mut self,
        cluster: &Cluster,
        what: &str,
        is_it: impl Fn(&ShardStatus) -> bool,
    ) -> ShardStatus {
        let mut found = None;
        eventually(what, || {
            self.read();
            found = cluster.status(0, 0).filter(&is_it);
            found.is_some()
        });
        found.expect("it happened")
    }
}

/// A fast quorum of seven has five, a slow one has four.
#[test]
fn a_fast_quorum_that_is_lost_is_waited_for_no_more_until_it_is_back() {
    // Long enough for a loaded machine to answer in time, and short enough to wait for in vain.
    let settings =
        "\n[settings]\nfast_path_ms = 300\nsuspect_ms = 600\nrecover_ms = 1000\nguardrail_ms = 300\n";
    let cluster = Cluster::start_with(7, 1, settings);
    let mut reader = Reader::at(&cluster, 0);
    let usual = reader.read_until(&cluster, "a fast decision", |status| status.fast > 0);
    assert_eq!((usual.tuning.fast_path_us, usual.tuning.guardrail_us), (300_000, 300_000));
    (4..7).for_each(|index| cluster.signal(index, Signal::STOP));
    let lost = reader.read_until(&cluster, "the loss of the fast quorum", |status| status.path.is_slow);
    assert!(matches!(lost.path.reason, PathReason::Judged(Loss::InVain | Loss::Unreached)), "{lost:?}");
    assert!(lost.waited_in_vain > 0, "it was waited for at first: {lost:?}");
    (0..30).for_each(|_| reader.read());
    let later = cluster.status(0, 0).unwrap();
    assert!(later.path.is_slow && later.slow >= lost.slow + 30, "{later:?}");
    assert_eq!(later.waited_in_vain, lost.waited_in_vain, "nobody waits any more");
    (4..7).for_each(|index| cluster.signal(index, Signal::CONT));
    let healed = reader.read_until(&cluster, "the return of the fast quorum", |status| !status.path.is_slow);
    assert_eq!((healed.path.reason, healed.path.loss), (PathReason::Usual, None));
    reader.read_until(&cluster, "a fast decision", |status| status.fast > healed.fast);
}

/// A cluster in etcd.
struct World {
    runtime: Runtime,
    etcd: Etcd,
    cluster: Cluster,
}

impl World {
    fn start(replicas: usize) -> World {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let etcd = runtime.block_on(Etcd::one());
        let mut world = World { runtime, etcd, cluster: Cluster::prepare(replicas, 1) };
        let cluster = &world.cluster;
        let member =
            |index: usize| format!("127.0.0.1:{}:{}", cluster.peer_bases[index], cluster.client_bases[index]);
        let members = (0..replicas).map(member).collect::<Vec<_>>().join(",");
        assert!(world.run(&["member", "init", "--members", &members]).status.success());
        for index in 0..replicas {
            let text = format!(
                "cluster = \"{CLUSTER}\"\nreplica = {index}\nmembership = \"etcd\"\ndata_dir = \"{}\"\n\
                 [etcd]\nendpoints = {:?}\n",
                world.cluster.data_dir(index).display(),
                world.etcd.endpoints()
            );
            fs::write(world.cluster.config_path(index), text).unwrap();
            world.cluster.spawn(index);
        }
        world.cluster.wait_linked();
        world
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let endpoints = self.etcd.endpoints().join(",");
        let mut command = program();
        command.args(arguments).args(["--cluster", CLUSTER, "--etcd-endpoints", &endpoints]).output().unwrap()
    }

    fn settings(&self) -> Value {
        let output = self.run(&["settings", "get", "--output", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    fn put(&self, key: &str, value: &str) {
        let put =
            async { self.etcd.client().await.put(format!("/isonomy/{CLUSTER}/{key}"), value, None).await };
        self.runtime.block_on(put).unwrap();
    }

    fn set(&self, changes: &[&str]) {
        let output = self.run(&[&["settings", "set"], changes].concat());
        assert!(output.status.success(), "{changes:?}: {}", stderr(&output));
    }

    /// Waits until these replicas stand so.
    fn until(&self, what: &str, replicas: &[usize], mut is_it: impl FnMut(&ShardStatus) -> bool) {
        eventually(what, || {
            replicas.iter().all(|index| self.cluster.status(*index, 0).is_some_and(|status| is_it(&status)))
        });
    }
}

const ALL: [usize; 3] = [0, 1, 2];

#[test]
fn settings_change_while_all_replicas_run() {
    let mut world = World::start(3);
    assert_eq!(world.settings()["chosen"], json!([]));
    let planned = world.run(&["settings", "set", "window=7", "--dry-run", "--output", "json"]);
    let planned: Value = serde_json::from_slice(&planned.stdout).unwrap();
    assert_eq!((&planned["settings"]["window"], &planned["chosen"]), (&json!(7), &json!(["window"])));
    assert_eq!(world.settings()["chosen"], json!([]), "nothing was written");
    let refused = world.run(&["settings", "set", "path=slow", "window=64"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("window cannot be 64; give a number from 1 to 63"));

    world.set(&["path=slow"]);
    let is_set_slow = |status: &ShardStatus| status.path.is_slow && status.path.reason == PathReason::Set;
    world.until("slow mode", &ALL, is_set_slow);
    let table = program().args(["status", "--connect", &world.cluster.addresses()[1]]).output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("path slow for ") && table.contains(", as it is set"), "{table}");
    // A replica that starts without etcd has the settings in its directory.
    world.etcd.kill(0);
    assert_eq!(world.cluster.stop(2), Some(0));
    world.cluster.spawn(2);
    world.until("slow mode without etcd", &[2], is_set_slow);
    world.runtime.block_on(world.etcd.restart(0));

    world.set(&["path=default"]);
    world.until("the default", &ALL, |status| {
        status.tuning == Tuning::DEFAULT && status.path.reason == PathReason::Usual
    });
    assert_eq!(world.settings()["chosen"], json!([]));

    // Settings that cannot be used are not followed, and each replica's status says so.
    world.put("settings", r#"{"version":1,"settings":{"window":99}}"#);
    world.until("the trouble", &ALL, |status| {
        status.tuning_trouble.contains("window cannot be 99") && status.tuning == Tuning::DEFAULT
    });
    let status = |format: &str| {
        let connect = &world.cluster.addresses()[1];
        let output = program().args(["status", "--connect", connect, "--output", format]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let table = status("table");
    assert!(table.contains("the settings in etcd are not followed, those before them stay: "), "{table}");
    let trouble =
        |of: &str| serde_json::from_str::<Value>(of).unwrap()["shards"][0]["settings_trouble"].clone();
    assert_eq!(trouble(&status("json")), world.cluster.status(1, 0).unwrap().tuning_trouble);
    world.put("settings", r#"{"version":1,"settings":{"window":9}}"#);
    world.until("settings", &ALL, |status| status.tuning.window == 9 && status.tuning_trouble.is_empty());
    assert_eq!(trouble(&status("json")), Value::Null);
}

#[test]
fn all_follow_the_word_of_a_member_until_it_takes_the_word_back() {
    let world = World::start(3);
    // It lives as far as etcd knows, and cannot take back what is said in its name.
    world.cluster.signal(1, Signal::STOP);
    let word = r#"{"version":1,"by":1,"why":"in_vain","since_ms":0}"#;
    world.put("settings/slow", word);
    world.until("slow mode by agreement", &[0, 2], |status| {
        status.path.is_slow && status.path.reason == PathReason::Agreed && status.path.loss.is_none()
    });
    world.cluster.signal(1, Signal::CONT);
    world.until("the end of slow mode", &ALL, |status| {
        !status.path.is_slow && status.tuning.path == PathMode::Auto
    });
    assert_eq!(world.settings()["slow"], Value::Null);
}

/// A fast quorum of seven has five, a slow one has four.
#[test]
fn who_cannot_form_a_fast_quorum_says_so_for_all_until_it_can() {
    let world = World::start(7);
    world.set(&["fast_path_ms=300", "suspect_ms=600", "recover_ms=1000", "guardrail_ms=300"]);
    world.until("the settings", &[0, 1, 2, 3], |status| status.tuning.guardrail_us == 300_000);
    let mut reader = Reader::at(&world.cluster, 0);
    (4..7).for_each(|index| world.cluster.signal(index, Signal::STOP));
    reader.read_until(&world.cluster, "the loss of the fast quorum", |status| status.path.is_slow);
    eventually("the word of a member", || {
        reader.read();
        world.settings()["slow"]["by"].as_u64().is_some_and(|by| by < 4)
    });
    world.until("slow mode of all", &[0, 1, 2, 3], |status| status.path.is_slow);
    (4..7).for_each(|index| world.cluster.signal(index, Signal::CONT));
    reader.read_until(&world.cluster, "the return of the fast quorum", |status| !status.path.is_slow);
    world.until("the end of slow mode", &[0, 1, 2, 3, 4, 5, 6], |status| {
        reader.read();
        !status.path.is_slow
    });
    assert_eq!(world.settings()["slow"], Value::Null);
}
