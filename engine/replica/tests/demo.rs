//! `isonomy demo`, with everything that it starts.

mod support;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use support::{program, stderr, stdout};

#[test]
fn the_demo_shows_what_it_says_and_keeps_its_field_names() {
    let dir = env!("CARGO_TARGET_TMPDIR");
    let output = program()
        .args(["demo", "--seconds", "2", "--rate", "200", "--shards", "2", "--output", "json", "--dir", dir])
        .output()
        .unwrap();
    let json: Value =
        serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    let failed: Vec<&Value> =
        json["checks"].as_array().unwrap().iter().filter(|check| check["ok"] != true).collect();
    // How long a pause lasts on a loaded machine is measured, not tested.
    let failed: Vec<_> = failed
        .iter()
        .filter(|check| !check["name"].as_str().unwrap().starts_with("the other replicas went on"))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!((&json["replicas"], &json["shards"], &json["agree"]), (&3.into(), &2.into(), &true.into()));
    let hashes = json["state_hashes"].as_array().unwrap();
    assert_eq!(hashes.len(), 3);
    assert!(hashes.iter().all(|replica| replica == &hashes[0] && replica.as_array().unwrap().len() == 2));
    for field in [
        "/kill/kill_pause_ms",
        "/kill/return_pause_ms",
        "/kill/caught_up_ms",
        "/load/decisions",
        "/load/decisions_per_second",
    ] {
        assert!(json.pointer(field).is_some_and(Value::is_number), "{field}");
    }
    for field in ["p50", "p90", "p99", "p999", "max"] {
        assert!(json["load"]["latency_us"][field].is_number(), "{field}");
    }
    for field in [
        "fast_path_ratio",
        "replica_cpu_us_per_decision",
        "load_cpu_us_per_decision",
        "log_bytes_per_decision",
    ] {
        assert!(json["load"][field].is_number(), "{field}");
    }
    assert_eq!(json["load"]["durability"], "fsync");
    assert!(json["load"]["config"]["core"].is_number(), "the load does not wander");
}

#[test]
fn a_member_in_etcd_is_replaced_under_load() {
    let etcd = std::env::var("ISONOMY_TEST_ETCD").unwrap_or_else(|_| "etcd".into());
    let dir = env!("CARGO_TARGET_TMPDIR");
    let output = program()
        .args(["demo", "--etcd", "--etcd-program", &etcd, "--seconds", "1", "--rate", "200"])
        .args(["--output", "json", "--dir", dir])
        .output()
        .unwrap();
    let json: Value =
        serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    let checks = json["checks"].as_array().unwrap();
    // How long a pause lasts on a loaded machine is measured, not tested.
    let is_pause = |check: &Value| {
        check["name"].as_str().unwrap().contains("others went on")
            || check["name"].as_str().unwrap().starts_with("the other replicas went on")
    };
    let failed: Vec<&Value> = checks.iter().filter(|check| check["ok"] != true && !is_pause(check)).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!((&json["replaced"]["epoch"], &json["agree"]), (&2.into(), &true.into()));
    for field in ["/replaced/pause_ms", "/replaced/whole_after_ms"] {
        assert!(json.pointer(field).is_some_and(Value::is_number), "{field}");
    }
}

#[test]
fn events_go_through_kafka_and_each_is_decided_once() {
    let kafka = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/kafka/kafka");
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = program()
        .args(["demo", "--kafka", "--kafka-program", kafka, "--kafka-format", "batch", "--events", "30000"])
        .args(["--shards", "2", "--output", "json", "--dir"])
        .arg(place.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["ok"], &told["pipeline"]["events"]), (&true.into(), &70_000.into()), "{told}");
    assert!(told["pipeline"]["events_per_second"].as_f64() > Some(0.0), "{told}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn an_etcd_that_cannot_be_started_is_named() {
    let dir = env!("CARGO_TARGET_TMPDIR");
    let output = program()
        .args(["demo", "--etcd", "--etcd-program", "/nonexistent/etcd", "--dir", dir])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("/nonexistent/etcd cannot be started") && text.contains("install etcd"), "{text}");
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let output = program().args(["demo", "--dir", "/nonexistent"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("/nonexistent") && stderr(&output).contains("--dir"),
        "{}",
        stderr(&output)
    );
}

