use super::*;
use crate::snapshot::store::snapshot_path;
use crate::testing::fixture::{self, barrier, commit, hear};
use crate::testing::rig::{self, Rig};
use futures_lite::future::zip;
use isonomy_protocol::contract::Room;
use isonomy_protocol::contract::{Config as CoreConfig, Output, Position, Time, Timing};
use isonomy_protocol::epoch::FIRST;
use isonomy_protocol::limits::{BARRIER_BYTES, RESERVE_BLOCK};
use isonomy_protocol::replica::Replica;
use isonomy_wire::deps::Frontier;
use isonomy_wire::id::ClusterId;
use isonomy_wire::message::Gossip;

const SOURCE: ReplicaId = ReplicaId(1);
const OTHER: ReplicaId = ReplicaId(2);
const BARRIER: u64 = 1;

fn place(from: u64) -> PiecePlace {
    PiecePlace { source: SOURCE, barrier: BARRIER, from }
}

/// A piece of one byte, by which it is known.
fn marked(place: PiecePlace, mark: u8) -> Piece {
    Piece { place, total: 9, bytes: vec![mark].into() }
}

fn piece(from: u64, total: u64, length: usize) -> Piece {
    Piece { place: place(from), total, bytes: vec![0; length].into() }
}

#[test]
fn a_piece_that_cannot_be_one_is_refused() {
    assert!(piece(0, 9, 9).check(None).is_ok() && piece(5, 9, 2).check(Some(9)).is_ok());
    assert!(matches!(piece(0, 0, 0).check(None), Err(FetchError::Missing)));
    let long = PIECE_BYTES as usize + 1;
    for (piece, total) in [
        (piece(5, 9, 0), Some(9)),
        (piece(5, 9, 5), Some(9)),
        (piece(9, 9, 0), Some(9)),
        (piece(20, 9, 1), Some(9)),
        (piece(5, 8, 3), Some(9)),
        (piece(0, u64::MAX, long), None),
    ] {
        assert!(matches!(piece.check(total), Err(FetchError::Nonsense(_))), "{}", piece.bytes.len());
    }
}

#[test]
fn the_file_that_was_begun_is_room() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(unfinished_path(dir.path()), vec![1; 1 << 20]).unwrap();
    let begun = std::fs::metadata(unfinished_path(dir.path())).unwrap().blocks() * STAT_BLOCK_BYTES;
    assert!(begun >= 1 << 20);
    assert!(room(dir.path()).unwrap() >= begun);
}

#[test]
fn only_the_piece_that_is_waited_for_is_taken() {
    fixture::run(async {
        let fetching = Fetching::default();
        // Of another source, of another barrier, before and behind.
        let strange = [
            PiecePlace { source: ReplicaId(2), ..place(7) },
            PiecePlace { barrier: 2, ..place(7) },
            place(0),
            place(8),
        ];
        let come = async {
            let all = || strange.iter().for_each(|place| fetching.on_piece(marked(*place, 0)));
            all();
            fetching.on_piece(marked(place(7), 1));
            // Once more, and others after it.
            fetching.on_piece(marked(place(7), 2));
            all();
        };
        let (piece, ()) = zip(fetching.await_piece(place(7), || true, || ()), come).await;
        assert_eq!(piece.unwrap().bytes[..], [1]);
    });
}

#[test]
fn a_piece_of_a_transfer_that_has_ended_is_not_the_next_ones() {
    fixture::run(async {
        let fetching = Fetching { patience: SHORT, ..Fetching::default() };
        let asked = Cell::new(0);
        let ask = || asked.set(asked.get() + 1);
        let ended = fetching.await_piece(place(7), || asked.get() < 1, ask).await;
        assert!(matches!(ended, Err(FetchError::NotWanted)));
        assert_eq!(asked.get(), 1);
        fetching.on_piece(marked(place(7), 1));
        let next = fetching.await_piece(place(0), || true, || ());
        let (piece, ()) = zip(next, async { fetching.on_piece(marked(place(0), 2)) }).await;
        assert_eq!(piece.unwrap().bytes[..], [2]);
    });
}

/// A source that keeps silent for a while, and for ever.
const SHORT: Patience = Patience { piece: Duration::from_millis(1), source: Duration::from_secs(3600) };
const NONE: Patience = Patience { source: Duration::ZERO, ..SHORT };

