//! The load generator as a process of its own: its CPU time is not that of the demo or a replica.

use super::processes::spawn;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A load on a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) addresses: Vec<String>,
    pub(crate) seconds: u64,
    pub(crate) warmup: u64,
    /// The rate in decisions per second; `None`: as fast as the cluster allows.
    pub(crate) rate: Option<u64>,
    /// Where it runs: one that wanders gets in the way of every replica.
    pub(crate) core: usize,
    /// Whether progress is shown.
    pub(crate) progress: bool,
}

/// A load that is under way. The load generator ends when this value is dropped.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Load {
    /// Starts the load generator, which lies beside this program.
    pub(crate) fn start(&self) -> Result<Running> {
        let mut command = Command::new(program()?);
        command
            .args(["load", "--output", "json", "--connect", &self.addresses.join(",")])
            .args(["--seconds", &self.seconds.to_string(), "--warmup", &self.warmup.to_string()])
            .args(["--deadline", &super::PATIENCE.as_secs().to_string()])
            .args(["--core", &self.core.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if let Some(rate) = self.rate {
            command.args(["--rate", &rate.to_string()]);
        }
        command.args(["--progress", if self.progress { "bar" } else { "none" }]);
        Ok(Running(spawn(&mut command).context("starting isonomy-bench")?))
    }
}

impl Running {
    /// Waits for the end, and returns the measured figures. A caller that stops waiting ends the load.
    pub(crate) async fn finish(mut self) -> Result<Value> {
        let mut stdout = self.0.stdout.take().expect("it is finished once");
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).map(|_| bytes)
        });
        let bytes = read.await?.context("the figures of isonomy-bench cannot be read")?;
        let status = self.0.wait().context("the end of isonomy-bench cannot be awaited")?;
        serde_json::from_slice(&bytes).with_context(|| {
            format!(
                "the load generator isonomy-bench ended without figures ({status}); see its messages above"
            )
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The load generator, which lies beside this program.
pub(super) fn program() -> Result<PathBuf> {
    let path = std::env::current_exe()
        .context("the path of this program cannot be found")?
        .with_file_name("isonomy-bench");
    if !path.exists() {
        bail!(
            "{} is missing; build the program with `cargo build --release -p isonomy-bench`, or run `make \
             demo`",
            path.display()
        );
    }
    Ok(path)
}
