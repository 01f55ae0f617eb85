//! `probe`: what this machine gives, so that every figure has its limit beside it.

mod direct;
mod disk;
mod loopback;
mod machine;
mod memory;
mod options;
mod report;
mod skeleton;

use crate::options::Output;
use crate::out::{self, ResultFile, say};
use anyhow::Result;
use machine::Machine;
use memory::Memory;
pub(crate) use options::{Options, ReplicaOptions};
use report::Report;
pub(crate) use skeleton::replica::run as run_replica;
use skeleton::words::REPLICAS;
use std::path::Path;

/// The file system of a directory in which something is to be synced. One that syncs nothing is told: what is
/// measured there is no disk.
pub(crate) fn tell_file_system(dir: &Path) -> Result<String> {
    let file_system = machine::file_system(dir)?;
    if file_system == machine::TMPFS {
        say(format_args!(
            "warning: {} is on a tmpfs, which syncs nothing; give a --dir on the disk that is meant",
            dir.display()
        ));
    }
    Ok(file_system)
}

/// Measures the disk, TCP, memory and the skeleton, one after the other, and prints the report.
pub(crate) fn run(options: &Options) -> Result<()> {
    options.check()?;
    let file = ResultFile::replace(options.json.as_deref(), "--json")?;
    machine::check_memlock()?;
    let machine = Machine::here();
    let file_system = tell_file_system(&options.dir)?;
    machine::check_room(&options.dir, options.shards * REPLICAS as u64 * (options.log_mib << 20))?;
    say("measuring the disk ...");
    let disk = disk::measure(&options.dir)?;
    say("measuring TCP on this machine ...");
    let loopback = loopback::measure()?;
    say("measuring memory ...");
    let memory = Memory::measure();
    say("measuring the skeleton: replicas that sync, forward and execute without a protocol ...");
    let skeleton = skeleton::measure(options)?;
    let report = Report::new(options, machine, file_system, &disk, &loopback, &memory, skeleton);
    let json = format!("{}\n", serde_json::to_string_pretty(&report)?);
    let printed = out::print(match options.output {
        Output::Json => json.clone(),
        Output::Table => report.table(),
    });
    printed.and(file.map_or(Ok(()), |mut file| file.write(json.as_bytes())))
}
