//! The program measures this machine. Whether the figures are good is not asked here.

use std::path::Path;
use std::process::{Command, Output};

fn probe(dir: &Path, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isonomy-bench"))
        .arg("probe")
        .arg("--dir")
        .arg(dir)
        .args(arguments.split_whitespace())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The processes that have this path among their arguments.
fn processes_with(path: &Path) -> usize {
    let path = path.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let arguments = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    arguments.filter(|arguments| arguments.split('\0').any(|argument| argument == path)).count()
}

#[test]
fn a_short_probe_tells_both_loops_and_leaves_nothing() {
    // On a disk: where temporary files lie can be a tmpfs.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let results = tempfile::tempdir().unwrap();
    let file = results.path().join("probe.json");
    let arguments =
        "--seconds 2 --batch 64 --in-flight 4 --keys 1000 --log-mib 16 --rate 6400 --shards 2 --output json";
    let output = probe(directory.path(), &format!("{arguments} --json {}", file.display()));
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(std::fs::read(file).unwrap(), output.stdout);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    assert_eq!(processes_with(directory.path()), 0);

    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for loop_figures in [&report, &report["open_loop"]] {
        for name in ["decisions_per_second", "cpu_us_per_decision", "groups_per_second"] {
            assert!(loop_figures[name].as_f64().is_some_and(|value| value > 0.0), "{name}: {report:#}");
        }
        let latency = ["p50", "p99", "p999"].map(|name| loop_figures["latency_us"][name].as_u64().unwrap());
        assert!(latency[0] > 0 && latency.is_sorted(), "{report:#}");
        // Three logs, and each command has 72 bytes.
        assert!(loop_figures["log_bytes_per_decision"].as_f64().unwrap() > 3.0 * 72.0, "{report:#}");
    }
    // A machine that is busy with other things answers fewer in time.
    assert!(report["open_loop"]["decisions_per_second"].as_f64().unwrap() <= 2.0 * 6400.0, "{report:#}");
    for name in [
        "disk_sync_p50_us",
        "disk_sync_p99_us",
        "disk_write_mib_per_second",
        "loopback_gib_per_second",
        "loopback_round_trip_p50_us",
        "loopback_round_trip_p99_us",
        "memory_line_ns",
        "cores",
        "measured_at_unix_s",
    ] {
        assert!(report[name].as_f64().is_some_and(|value| value > 0.0), "{name}: {report:#}");
    }
    assert!(report["memory_address_ns"].as_f64().is_some_and(|value| value >= 0.0), "{report:#}");
    assert_eq!((&report["batch"], &report["config"]["in_flight"]), (&64.into(), &4.into()));
    assert!(["host", "kernel", "file_system"].iter().all(|name| report[name].is_string()), "{report:#}");
}

#[test]
fn a_missing_directory_is_named_with_a_remedy() {
    let output = probe(Path::new("/no/such/directory"), "");
    assert_eq!(output.status.code(), Some(1));
    let stderr = stderr(&output);
    assert!(stderr.contains("/no/such/directory") && stderr.contains("choose another --dir"), "{stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn logs_that_would_fill_the_disk_are_refused() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = probe(directory.path(), "--log-mib 1000000000");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("lower --log-mib"), "{}", stderr(&output));
}
