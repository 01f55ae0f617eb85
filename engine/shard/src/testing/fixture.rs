//! What the unit tests of a shard's log share.

use crate::data_dir::Expected;
use crate::settings::Settings;
use glommio::{LocalExecutorBuilder, Placement};
use isonomy_mesh::{MemberAddress, Roster};
use isonomy_protocol::contract::{Append, Position};
use isonomy_protocol::epoch::FIRST;
use isonomy_protocol::log::LogId;
use isonomy_protocol::log::record::Record;
use isonomy_protocol::payload::Payload;
use isonomy_wire::command::{Numbering, RequestBuilder};
use isonomy_wire::deps::{Deps, Floor};
use isonomy_wire::id::{Ballot, ClusterId, InstanceId, ReplicaId, SessionId, ShardId};
use isonomy_wire::message::{PeerMessage, Value};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::net::resolver::Resolver;
use crate::node::Node;
use crate::pump::Input;
use crate::start::IO_MEMORY_BYTES;
use crate::testing::rig::PATIENCE;

/// Runs this as a shard's tasks are run.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let executor = LocalExecutorBuilder::new(Placement::Unbound).io_memory(IO_MEMORY_BYTES).make().unwrap();
    executor.run(test)
}

/// Whose log it is in tests that have no data directory.
pub(crate) fn log_id() -> LogId {
    let cluster = ClusterId::of_name("test");
    LogId { cluster, incarnation: 1, replica: ReplicaId(0), epoch: FIRST, shard: ShardId(0) }
}

/// What replica 0 of a cluster is started with.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) expected: Expected,
    pub(crate) settings: Settings,
    pub(crate) roster: Roster,
}

impl Setup {
    /// Replica 0 of these members, with one shard.
    pub(crate) fn new(path: PathBuf, members: Vec<MemberAddress>) -> Setup {
        let (cluster, outlives_power) = ("test".into(), true);
        Setup {
            expected: Expected { path, cluster, cluster_id: None, member: 0, shards: 1, outlives_power },
            roster: Roster::of_first_epoch(ReplicaId(0), members),
            settings: Settings {
                shard: ShardId(0),
                shards: 1,
                core: None,
                outlives_power,
                connections_max: 8,
                log_budget: 1 << 30,
                publish_budget: 1 << 30,
                source_expiry: Duration::from_secs(86_400),
                resolver: Resolver::default(),
                unreachable: None,
                log_lines_dropped: || 0,
                consuming: None,
            },
        }
    }

    /// A learner behind the members, whose address is the last.
    pub(crate) fn learner(path: PathBuf, places: Vec<MemberAddress>) -> Setup {
        let mut setup = Setup::new(path, places);
        setup.roster.members -= 1;
        setup.expected.member = setup.roster.members;
        setup.roster.own = Some(ReplicaId(setup.roster.members));
        setup
    }

    /// A replica alone.
    pub(crate) fn alone(path: &Path) -> Setup {
        let own = MemberAddress { host: "127.0.0.1".into(), peer_base: 7100, client_base: 7200 };
        Setup::new(path.into(), vec![own])
    }
}

/// The record at a position, with a batch of about so many bytes if it is to have one.
pub(crate) fn record(position: u64, bytes: usize) -> Append {
    let id = InstanceId::new(ReplicaId(0), position);
    let record = Record::PreAccepted { id, deps: Deps::NONE, init_deps: Deps::NONE };
    let payload = (bytes > 0).then(|| payload(position, bytes));
    Append { position: Position(position), record, payload }
}

/// The record at a position that begins a segment.
pub(crate) fn begin(position: u64, barrier: u64) -> Append {
    let record = Record::Begin { reserved: position, floor: Floor::NONE, barrier };
    Append { position: Position(position), record, payload: None }
}

fn payload(position: u64, bytes: usize) -> Payload {
    let mut builder = RequestBuilder::default();
    let mut left = bytes;
    while left > 0 {
        let length = left.min(isonomy_wire::command::VALUE_BYTES_MAX / 2);
        builder.decide(&position.to_le_bytes(), &vec![position as u8; length]).unwrap();
        left -= length;
    }
    let bytes = builder.encode(SessionId::named("s"), Numbering::at(1));
    let crc = crc32c::crc32c(&bytes);
    Payload::parse(bytes, crc).unwrap()
}

/// Waits for something that must become true.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "it did not happen within {PATIENCE:?}");
        glommio::timer::sleep(Duration::from_millis(1)).await;
    }
}

/// A batch that is a barrier.
pub(crate) fn barrier() -> Payload {
    let mut builder = RequestBuilder::default();
    builder.barrier();
    let bytes = builder.encode(SessionId::NONE, Numbering::NONE);
    let crc = crc32c::crc32c(&bytes);
    Payload::parse(bytes, crc).unwrap()
}

/// The first command of replica 1 is decided.
pub(crate) fn commit() -> PeerMessage {
    let id = InstanceId::new(ReplicaId(1), 1);
    PeerMessage::Commit {
        id,
        ballot: Ballot::ZERO,
        value: Value::Attached,
        deps: Deps::NONE,
        after: Deps::NONE,
    }
}

/// The core of a node hears this of a peer.
pub(crate) fn hear(node: &Node, from: ReplicaId, message: PeerMessage, payload: Option<Payload>) {
    node.pump.take(Input::Message { from, message, payload });
}
