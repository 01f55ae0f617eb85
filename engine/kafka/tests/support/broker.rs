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

fn directory() -> TempDir {
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

/// A broker of the test's own, which may be killed.
pub(crate) struct Broker {
    dir: TempDir,
    pub(crate) address: String,
}

impl Broker {
    pub(crate) fn start() -> Broker {
        let dir = directory();
        let address = start(dir.path(), &SHORT_SESSION);
        Broker { dir, address }
    }

    /// Ends the broker without any notice.
    pub(crate) fn kill(&self) {
        let pid = std::fs::read_to_string(self.dir.path().join("node-1.pid")).unwrap();
        kill_process(Pid::from_raw(pid.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    }

    /// Starts it again with its data.
    pub(crate) fn restart(&self) {
        assert_eq!(start(self.dir.path(), &[]), self.address);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let status = Command::new(SCRIPT).arg("stop").arg(self.dir.path()).status();
        assert!(status.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}
