use super::*;
use crate::data_dir::DataDir;
use crate::log::groups::Log;
use crate::log::recover::{recover, spare_path};
use crate::testing::fixture::{Setup, begin, record, run, until};
use isonomy_protocol::contract::{Append, Time};
use isonomy_protocol::log::BLOCK_BYTES;
use isonomy_protocol::log::scan::LogEntry;
use isonomy_wire::id::ShardId;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fs;
use std::path::Path;

mod power;

const SHARD: ShardId = ShardId(0);

/// The log of a shard in a directory.
struct LogRig {
    data_dir: EpochDir,
    disk: Rc<Disk>,
    preparing: glommio::Task<()>,
    log: Log,
    /// What was read back when it was opened.
    read: Vec<LogEntry>,
}

impl LogRig {
    /// Opens a log as a shard does whose newest snapshot is that of this barrier, or none (0).
    async fn open(setup: &Setup, snapshot: u64) -> LogRig {
        let data_dir = DataDir::open(&setup.expected).unwrap().enter(&setup.roster).unwrap();
        let (id, dir) = (data_dir.log_id(SHARD), data_dir.log_dir(SHARD));
        let mut read = Vec::new();
        let recovered = recover(id, &dir, data_dir.known(SHARD, snapshot), |entry| read.push(entry)).unwrap();
        let disk =
            Rc::new(Disk::open(id, data_dir.clone(), &setup.settings, &recovered, Rc::default()).await);
        let prepared = disk.clone();
        let preparing = glommio::spawn_local(async move { prepared.prepare().await });
        LogRig { data_dir, disk, preparing, log: Log::new(id, recovered.tail), read }
    }

    /// Another process may open the directory from here on.
    async fn close(self) {
        self.preparing.cancel().await;
        self.disk.close().await;
    }

    fn dir(&self) -> PathBuf {
        self.data_dir.log_dir(SHARD)
    }

    /// Writes one record in a group of its own; where its segment's file has it.
    async fn write(&mut self, append: &Append) -> (u64, usize, Vec<u8>) {
        self.log.append(Time(0), append);
        let write = self.log.take(Time(0)).unwrap();
        let place = (write.segment, write.offset, write.buffer.as_bytes().to_vec());
        self.log.durable = self.disk.write(write).await;
        assert_eq!(self.log.durable, append.position);
        assert!(self.log.take(Time(0)).is_none());
        place
    }

    /// Begins a segment with each of these records, which are barriers as well.
    async fn begin(&mut self, positions: std::ops::RangeInclusive<u64>) {
        for position in positions {
            self.write(&begin(position, position)).await;
        }
    }

    /// The numbers of files with this name.
    fn numbers(&self, path: impl Fn(&Path, u64) -> PathBuf) -> Vec<u64> {
        (0..100).filter(|number| path(&self.dir(), *number).exists()).collect()
    }

    fn segments(&self) -> Vec<u64> {
        self.numbers(segment_path)
    }

    fn spares(&self) -> Vec<u64> {
        self.numbers(spare_path)
    }
}

fn entry(append: &Append) -> LogEntry {
    (append.record.clone(), append.payload.clone())
}

fn temporary() -> (tempfile::TempDir, Setup) {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::alone(&dir.path().join("data"));
    (dir, setup)
}

#[test]
fn segments_are_prepared_before_they_are_needed() {
    let (_dir, setup) = temporary();
    run(async {
        let mut rig = LogRig::open(&setup, 0).await;
        // The one in use and those ahead of it are there before the first write ends.
        rig.write(&record(1, 9)).await;
        assert!(rig.segments().starts_with(&[1, 2, 3]), "{:?}", rig.segments());
        for position in 2..5 {
            rig.write(&begin(position, position)).await;
            let last = position + SEGMENTS_AHEAD as u64;
            until(|| rig.segments().last() == Some(&last)).await;
            assert_eq!(rig.segments(), (1..=last).collect::<Vec<_>>());
        }
        assert_eq!(rig.disk.held_bytes(), 4 * SEGMENT_BYTES as u64);
    });
}

/// What a write has said is durable is in the file, for whoever reads it by another descriptor.
#[test]
fn a_write_is_in_its_file_when_it_returns() {
    let (_dir, setup) = temporary();
    run(async {
        let mut rig = LogRig::open(&setup, 0).await;
        for position in 1..20 {
            let append = if position % 8 == 0 { begin(position, 1) } else { record(position, 30_000) };
            let (segment, offset, bytes) = rig.write(&append).await;
            let mut file = fs::read(segment_path(&rig.dir(), segment)).unwrap();
            assert_eq!(file.len(), SEGMENT_BYTES);
            assert!(file[offset..offset + bytes.len()] == bytes);
            let head = file.drain(..BLOCK_BYTES).collect::<Vec<_>>().into();
            let head = rig.data_dir.log_id(SHARD).decode_head(segment, &head).unwrap();
            assert_eq!(head.map(|head| head.first), Some(1.max(position / 8 * 8)));
        }
    });
}

