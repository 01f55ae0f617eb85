//! Real replica processes on this machine, on free ports, in a directory of their own.

use super::etcd::Etcd;
use super::kafka::{ConsumeTable, Kafka, PublishTable};
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
    /// Left out where etcd names them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    members: Vec<Member>,
    membership: &'static str,
    http: DoorTable,
    grpc: DoorTable,
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd: Option<EtcdTable<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    publish: Option<PublishTable<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consume: Option<ConsumeTable<'a>>,
}

#[derive(Serialize)]
struct EtcdTable<'a> {
    endpoints: [&'a str; 1],
}

#[derive(Serialize)]
struct DoorTable {
    listen: String,
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
    http_ports: Vec<u16>,
    grpc_ports: Vec<u16>,
    shards: u16,
    name: String,
    /// Where the members are named, if not in each replica's configuration.
    etcd: Option<Etcd>,
    /// Where proposals come from and decisions go to, if the demo has a Kafka.
    pub(crate) kafka: Option<Kafka>,
    /// The cores of this machine that may be used.
    cores: Vec<usize>,
    processes: Vec<Option<Child>>,
}

impl Cluster {
    /// Starts all replicas, whose members are named in `etcd`, if there is one, and which use `kafka`, if there is one.
    pub(crate) fn start(
        dir: &Path,
        replicas: u8,
        shards: u16,
        etcd: Option<Etcd>,
        kafka: Option<Kafka>,
    ) -> Result<Cluster> {
        let mut peer_bases = free_ranges(4 * usize::from(replicas), shards)?;
        let mut client_bases = peer_bases.split_off(usize::from(replicas));
        let mut http_ports = client_bases.split_off(usize::from(replicas));
        let grpc_ports = http_ports.split_off(usize::from(replicas));
        let mut cluster = Cluster {
            dir: dir.into(),
            peer_bases,
            client_bases,
            http_ports,
            grpc_ports,
            shards,
            name: format!("demo-{}", std::process::id()),
            etcd,
            kafka,
            cores: cores::usable(),
            processes: Vec::new(),
        };
        for index in 0..usize::from(replicas) {
            cluster.processes.push(None);
            cluster.configure(index)?;
        }
        if cluster.etcd.is_some() {
            let members = cluster.members().map(|it| format!("{HOST}:{}:{}", it.peer_base, it.client_base));
            let members = members.collect::<Vec<_>>().join(",");
            cluster.member(&["init", "--shards", &shards.to_string(), "--members", &members])?;
        }
        (0..usize::from(replicas)).try_for_each(|index| cluster.spawn(index))?;
        Ok(cluster)
    }

    /// Writes the configuration of a replica. What it names is in its own directory, which can be moved.
    fn configure(&self, index: usize) -> Result<()> {
        let etcd = self.etcd.as_ref().map(|etcd| EtcdTable { endpoints: [&etcd.endpoint] });
        let text = toml::to_string(&Configuration {
            cluster: &self.name,
            replica: index,
            shards: self.shards,
            data_dir: &format!("replica-{index}"),
            // Each replica is as wide as its shards; the replicas share the cores of this one machine.
            cores: (0..usize::from(self.shards)).map(|shard| self.core(index + shard)).collect(),
            members: if etcd.is_some() { Vec::new() } else { self.members().collect() },
            membership: if etcd.is_some() { "etcd" } else { "static" },
            http: DoorTable { listen: self.http(index) },
            grpc: DoorTable { listen: self.grpc(index) },
            etcd,
            publish: self.kafka.as_ref().map(Kafka::publish),
            consume: self.kafka.as_ref().map(Kafka::consume),
        })?;
        let path = self.config_path(index);
        fs::write(&path, text).with_context(|| {
            format!("{}: the file cannot be written; choose another directory with --dir", path.display())
        })
    }

    fn members(&self) -> impl Iterator<Item = Member> {
        let bases = self.peer_bases.iter().zip(&self.client_bases);
        bases.map(|(peers, clients)| Member { host: HOST, peer_base: *peers, client_base: *clients })
    }

    /// Runs `isonomy member` to its end.
    pub(crate) fn member(&self, args: &[&str]) -> Result<()> {
        let program = std::env::current_exe().context("the path of this program cannot be found")?;
        let mut command = Command::new(program);
        command.arg("member").args(args).arg("--config").arg(self.config_path(0));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let status = spawn(&mut command).and_then(|mut child| child.wait());
        let status = status.context("`isonomy member` cannot be run")?;
        if !status.success() {
            bail!("isonomy member {} has failed ({status}); see its message above", args.join(" "));
        }
        Ok(())
    }

    /// Takes the data directory of a replica that does not run away.
    pub(crate) fn wipe(&self, index: usize) -> Result<()> {
        let path = self.dir.join(format!("replica-{index}"));
        fs::remove_dir_all(&path).with_context(|| path.display().to_string())
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

    /// Where a replica answers HTTP.
    pub(crate) fn http(&self, index: usize) -> String {
        format!("{HOST}:{}", self.http_ports[index])
    }

    /// Where a replica answers gRPC.
    pub(crate) fn grpc(&self, index: usize) -> String {
        format!("{HOST}:{}", self.grpc_ports[index])
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
            http_ports: Vec::new(),
            grpc_ports: Vec::new(),
            shards,
            name: String::new(),
            etcd: None,
            kafka: None,
            cores: cores.into(),
            processes: Vec::new(),
        };
        assert_eq!([0, 1, 2].map(|turn| cluster(1, &[4, 7]).core(turn)), [4, 7, 4]);
        assert_eq!(cluster(1, &[4, 7]).load_core(), 7);
        assert_eq!(cluster(2, &[4, 7, 8, 9, 11]).load_core(), 11);
        assert_eq!(cluster(1, &[3]).load_core(), 3);
    }
}
