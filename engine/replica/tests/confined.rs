//! Replicas and commands under limits and profiles that forbid a part of what they do: each is told by its name,
//! and what can go on does.

mod support;

use isonomy_wire::client::{Client, discover};
use isonomy_wire::conversation::Config;
use std::fs::File;
use std::process::{Command, Output};
use support::confined::{forbidding, with_file_size};
use support::{Cluster, PATIENCE, eventually, program, stderr};

/// `IORING_REGISTER_PROBE`
const REGISTER_PROBE: u32 = 8;
/// Of a segment of the log.
const SEGMENT_BYTES: u64 = 16 << 20;
/// More than a segment, less than the snapshots here, and no multiple of a block.
const FILE_BYTES: u64 = 24_000_001;
const VALUE_BYTES: usize = 256 << 10;
/// Their values are more than such a file holds.
const KEYS: usize = 100;

#[test]
fn each_call_of_io_uring_that_is_forbidden_is_named() {
    let cluster = Cluster::prepare(1, 1);
    for (call, name) in [
        (libc::SYS_io_uring_setup, "io_uring_setup"),
        (libc::SYS_io_uring_enter, "io_uring_enter"),
        (libc::SYS_io_uring_register, "io_uring_register"),
    ] {
        for errno in [libc::EPERM, libc::ENOSYS, libc::EACCES] {
            let output = cluster.run_to_end_by(0, forbidding(call, None, errno));
            let text = stderr(&output);
            assert_eq!(output.status.code(), Some(4), "{name}: {text}");
            assert!(text.contains(&format!("io_uring is refused: {name} fails")), "{name}: {text}");
            assert!(text.contains("allow io_uring_setup") && !text.contains("panicked"), "{name}: {text}");
        }
    }
    assert!(!cluster.data_dir(0).exists(), "nothing was made");
}

#[test]
fn what_a_replica_can_do_without_may_be_forbidden() {
    let mut cluster = Cluster::prepare(1, 1);
    cluster.spawn_by(0, forbidding(libc::SYS_io_uring_register, Some(REGISTER_PROBE), libc::EPERM));
    cluster.wait_linked();
    let done = program().args(["propose", "--connect", &cluster.addresses()[0], "k", "v"]).output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(cluster.stop(0), Some(0), "{}", cluster.log(0));
}

/// Decides so much that a snapshot is larger than such a file, and takes one.
async fn fill(cluster: &Cluster) {
    let welcome = discover(&cluster.addresses()).await.unwrap();
    let config = Config { deadline_us: PATIENCE.as_micros() as u64, ..Config::of(&welcome) };
    let client = Client::with(welcome, config);
    for key in 0..KEYS {
        client.decide(format!("key-{key}"), vec![key as u8; VALUE_BYTES]).await.unwrap();
    }
    client.close().await;
}

fn take(cluster: &Cluster) -> Output {
    program().args(["snapshot", "take", "--connect", &cluster.addresses()[0]]).output().unwrap()
}

#[tokio::test]
async fn a_limit_on_the_size_of_files_is_told_and_ends_nothing_without_a_word() {
    let mut cluster = Cluster::prepare(1, 1);
    let output = cluster.run_to_end_by(0, with_file_size(SEGMENT_BYTES - 1));
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("a segment of the log has 16777216"), "{}", stderr(&output));
    assert!(stderr(&output).contains("ulimit -f"), "{}", stderr(&output));
    assert!(!cluster.data_dir(0).exists(), "nothing was made");

    cluster.spawn_by(0, with_file_size(FILE_BYTES));
    cluster.wait_linked();
    assert!(
        cluster.log(0).contains("the limit on the size of files is 24000001 bytes"),
        "{}",
        cluster.log(0)
    );
    fill(&cluster).await;
    let mut taking = Command::new(program().get_program())
        .args(["snapshot", "take", "--connect", &cluster.addresses()[0]])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the snapshot's error", || {
        cluster.assert_running();
        cluster.log(0).contains("file too large") && cluster.log(0).contains("ulimit -f")
    });
    taking.kill().unwrap();
    taking.wait().unwrap();
    // Without a limit the snapshot is written; with one that it does not fit the replica is not started again.
    assert_eq!(cluster.stop(0), Some(0), "{}", cluster.log(0));
    cluster.spawn(0);
    cluster.wait_linked();
    let taken = take(&cluster);
    assert!(taken.status.success(), "{}", stderr(&taken));
    assert_eq!(cluster.stop(0), Some(0), "{}", cluster.log(0));
    let output = cluster.run_to_end_by(0, with_file_size(FILE_BYTES));
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains(".snapshot has "), "{}", stderr(&output));
    exports(&cluster);
}

/// The commands that write files, and results that go into one.
fn exports(cluster: &Cluster) {
    let (data, backup) = (cluster.data_dir(0), cluster.dir.path().join("backup"));
    let export = |mut command: Command| {
        let export = command.args(["snapshot", "export", "--to"]).arg(&backup).arg("--dir").arg(&data);
        export.output().unwrap()
    };
    let output = export(with_file_size(FILE_BYTES));
    assert_eq!(output.status.code(), Some(1), "{:?} {}", output.status, stderr(&output));
    assert!(stderr(&output).contains("ulimit -f"), "{}", stderr(&output));
    assert!(!backup.exists());
    assert!(export(program()).status.success());
    let restored = cluster.dir.path().join("restored");
    let restore = |mut command: Command| {
        let restore = command.args(["snapshot", "restore", "--from"]).arg(&backup);
        restore.arg("--config").arg(cluster.config_path(0)).arg("--to").arg(&restored).output().unwrap()
    };
    let output = restore(with_file_size(FILE_BYTES));
    assert_eq!(output.status.code(), Some(1), "{:?} {}", output.status, stderr(&output));
    assert!(stderr(&output).contains("ulimit -f"), "{}", stderr(&output));
    let result = File::create(cluster.dir.path().join("result")).unwrap();
    let list = with_file_size(10).args(["snapshot", "list", "--dir"]).arg(&data).stdout(result).output();
    let output = list.unwrap();
    assert_eq!(output.status.code(), Some(1), "{:?}", output.status);
    assert!(stderr(&output).contains("cannot be written to standard output"), "{}", stderr(&output));
}

#[test]
fn a_demo_under_such_a_limit_says_why_it_does_not_start() {
    let output =
        with_file_size(1 << 20).args(["demo", "--dir", env!("CARGO_TARGET_TMPDIR")]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{:?}", output.status);
    assert!(stderr(&output).contains("ulimit -f"), "{}", stderr(&output));
}
