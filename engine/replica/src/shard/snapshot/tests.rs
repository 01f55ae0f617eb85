use super::super::fixture::{barrier, commit, hear, until};
use super::super::rig::{self, Rig};
use super::*;
use futures_lite::future::zip;

const BARRIER: u64 = 1;
const PEER: ReplicaId = ReplicaId(2);

/// A node whose log is only written by the test.
fn begun(rig: &Rig) -> Rc<Node> {
    rig.listen_aside();
    let (node, disk) = (rig.node.clone(), rig.node.clone());
    rig.spawn(async move { disk.disk.prepare().await });
    rig.spawn(node.clone().run_turns());
    rig.admit();
    node
}

/// Writes a group, if there is one.
async fn write(node: &Node) {
    let write = node.inner.borrow_mut().log.take(node.now());
    match write {
        Some(write) => node.write_group(write).await,
        None => glommio::executor().yield_task_queue_now().await,
    }
}

/// D6: a log that has lost its end is not taken for one that is older than the snapshot.
#[test]
fn d6_how_far_the_log_has_come_is_noted_before_a_snapshot_counts() {
    rig::run(3, async |rig| {
        let node = begun(&rig);
        let known = || node.data_dir.known(rig::SHARD, 0).reached;
        while node.durable() == Position(0) {
            write(&node).await;
        }
        hear(&node, PEER, commit(), Some(barrier()));
        while node.durable() <= known() {
            write(&node).await;
        }
        // There is no file that could get the name.
        assert!(node.publish(BARRIER).await.is_err());
        assert_eq!(known(), node.durable());
    });
}

/// What a snapshot shows must not be more than the log remembers.
#[test]
fn g4_a_snapshot_counts_once_the_log_is_durable_so_far() {
    rig::run(3, async |rig| {
        let node = begun(&rig);
        hear(&node, PEER, commit(), Some(barrier()));
        while node.inner.borrow().core.taking().is_none() {
            write(&node).await;
        }
        node.write_file().await.unwrap();
        let taking = async { node.publish_taken(BARRIER).await.unwrap() };
        let held_up = async {
            let path = snapshot_path(&node.dir(), BARRIER);
            // The name would be given on this thread, before that.
            node.aside.run(|| ()).await;
            assert!(node.is_ahead_of_log() && !path.exists());
            while node.is_ahead_of_log() {
                write(&node).await;
            }
            until(|| path.exists()).await;
        };
        zip(taking, held_up).await;
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
