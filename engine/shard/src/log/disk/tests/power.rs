//! A log on a disk that forgets what was not synced, or has no room: as root, where FUSE is.

use super::*;
use crate::aside::Aside;
use crate::data_dir::{epoch_dir, look};
use crate::log::recover::unfinished_path;
use crate::snapshot::growing::Growing;
use crate::snapshot::store::{begin as begin_snapshot, list, prune, publish, snapshot_path};
use crate::testing::volatile::{Leftover, VolatileDisk};
use futures_lite::future::zip;
use isonomy_protocol::epoch::FIRST;
use isonomy_protocol::log::record::Record;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs this with a volatile disk at the data directory, where that is possible.
fn on_volatile(test: impl AsyncFnOnce(&Setup, &VolatileDisk)) {
    let (_dir, mut setup) = temporary();
    setup.settings.log_budget = 5 * SEGMENT_BYTES as u64;
    match VolatileDisk::mount(setup.expected.path.clone()) {
        Some(volatile) => run(test(&setup, &volatile)),
        None => println!("skipped: this machine mounts no FUSE for the test"),
    }
}

/// What a log and its directory have promised so far; 0 if nothing.
#[derive(Default)]
struct Promised {
    /// That there is an identity.
    is_opened: AtomicU64,
    /// That this record is durable.
    record: AtomicU64,
    /// That the directory has noted this record.
    noted: AtomicU64,
    /// That there is the snapshot of this barrier.
    snapshot: AtomicU64,
}

impl Promised {
    fn all(&self) -> [u64; 4] {
        [&self.is_opened, &self.record, &self.noted, &self.snapshot].map(|what| what.load(Ordering::SeqCst))
    }

    /// Whether a loss of power has left all that was promised.
    fn judge(&self, left: &Leftover<'_>) -> Result<(), String> {
        let [is_opened, record, noted, promised] = self.all();
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        left.write_to(dir.path()).map_err(|error| error.to_string())?;
        let identity = match look(dir.path()) {
            Err(_) if is_opened == 0 => return Ok(()),
            identity => identity.map_err(|fatal| fatal.to_string())?,
        };
        if identity.newest().is_none() && is_opened == 0 {
            return Ok(());
        }
        let shard = epoch_dir(dir.path(), SHARD, FIRST);
        let snapshot = newest_snapshot(&shard)?;
        let known = identity.known(FIRST, SHARD, snapshot);
        let mut positions = Vec::new();
        let take = |(record, _)| positions.push(position_of(&record));
        let read = recover(identity.log_id(FIRST, SHARD)?, &shard, known, take)
            .map_err(|fatal| fatal.to_string())?;
        let last = read.tail.next.0 - 1;
        let first = positions.first().copied().unwrap_or(1);
        if last < record || known.reached.0 < noted {
            return Err(format!("it ends with {last}, {:?} noted", known.reached));
        }
        if snapshot < promised || first > snapshot.max(1) {
            return Err(format!("its snapshot is that of {snapshot}, and it begins with {first}"));
        }
        let is_whole = positions.iter().copied().eq(first..=last);
        if is_whole { Ok(()) } else { Err(format!("it holds {positions:?}")) }
    }
}

/// The barrier of the newest snapshot, if all are whole.
fn newest_snapshot(shard: &Path) -> Result<u64, String> {
    let barriers = list(shard).map_err(|error| error.to_string())?;
    for barrier in &barriers {
        let bytes = fs::read(snapshot_path(shard, *barrier)).map_err(|error| error.to_string())?;
        if bytes != snapshot_of(*barrier) {
            return Err(format!("the snapshot of barrier {barrier} holds something else"));
        }
    }
    Ok(barriers.last().copied().unwrap_or(0))
}

fn snapshot_of(barrier: u64) -> Vec<u8> {
    vec![barrier as u8; 300_000]
}

fn position_of(record: &Record) -> u64 {
    match record {
        Record::Begin { barrier, .. } => *barrier,
        record => record.id().expect("it was written here").seq,
    }
}