#[test]
fn a_piece_that_does_not_come_is_asked_for_again_until_the_source_has_had_its_time() {
    fixture::run(async {
        let fetching = Fetching { patience: SHORT, ..Fetching::default() };
        let asked = Cell::new(0);
        // The link is back when it is asked for the fifth time.
        let ask = || {
            asked.set(asked.get() + 1);
            if asked.get() == 5 {
                fetching.on_piece(marked(place(7), 1));
            }
        };
        assert_eq!(fetching.await_piece(place(7), || true, ask).await.unwrap().bytes[..], [1]);
        assert_eq!(asked.get(), 5);
        let impatient = Fetching { patience: NONE, ..Fetching::default() };
        let silent = impatient.await_piece(place(7), || true, || asked.set(0)).await;
        assert!(matches!(silent, Err(FetchError::Silent)) && asked.get() == 0);
    });
}

/// The snapshot of the first barrier as a peer of three has it.
fn snapshot(cluster: ClusterId) -> Vec<u8> {
    let config = CoreConfig {
        cluster,
        replica: SOURCE,
        replicas: 3,
        epoch: FIRST,
        shard: rig::SHARD,
        timing: Timing::default(),
        reserve_block: RESERVE_BLOCK,
        barrier_bytes: BARRIER_BYTES,
        outlives_power: true,
        rescue: false,
        publishes: false,
    };
    let mut core = Replica::new(config, 1);
    core.start(Time(0), Position(0));
    core.admit(Time(0));
    core.on_message(Time(0), ReplicaId(2), commit(), Some(barrier()));
    while core.taking().is_none() {
        core.end_turn(Time(0));
        while let Some(output) = core.poll() {
            if let Output::Append(append) = output {
                core.on_durable(Time(0), append.position);
            }
        }
    }
    std::iter::from_fn(|| core.snapshot_bytes()).flatten().collect()
}

/// The node hears that a peer has the snapshot.
fn offer(rig: &Rig, peer: ReplicaId) {
    let mut committed = Frontier::NONE;
    committed.set(SOURCE, 1);
    let gossip = Gossip { committed, floor: committed.to_floor(), snapshot: BARRIER, ..Gossip::default() };
    hear(&rig.node, peer, PeerMessage::Gossip(Box::new(gossip)), None);
}

/// A node that needs the snapshot of replica 1.
async fn lacking(rig: &Rig) {
    rig.listen_aside();
    rig.run_core();
    rig.admit();
    let linked = vec![SOURCE, OTHER];
    rig.node.pump.take(Input::Links(linked));
    offer(rig, SOURCE);
    rig.until("the choice of a source", || {
        rig.node.pump.take(Input::Tick { room: Room::Enough, log_bytes: 0 });
        rig.node.pump.look(|core| core.wants_snapshot()) == Some((SOURCE, BARRIER))
    })
    .await;
}

/// The files of snapshots, whole or not.
fn files(rig: &Rig) -> Vec<String> {
    let names = std::fs::read_dir(rig.node.dir()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains("snapshot")).collect()
}

/// Fetches the snapshot from a source that answers what it is asked for: by the byte, the total and a piece.
async fn fetch(rig: &Rig, answer: impl Fn(u64) -> (u64, Vec<u8>)) {
    answer_during(rig, rig.node.fetch(SOURCE, BARRIER), answer).await;
}

/// What a transfer gives from such a source.
async fn answer_during<T>(
    rig: &Rig,
    transfer: impl Future<Output = T>,
    answer: impl Fn(u64) -> (u64, Vec<u8>),
) -> T {
    let (node, is_over) = (&rig.node, Cell::new(false));
    let transfer = async {
        let given = transfer.await;
        is_over.set(true);
        given
    };
    let source = async {
        while !is_over.get() {
            if let Some(place) = node.transfers.fetching.awaited.get() {
                let (total, bytes) = answer(place.from);
                node.on_piece(Piece { place, total, bytes: bytes.into() });
            }
            fixture::until(|| is_over.get() || node.transfers.fetching.awaited.get().is_some()).await;
        }
    };
    zip(transfer, source).await.0
}

const SMALL: usize = 50;

/// A piece of these bytes, smaller than it could be.
fn small(bytes: &[u8], from: u64) -> Vec<u8> {
    bytes[from as usize..].iter().copied().take(SMALL).collect()
}

