use super::*;
use crate::testing::fixture::{begin, log_id, record, run};
use bytes::Bytes;
use isonomy_protocol::log::group::GroupHead;
use isonomy_protocol::log::scan::{LogEntry, Scanner};
use isonomy_wire::frame::{Kind, Scope, aligned, split};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;

const NOW: Time = Time(1_000_000);

fn log_at(segment: u64, offset: usize) -> Log {
    Log::new(log_id(), Tail { segment, offset, next: Position(1) })
}

/// Takes the next group, which is durable at once.
fn write(log: &mut Log) -> Option<Write> {
    let write = log.take(NOW)?;
    log.durable = write.last;
    Some(write)
}

/// Segments as they are after these writes.
#[derive(Default)]
struct Segments(BTreeMap<u64, Image>);

struct Image {
    first: Position,
    bytes: Vec<u8>,
}

impl Segments {
    fn take(&mut self, write: &Write) {
        let new = || Image { first: write.first, bytes: vec![0; BLOCK_BYTES] };
        let Image { bytes, .. } = self.0.entry(write.segment).or_insert_with(new);
        assert_eq!(bytes.len(), write.offset, "groups follow each other");
        bytes.extend_from_slice(write.buffer.as_bytes());
        // All before it was durable when it was taken, and nothing of it.
        assert_eq!(head_of(write).durable, write.first.0 - 1);
        assert!(bytes.len() <= SEGMENT_BYTES && bytes.len().is_multiple_of(BLOCK_BYTES));
    }

    /// All that they hold, segment by segment.
    fn read(self) -> Vec<Vec<LogEntry>> {
        self.0.into_iter().map(|(segment, image)| image.read(segment)).collect()
    }
}

impl Image {
    fn read(mut self, segment: u64) -> Vec<LogEntry> {
        self.bytes.resize(SEGMENT_BYTES, 0);
        let bytes = aligned(Bytes::from(self.bytes));
        let mut scanner = Scanner::new(log_id(), segment, bytes, self.first);
        let mut entries = Vec::new();
        while scanner.next_group(|entry| entries.push(entry)).unwrap().is_some() {}
        entries
    }
}

fn head_of(write: &Write) -> GroupHead {
    let place = log_id().place(write.segment).wrapping_add(write.offset as u64);
    let bytes = aligned(Bytes::copy_from_slice(write.buffer.as_bytes()));
    let (frame, _) = split(&bytes, place, bytes.len()).unwrap().unwrap();
    frame.decode(Scope { kind: Kind::Log, epoch: log_id().epoch, shard: log_id().shard }).unwrap()
}

#[test]
fn what_is_appended_is_in_the_groups_in_order() {
    let mut random = SmallRng::seed_from_u64(1);
    run(async {
        let (mut log, mut segments) = (log_at(1, BLOCK_BYTES), Segments::default());
        let (mut appended, mut last) = (Vec::new(), 0);
        let mut written = |log: &mut Log| {
            let Some(write) = write(log) else { return false };
            assert_eq!(write.first.0, last + 1, "positions are dense");
            last = write.last.0;
            segments.take(&write);
            true
        };
        for position in 1..=900 {
            // Now and then one that needs a group of its own.
            let bytes = if random.random_ratio(1, 100) { 1 << 20 } else { random.random_range(0..60_000) };
            let append = record(position, bytes);
            log.append(NOW, &append);
            appended.push((append.record, append.payload));
            if random.random_ratio(1, 10) {
                written(&mut log);
            }
        }
        while written(&mut log) {}
        assert!(!log.has_work());
        let read = segments.read();
        assert!(read.len() >= 3, "they cross borders of segments");
        assert!(read.concat() == appended, "what is read is what was appended");
    });
}

#[test]
fn a_group_begins_the_next_segment_only_if_it_does_not_fit() {
    let append = record(1, 20_000);
    let needed = group_bytes(append.payload.as_ref());
    for (left, expected) in [
        (needed, (7, SEGMENT_BYTES - needed)),
        (needed - BLOCK_BYTES, (8, BLOCK_BYTES)),
        (0, (8, BLOCK_BYTES)),
    ] {
        run(async {
            let mut log = log_at(7, SEGMENT_BYTES - left);
            log.append(NOW, &append);
            let write = log.take(NOW).unwrap();
            assert_eq!((write.segment, write.offset), expected, "{left} bytes are left");
        });
    }
}