/// Takes a snapshot as a shard does.
async fn take_snapshot(rig: &LogRig, aside: &Aside, barrier: u64) {
    let dir = rig.dir();
    let mut file = Growing::open(&begin_snapshot(&dir).unwrap()).await.unwrap();
    file.append(&snapshot_of(barrier)).await.unwrap();
    file.finish(aside).await.unwrap();
    rig.data_dir.note_reached(SHARD, rig.log.durable).unwrap();
    publish(&dir, barrier).unwrap();
}

/// Whenever the power is lost, all that was promised by then is there: records that were written, what was
/// noted, and snapshots that count. Segments are filled, begun, cut and used again meanwhile.
#[test]
fn d6_nothing_that_was_promised_is_lost_with_the_power() {
    on_volatile(async |setup, volatile| {
        let promised = Arc::new(Promised::default());
        let broken = Arc::new(Mutex::new(Vec::new()));
        let (judging, found, mut seen) = (promised.clone(), broken.clone(), HashSet::new());
        volatile.watch(move |left| {
            let mut found = found.lock().unwrap();
            if found.is_empty() && seen.insert((left.signature(), judging.all())) {
                found.extend(judging.judge(left).err());
            }
        });
        let aside = Rc::new(Aside::start().unwrap());
        let listening = aside.clone();
        glommio::spawn_local(async move { listening.listen().await }).detach();
        let promise = |what: &AtomicU64, number: u64| what.store(number, Ordering::SeqCst);

        let mut rig = LogRig::open(setup, 0).await;
        promise(&promised.is_opened, 1);
        rig.write(&record(1, 9)).await;
        promise(&promised.record, 1);
        promise(&promised.noted, 1);
        for barrier in [2, 4, 6] {
            rig.write(&begin(barrier, barrier)).await;
            promise(&promised.record, barrier);
            rig.write(&record(barrier + 1, 100_000)).await;
            promise(&promised.record, barrier + 1);
            // No other change of names comes between: the file that loses its name is written over.
            until(|| rig.disk.prepared.borrow().len() == SEGMENTS_AHEAD).await;
            prune(&rig.dir(), barrier - 2).unwrap();
            take_snapshot(&rig, &aside, barrier).await;
            promise(&promised.noted, barrier + 1);
            promise(&promised.snapshot, barrier);
            // The first cut is for two barriers, so that several segments go at a time.
            if barrier > 2 {
                rig.disk.cut(Position(barrier));
                until(|| rig.disk.spares.borrow().len() == 2).await;
            }
        }
        // Two that were cut are made ready again, and one is in use before others make names durable.
        for position in 8..=10 {
            rig.write(&begin(position, position)).await;
            promise(&promised.record, position);
            until(|| rig.disk.prepared.borrow().len() == SEGMENTS_AHEAD).await;
        }
        let broken = broken.lock().unwrap().join("\n");
        assert!(broken.is_empty(), "{broken}");
        assert!(rig.segments() == [4, 5, 6, 7, 8, 9], "it was cut: {:?}", rig.segments());
        rig.close().await;
    });
}

/// What was kept for the next snapshot makes room for the log first.
#[test]
fn a_lack_of_room_is_waited_for() {
    on_volatile(async |setup, volatile| {
        let mut rig = LogRig::open(setup, 0).await;
        rig.write(&record(1, 9)).await;
        let spare = rig.dir().join("snapshot.spare");
        fs::write(&spare, vec![1; 4 << 20]).unwrap();
        volatile.set_room(Some(4 * SEGMENT_BYTES + (5 << 19)));
        rig.begin(2..=2).await;
        until(|| rig.segments() == [1, 2, 3, 4]).await;
        assert!(!spare.exists() && !rig.disk.is_full());

        // The prepared ones are used before anybody waits.
        rig.begin(3..=4).await;
        until(|| rig.disk.is_full()).await;
        // The next try comes later; until then others have the room.
        assert_eq!(fs::metadata(unfinished_path(&rig.dir())).unwrap().len(), 0);
        assert_eq!(rig.segments(), [1, 2, 3, 4]);
        let disk = rig.disk.clone();
        let make_room = async {
            // The write waits for its segment.
            until(|| disk.writing.get().is_some()).await;
            volatile.set_room(None);
        };
        zip(rig.begin(5..=5), make_room).await;
        until(|| rig.segments() == [1, 2, 3, 4, 5, 6, 7]).await;
        assert!(!rig.disk.is_full());
        drop(disk);
        rig.close().await;
    });
}
