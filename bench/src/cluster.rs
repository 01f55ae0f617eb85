//! A cluster of three Isonomy replicas on this machine, to be measured.

use crate::servers::Servers;
use anyhow::{Context, Result, ensure};
use isonomy_tuning::cores;
use isonomy_tuning::ports::free_ranges;
use isonomy_wire::client::{Client, discover};
use isonomy_wire::conversation::Config;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The name of the cluster.
pub(crate) const NAME: &str = "bench";
/// The number of replicas.
pub(crate) const REPLICAS: usize = 3;
/// How long servers may take until the first answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The time between two tries.
pub(crate) const RETRY_EVERY: Duration = Duration::from_millis(200);

/// A cluster whose replicas answer.
pub(crate) struct Cluster {
    pub(crate) servers: Servers,
    /// The client addresses of shard 0 of each replica.
    pub(crate) addresses: Vec<String>,
}

/// The `isonomy` program: the one that was named, or the one beside this one.
pub(crate) fn program(named: Option<&Path>) -> Result<PathBuf> {
    let beside = || std::env::current_exe().map(|path| path.with_file_name("isonomy"));
    let path = named
        .map_or_else(beside, |path| Ok(path.into()))
        .context("the path of this program cannot be found")?;
    ensure!(
        path.exists(),
        "{} is missing; build the program with `cargo build --release -p isonomy`, or name its path with \
         --isonomy",
        path.display()
    );
    Ok(path)
}

/// The core of one of the parties that share this machine. They take cores in turn: the replicas, then the load.
pub(crate) fn core_of(party: usize) -> Option<usize> {
    cores::in_turn(&cores::usable(), party)
}

impl Cluster {
    /// Starts replicas with one shard each, on fresh data below `dir`, and waits until they answer.
    /// Up to `clients` can connect to each.
    pub(crate) fn start(program: &Path, dir: &Path, clients: u64) -> Result<Cluster> {
        let mut servers = Servers::new(dir)?;
        let ports = free_ranges(2 * REPLICAS, 1)?;
        let members: Vec<String> =
            ports.chunks(2).map(|ports| format!("127.0.0.1:{}:{}", ports[0], ports[1])).collect();
        for replica in 0..REPLICAS {
            let mut command = Command::new(program);
            command
                .args(["serve", "--cluster", NAME, "--members", &members.join(",")])
                .args(["--replica", &replica.to_string(), "--shards", "1"])
                .args(["--connections-max", &(clients + 64).to_string()])
                .arg("--data-dir")
                .arg(servers.data_dir(replica));
            if let Some(core) = core_of(replica) {
                command.args(["--cores", &core.to_string()]);
            }
            // Settings of the user's own cluster must not leak into this one.
            for name in ["CONFIG", "DURABILITY", "LISTEN"] {
                command.env_remove(format!("ISONOMY_{name}"));
            }
            servers.spawn(&mut command).with_context(|| format!("starting {}", program.display()))?;
        }
        let addresses = ports.chunks(2).map(|ports| format!("127.0.0.1:{}", ports[1])).collect();
        let mut cluster = Cluster { servers, addresses };
        cluster.wait_ready()?;
        Ok(cluster)
    }

    /// Waits until each of them has decided something.
    fn wait_ready(&mut self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let began = Instant::now();
        for address in self.addresses.clone() {
            while let Err(error) = runtime.block_on(decide(&address)) {
                self.servers.check_running()?;
                if began.elapsed() > PATIENCE {
                    return Err(error.context(format!(
                        "the replicas do not answer within {PATIENCE:?}; check the machine's load and the disk \
                         of --dir"
                    )));
                }
                std::thread::sleep(RETRY_EVERY);
            }
        }
        Ok(())
    }
}

async fn decide(address: &str) -> Result<()> {
    let welcome = discover(&[address]).await?;
    let client = Client::with(welcome.clone(), Config::of(&welcome));
    client.decide("ready", "yes").await?;
    client.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_says_how_to_get_it() {
        let error = program(Some(Path::new("/nowhere/isonomy"))).unwrap_err().to_string();
        assert!(error.contains("--isonomy") && error.contains("cargo build"), "{error}");
    }
}
