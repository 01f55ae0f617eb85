//! One replica of the skeleton: a process with one executor.
//!
//! It tells its port on stdout, hears the ports of all on stdin, tells that it is linked, and ends
//! when stdin ends: with the probe, however that ends.

use crate::out;
use anyhow::{Context, Result, bail, ensure};
use glommio::io::{DmaFile, OpenOptions};
use glommio::net::{TcpListener, TcpStream};
use glommio::{Latency, LocalExecutorBuilder, Placement, PoolPlacement, Shares};
use isonomy_tuning::direct::{filled, path_of};
use isonomy_wire::frame::Encoder;
use isonomy_wire::id::{RecordId, ReplicaId};
use isonomy_wire::message::{Handshake, Role, Start};
use rustix::fs::OFlags;
use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use super::link::{Connection, Sink};
use super::log::{Group, Log};
use super::node::Node;
use super::signal::Signal;
use super::table::Table;
use super::ticks;
use super::words::{HANDSHAKE, REPLICAS, command_bytes, hello, others};
use crate::probe::options::ReplicaOptions;

/// The memory that is registered with the rings.
const IO_MEMORY_BYTES: usize = 2 << 20;
/// A time longer than any probe, since sockets and disk are looked at anyway as soon as there is something.
const PREEMPT: Duration = Duration::from_secs(86_400);

/// The state that the tasks share.
struct TaskState {
    node: RefCell<Node>,
    /// Inputs have come: a turn is due.
    turn: Signal,
    /// The log has something to write.
    write: Signal,
}

/// Runs until the probe ends.
pub(crate) fn run(options: &ReplicaOptions) -> Result<()> {
    let file = filled(&options.dir, options.log_mib << 20).context("--dir")?;
    let table = Table::new(options.keys, command_bytes(options.value_bytes));
    let placement = options.core.map_or(Placement::Unbound, Placement::Fixed);
    let executor = LocalExecutorBuilder::new(placement)
        .name("probe")
        .io_memory(IO_MEMORY_BYTES)
        .preempt_timer(PREEMPT)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
        .make();
    let executor = executor.map_err(|error| {
        anyhow::anyhow!(
            "the executor of glommio does not start ({error}); check the limit on locked memory (`ulimit -l`) \
             and that io_uring is allowed"
        )
    })?;
    let options = options.clone();
    executor.run(async move {
        let latency = Latency::Matters(PREEMPT);
        let queue = glommio::executor().create_task_queue(Shares::default(), latency, "probe");
        let served = glommio::spawn_local_into(serve(options, file, table), queue);
        served.expect("the queue was just made").await
    })
}

async fn serve(options: ReplicaOptions, file: File, table: Table) -> Result<()> {
    let row = ReplicaId(options.id);
    let mut opening = OpenOptions::new();
    opening.read(true).write(true).custom_flags(OFlags::DSYNC.bits() as i32);
    let log = opening.dma_open(path_of(&file)).await.map_err(std::io::Error::from);
    let log = log.context("the log of the probe cannot be opened; check --dir")?;
    let listener = TcpListener::bind("127.0.0.1:0").map_err(std::io::Error::from)?;
    say(&listener.local_addr().map_err(std::io::Error::from)?.port().to_string())?;
    let ports = glommio::executor().spawn_blocking(hear_ports).await?;
    std::thread::spawn(end_with_stdin);

    let links = open_links(row, &ports).await?;
    let command_bytes = command_bytes(options.value_bytes);
    let node = Node::new(row, Log::new(options.log_mib << 20), table, command_bytes, links);
    let shared = TaskState { node: node.into(), turn: Signal::default(), write: Signal::default() };
    let shared = Rc::new(shared);
    glommio::spawn_local(shared.clone().run_turns()).detach();
    glommio::spawn_local(shared.clone().run_writes(log)).detach();
    glommio::spawn_local(ticks::run()).detach();
    say("linked")?;
    loop {
        let stream = listener.accept().await.map_err(std::io::Error::from)?;
        glommio::spawn_local(shared.clone().hear(stream)).detach();
    }
}

/// Tells the probe one word.
fn say(word: &str) -> Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{word}")?;
    Ok(stdout.flush()?)
}

/// The ports of all replicas, one line.
fn hear_ports() -> Result<Vec<u16>> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let ports: Vec<u16> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(
        ports.len() == REPLICAS,
        "this command is a part of `isonomy-bench probe`; run `isonomy-bench probe` instead"
    );
    Ok(ports)
}

fn end_with_stdin() {
    // Whatever comes or fails on standard input, the probe is over when reading ends.
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    std::process::exit(0);
}

async fn open_links(row: ReplicaId, ports: &[u16]) -> Result<Vec<(ReplicaId, Rc<Sink>)>> {
    let mut links = Vec::new();
    for peer in others(row) {
        let stream = TcpStream::connect(("127.0.0.1", ports[peer.index()])).await;
        let sink = Connection::new(stream.map_err(std::io::Error::from)?)?.sink;
        let role = Role::Replica {
            id: row,
            record: RecordId(0),
            incarnation: 0,
            start: Start::default(),
            position: None,
        };
        sink.push(&mut Encoder::default(), HANDSHAKE, &hello(role), &[], 0);
        sink.flush();
        links.push((peer, sink));
    }
    Ok(links)
}

impl TaskState {
    /// Hears one connection until it ends. An error ends the probe.
    async fn hear(self: Rc<TaskState>, stream: TcpStream) {
        if let Err(error) = self.try_hear(stream).await {
            stop(&format!("{error:#}"));
        }
    }

    async fn try_hear(&self, stream: TcpStream) -> Result<()> {
        let mut connection = Connection::new(stream)?;
        let Some(first) = connection.next_frame().await? else { return Ok(()) };
        let Handshake::Hello(hello) = first.decode(HANDSHAKE)? else {
            bail!("the first frame was not a hello; run the same release on both sides");
        };
        if hello.role == Role::Client {
            self.node.borrow_mut().on_client(connection.sink.clone());
        }
        while let Some(frame) = connection.next_frame().await? {
            match hello.role {
                Role::Client => self.node.borrow_mut().on_client_frame(frame)?,
                Role::Operator => bail!("this is a probe of the machine, which has nothing to tell"),
                Role::Replica { id, .. } => self.node.borrow_mut().on_peer_frame(id, frame)?,
            }
            self.turn.notify();
        }
        Ok(())
    }

    async fn run_turns(self: Rc<TaskState>) {
        loop {
            self.turn.wait().await;
            let mut node = self.node.borrow_mut();
            node.end_turn();
            if node.log.has_work() {
                self.write.notify();
            }
        }
    }

    /// Writes the log, one group after the other: while one is under way the next gathers.
    async fn run_writes(self: Rc<TaskState>, log: DmaFile) {
        loop {
            let group = self.node.borrow_mut().log.take();
            let Some(Group { buffer, offset, last, .. }) = group else {
                self.write.wait().await;
                continue;
            };
            let size = buffer.len();
            match log.write_at(buffer, offset).await {
                Ok(written) if written == size => {}
                Ok(written) => {
                    stop(&format!("the disk wrote only {written} of {size} bytes; check the disk"))
                }
                Err(error) => stop(&format!("the disk failed ({error}); check the disk and the kernel log")),
            }
            self.node.borrow_mut().on_durable(last);
            self.turn.notify();
        }
    }
}

fn stop(why: &str) -> ! {
    out::say(format_args!("error: a replica of the probe: {why}"));
    std::process::exit(1);
}
