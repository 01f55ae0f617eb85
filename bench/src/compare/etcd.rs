//! An etcd cluster of three on this machine, and many clients that put.

use crate::cluster::{PATIENCE, REPLICAS, RETRY_EVERY};
use crate::load::record::{Record, Recorded};
use crate::load::schedule::{START_US, Schedule};
use crate::load::workload::Workload;
use crate::options::Options;
use crate::servers::Servers;
use anyhow::{Context, Result, anyhow, bail};
use etcd_client::{Client, KvClient};
use isonomy_tuning::cpu::{cpu_us_of, process_cpu_us};
use isonomy_tuning::environment;
use isonomy_tuning::ports::free_ranges;
use isonomy_wire::conversation::Action;
use std::cell::RefCell;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::{JoinSet, LocalSet};

/// Clients that share a connection, on which many calls can be under way.
const CLIENTS_PER_CONNECTION: u64 = 25;
/// How long a client waits after a refusal.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// The time between two checks whether the user wants the load to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Members that answer.
pub(super) struct Etcd {
    pub(super) servers: Servers,
    endpoints: Vec<String>,
}

/// The first words of the output of `etcd --version`.
pub(super) fn version(program: &Path) -> Result<String> {
    let output = match Command::new(program).arg("--version").output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "the program {} was not found; install etcd (on Debian and Ubuntu `apt install etcd-server`), or \
             unpack a release of etcd and name its program with --etcd",
            program.display()
        ),
        Err(error) => return Err(error).with_context(|| format!("starting {}", program.display())),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or("etcd of an unknown version").to_owned())
}

impl Etcd {
    /// Starts the members with etcd's own defaults, on fresh data below `dir`, and waits until they answer.
    pub(super) fn start(program: &Path, dir: &Path) -> Result<Etcd> {
        let mut servers = Servers::new(dir)?;
        let ports = free_ranges(2 * REPLICAS, 1)?;
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let members: Vec<_> =
            ports.chunks(2).enumerate().map(|(index, ports)| format!("m{index}={}", url(ports[0]))).collect();
        for (index, ports) in ports.chunks(2).enumerate() {
            let (peers, clients) = (url(ports[0]), url(ports[1]));
            let mut command = Command::new(program);
            command
                .args(["--name", &format!("m{index}"), "--initial-cluster", &members.join(",")])
                .args(["--initial-cluster-state", "new", "--initial-cluster-token", "bench"])
                .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
                .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
                .args(["--log-level", "error"])
                .arg("--data-dir")
                .arg(servers.data_dir(index));
            // Settings of the user's own etcd must not leak into this one.
            environment::withhold(&mut command, "ETCD_");
            servers.spawn(&mut command).with_context(|| format!("starting {}", program.display()))?;
        }
        let endpoints = ports.chunks(2).map(|ports| url(ports[1])).collect();
        let mut etcd = Etcd { servers, endpoints };
        etcd.wait_ready()?;
        Ok(etcd)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let runtime = runtime()?;
        let began = Instant::now();
        for endpoint in self.endpoints.clone() {
            let put = || async {
                let mut client = Client::connect([&endpoint], None).await?;
                client.put("ready", "yes", None).await.context("a put")
            };
            while let Err(error) = runtime.block_on(put()) {
                self.servers.check_running()?;
                if began.elapsed() > PATIENCE {
                    return Err(error.context(format!(
                        "etcd does not answer within {PATIENCE:?}; check the machine's load and the disk of \
                         --dir"
                    )));
                }
                std::thread::sleep(RETRY_EVERY);
            }
        }
        Ok(())
    }

