use super::*;
use crate::log::segment::IN_FLIGHT_RETRY;
use isonomy_protocol::contract::Append;
use isonomy_protocol::epoch::FIRST;
use isonomy_protocol::log::SegmentHead;
use isonomy_protocol::log::group::{Group, GroupEncoder, group_bytes};
use isonomy_protocol::log::record::Record;
use isonomy_wire::deps::Floor;
use isonomy_wire::frame::HEADER_BYTES;
use isonomy_wire::id::{ClusterId, ReplicaId, ShardId};
use isonomy_wire::message::WIRE_VERSION;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc;

const NEW: Known = Known { reached: Position(0), restored: false, snapshot: 0 };

fn log_id() -> LogId {
    let cluster = ClusterId::of_name("test");
    LogId { cluster, incarnation: 1, replica: ReplicaId(0), epoch: FIRST, shard: ShardId(0) }
}

fn file(dir: &Path, segment: u64) -> File {
    let path = segment_path(dir, segment);
    let file = File::options().create(true).truncate(false).write(true).open(path).unwrap();
    file.set_len(SEGMENT_BYTES as u64).unwrap();
    file
}

/// A segment that is prepared while the log is durable up to `durable`.
fn prepare(dir: &Path, segment: u64, durable: u64) {
    file(dir, segment).write_all_at(&log_id().encode_prepared(segment, Position(durable)), 0).unwrap();
}

/// A segment with `records`, each in a group of its own; the first is a Begin if there is a barrier.
fn fill(id: LogId, dir: &Path, segment: u64, records: std::ops::RangeInclusive<u64>, barrier: Option<u64>) {
    let head = id.encode_head(SegmentHead { segment, first: *records.start() });
    let (file, mut offset) = (file(dir, segment), BLOCK_BYTES);
    file.write_all_at(&head, 0).unwrap();
    let mut encoder = GroupEncoder::new(id);
    for position in records.clone() {
        let record = match barrier {
            Some(barrier) if position == *records.start() => {
                Record::Begin { reserved: position, floor: Floor::NONE, barrier }
            }
            _ => Record::Reserve { end: position },
        };
        let append = Append { position: Position(position), record, payload: None };
        let (mut group, mut buffer) = (Group::new(append.position), vec![0; group_bytes(None)]);
        let place = id.place(segment).wrapping_add(offset as u64);
        assert!(encoder.append(&mut group, &mut buffer, place, &append));
        let size = encoder.finish(&group, &mut buffer, place, Position(position - 1));
        file.write_all_at(&buffer[..size], offset as u64).unwrap();
        offset += size;
    }
}

/// A log that was not cut: a barrier is told in its second segment.
fn uncut(dir: &Path) {
    fill(log_id(), dir, 1, 1..=2, None);
    fill(log_id(), dir, 2, 3..=4, Some(8));
    fill(log_id(), dir, 3, 5..=6, None);
    prepare(dir, 4, 3);
    prepare(dir, 5, 5);
}

/// A log that was cut at the barrier of its fifth segment: a crash came before its fourth had gone, too.
fn cut(dir: &Path) {
    fill(log_id(), dir, 4, 5..=6, None);
    fill(log_id(), dir, 5, 7..=8, Some(8));
    fill(log_id(), dir, 6, 9..=10, None);
    prepare(dir, 7, 7);
    prepare(dir, 8, 9);
}

/// What the last record is, or a part of what is said of the damage.
type ExpectedTail = std::result::Result<u64, &'static str>;

