//! Real replica processes on this machine, on free ports, in a directory of their own.

use super::processes::spawn;
use anyhow::{Context, Result, bail};
use isonomy_tuning::cores;
use isonomy_tuning::ports::free_ranges;
use serde::Serialize;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a replica may take to stop in good order.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How much of a replica's log is shown when the replica ends too early.
const LOG_LINES_SHOWN: usize = 40;

/// The host of all replicas.
const HOST: &str = "127.0.0.1";

/// The configuration file of a replica.
#[derive(Serialize)]
struct Configuration<'a> {
    cluster: &'a str,
    replica: usize,
    shards: u16,
    data_dir: &'a str,
    cores: Vec<usize>,
    members: Vec<Member>,
}

#[derive(Serialize)]
struct Member {
    host: &'static str,
    peer_base: u16,
    client_base: u16,
}

/// A cluster of processes, which end when the cluster is dropped.
pub(crate) struct Cluster {
    pub(crate) dir: PathBuf,
    pub(crate) peer_bases: Vec<u16>,
    pub(crate) client_bases: Vec<u16>,
    shards: u16,
    name: String,
    /// The cores of this machine that may be used.
    cores: Vec<usize>,
    processes: Vec<Option<Child>>,
}

impl Cluster {
    /// Starts all replicas.
    pub(crate) fn start(dir: &Path, replicas: u8, shards: u16) -> Result<Cluster> {
        let mut peer_bases = free_ranges(2 * usize::from(replicas), shards)?;
        let client_bases = peer_bases.split_off(usize::from(replicas));
        let mut cluster = Cluster {
            dir: dir.into(),
            peer_bases,
            client_bases,
            shards,
            name: format!("demo-{}", std::process::id()),
            cores: cores::usable(),
            processes: Vec::new(),
        };
        for index in 0..usize::from(replicas) {
            cluster.processes.push(None);
            cluster.configure(index)?;
            cluster.spawn(index)?;
        }
        Ok(cluster)
    }

    /// Writes the configuration of a replica. What it names is in its own directory, which can be moved.
    fn configure(&self, index: usize) -> Result<()> {
        let bases = self.peer_bases.iter().zip(&self.client_bases);
        let member =
            |(peers, clients): (&u16, &u16)| Member { host: HOST, peer_base: *peers, client_base: *clients };
        let text = toml::to_string(&Configuration {
            cluster: &self.name,
            replica: index,
            shards: self.shards,
            data_dir: &format!("replica-{index}"),
            // Each replica is as wide as its shards; the replicas share the cores of this one machine.
            cores: (0..usize::from(self.shards)).map(|shard| self.core(index + shard)).collect(),
            members: bases.map(member).collect(),
        })?;
        let path = self.config_path(index);
        fs::write(&path, text).with_context(|| {
            format!("{}: the file cannot be written; choose another directory with --dir", path.display())
        })
    }

    /// Starts a replica, for the first time or again.
    pub(crate) fn spawn(&mut self, index: usize) -> Result<()> {
        let program = std::env::current_exe().context("the path of this program cannot be found")?;
        let log = File::options().create(true).append(true).open(self.log_path(index))?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--config").arg(self.config_path(index));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.processes[index] = Some(spawn(&mut command).context("a replica cannot be started")?);
        Ok(())
    }

    /// Cores are given out in turn.
    fn core(&self, turn: usize) -> usize {
        cores::in_turn(&self.cores, turn).unwrap_or(0)
    }

    /// The core whose turn it is behind the last replica's last shard.
    pub(crate) fn load_core(&self) -> usize {
        self.core(self.client_bases.len() - 1 + usize::from(self.shards))
    }

    pub(crate) fn config_path(&self, index: usize) -> PathBuf {
        self.dir.join(format!("replica-{index}.toml"))
    }

    pub(crate) fn log_path(&self, index: usize) -> PathBuf {
        self.dir.join(format!("replica-{index}.txt"))
    }

    /// The address of shard 0 for clients of each of these replicas.
    pub(crate) fn addresses(&self, replicas: impl IntoIterator<Item = usize>) -> Vec<String> {
        replicas.into_iter().map(|index| format!("{HOST}:{}", self.client_bases[index])).collect()
    }

    /// An error with the end of its log if a replica that should run has ended.
    pub(crate) fn check_running(&mut self) -> Result<()> {
        for index in 0..self.processes.len() {
            let Some(process) = &mut self.processes[index] else { continue };
            if let Some(status) = process.try_wait()? {
                let log = fs::read_to_string(self.log_path(index)).unwrap_or_default();
                let skip = log.lines().count().saturating_sub(LOG_LINES_SHOWN);
                let tail: Vec<&str> = log.lines().skip(skip).collect();
                bail!("replica {index} has ended ({status}):\n{}", tail.join("\n"));
            }
        }
        Ok(())
    }

    /// SIGKILL: the process gets no chance to do anything more.
    pub(crate) fn kill(&mut self, index: usize) -> Result<()> {
        if let Some(mut process) = self.processes[index].take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Asks all replicas to stop, and waits for them.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let began = Instant::now();
        for process in self.processes.iter().flatten() {
            let pid = rustix::process::Pid::from_child(process);
            // The replica may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        for (index, process) in self.processes.iter_mut().enumerate() {
            let Some(running) = process else { continue };
            while running.try_wait()?.is_none() {
                if began.elapsed() > STOP_PATIENCE {
                    bail!("replica {index} did not stop within {STOP_PATIENCE:?}; see its log");
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            *process = None;
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().flatten() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_that_may_be_used_are_taken_in_turn() {
        let cluster = |shards, cores: &[usize]| Cluster {
            dir: PathBuf::new(),
            peer_bases: Vec::new(),
            client_bases: vec![1, 2, 3],
            shards,
            name: String::new(),
            cores: cores.into(),
            processes: Vec::new(),
        };
        assert_eq!([0, 1, 2].map(|turn| cluster(1, &[4, 7]).core(turn)), [4, 7, 4]);
        assert_eq!(cluster(1, &[4, 7]).load_core(), 7);
        assert_eq!(cluster(2, &[4, 7, 8, 9, 11]).load_core(), 11);
        assert_eq!(cluster(1, &[3]).load_core(), 3);
    }
}