#[test]
fn g1_a_begin_is_the_first_record_of_a_segment() {
    run(async {
        let (mut log, mut segments) = (log_at(1, BLOCK_BYTES), Segments::default());
        // Behind a group that gathers, behind one that was written, and behind another one.
        let appends =
            [record(1, 9), record(2, 9), begin(3, 1), record(4, 9), begin(5, 2), begin(6, 3), record(7, 9)];
        for append in &appends {
            log.append(NOW, append);
            if append.position == Position(4) {
                while let Some(write) = write(&mut log) {
                    segments.take(&write);
                }
            }
        }
        while let Some(write) = write(&mut log) {
            segments.take(&write);
        }
        let expected = [&appends[..2], &appends[2..4], &appends[4..5], &appends[5..]];
        let expected =
            expected.map(|all| all.iter().map(|it| (it.record.clone(), it.payload.clone())).collect());
        assert!(segments.read() == expected.map(|all: Vec<LogEntry>| all));
    });
}

#[test]
fn a_group_that_nobody_waits_for_gathers_for_a_while() {
    run(async {
        let mut log = log_at(1, BLOCK_BYTES);
        assert!(!log.is_due(NOW) && !log.has_work());
        log.append(NOW, &record(1, 9));
        // Its age is that of its first record.
        log.append(NOW.after(GATHER_AT_MOST_US - 1), &record(2, 9));
        assert!(log.has_work() && !log.is_due(NOW.after(GATHER_AT_MOST_US - 1)));
        assert!(log.is_due(NOW.after(GATHER_AT_MOST_US)));
        // A full one waits for nothing.
        log.append(NOW, &record(3, GROUP_BYTES_MAX));
        assert!(log.is_due(NOW));
        assert_eq!(write(&mut log).unwrap().last, Position(2));
        assert!(log.has_work() && !log.is_due(NOW));
        assert_eq!(write(&mut log).unwrap().last, Position(3));
        assert!(!log.has_work() && log.take(NOW).is_none());
    });
}

#[test]
fn d6_an_idle_log_says_once_how_far_it_is_durable() {
    let idle = NOW.after(MARK_AFTER_US);
    run(async {
        let (mut log, mut segments) = (log_at(1, BLOCK_BYTES), Segments::default());
        log.mark_if_idle(idle);
        assert!(!log.has_work(), "an empty one has nothing to say");
        log.append(NOW, &record(1, 9));
        log.mark_if_idle(idle);
        segments.take(&log.take(NOW).unwrap());
        // A write is under way.
        log.mark_if_idle(idle);
        assert!(!log.has_work());
        log.durable = Position(1);
        log.mark_if_idle(NOW.after(MARK_AFTER_US - 1));
        assert!(!log.has_work(), "it is not idle yet");
        log.mark_if_idle(idle);
        assert!(log.is_due(idle));
        let mark = log.take(idle).unwrap();
        assert_eq!((mark.first, mark.last, mark.offset), (Position(2), Position(1), 2 * BLOCK_BYTES));
        let mut image = vec![0; SEGMENT_BYTES];
        image[mark.offset..mark.offset + mark.buffer.len()].copy_from_slice(mark.buffer.as_bytes());
        let mut scanner = Scanner::new(log_id(), 1, aligned(Bytes::from(image)), Position(2));
        assert_eq!(scanner.remains().unwrap().durable, Position(1));
        segments.take(&mark);
        log.mark_if_idle(idle.after(MARK_AFTER_US));
        assert!(!log.has_work(), "it has said so");
        // The next record follows the mark.
        log.append(idle, &record(2, 9));
        segments.take(&write(&mut log).unwrap());
        assert_eq!(segments.read().concat().len(), 2);
    });
}

/// Counters that go up must come down by as much, or the shard stops reading its peers some day.
#[test]
fn it_is_behind_while_much_waits_and_only_then() {
    run(async {
        let (mut log, mut position) = (log_at(1, BLOCK_BYTES), 0);
        for _ in 0..3 {
            while !log.is_behind() {
                position += 1;
                log.append(NOW, &record(position, 200_000));
            }
            let mut left: usize = log.full.iter().map(|it| it.group.padded_bytes()).sum();
            assert!(left > LOG_BACKLOG_BYTES_MAX);
            while log.is_behind() {
                left -= write(&mut log).unwrap().buffer.len();
            }
            assert!(left <= LOG_BACKLOG_BYTES_MAX && left + GROUP_BYTES_MAX > LOG_BACKLOG_BYTES_MAX);
            while write(&mut log).is_some() {}
            assert_eq!((log.waiting, log.durable), (0, Position(position)));
        }
    });
}
