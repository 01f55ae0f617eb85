//! Which machine it is.

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use std::fs::read_to_string;
use std::path::Path;

/// What an executor needs; its ring is locked memory.
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;

/// The machine; what it does not tell is null.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) host: Option<String>,
    pub(crate) kernel: Option<String>,
    pub(crate) cpu_model: Option<String>,
    pub(crate) cores: usize,
    /// Of the minute before the probe: other work takes its share of every figure.
    pub(crate) load_average: Option<f64>,
}

impl Machine {
    pub(crate) fn here() -> Machine {
        let cpus = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Machine {
            host: line_of("/proc/sys/kernel/hostname"),
            kernel: line_of("/proc/sys/kernel/osrelease"),
            cpu_model: model.map(|(_, model)| model.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load_average: line_of("/proc/loadavg").and_then(|line| line.split(' ').next()?.parse().ok()),
        }
    }
}

fn line_of(path: &str) -> Option<String> {
    read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

/// The kind of file system that a directory is on.
pub(crate) fn file_system(dir: &Path) -> Result<String> {
    let about = rustix::fs::statfs(dir).with_context(|| {
        format!("{} cannot be looked at; make that directory or choose another --dir", dir.display())
    })?;
    Ok(match about.f_type as u32 {
        0xef53 => "ext4".to_owned(),
        0x5846_5342 => "xfs".to_owned(),
        0x9123_683e => "btrfs".to_owned(),
        0x2fc1_2fc1 => "zfs".to_owned(),
        0x794c_7630 => "overlay".to_owned(),
        0x0102_1994 => TMPFS.to_owned(),
        other => format!("{other:#x}"),
    })
}

/// Whether files of so many bytes leave at least as much again free: others use the disk as well.
pub(crate) fn check_room(dir: &Path, needed: u64) -> Result<()> {
    let about = rustix::fs::statvfs(dir)?;
    let (needed_mib, free_mib) = (needed >> 20, (about.f_bavail * about.f_frsize) >> 20);
    ensure!(
        needed_mib <= free_mib / 2,
        "the logs would take {needed_mib} MiB, more than half of the {free_mib} MiB that are free in {}; lower \
         --log-mib or choose another --dir",
        dir.display()
    );
    Ok(())
}

/// Memory that looks like a disk.
pub(crate) const TMPFS: &str = "tmpfs";

/// Whether executors can be made here.
pub(crate) fn check_memlock() -> Result<()> {
    let limit = getrlimit(Resource::Memlock).current;
    ensure!(
        limit.is_none_or(|limit| limit >= MEMLOCK_BYTES_MIN),
        "locked memory is limited to {} bytes and io_uring needs {MEMLOCK_BYTES_MIN}; raise it (`ulimit -l`)",
        limit.unwrap_or_default()
    );
    Ok(())
}