    /// Runs the load. Returns what was measured, with the CPU time that all processes had taken before and after.
    pub(super) fn measure(&self, plan: &Arc<Plan>, interrupted: &AtomicBool) -> Result<Measurement> {
        let start = |thread| {
            let (plan, endpoints) = (plan.clone(), self.endpoints.clone());
            std::thread::spawn(move || run(&plan, thread, &endpoints))
        };
        let threads: Vec<_> = (0..plan.options.threads).map(start).collect();
        let span = plan.schedule.span();
        let (before, after) =
            (self.sample(plan, span.from, interrupted), self.sample(plan, span.to, interrupted));
        let mut recorded = Recorded::new(plan.schedule.steps.len());
        for thread in threads {
            recorded.merge(
                &thread
                    .join()
                    .map_err(|_| anyhow!("a thread of the load panicked; report the message above"))??,
            );
        }
        Ok(Measurement { recorded, before, after })
    }

    /// Waits for a time, or until the user wants an end. Returns the CPU time of the members and of this process.
    fn sample(&self, plan: &Plan, time: u64, interrupted: &AtomicBool) -> (Option<u64>, u64) {
        while plan.now() < time.min(plan.end()) {
            if interrupted.load(Ordering::Relaxed) {
                plan.to.store(0, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_micros(time.saturating_sub(plan.now())).min(LOOK_EVERY));
        }
        (cpu_us_of(&self.servers.ids()), process_cpu_us())
    }
}

/// The results of a run.
pub(super) struct Measurement {
    pub(super) recorded: Recorded,
    /// The CPU time of the members and of this process, in microseconds.
    pub(super) before: (Option<u64>, u64),
    pub(super) after: (Option<u64>, u64),
}

/// The data of the run that all clients share.
pub(super) struct Plan {
    options: Options,
    schedule: Schedule,
    origin: Instant,
    to: AtomicU64,
}

impl Plan {
    /// A plan of a run that begins now.
    pub(super) fn new(options: &Options) -> Plan {
        let schedule = Schedule::new(options);
        let to = AtomicU64::new(schedule.span().to);
        Plan { options: options.clone(), schedule, origin: Instant::now(), to }
    }

    fn now(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }

    fn end(&self) -> u64 {
        self.to.load(Ordering::Relaxed)
    }
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// One thread with its share of the clients.
fn run(plan: &Arc<Plan>, thread: u64, endpoints: &[String]) -> Result<Recorded> {
    let (sender, _nobody_looks_at_seconds) = channel();
    let record = Record::new(START_US, &plan.schedule.steps, sender);
    let desk = Rc::new(RefCell::new((Workload::new(&plan.options, thread), record)));
    let clients = plan.options.clients_of(thread).unwrap_or_default();
    runtime()?.block_on(LocalSet::new().run_until(async {
        let mut connections = Vec::new();
        for connection in 0..clients.div_ceil(CLIENTS_PER_CONNECTION) {
            // Threads begin with different members.
            let endpoint = &endpoints[(connection + thread) as usize % endpoints.len()];
            connections.push(Client::connect([endpoint], None).await?.kv_client());
        }
        let mut tasks = JoinSet::new();
        for client in 0..clients as usize {
            let connection = connections[client % connections.len()].clone();
            tasks.spawn_local(ask(connection, plan.clone(), desk.clone()));
        }
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        anyhow::Ok(())
    }))?;
    let (_, record) = Rc::into_inner(desk).expect("the clients have ended").into_inner();
    Ok(record.finish())
}

/// One client, which puts one key at a time.
async fn ask(mut etcd: KvClient, plan: Arc<Plan>, desk: Rc<RefCell<(Workload, Record)>>) {
    loop {
        let asked = plan.now();
        if asked >= plan.end() {
            return;
        }
        let (key, value) = match desk.borrow_mut().0.next(|_| 0).1 {
            Action::Decide { key, value } => (key.to_vec(), value.to_vec()),
            other => unreachable!("{other:?} is no part of a comparison"),
        };
        let answer = etcd.put(key, value, None).await;
        let now = plan.now();
        let record = |note: &dyn Fn(&mut Record)| {
            let record = &mut desk.borrow_mut().1;
            record.turn(now);
            note(record);
        };
        match answer {
            Ok(_) => record(&|record| record.on_committed(now, plan.end(), asked)),
            Err(_) => {
                record(&|record| record.on_failure(asked, "refused"));
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
}