/// The processes whose command line names this directory.
fn processes_of(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        if words.get(1).is_some_and(|word| word == "serve") && words.iter().any(|word| word.contains(dir)) {
            found.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    found
}

/// Whether whoever started the tests has them ignore a hang-up, as `nohup` does: the demo then does, too.
fn ignores_hang_ups() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 << (Signal::HUP.as_raw() - 1) != 0
}

/// The commands among the lines, up to the first that is none.
fn commands(text: &str, after: &str) -> Vec<String> {
    let lines = text.lines().skip_while(|line| !line.contains(after)).skip(1);
    lines.take_while(|line| line.starts_with("  ")).map(|line| line.trim().to_owned()).collect()
}

fn shell(command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir("/");
    shell
}

#[test]
fn what_a_kept_demo_says_can_be_typed_and_its_cluster_starts_again() {
    // A path that has to be quoted, named from where the demo is started.
    let place = tempfile::Builder::new().prefix("kept demo").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let said = place.path().join("said");
    let mut demo = program()
        .args(["demo", "--keep", "--seconds", "1", "--rate", "100", "--dir", "."])
        // What the user has set for another cluster.
        .envs([
            ("ISONOMY_CLUSTER", "other"),
            ("ISONOMY_LOG_BUDGET_MIB", "1"),
            ("ISONOMY_LISTEN", "192.0.2.1"),
        ])
        .current_dir(place.path())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    let told = || fs::read_to_string(&said).unwrap();
    support::eventually("what to type", || {
        assert!(demo.try_wait().unwrap().is_none(), "the demo has ended: {}", told());
        told().contains("rm -r")
    });
    let first = commands(&told(), "Try these commands in another terminal");
    assert_eq!(first.len(), 7, "{}", told());
    for command in &first {
        let output = shell(command).output().unwrap();
        assert!(output.status.success(), "{command}: {}", stderr(&output));
    }
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    support::ends(&mut demo);
    assert_eq!(demo.wait().unwrap().code(), Some(0), "{}", told());
    // As pasted into one terminal, which stays.
    let again = commands(&told(), "start the same cluster again");
    assert_eq!(again.len(), 3, "{}", told());
    let mut terminal = shell(&format!("{}\nwait", again.join("\n")));
    let mut terminal = terminal.stderr(Stdio::null()).process_group(0).spawn().unwrap();
    let read = first.iter().find(|command| command.contains(" read ")).unwrap();
    support::eventually("the value, again", || {
        let output = shell(read).output().unwrap();
        output.status.success() && stdout(&output) == "accepted\n"
    });
    kill_process_group(Pid::from_child(&terminal), Signal::TERM).unwrap();
    support::ends(&mut terminal);
    support::eventually("the end of the replicas", || processes_of(place.path()).is_empty());
    let removal = commands(&told(), "this command removes it");
    assert!(shell(&removal[0]).status().unwrap().success());
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "only what was said is left");
}

/// The load generator lies beside the program only if it was built: this is also what happens without.
#[test]
fn every_way_to_end_the_demo_ends_all_of_it() {
    let signals = [Signal::TERM, Signal::INT, Signal::HUP, Signal::KILL];
    for signal in signals.into_iter().filter(|signal| *signal != Signal::HUP || !ignores_hang_ups()) {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut demo = program()
            .args(["demo", "--seconds", "600", "--rate", "100", "--dir"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        support::eventually("three replicas", || {
            assert!(demo.try_wait().unwrap().is_none(), "the demo has ended; is isonomy-bench built?");
            processes_of(dir.path()).len() == 3
        });
        kill_process(Pid::from_child(&demo), signal).unwrap();
        support::ends(&mut demo);
        support::eventually("the end of the replicas", || processes_of(dir.path()).is_empty());
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert!(signal == Signal::KILL || left == 0, "{signal:?} leaves its data");
    }
}