#[test]
fn what_was_written_is_read_back_across_segments_and_restarts() {
    let (_dir, setup) = temporary();
    let mut random = SmallRng::seed_from_u64(1);
    let mut written: Vec<LogEntry> = Vec::new();
    for _ in 0..3 {
        run(async {
            let mut rig = LogRig::open(&setup, 0).await;
            assert!(rig.read == written, "{} of {} records", rig.read.len(), written.len());
            // A segment and a half.
            for _ in 0..12 {
                let append = record(written.len() as u64 + 1, random.random_range(0..3 << 20));
                rig.write(&append).await;
                written.push(entry(&append));
            }
            rig.close().await;
        });
    }
    let used = run(async { LogRig::open(&setup, 0).await.disk.used.borrow().len() });
    assert!(used >= 3, "{used}");
}

/// Only what lies before the position goes, in whole segments, and the budget's worth of files stays.
#[test]
fn g1_a_cut_takes_whole_segments_and_keeps_spare_files_within_the_budget() {
    let (_dir, mut setup) = temporary();
    // Five used, two prepared: one file more may stay.
    setup.settings.log_budget = 6 * SEGMENT_BYTES as u64;
    run(async {
        let mut rig = LogRig::open(&setup, 0).await;
        rig.write(&record(1, 9)).await;
        rig.begin(2..=3).await;
        rig.write(&record(4, 9)).await;
        rig.begin(5..=6).await;
        let all: Vec<u64> = (1..=5 + SEGMENTS_AHEAD as u64).collect();
        until(|| rig.segments() == all).await;
        // Record 4 lies in the middle of the third segment.
        rig.disk.cut(Position(4));
        until(|| rig.segments().first() == Some(&3)).await;
        assert_eq!(rig.segments(), all[2..]);
        until(|| !rig.disk.spares.borrow().is_empty()).await;
        // The file of the first stays: three in use, two prepared, and itself make six.
        assert_eq!((rig.spares(), rig.disk.held_bytes()), (vec![1], 3 * SEGMENT_BYTES as u64));
        // The position of the next segment's first record, and nothing before it, is needed.
        rig.disk.cut(Position(5));
        until(|| rig.disk.spares.borrow().len() == 2).await;
        assert_eq!((rig.segments()[0], rig.spares()), (4, vec![1, 3]));
        // The segment in use stays, whatever is cut.
        rig.disk.cut(Position(99));
        until(|| rig.disk.spares.borrow().len() == 3).await;
        assert_eq!((rig.segments(), rig.spares()), (all[4..].to_vec(), vec![1, 3, 4]));
        rig.close().await;
    });
    run(async {
        let rig = LogRig::open(&setup, 6).await;
        assert_eq!(rig.read, [entry(&begin(6, 6))]);
        assert_eq!(rig.disk.spares.borrow().len(), 3);
    });
}

/// A file that is used again has no head, and nothing of what it held passes for records of the new one.
#[test]
fn a_spare_file_becomes_an_empty_segment() {
    let (_dir, setup) = temporary();
    run(async {
        let mut rig = LogRig::open(&setup, 0).await;
        rig.write(&record(1, 200_000)).await;
        rig.begin(2..=3).await;
        until(|| rig.segments() == [1, 2, 3, 4, 5]).await;
        rig.disk.cut(Position(3));
        until(|| rig.disk.spares.borrow().len() == 2).await;
        let old = fs::read(rig.disk.spares.borrow().last().unwrap()).unwrap();
        rig.begin(4..=4).await;
        until(|| rig.segments() == [3, 4, 5, 6]).await;
        let new = fs::read(segment_path(&rig.dir(), 6)).unwrap();
        let id = rig.data_dir.log_id(SHARD);
        assert!(id.encode_prepared(6, Position(4)) == new[..2 * BLOCK_BYTES]);
        assert!(old[2 * BLOCK_BYTES..] == new[2 * BLOCK_BYTES..], "it was not filled anew");
        rig.begin(5..=6).await;
        until(|| rig.segments() == [3, 4, 5, 6, 7, 8] && rig.spares().is_empty()).await;
        rig.close().await;
    });
    let expected: Vec<LogEntry> = (3..=6).map(|position| entry(&begin(position, position))).collect();
    assert_eq!(run(async { LogRig::open(&setup, 3).await.read }), expected);
}
