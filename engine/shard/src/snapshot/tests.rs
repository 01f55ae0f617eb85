use super::*;
use crate::net::connection::Connection;
use crate::net::listener::Listener;
use crate::testing::fixture::{barrier, commit, hear, until};
use crate::testing::rig::{self, PATIENCE, Rig, within_patience};
use futures_lite::future::zip;
use glommio::net::TcpStream;
use isonomy_mesh::ForSink;
use isonomy_protocol::contract::Executed;
use isonomy_wire::deps::Frontier;
use std::cell::RefCell;

const BARRIER: u64 = 1;
const PEER: ReplicaId = ReplicaId(2);

/// A node whose log is only written by the test.
fn begun(rig: &Rig) -> Rc<Node> {
    rig.listen_aside();
    let (node, disk) = (rig.node.clone(), rig.node.clone());
    rig.spawn(async move { disk.writer.disk.prepare().await });
    rig.spawn(node.clone().run_turns());
    rig.admit();
    node
}

/// Writes a group, if there is one.
async fn write(node: &Node) {
    let write = node.writer.log().take(node.pump.now());
    match write {
        Some(write) => node.write_group(write).await,
        None => glommio::executor().yield_task_queue_now().await,
    }
}

/// Writes what the core appends until something has become true that must.
async fn write_until(node: &Node, what: &str, condition: impl Fn() -> bool) {
    let writing = async {
        while !condition() {
            write(node).await;
        }
    };
    within_patience(what, writing).await;
}

/// The first barrier has executed, and its snapshot is to be taken.
async fn has_executed_barrier(node: &Node) {
    // Before that no snapshot counts, whatever it shows.
    write_until(node, "the first record", || node.writer.durable() > Position(0)).await;
    hear(node, PEER, commit(), Some(barrier()));
    write_until(node, "the barrier", || node.pump.look(|core| core.taking()).is_some()).await;
}

/// D6: a log that has lost its end is not taken for one that is older than the snapshot.
#[test]
fn d6_how_far_the_log_has_come_is_noted_before_a_snapshot_counts() {
    rig::run(3, async |rig| {
        let node = begun(&rig);
        let known = || node.data_dir.known(rig::SHARD, 0).reached;
        has_executed_barrier(&node).await;
        write_until(&node, "another record", || node.writer.durable() > known()).await;
        // There is no file that could get the name.
        assert!(node.publish(BARRIER).await.is_err());
        assert_eq!(known(), node.writer.durable());
    });
}

/// What a snapshot shows must not be more than the log remembers.
#[test]
fn g4_a_snapshot_counts_once_the_log_is_durable_so_far() {
    rig::run(3, async |rig| {
        let node = begun(&rig);
        has_executed_barrier(&node).await;
        node.write_file().await.unwrap();
        let taking = async { node.publish_taken(BARRIER).await.unwrap() };
        let held_up = async {
            let path = snapshot_path(&node.dir(), BARRIER);
            // The name would be given on this thread, before that.
            node.shard.aside.run(|| ()).await;
            assert!(node.is_ahead_of_log() && !path.exists());
            write_until(&node, "the records that it rests on", || !node.is_ahead_of_log()).await;
            until(|| path.exists()).await;
        };
        zip(taking, held_up).await;
    });
}

/// What the log loses behind a snapshot is in the outbox.
#[test]
fn p2_a_snapshot_counts_once_the_sink_has_kept_what_is_before_it() {
    rig::run_publishing(3, async |rig, sink| {
        let node = begun(&rig);
        has_executed_barrier(&node).await;
        node.write_file().await.unwrap();
        let told = RefCell::new(Vec::new());
        let is_told = || {
            told.borrow_mut().extend(sink.items.take().flatten());
            let is_barrier =
                |item: &ForSink| matches!(item, ForSink::Barrier(start) if start.barrier == BARRIER);
            !node.is_ahead_of_log() && told.borrow().iter().any(is_barrier)
        };
        write_until(&node, "the barrier is told", is_told).await;
        assert!(matches!(told.borrow()[0], ForSink::State(start) if start.barrier == 0), "{told:?}");
        let taking = async { node.publish_taken(BARRIER).await.unwrap() };
        let held_up = async {
            let path = snapshot_path(&node.dir(), BARRIER);
            // The name would be given on this thread, before that.
            node.shard.aside.run(|| ()).await;
            assert!(!path.exists());
            sink.stand.set_kept(BARRIER);
            until(|| path.exists()).await;
        };
        zip(taking, held_up).await;
    });
}

