//! Server processes that are measured: started here, on free ports, in a directory of their own.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Ports are looked for below the range from which the system gives outgoing connections theirs.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// How often a port is tried before the search is given up.
const PORT_TRIES: usize = 1000;
/// What is shown of a server's log when it ends too early.
const LOG_LINES_SHOWN: usize = 20;

/// Servers. They and their data end with it.
pub(crate) struct Servers {
    dir: TempDir,
    processes: Vec<Child>,
}

impl Servers {
    /// None yet; their data go below `parent`.
    pub(crate) fn new(parent: &Path) -> Result<Servers> {
        let dir = tempfile::Builder::new().prefix("isonomy-bench-").tempdir_in(parent);
        let dir =
            dir.with_context(|| format!("{}: choose another directory with --dir", parent.display()))?;
        Ok(Servers { dir, processes: Vec::new() })
    }

    /// Where a server's data go.
    pub(crate) fn data_dir(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("data-{index}"))
    }

    fn log_path(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("log-{index}.txt"))
    }

    /// Starts one more; what it says goes to its log. The system kills it when this program has ended, in
    /// whatever way. Called on the main thread, since the system looks at the thread that starts it.
    pub(crate) fn spawn(&mut self, command: &mut Command) -> std::io::Result<()> {
        let log = File::create(self.log_path(self.processes.len()))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let bench = getpid();
        // A group of its own: Ctrl-C is for this program, which ends the servers.
        command.process_group(0);
        // SAFETY: between fork and exec only system calls are made; nothing is allocated or locked.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(move || end_with(bench));
        }
        self.processes.push(command.spawn()?);
        Ok(())
    }

    /// An error with the end of its log if one has ended.
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

/// Asks the system to kill this process when the one that starts it has ended.
fn end_with(bench: Pid) -> std::io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before that.
    if getppid() == Some(bench) { Ok(()) } else { Err(std::io::ErrorKind::Interrupted.into()) }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The CPU time that processes have taken, in microseconds; none if one of them is gone.
pub(crate) fn cpu_us(processes: &[u32]) -> Option<u64> {
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let ticks = processes.iter().map(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        ticks_of(&stat)
    });
    Some(ticks.sum::<Option<u64>>()? * 1_000_000 / ticks_per_second)
}

/// User and system time in a process's stat line, whose second field is a name in brackets.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    Some(times.next()?.parse::<u64>().ok()? + times.next()?.parse::<u64>().ok()?)
}

/// So many free ports. They can be lost again before they are used; whoever starts a server then
/// sees it end.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let mut ports = Vec::new();
    for _ in 0..PORT_TRIES {
        if ports.len() == count {
            return Ok(ports);
        }
        let port = rand::random_range(PORTS);
        if !ports.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            ports.push(port);
        }
    }
    bail!("no {count} free ports were found between {} and {}; close what holds them", PORTS.start, PORTS.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 120 0 1 0 31 11 0 0 20 0 5 0 99 1 1";
        assert_eq!(ticks_of(stat), Some(42));
        assert!(cpu_us(&[std::process::id()]).is_some());
        assert_eq!(cpu_us(&[u32::MAX]), None);
    }

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
        assert_eq!(cpu_us(&[sleeper]), None);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn free_ports_differ() {
        let mut ports = free_ports(20).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }
}
