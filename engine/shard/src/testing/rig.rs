//! A shard for tests: a node over real files and real sockets, in an executor on the test's own thread. Nothing
//! of it runs but what the test starts.

use crate::data_dir::DataDir;
use crate::mail::Mail;
use crate::net::connection::{Connection, LinkError};
use crate::net::listener::Listener;
use crate::node::Node;
use crate::open::{Found, open};
use crate::pump::Input;
use crate::rings::PREEMPT;
use crate::settings::Seat;
use crate::start::make;
use crate::testing::fixture::Setup;
use crate::time::ticker::TICK;
use crate::time::ticks::Ticks;
use futures_lite::future::or;
use glommio::net::TcpStream;
use glommio::{LocalExecutorBuilder, Placement};
use isonomy_mesh::{FeedEnd, MemberAddress, ProcessEnd, SinkEnd, connect_sink};
use isonomy_tuning::limits::{self, EXECUTOR_MEMLOCK_BYTES, Resource};
use isonomy_wire::frame::Encoder;
use isonomy_wire::id::{ReplicaId, ShardId};
use isonomy_wire::message::{Handshake, Hello};
use std::net::TcpListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) const SHARD: ShardId = ShardId(0);
/// How long anything that must happen may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Replica 0 of a cluster, or a learner, whose other members the test plays.
pub(crate) struct Rig {
    pub(crate) node: Rc<Node>,
    pub(crate) setup: Setup,
    /// The process's end of the mesh.
    pub(crate) process: ProcessEnd,
    /// The ports for peers of all members, by their ids.
    pub(crate) peers: Vec<TcpListener>,
    /// The port for clients of replica 0.
    pub(crate) clients: TcpListener,
    _dir: TempDir,
}

/// Runs something in an executor like that of a shard, with the ticks that wake it.
pub(crate) fn in_executor<T>(what: impl AsyncFnOnce(Ticks) -> T) -> T {
    limits::raise(Resource::MEMLOCK, EXECUTOR_MEMLOCK_BYTES).unwrap();
    let executor = LocalExecutorBuilder::new(Placement::Unbound).preempt_timer(PREEMPT).make().unwrap();
    executor.run(async {
        let ticks = Ticks::start(TICK).unwrap();
        ticks.attach().await;
        what(ticks).await
    })
}

/// Runs a test in an executor.
pub(crate) fn run(members: usize, test: impl AsyncFnOnce(Rig)) {
    run_with(members, None, Setup::new, test);
}

/// The same for a learner behind the members, which has the last of the ports for peers.
pub(crate) fn run_learner(members: usize, test: impl AsyncFnOnce(Rig)) {
    run_with(members + 1, None, Setup::learner, test);
}

/// The same for a shard whose decisions are published, with the sink's end.
pub(crate) fn run_publishing(members: usize, test: impl AsyncFnOnce(Rig, SinkEnd)) {
    let (feed, sink) = connect_sink();
    run_with(members, Some(feed), Setup::new, async |rig| test(rig, sink).await);
}

fn run_with(
    places: usize,
    feed: Option<FeedEnd>,
    setup: fn(PathBuf, Vec<MemberAddress>) -> Setup,
    test: impl AsyncFnOnce(Rig),
) {
    let dir = tempfile::tempdir().unwrap();
    let bound = || TcpListener::bind("127.0.0.1:0").unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let (peers, clients) = ((0..places).map(|_| bound()).collect::<Vec<_>>(), bound());
    let member = |listener| MemberAddress {
        host: "127.0.0.1".into(),
        peer_base: port(listener),
        client_base: port(&clients),
    };
    let setup = setup(dir.path().join("data"), peers.iter().map(member).collect());
    in_executor(async |ticks| {
        let data_dir = DataDir::open(&setup.expected).unwrap();
        data_dir.enter(&setup.roster).unwrap();
        let (process, mut end) = isonomy_mesh::connect();
        end.feed = feed;
        let mail = Mail::new(end, setup.roster.clone());
        let shard = make(setup.settings.clone(), data_dir, mail, ticks).unwrap();
        let seat = Seat::of(&setup.roster).unwrap();
        let node = Rc::new(open(&shard, seat, Found::OnDisk).await.unwrap());
        test(Rig { node, setup, process, peers, clients, _dir: dir }).await;
    });
}

impl Rig {
    /// The own port for peers, as its executor serves it.
    pub(crate) fn peers(&self) -> Rc<Listener> {
        let own = &self.peers[self.node.seat.replica.index()];
        Rc::new(Listener::new(own.try_clone().unwrap()))
    }

    /// The port for clients of replica 0.
    pub(crate) fn clients(&self) -> Rc<Listener> {
        Rc::new(Listener::new(self.clients.try_clone().unwrap()))
    }

    /// A task of the node's.
    pub(crate) fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) {
        glommio::spawn_local(task).detach();
    }

    /// What is written aside comes back.
    pub(crate) fn listen_aside(&self) {
        let node = self.node.clone();
        self.spawn(async move { node.shard.aside.listen().await });
    }

    /// The core's outputs are taken and the log is written, as in a shard that runs.
    pub(crate) fn run_core(&self) {
        let node = self.node.clone();
        self.spawn(async move { node.writer.disk.prepare().await });
        self.spawn(self.node.clone().run_turns());
        self.spawn(self.node.clone().run_writes());
    }

    /// The others have accepted the directory, and the core takes part.
    pub(crate) fn admit(&self) {
        for peer in 1..self.setup.roster.members {
            self.node.data_dir.on_accepted(ReplicaId(peer)).unwrap();
        }
        self.node.pump.take(Input::Admit);
    }

    /// Some ticks pass, in which something must not happen. One task waits for ticks at a time.
    pub(crate) async fn ticks(&self, count: u32) {
        for _ in 0..count {
            self.node.shard.ticks.wait().await;
        }
    }

    /// The thread for files does nothing until what this gives is dropped.
    pub(crate) fn hold_aside(&self) -> Sender<()> {
        let (held, release) = channel();
        let node = self.node.clone();
        let wait = move || {
            let _ = release.recv();
        };
        self.spawn(async move { node.shard.aside.run(wait).await });
        held
    }

    /// Waits for something that must become true.
    pub(crate) async fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < PATIENCE, "{what} did not happen within {PATIENCE:?}");
            self.node.shard.ticks.wait().await;
        }
    }
}

/// What this gives, which must come.
pub(crate) async fn within_patience<T>(what: &str, awaited: impl Future<Output = T>) -> T {
    let late = async {
        glommio::timer::sleep(PATIENCE).await;
        panic!("{what} did not come within {PATIENCE:?}")
    };
    or(awaited, late).await
}

/// A connection to a port of the node.
pub(crate) async fn connect(port: &TcpListener) -> Connection {
    let stream = TcpStream::connect(port.local_addr().unwrap()).await.unwrap();
    Connection::new(stream, PATIENCE)
}

/// Says hello; what the other side answers.
pub(crate) async fn shake(connection: &mut Connection, hello: Hello) -> Result<Handshake, LinkError> {
    let mut encoder = Encoder::default();
    connection.shake(&mut encoder, SHARD, &Handshake::Hello(hello));
    connection.hear(&mut encoder, SHARD).await
}
