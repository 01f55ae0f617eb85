//! An etcd of the demo's own: one process, on free ports, in the demo's directory.

use super::processes::spawn;
use anyhow::{Context, Result, bail};
use isonomy_tuning::ports::free_ranges;
use std::fs::File;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long etcd may take to take connections.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How often the demo looks whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The process, which ends when the value is dropped.
pub(crate) struct Etcd {
    process: Child,
    /// Where clients of etcd find it.
    pub(crate) endpoint: String,
}

impl Etcd {
    /// Starts etcd, and waits until it takes connections.
    pub(crate) fn start(program: &Path, dir: &Path) -> Result<Etcd> {
        let ports = free_ranges(2, 1)?;
        let at = |port: u16| format!("http://127.0.0.1:{port}");
        let (clients, peers) = (at(ports[0]), at(ports[1]));
        let log = dir.join("etcd.txt");
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let mut command = Command::new(program);
        command
            .args(["--name", "demo", "--data-dir"])
            .arg(dir.join("etcd"))
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("demo={peers}")])
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let process = spawn(&mut command).with_context(|| {
            format!(
                "{} cannot be started; install etcd (on Debian: apt install etcd-server), or name the program with \
                 --etcd-program",
                program.display()
            )
        })?;
        let mut etcd = Etcd { process, endpoint: clients };
        etcd.wait_listening(ports[0], &log)?;
        Ok(etcd)
    }

    fn wait_listening(&mut self, port: u16, log: &Path) -> Result<()> {
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("etcd has ended ({status}); see {} (kept with --keep)", log.display());
            }
            if began.elapsed() > START_PATIENCE {
                bail!("etcd takes no connections after {START_PATIENCE:?}; see {}", log.display());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
