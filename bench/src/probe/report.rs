//! The report. Its JSON names are a contract; a figure that was not measured is null.

use isonomy_tuning::probe::{Disk, Loopback, Memory};
use serde::Serialize;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use super::machine::Machine;
use super::options::ProbeOptions;
use super::skeleton::{LoopFigures, Loops};

/// The report of the probe.
#[derive(Debug, Serialize)]
pub(crate) struct ProbeReport {
    commit: Option<&'static str>,
    measured_at_unix_s: u64,
    #[serde(flatten)]
    machine: Machine,
    file_system: String,
    batch: u64,
    config: ProbeOptions,
    /// The figures of the skeleton in a closed loop.
    #[serde(flatten)]
    closed_loop: LoopFigures,
    open_loop: Option<LoopFigures>,
    disk_sync_p50_us: u64,
    disk_sync_p99_us: u64,
    disk_write_mib_per_second: f64,
    loopback_gib_per_second: f64,
    loopback_round_trip_p50_us: u64,
    loopback_round_trip_p99_us: u64,
    /// The time of a read of a random cache line.
    memory_line_ns: f64,
    /// The time that a read waits for an address.
    memory_address_ns: f64,
}

impl ProbeReport {
    pub(crate) fn new(
        options: &ProbeOptions,
        machine: Machine,
        file_system: String,
        disk: &Disk,
        loopback: &Loopback,
        memory: &Memory,
        loops: Loops,
    ) -> ProbeReport {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        ProbeReport {
            commit: option_env!("ISONOMY_COMMIT"),
            measured_at_unix_s: now.map_or(0, |now| now.as_secs()),
            machine,
            file_system,
            batch: options.batch,
            config: options.clone(),
            closed_loop: loops.closed,
            open_loop: loops.open,
            disk_sync_p50_us: disk.sync_p50_us,
            disk_sync_p99_us: disk.sync_p99_us,
            disk_write_mib_per_second: disk.write_mib_per_second,
            loopback_gib_per_second: loopback.gib_per_second,
            loopback_round_trip_p50_us: loopback.round_trip_p50_us,
            loopback_round_trip_p99_us: loopback.round_trip_p99_us,
            memory_line_ns: memory.line_ns,
            memory_address_ns: memory.address_ns,
        }
    }

    /// The report as a table for people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            writeln!(text, "{name:>30}  {value}").expect("writing to memory cannot fail");
        };
        let unknown = || "unknown".to_owned();
        let Machine { kernel, cpu_model, cores, load_average, .. } = &self.machine;
        let (cpu, kernel) =
            (cpu_model.clone().unwrap_or_else(unknown), kernel.clone().unwrap_or_else(unknown));
        row("machine", format!("{cores} cores of {cpu}, Linux {kernel}, {}", self.file_system));
        row("load average before", load_average.map_or_else(unknown, |load| format!("{load:.2}")));
        let (p50, p99) = (self.disk_sync_p50_us, self.disk_sync_p99_us);
        row("4 KiB synchronous write", format!("p50 {p50} us, p99 {p99} us"));
        row("1 MiB direct writes", format!("{:.0} MiB/s", self.disk_write_mib_per_second));
        row("TCP, one stream", format!("{:.2} GiB/s", self.loopback_gib_per_second));
        let (p50, p99) = (self.loopback_round_trip_p50_us, self.loopback_round_trip_p99_us);
        row("TCP, round trip of 64 bytes", format!("p50 {p50} us, p99 {p99} us"));
        row("random cache line of memory", format!("{:.1} ns", self.memory_line_ns));
        row("address of a page", format!("{:.0} ns", self.memory_address_ns));
        let ProbeOptions { shards, batch, in_flight, rate, .. } = &self.config;
        row("skeleton", format!("3 replicas with {shards} shard(s) each"));
        row(
            "closed loop",
            format!("batches of {batch}, {in_flight} under way at each shard of each replica"),
        );
        self.closed_loop.rows(&mut row);
        if let Some((figures, rate)) = self.open_loop.as_ref().zip(*rate) {
            row("open loop", format!("batches of {batch}, {rate} commands/s asked"));
            figures.rows(&mut row);
        }
        text
    }
}

impl LoopFigures {
    fn rows(&self, row: &mut impl FnMut(&str, String)) {
        row("decisions per second", format!("{:.0}", self.decisions_per_second));
        row("replica CPU us per decision", format!("{:.3}", self.cpu_us_per_decision));
        let (p50, p99, p999) = (self.latency_us.p50, self.latency_us.p99, self.latency_us.p999);
        row("latency", format!("p50 {p50} us, p99 {p99} us, p99.9 {p999} us"));
        row("log groups per second", format!("{:.0}", self.groups_per_second));
    }
}
