//! What starts servers by itself: `canonical` and `compare`, with real processes where they are to
//! be had.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything that must happen may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn bench(arguments: &str) -> Output {
    let program =
        Command::new(env!("CARGO_BIN_EXE_isonomy-bench")).args(arguments.split_whitespace()).output();
    program.unwrap()
}

/// The program of the replicas, if it was built: then it lies beside the one that is tested.
fn isonomy() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_isonomy-bench")).with_file_name("isonomy");
    let built = path.exists();
    if !built {
        eprintln!("left out: {} was not built (cargo build -p isonomy)", path.display());
    }
    built.then_some(path)
}

fn has_etcd() -> bool {
    let found = Command::new("etcd").arg("--version").output().is_ok();
    if !found {
        eprintln!("left out: no etcd on the PATH (apt install etcd-server)");
    }
    found
}

fn json(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_canonical_loads_give_one_line() {
    if isonomy().is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (probe, lines) = (directory.path().join("probe.json"), directory.path().join("bench.jsonl"));
    std::fs::write(&probe, r#"{"decisions_per_second": 1000000}"#).unwrap();
    let arguments = format!(
        "canonical --seconds 1 --rate 2000 --output json --probe {} --append {}",
        probe.display(),
        lines.display()
    );
    let result = json(&bench(&arguments));
    let appended: Value = serde_json::from_str(&std::fs::read_to_string(lines).unwrap()).unwrap();
    assert_eq!(appended, result);
    assert_eq!(result["probe_decisions_per_second"], 1_000_000.0);
    for name in ["closed_loop", "open_loop"] {
        let load = &result[name];
        assert!(load["decisions"].as_u64().unwrap() > 0, "{name}: {load}");
        assert_eq!((&load["durability"], &load["errors"]), (&"fsync".into(), &serde_json::json!({})));
        assert!(load["probe_ratio"].as_f64().unwrap() > 0.0);
        assert!(load["config"]["core"].is_number(), "the load does not wander: {load}");
    }
    assert_eq!(result["open_loop"]["config"]["rate"], 2000);
}

/// The replicas whose command line names this directory.
fn replicas_in(dir: &Path) -> usize {
    let lines = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("cmdline"));
    let words = lines.map(|path| std::fs::read_to_string(path).unwrap_or_default());
    words.filter(|line| line.contains("\0serve\0") && line.contains(dir.to_str().unwrap())).count()
}

/// Whether whoever started the tests has them ignore a hang-up, as `nohup` does: the program then does, too.
fn ignores_hang_ups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("Linux tells it");
    u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 << (Signal::HUP.as_raw() - 1) != 0
}

#[test]
fn replicas_end_with_the_program_that_started_them_however_it_ends() {
    if isonomy().is_none() {
        return;
    }
    let signals = [Signal::HUP, Signal::TERM, Signal::KILL];
    for signal in signals.into_iter().filter(|signal| *signal != Signal::HUP || !ignores_hang_ups()) {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut bench = Command::new(env!("CARGO_BIN_EXE_isonomy-bench"))
            .args(["canonical", "--seconds", "600", "--dir"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let wait_for = |count: usize| {
            let began = Instant::now();
            while replicas_in(dir.path()) != count {
                assert!(began.elapsed() < PATIENCE, "there are not {count} replicas within {PATIENCE:?}");
                std::thread::yield_now();
            }
        };
        wait_for(3);
        kill_process(Pid::from_child(&bench), signal).unwrap();
        bench.wait().unwrap();
        wait_for(0);
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert!(signal == Signal::KILL || left == 0, "{signal:?} leaves the data");
    }
}

#[test]
fn both_systems_of_a_comparison_get_the_same_puts() {
    if isonomy().is_none() || !has_etcd() {
        return;
    }
    let arguments =
        "compare --against etcd --rounds 1 --seconds 1 --warmup 1 --clients 20 --pipelined --output json";
    let result = json(&bench(arguments));
    let systems: Vec<_> = result["rounds"].as_array().unwrap().iter().map(|it| &it["system"]).collect();
    assert_eq!(systems, ["etcd", "isonomy", "pipelined"]);
    for round in result["rounds"].as_array().unwrap() {
        assert!(round["puts_per_second"].as_f64().unwrap() > 0.0, "{round}");
        assert!(round["servers_cpu_us_per_put"].as_f64().unwrap() > 0.0, "{round}");
        assert_eq!(round["errors"], 0);
    }
    assert!(result["ratios"]["isonomy"]["puts_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn missing_programs_say_how_to_get_them() {
    let output = bench("canonical --isonomy /nowhere/isonomy");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cargo build --release -p isonomy"));
    let output = bench(&format!(
        "compare --against etcd --etcd /nowhere/etcd --isonomy {}",
        env!("CARGO_BIN_EXE_isonomy-bench")
    ));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("apt install etcd-server"));
}