/// What cannot be given to the sink waits, in its order.
#[test]
fn a_sink_that_takes_nothing_for_a_while_loses_nothing() {
    rig::run_publishing(3, async |rig, sink| {
        let feed = rig.node.shard.feed.as_ref().unwrap();
        let tell = |barrier| {
            feed.push(
                rig.node.seat.epoch,
                Executed::Barrier { barrier, frontier: Frontier::NONE, is_seal: false },
            );
            feed.flush();
        };
        sink.items.take().for_each(drop);
        let told = 3 * isonomy_mesh::LANE_MAX as u64;
        (1..=told).for_each(tell);
        let mut heard = Vec::new();
        for _ in 0..2 {
            heard.extend(sink.items.take().flatten());
            feed.flush();
        }
        let number = |item| match item {
            ForSink::Barrier(start) => start.barrier,
            other => panic!("{other:?}"),
        };
        assert_eq!(heard.into_iter().map(number).collect::<Vec<_>>(), (1..=told).collect::<Vec<_>>());
    });
}

#[test]
fn a_piece_is_that_of_the_file_and_never_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = snapshot_path(dir.path(), BARRIER);
    assert!(
        matches!(read_piece(&path, 0), Err(SnapshotError::Io(_, error)) if error.kind() == ErrorKind::NotFound)
    );
    let total = PIECE_BYTES + 100;
    let bytes: Vec<u8> = (0..total).map(|at| ((at * 7919) >> 5) as u8).collect();
    std::fs::write(&path, &bytes).unwrap();
    for (from, end) in [(0, PIECE_BYTES), (1, PIECE_BYTES + 1), (PIECE_BYTES, total), (total, total)] {
        let (length, piece) = read_piece(&path, from).unwrap();
        assert!((length, &piece[..]) == (total, &bytes[from as usize..end as usize]), "{from}");
    }
    let (length, piece) = read_piece(&path, total + 1).unwrap();
    assert_eq!((length, piece.len()), (total, 0));
}

/// A link to a peer: the node's end, and what the peer hears.
async fn linked(rig: &Rig, peer: ReplicaId) -> (Connection, Connection) {
    let port = &rig.peers[peer.index()];
    let session = TcpStream::connect(port.local_addr().unwrap()).await.unwrap();
    let link = Connection::new(session, PATIENCE);
    rig.node.net.links.borrow_mut().on_opened(peer, link.sink.clone());
    let heard = Listener::new(port.try_clone().unwrap()).accept().await.unwrap();
    (link, Connection::new(heard, PATIENCE))
}

/// The total of the next piece that comes, and its bytes.
async fn next_piece(rig: &Rig, connection: &mut Connection) -> (u64, Vec<u8>) {
    loop {
        let frame = within_patience("a piece", connection.next_frame()).await.unwrap();
        if let PeerMessage::Piece { total, .. } = frame.decode(rig.node.net.peer_scope).unwrap() {
            return (total, frame.payload.to_vec());
        }
    }
}

/// Another one's file may lie there still, or already: the newest does not rest on it.
#[test]
fn g5_only_the_newest_snapshot_is_given() {
    rig::run(3, async |rig| {
        let node = begun(&rig);
        let (_link, mut peer) = linked(&rig, PEER).await;
        has_executed_barrier(&node).await;
        node.write_file().await.unwrap();
        write_until(&node, "the records that it rests on", || !node.is_ahead_of_log()).await;
        node.publish_taken(BARRIER).await.unwrap();
        let bytes = std::fs::read(snapshot_path(&node.dir(), BARRIER)).unwrap();
        for other in [BARRIER - 1, BARRIER + 1] {
            std::fs::write(snapshot_path(&node.dir(), other), &bytes).unwrap();
            node.on_fetch(PEER, Fetch { barrier: other, from: 0 });
            assert_eq!(next_piece(&rig, &mut peer).await, (0, Vec::new()), "barrier {other}");
        }
        node.on_fetch(PEER, Fetch { barrier: BARRIER, from: 1 });
        assert!(next_piece(&rig, &mut peer).await == (bytes.len() as u64, bytes[1..].to_vec()));
    });
}
