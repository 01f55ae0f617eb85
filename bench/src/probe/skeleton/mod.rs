//! The skeleton: three processes for each shard and a load, which do the I/O of an Isonomy cluster
//! and update a table, without any protocol. What remains between its figures and those of Isonomy
//! on the same machine is what agreement, conversations and execution cost.

mod link;
mod load;
mod log;
mod node;
pub(crate) mod replica;
mod signal;
mod table;
mod ticks;
mod wire;
pub(crate) mod words;

use anyhow::{Context, Result, ensure};
use isonomy_tuning::cores;
use load::BatchPace;
use serde::Serialize;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use wire::PlainWire;
use words::REPLICAS;

use super::options::ProbeOptions;

/// The latencies of batches, from when each was due until it was answered.
#[derive(Debug, Serialize)]
pub(crate) struct BatchLatency {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
}

/// The figures of one loop.
#[derive(Debug, Serialize)]
pub(crate) struct LoopFigures {
    pub(crate) decisions_per_second: f64,
    /// The CPU time of all replicas together.
    pub(crate) cpu_us_per_decision: f64,
    pub(crate) latency_us: BatchLatency,
    /// The groups of all replicas together.
    pub(crate) groups_per_second: f64,
    /// The log bytes of all replicas together.
    pub(crate) log_bytes_per_decision: f64,
}

/// The figures of both loops.
pub(crate) struct Loops {
    pub(crate) closed: LoopFigures,
    pub(crate) open: Option<LoopFigures>,
}

/// Starts the processes, loads them, and ends them.
pub(crate) fn measure(options: &ProbeOptions) -> Result<Loops> {
    let shards = (0..options.shards as usize).map(|shard| Replicas::start(options, shard));
    let shards = shards.collect::<Result<Vec<_>>>()?;
    if let Some(core) = options.core(shards.len() * REPLICAS) {
        cores::pin(core);
    }
    let ports = shards.iter().flat_map(|replicas| &replicas.ports);
    let wires: Result<Vec<_>> = ports.map(|port| PlainWire::connect(*port)).collect();
    let mut wires = wires
        .context("a replica of the probe accepts no connection; see the messages of the replica above")?;
    let closed = load::run(options, &mut wires, BatchPace::Closed { in_flight: options.in_flight as usize })?;
    let open = |rate: u64| {
        let batches_per_second = rate as f64 / options.batch as f64;
        load::run(options, &mut wires, BatchPace::Open { batches_per_second })
    };
    let open = options.rate.map(open).transpose()?;
    Ok(Loops { closed, open })
}

/// The processes of a shard, which end when this value is dropped.
struct Replicas {
    children: Vec<Child>,
    ports: Vec<u16>,
}

impl Replicas {
    /// Starts all at once, since each fills a log first, and links them.
    fn start(options: &ProbeOptions, shard: usize) -> Result<Replicas> {
        let mut replicas = Replicas { children: Vec::new(), ports: Vec::new() };
        for id in 0..REPLICAS {
            replicas.children.push(start_one(options, id, options.core(shard * REPLICAS + id))?);
        }
        let mut words = Vec::new();
        for child in &mut replicas.children {
            words.push(BufReader::new(child.stdout.take().expect("it is piped")));
        }
        for word in &mut words {
            let port = hear(word)?.parse().context("a replica of the probe named no port; report this")?;
            replicas.ports.push(port);
        }
        let line = replicas.ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
        for child in &mut replicas.children {
            let stdin = child.stdin.as_mut().expect("it is piped");
            writeln!(stdin, "{line}").context(ENDED)?;
        }
        for word in &mut words {
            hear(word)?;
        }
        Ok(replicas)
    }
}

fn start_one(options: &ProbeOptions, id: usize, core: Option<usize>) -> Result<Child> {
    let program = std::env::current_exe()
        .context("the path of this program cannot be found; start the program by its full path")?;
    let mut command = Command::new(program);
    command.arg("probe-replica").arg("--id").arg(id.to_string()).arg("--dir").arg(&options.dir);
    let (keys, log_mib) = (options.keys_of_shard(), options.log_mib);
    let numbers = [("--value-bytes", options.value_bytes), ("--keys", keys), ("--log-mib", log_mib)];
    for (name, number) in numbers {
        command.arg(name).arg(number.to_string());
    }
    if let Some(core) = core {
        command.arg("--core").arg(core.to_string());
    }
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    child.context("no process can be started; raise the limit on processes (`ulimit -u`)")
}

const ENDED: &str = "a replica of the probe ended early; see the messages of the replica above, and check that \
                     io_uring is allowed here (sysctl kernel.io_uring_disabled, seccomp profile)";

/// The next line of a replica.
fn hear(words: &mut BufReader<ChildStdout>) -> Result<String> {
    let mut line = String::new();
    words.read_line(&mut line)?;
    ensure!(!line.is_empty(), ENDED);
    Ok(line.trim_end().to_owned())
}

impl Drop for Replicas {
    fn drop(&mut self) {
        // A process that cannot be killed or waited for has ended.
        self.children.iter_mut().for_each(|child| drop(child.kill()));
        self.children.iter_mut().for_each(|child| drop(child.wait()));
    }
}