#[test]
fn g5_a_snapshot_that_comes_in_pieces_is_installed() {
    rig::run(3, async |rig| {
        lacking(&rig).await;
        let bytes = snapshot(rig.node.data_dir.cluster_id());
        assert!(bytes.len() > 3 * SMALL);
        let asked = RefCell::new(Vec::new());
        fetch(&rig, |from| {
            asked.borrow_mut().push(from as usize);
            (bytes.len() as u64, small(&bytes, from))
        })
        .await;
        assert_eq!(asked.into_inner(), (0..bytes.len()).step_by(SMALL).collect::<Vec<_>>());
        assert!(std::fs::read(snapshot_path(&rig.node.dir(), BARRIER)).unwrap() == bytes);
        assert_eq!(files(&rig).len(), 1);
        assert_eq!((rig.node.snapshot_trouble(), rig.node.transfers.progress()), (String::new(), (0, 0)));
        rig.node.pump.look(|core| {
            assert_eq!(core.wants_snapshot(), None);
            assert!(core.last_barrier().is_some_and(|last| last.barrier == BARRIER));
        });
    });
}

/// What a source says of the bytes from here on, what is told of it, and whose failure it is.
type Wrong = (fn(&[u8], u64) -> (u64, Vec<u8>), &'static str, FetchFailure);

#[test]
fn g5_a_transfer_that_fails_leaves_nothing_and_says_why() {
    let wrong: [Wrong; 6] = [
        (
            |bytes, from| {
                let mut bytes = bytes.to_vec();
                bytes[SMALL + 3] ^= 1;
                (bytes.len() as u64, small(&bytes, from))
            },
            "does not read",
            FetchFailure::Damaged,
        ),
        (
            |bytes, from| {
                let bytes = &bytes[..bytes.len() - 8];
                (bytes.len() as u64, small(bytes, from))
            },
            "does not read",
            FetchFailure::Damaged,
        ),
        (
            |bytes, from| (bytes.len() as u64 + from, small(bytes, from)),
            "the length of the snapshot has changed",
            FetchFailure::Source,
        ),
        (
            |bytes, from| (bytes.len() as u64, small(&bytes[..SMALL], from)),
            "empty before the end",
            FetchFailure::Source,
        ),
        (
            |bytes, from| (if from == 0 { bytes.len() as u64 } else { 0 }, small(bytes, from)),
            "no such snapshot",
            FetchFailure::Source,
        ),
        (|bytes, from| (1 << 60, small(bytes, from)), "bytes are lacking", FetchFailure::Own),
    ];
    for (answer, told, failure) in wrong {
        rig::run(3, async |rig| {
            lacking(&rig).await;
            offer(&rig, OTHER);
            let bytes = snapshot(rig.node.data_dir.cluster_id());
            let transfer = rig.node.try_to_fetch(SOURCE, BARRIER);
            let failed = answer_during(&rig, transfer, |from| answer(&bytes, from)).await.unwrap_err();
            assert_eq!(failed.failure(), Some(failure), "{told}");
            fetch(&rig, |from| answer(&bytes, from)).await;
            let trouble = rig.node.snapshot_trouble();
            assert!(trouble.contains(told), "{trouble}, not {told}");
            assert_eq!(files(&rig), [""; 0], "{told}");
            // The core knows: it asks another one, or nobody for now if the failure was its own.
            let next = (failure != FetchFailure::Own).then_some((OTHER, BARRIER));
            assert_eq!(rig.node.pump.look(|core| core.wants_snapshot()), next, "{told}");
            assert!(rig.node.pump.look(|core| core.last_barrier()).is_none());
        });
    }
}

/// The barrier has executed here by the time that its snapshot has come: the own one counts.
#[test]
fn g5_a_snapshot_that_is_not_needed_any_more_is_not_installed() {
    rig::run(3, async |rig| {
        lacking(&rig).await;
        let bytes = snapshot(rig.node.data_dir.cluster_id());
        fetch(&rig, |_| {
            hear(&rig.node, ReplicaId(2), commit(), Some(barrier()));
            (bytes.len() as u64, bytes.clone())
        })
        .await;
        assert!(rig.node.pump.look(|core| core.last_barrier()).is_some_and(|last| last.barrier == BARRIER));
        assert_eq!(
            (files(&rig), rig.node.snapshot_trouble()),
            (vec!["snapshot.spare".into()], String::new())
        );
    });
}
