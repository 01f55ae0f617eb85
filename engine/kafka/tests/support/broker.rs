//! A real broker, started by `deploy/kafka/kafka` in a directory of its own, or one that the environment names.

use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/kafka/kafka");

/// The address of the broker that all tests share.
pub(crate) fn shared() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| {
        let given = std::env::var("ISONOMY_TEST_KAFKA").ok().filter(|address| !address.is_empty());
        // The script removes the directory at the end of this process.
        given.unwrap_or_else(|| start(&directory().keep(), &[]))
    })
}

pub(crate) fn directory() -> TempDir {
    tempfile::Builder::new().prefix("kafka-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A broker counts as gone after a second, so that it is not refused when it comes back.
const SHORT_SESSION: [&str; 4] =
    ["--set", "broker.session.timeout.ms=1000", "--set", "broker.heartbeat.interval.ms=200"];

/// Starts the broker of a directory, and returns its address.
fn start(dir: &Path, options: &[&str]) -> String {
    let output = Command::new(SCRIPT)
        .arg("start")
        .arg(dir)
        .args(["--while", &std::process::id().to_string()])
        .args(options)
        .output()
        .expect("deploy/kafka/kafka can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Brokers of the test's own, which may be killed.
pub(crate) struct Broker {
    dir: TempDir,
    pub(crate) address: String,
}

impl Broker {
    pub(crate) fn start() -> Broker {
        Broker::start_in(directory(), &[])
    }

    /// Three nodes, of which two must have a record before it counts.
    pub(crate) fn three() -> Broker {
        Broker::start_in(directory(), &["--nodes", "3"])
    }

    /// The same in this directory, with more options.
    pub(crate) fn start_in(dir: TempDir, options: &[&str]) -> Broker {
        let address = start(dir.path(), &[&SHORT_SESSION, options].concat());
        Broker { dir, address }
    }

    fn pid(&self, node: usize) -> Option<Pid> {
        let text = std::fs::read_to_string(self.dir.path().join(format!("node-{node}.pid"))).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    /// Ends the broker without any notice.
    pub(crate) fn kill(&self) {
        self.kill_node(1);
    }

    /// The same with one of several, counted from 1.
    pub(crate) fn kill_node(&self, node: usize) {
        kill_process(self.pid(node).unwrap(), Signal::KILL).unwrap();
    }

    /// Whether a node has ended by itself.
    pub(crate) fn has_ended(&self, node: usize) -> bool {
        // Whoever has ended has no command line, even if nobody has asked what came of it.
        let line = self.pid(node).map(|pid| std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())));
        line.is_none_or(|line| line.unwrap_or_default().is_empty())
    }

    /// Starts again what has ended, with its data.
    pub(crate) fn restart(&self) {
        assert_eq!(start(self.dir.path(), &[]), self.address);
    }

    /// What a tool of Kafka says of these brokers.
    pub(crate) fn ask(&self, tool: &str, arguments: &[&str]) -> String {
        let output = Command::new(SCRIPT)
            .args(["run", tool, "--bootstrap-server", &self.address])
            .args(arguments)
            .output()
            .expect("deploy/kafka/kafka can be run");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let status = Command::new(SCRIPT).arg("stop").arg(self.dir.path()).status();
        assert!(status.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}
