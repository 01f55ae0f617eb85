//! The server processes that are measured. They are started here, on free ports, in a directory of their own.

use anyhow::{Context, Result, bail};
use isonomy_tuning::children;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// How many lines of a server's log are shown when it ends too early.
const LOG_LINES_SHOWN: usize = 20;

/// Servers, which end with this value, as do their data.
pub(crate) struct Servers {
    dir: TempDir,
    processes: Vec<Child>,
}

impl Servers {
    /// Makes a set without servers, whose data will lie below `parent`.
    pub(crate) fn new(parent: &Path) -> Result<Servers> {
        let dir = tempfile::Builder::new().prefix("isonomy-bench-").tempdir_in(parent);
        let dir = dir.with_context(|| {
            format!("{}: the directory cannot be used; choose another directory with --dir", parent.display())
        })?;
        Ok(Servers { dir, processes: Vec::new() })
    }

    /// The directory of a server's data.
    pub(crate) fn data_dir(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("data-{index}"))
    }

    fn log_path(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("log-{index}.txt"))
    }

    /// Starts one more server, whose output goes to its log. It ends with this program. Called on the main thread.
    pub(crate) fn spawn(&mut self, command: &mut Command) -> std::io::Result<()> {
        let log = File::create(self.log_path(self.processes.len()))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        children::end_with_this(command);
        self.processes.push(command.spawn()?);
        Ok(())
    }

    /// Returns an error with the end of a server's log if one has ended.
    pub(crate) fn check_running(&mut self) -> Result<()> {
        for index in 0..self.processes.len() {
            if let Some(status) = self.processes[index].try_wait()? {
                let log = fs::read_to_string(self.log_path(index)).unwrap_or_default();
                let skip = log.lines().count().saturating_sub(LOG_LINES_SHOWN);
                let tail: Vec<&str> = log.lines().skip(skip).collect();
                bail!("server {index} has ended ({status}):\n{}", tail.join("\n"));
            }
        }
        Ok(())
    }

    pub(crate) fn ids(&self) -> Vec<u32> {
        self.processes.iter().map(Child::id).collect()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_tuning::cpu::cpu_us_of;

    #[test]
    fn servers_end_with_their_data_and_an_early_end_is_told() {
        let parent = tempfile::tempdir().unwrap();
        let mut servers = Servers::new(parent.path()).unwrap();
        servers.spawn(Command::new("sleep").arg("600")).unwrap();
        servers.check_running().unwrap();
        servers.spawn(Command::new("sh").args(["-c", "echo no disk; exit 3"])).unwrap();
        let error = loop {
            if let Err(error) = servers.check_running() {
                break error.to_string();
            }
            std::thread::yield_now();
        };
        assert!(error.contains("server 1 has ended") && error.contains("no disk"), "{error}");
        let sleeper = servers.ids()[0];
        drop(servers);
        assert_eq!(cpu_us_of(&[sleeper]), None);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
