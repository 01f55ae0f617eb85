//! A shard for tests: a node over real files and real sockets, in an executor on the test's own thread. Nothing
//! of it runs but what the test starts.

use super::link::{Connection, LinkError};
use super::ticks::Ticks;
use super::{Node, start, ticker};
use crate::checks::check_machine;
use crate::config::{Config, MemberConfig};
use crate::data_dir::DataDir;
use crate::resolver::Resolver;
use crate::rings::PREEMPT;
use futures_lite::future::or;
use glommio::net::TcpStream;
use glommio::{LocalExecutorBuilder, Placement};
use isonomy_wire::frame::Encoder;
use isonomy_wire::id::{ReplicaId, ShardId};
use isonomy_wire::message::{Handshake, Hello};
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(super) const SHARD: ShardId = ShardId(0);
/// How long anything that must happen may take on a loaded machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Replica 0 of a cluster whose other members the test plays.
pub(super) struct Rig {
    pub(super) node: Rc<Node>,
    pub(super) config: Config,
    /// The ports for peers of all members, by their ids.
    pub(super) peers: Vec<TcpListener>,
    /// The port for clients of replica 0.
    pub(super) clients: TcpListener,
    /// Wakes the executor, as in a shard.
    ticks: Ticks,
    _dir: TempDir,
}

/// Runs a test in an executor.
pub(super) fn run(members: usize, test: impl AsyncFnOnce(Rig)) {
    let dir = tempfile::tempdir().unwrap();
    let bound = || TcpListener::bind("127.0.0.1:0").unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let (peers, clients) = ((0..members).map(|_| bound()).collect::<Vec<_>>(), bound());
    let member = |listener| MemberConfig {
        host: "127.0.0.1".into(),
        peer_base: port(listener),
        client_base: port(&clients),
    };
    let config = Config::for_test(dir.path().join("data"), peers.iter().map(member).collect());
    check_machine(&config).unwrap();
    let executor = LocalExecutorBuilder::new(Placement::Unbound).preempt_timer(PREEMPT).make().unwrap();
    executor.run(async {
        let ticks = Ticks::start(ticker::TICK).unwrap();
        ticks.attach().await;
        let data_dir = DataDir::open(&config).unwrap();
        let node = start(Arc::new(config.clone()), data_dir, SHARD, Resolver::default(), None).await.unwrap();
        test(Rig { node: Rc::new(node), config, peers, clients, ticks, _dir: dir }).await;
    });
}

impl Rig {
    /// A task of the node's.
    pub(super) fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) {
        glommio::spawn_local(task).detach();
    }

    /// What is written aside comes back.
    pub(super) fn listen_aside(&self) {
        let node = self.node.clone();
        self.spawn(async move { node.aside.listen().await });
    }

    /// The core's outputs are taken and the log is written, as in a shard that runs.
    pub(super) fn run_core(&self) {
        let node = self.node.clone();
        self.spawn(async move { node.disk.prepare().await });
        self.spawn(self.node.clone().run_turns());
        self.spawn(self.node.clone().run_writes());
    }

    /// The others have accepted the directory, and the core takes part.
    pub(super) fn admit(&self) {
        for peer in 1..self.config.members.len() as u8 {
            self.node.data_dir.on_accepted(ReplicaId(peer)).unwrap();
        }
        let now = self.node.now();
        self.node.inner.borrow_mut().core.admit(now);
        self.node.touch();
    }

    /// Some ticks pass, in which something must not happen. One task waits for ticks at a time.
    pub(super) async fn ticks(&self, count: u32) {
        for _ in 0..count {
            self.ticks.wait().await;
        }
    }

    /// The thread for files does nothing until what this gives is dropped.
    pub(super) fn hold_aside(&self) -> Sender<()> {
        let (held, release) = channel();
        let node = self.node.clone();
        let wait = move || {
            let _ = release.recv();
        };
        self.spawn(async move { node.aside.run(wait).await });
        held
    }

    /// Waits for something that must become true.
    pub(super) async fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < PATIENCE, "{what} did not happen within {PATIENCE:?}");
            self.ticks.wait().await;
        }
    }
}

/// What this gives, which must come.
pub(super) async fn within_patience<T>(what: &str, awaited: impl Future<Output = T>) -> T {
    let late = async {
        glommio::timer::sleep(PATIENCE).await;
        panic!("{what} did not come within {PATIENCE:?}")
    };
    or(awaited, late).await
}

/// A connection to a port of the node.
pub(super) async fn connect(port: &TcpListener) -> Connection {
    let stream = TcpStream::connect(port.local_addr().unwrap()).await.unwrap();
    Connection::new(stream, PATIENCE)
}

/// Says hello; what the other side answers.
pub(super) async fn shake(connection: &mut Connection, hello: Hello) -> Result<Handshake, LinkError> {
    let mut encoder = Encoder::default();
    connection.shake(&mut encoder, SHARD, &Handshake::Hello(hello));
    connection.hear(&mut encoder, SHARD).await
}
