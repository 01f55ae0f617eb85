//! `probe`: measures what this machine gives, so that every figure has its limit beside it.

mod machine;
mod options;
mod report;
mod skeleton;

use crate::options::Output;
use crate::out::{self, ResultFile, say};
use anyhow::{Context, Result, ensure};
use isonomy_tuning::disk::{FileSystem, free_bytes};
use isonomy_tuning::limits::{EXECUTOR_MEMLOCK_BYTES, Resource, raise};
use isonomy_tuning::probe::{Disk, Loopback, Memory};
use isonomy_tuning::uring;
use machine::Machine;
pub(crate) use options::{ProbeOptions, ReplicaOptions};
use report::ProbeReport;
pub(crate) use skeleton::replica::run as run_replica;
use skeleton::words::REPLICAS;
use std::path::Path;

/// The file system of a directory in which something is to be synced. A file system that syncs nothing is reported,
/// since figures that are measured there are those of no disk.
pub(crate) fn tell_file_system(dir: &Path) -> Result<FileSystem> {
    let file_system = FileSystem::of(dir).with_context(|| {
        format!("{} cannot be read; make this directory, or choose another --dir", dir.display())
    })?;
    if file_system.is_in_memory() {
        say(format_args!(
            "warning: {} is on a {file_system}, which syncs nothing; give a --dir on the disk that is to be \
             measured",
            dir.display()
        ));
    }
    Ok(file_system)
}

/// Checks that logs of so many bytes leave at least as much again free, since others use the disk as well.
fn check_room(dir: &Path, needed: u64) -> Result<()> {
    let (needed_mib, free_mib) = (needed >> 20, free_bytes(dir)? >> 20);
    ensure!(
        needed_mib <= free_mib / 2,
        "the logs would take {needed_mib} MiB, more than half of the {free_mib} MiB that are free in {}; lower \
         --log-mib or choose another --dir",
        dir.display()
    );
    Ok(())
}

/// Checks that executors can be made here.
fn check_executor() -> Result<()> {
    let limit = raise(Resource::MEMLOCK, EXECUTOR_MEMLOCK_BYTES)
        .context("the limit of locked memory cannot be raised")?;
    ensure!(
        limit >= EXECUTOR_MEMLOCK_BYTES,
        "locked memory is limited to {limit} bytes, and io_uring needs {EXECUTOR_MEMLOCK_BYTES} bytes; raise \
         the limit (`ulimit -l`)"
    );
    Ok(uring::check()?)
}

/// Measures the disk, TCP, memory and the skeleton, one after the other, and prints the report.
pub(crate) fn run(options: &ProbeOptions) -> Result<()> {
    options.check()?;
    let file = ResultFile::replace(options.json.as_deref(), "--json")?;
    check_executor()?;
    let machine = Machine::here();
    let file_system = tell_file_system(&options.dir)?;
    check_room(&options.dir, options.shards * REPLICAS as u64 * (options.log_mib << 20))?;
    say("measuring the disk ...");
    let disk = Disk::measure(&options.dir).context("--dir")?;
    say("measuring TCP on this machine ...");
    let loopback =
        Loopback::measure().context("TCP on 127.0.0.1 has failed; check that the interface lo is up")?;
    say("measuring memory ...");
    let memory = Memory::measure();
    say("measuring the skeleton: replicas that sync, forward and execute without a protocol ...");
    let skeleton = skeleton::measure(options)?;
    let report =
        ProbeReport::new(options, machine, file_system.to_string(), &disk, &loopback, &memory, skeleton);
    let json = format!("{}\n", serde_json::to_string_pretty(&report)?);
    let printed = out::print(match options.output {
        Output::Json => json.clone(),
        Output::Table => report.table(),
    });
    printed.and(file.map_or(Ok(()), |mut file| file.write(json.as_bytes())))
}