fn is_as_expected(dir: &Path, known: Known, expected: ExpectedTail) -> std::result::Result<(), String> {
    let read = recover(log_id(), dir, known, |_| ());
    let told = match (&read, expected) {
        (Ok(read), Ok(last)) if read.tail.next.0 - 1 == last => Ok(()),
        (Err(fatal), Err(part)) if fatal.reason == Reason::Damaged && fatal.to_string().contains(part) => {
            Ok(())
        }
        (Ok(read), _) => Err(format!("it is read up to {}, but {expected:?}", read.tail.next.0 - 1)),
        (Err(fatal), _) => Err(format!("{fatal}, but {expected:?}")),
    };
    // There are no snapshots beside it, and only these tell the two apart.
    if known.snapshot > 0 {
        return told;
    }
    match verify(log_id(), dir, || Ok(known)) {
        Ok(_) if read.is_err() => Err("it is damaged, but verified".into()),
        Err(fatal) if read.is_ok() => Err(format!("it is whole, but verified as {fatal}")),
        _ => told,
    }
}

/// What became of a log, and how it is judged with what is known of it.
type Row<const N: usize> = (&'static str, fn(&Path), [ExpectedTail; N]);

fn judge<const N: usize>(log: fn(&Path), known: [Known; N], rows: &[Row<N>]) {
    let mut wrong = Vec::new();
    for (name, change, expected) in rows {
        for (known, expected) in known.into_iter().zip(*expected) {
            let dir = tempfile::tempdir().unwrap();
            log(dir.path());
            change(dir.path());
            let told = is_as_expected(dir.path(), known, expected);
            wrong.extend(told.err().map(|what| format!("{name}, {known:?}: {what}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn remove<const N: usize>(dir: &Path, segments: [u64; N]) {
    segments.into_iter().for_each(|segment| fs::remove_file(segment_path(dir, segment)).unwrap());
}

fn lose_head(dir: &Path, segment: u64) {
    file(dir, segment).write_all_at(&[0; BLOCK_BYTES], 0).unwrap();
}

fn lose_all(dir: &Path, segment: u64) {
    file(dir, segment).set_len(0).unwrap();
    file(dir, segment);
}

const GROUP: ExpectedTail = Err("but a group of its records lies at byte 4096");

#[test]
fn d6_whatever_is_missing_of_a_log_that_was_not_cut_is_damage() {
    let known = [
        // Nobody has noted anything; it is noted that it has begun; a snapshot was taken.
        NEW,
        Known { reached: Position(1), ..NEW },
        Known { reached: Position(5), snapshot: 8, ..NEW },
        // The same for one that was restored, before its first snapshot.
        Known { restored: true, snapshot: 7, ..NEW },
        Known { restored: true, snapshot: 7, reached: Position(1) },
    ];
    let held = [
        Ok(0),
        Err("but it held record 1 once"),
        Err("but it held record 5 once"),
        Ok(0),
        Err("record 1 once"),
    ];
    let no_snapshot = Err("its snapshot is missing");
    let empty = Err("the log begins with it, but it is empty");
    let old = Err("needs the snapshot of barrier 8, but the newest is that of 7");
    let rows: &[Row<5>] = &[
        ("whole", |_| (), [Ok(6); 5]),
        ("no files", |dir| remove(dir, [1, 2, 3, 4, 5]), held),
        ("nothing begun", |dir| [1, 2, 3, 4, 5].into_iter().for_each(|it| lose_all(dir, it)), held),
        ("only prepared", |dir| remove(dir, [1, 2, 3]), [no_snapshot, no_snapshot, empty, empty, empty]),
        ("no first head", |dir| lose_head(dir, 1), [GROUP; 5]),
        ("no last head", |dir| lose_head(dir, 3), [GROUP; 5]),
        (
            "first all zeros",
            |dir| lose_all(dir, 1),
            [Err("begins with record 3, but the log ends with record 0"); 5],
        ),
        ("last all zeros", |dir| lose_all(dir, 3), [Err("ends with record 4, but it held record 5 once"); 5]),
        // What a snapshot covers is not missed.
        ("first missing", |dir| remove(dir, [1]), [no_snapshot, no_snapshot, Ok(6), old, old]),
        ("middle missing", |dir| remove(dir, [2]), [Err("segment 2 of the log is missing"); 5]),
        ("last missing", |dir| remove(dir, [3]), [Err("segment 3 of the log is missing"); 5]),
        // Where nothing at all is left that knows of the end, it is known no better.
        (
            "end missing",
            |dir| remove(dir, [3, 4, 5]),
            [Ok(4), Ok(4), Err("it held record 5 once"), Ok(4), Ok(4)],
        ),
        (
            "of another",
            |dir| fill(LogId { shard: ShardId(1), ..log_id() }, dir, 3, 5..=6, None),
            [Err("not that of this log"); 5],
        ),
        ("too short", |dir| file(dir, 4).set_len(99).unwrap(), [Err("the segment has 99 bytes"); 5]),
        (
            "begun, no group yet",
            |dir| {
                file(dir, 4)
                    .write_all_at(&log_id().encode_head(SegmentHead { segment: 4, first: 7 }), 0)
                    .unwrap()
            },
            [Ok(6); 5],
        ),
    ];
    judge(uncut, known, rows);
}

#[test]
fn d6_whatever_is_missing_of_a_log_that_was_cut_is_damage() {
    let known = [
        NEW,
        // Its own snapshot; one that was installed, and is newer than the log; an older one.
        Known { reached: Position(7), snapshot: 8, ..NEW },
        Known { reached: Position(7), snapshot: 9, ..NEW },
        Known { reached: Position(3), snapshot: 7, ..NEW },
    ];
    let none = Err("its snapshot is missing");
    let old = Err("needs the snapshot of barrier 8, but the newest is that of 7");
    let gone = Err("it held record 7 once");
    let empty = Err("the log begins with it, but it is empty");
    let beginning = Err("what it was cut for is missing");
    let rows: &[Row<4>] = &[
        ("whole", |_| (), [none, Ok(10), Ok(10), old]),
        ("no files", |dir| remove(dir, [4, 5, 6, 7, 8]), [Ok(0), gone, gone, Err("it held record 3 once")]),
        ("only prepared", |dir| remove(dir, [4, 5, 6]), [none, empty, empty, empty]),
        ("no first head", |dir| lose_head(dir, 4), [none, GROUP, GROUP, GROUP]),
        ("no last head", |dir| lose_head(dir, 6), [none, GROUP, GROUP, old]),
        ("last all zeros", |dir| lose_all(dir, 6), [none, Err("record 9 once"), Err("record 9 once"), old]),
        ("cut further", |dir| remove(dir, [4]), [none, Ok(10), Ok(10), old]),
        ("cut too far", |dir| remove(dir, [4, 5]), [none, beginning, beginning, beginning]),
        (
            "middle missing",
            |dir| remove(dir, [5]),
            [none, Err("segment 5"), Err("segment 5"), Err("segment 5")],
        ),
    ];
    judge(cut, known, rows);
}

#[test]
fn g1_before_what_a_log_was_cut_for_nothing_is_read() {
    let dir = tempfile::tempdir().unwrap();
    cut(dir.path());
    let mut taken = Vec::new();
    let known = Known { snapshot: 8, ..NEW };
    let recovered = recover(log_id(), dir.path(), known, |(record, _)| taken.push(record)).unwrap();
    assert_eq!(taken.len(), 4);
    assert!(matches!(taken[0], Record::Begin { barrier: 8, .. }), "{:?}", taken[0]);
    assert_eq!((recovered.tail.next, recovered.records()), (Position(11), 6));
}

#[test]
fn a_snapshot_that_was_restored_begins_a_log_and_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let restored = Known { restored: true, snapshot: 7, ..NEW };
    is_as_expected(dir.path(), restored, Ok(0)).unwrap();
    is_as_expected(dir.path(), Known { snapshot: 0, ..restored }, Err("it was restored with is missing"))
        .unwrap();
    is_as_expected(dir.path(), Known { restored: false, ..restored }, Err("but not the log")).unwrap();
}

#[test]
fn groups_that_a_file_held_under_another_number_are_none_of_it() {
    let dir = tempfile::tempdir().unwrap();
    fill(log_id(), dir.path(), 1, 1..=2, None);
    fill(log_id(), dir.path(), 2, 3..=4, None);
    // A spare file that is used again: two blocks are written, the rest is as it was.
    fs::rename(segment_path(dir.path(), 2), segment_path(dir.path(), 3)).unwrap();
    fill(log_id(), dir.path(), 2, 3..=4, None);
    prepare(dir.path(), 3, 4);
    let recovered = recover(log_id(), dir.path(), NEW, |_| ()).unwrap();
    assert_eq!((recovered.prepared.as_slice(), recovered.tail.next), (&[3][..], Position(5)));
}

#[test]
fn a_log_of_another_release_is_not_damaged_and_one_whose_version_has_changed_is() {
    let dir = tempfile::tempdir().unwrap();
    uncut(dir.path());
    let judged = || {
        let fatals = [
            recover(log_id(), dir.path(), NEW, |_| ()).unwrap_err(),
            verify(log_id(), dir.path(), || Ok(NEW)).unwrap_err(),
        ];
        fatals.map(|fatal| (fatal.reason, fatal.to_string()))
    };
    let mut head = log_id().encode_head(SegmentHead { segment: 1, first: 1 });
    head[4] = WIRE_VERSION - 1;
    file(dir.path(), 1).write_all_at(&head, 0).unwrap();
    for (reason, text) in judged() {
        assert!(reason == Reason::Damaged && text.contains("the checksum of a frame fails"), "{text}");
    }
    let message = u32::from_le_bytes(head[12..16].try_into().unwrap()) as usize;
    let covered = [&log_id().place(1).to_le_bytes(), &head[..28], &head[HEADER_BYTES..][..message]].concat();
    head[28..32].copy_from_slice(&crc32c::crc32c(&covered).to_le_bytes());
    file(dir.path(), 1).write_all_at(&head, 0).unwrap();
    let expected = format!(
        "000000000001.log: a release with wire version {} wrote it, and this release reads version {WIRE_VERSION}",
        WIRE_VERSION - 1
    );
    for (reason, text) in judged() {
        assert!(reason == Reason::DataDir && text.contains(&expected), "{text}");
        assert!(text.contains("run the release that made it") && !text.contains("must not vote"), "{text}");
    }
}

#[test]
fn an_empty_directory_is_an_empty_log() {
    let dir = tempfile::tempdir().unwrap();
    let recovered = recover(log_id(), dir.path(), NEW, |_| ()).unwrap();
    assert!(!recovered.in_use && recovered.prepared.is_empty());
    assert_eq!((recovered.tail.segment, recovered.next_segment()), (1, 1));
}

#[test]
fn prepared_segments_are_used_again() {
    let dir = tempfile::tempdir().unwrap();
    fill(log_id(), dir.path(), 1, 1..=1, None);
    file(dir.path(), 2);
    prepare(dir.path(), 3, 1);
    let recovered = recover(log_id(), dir.path(), NEW, |_| ()).unwrap();
    assert!(recovered.in_use);
    assert_eq!((recovered.prepared.as_slice(), recovered.next_segment()), (&[2, 3][..], 4));
}

#[test]
fn the_last_writes_of_a_killed_process_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    fill(log_id(), dir.path(), 1, 1..=1, None);
    let writer = File::options().write(true).open(segment_path(dir.path(), 1)).unwrap();
    writer.lock().unwrap();
    // Who only verifies does not wait for it, nor take its lock.
    verify(log_id(), dir.path(), || Ok(NEW)).unwrap();
    let (recovered, is_recovered) = mpsc::channel();
    let path = dir.path().to_owned();
    let recovers = std::thread::spawn(move || recovered.send(recover(log_id(), &path, NEW, |_| ())));
    assert!(is_recovered.recv_timeout(2 * IN_FLIGHT_RETRY).is_err(), "it is locked");
    drop(writer);
    assert!(is_recovered.recv().unwrap().unwrap().in_use);
    recovers.join().unwrap().unwrap();
}
