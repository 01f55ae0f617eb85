use super::*;
use crate::cursor::{Cursor, TopicId};
use crate::publisher::Source;
use isonomy_mesh::{ForSink, Milestone, connect_sink};
use isonomy_wire::answer::ResponseBuilder;
use isonomy_wire::command::{Batch, Numbering, RequestBuilder};
use isonomy_wire::deps::Frontier;
use isonomy_wire::id::{ClusterId, Epoch, InstanceId, REPLICAS_MAX, ReplicaId, SessionId, ShardId};
use isonomy_wire::published::BadBatch;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const EPOCH: Epoch = Epoch(1);
const CLUSTER: ClusterId = ClusterId(7);
const SHARD: ShardId = ShardId(2);

fn milestone(barrier: u64) -> Milestone {
    let mut frontier = [0; REPLICAS_MAX];
    frontier[0] = 10 * barrier;
    Milestone { barrier, epoch: EPOCH, frontier: Frontier::from(frontier) }
}

/// An instance that decides a key, or only reads if there is none.
fn batch(seq: u64, key: Option<&str>, has_more: bool) -> ForSink {
    let id = InstanceId::new(ReplicaId(0), seq);
    let (mut request, mut answers) = (RequestBuilder::default(), ResponseBuilder::new(EPOCH, SHARD));
    match key {
        Some(key) => {
            request.decide(key.as_bytes(), &[7; 300]).unwrap();
            answers.committed(id, 0, seq);
        }
        None => {
            request.read(b"r").unwrap();
            answers.plain(id, 0, &isonomy_wire::answer::Answer::Missing);
        }
    }
    let session = if key.is_some() { SessionId::named("s") } else { SessionId::NONE };
    let bytes = request.encode(session, Numbering::at(u64::from(key.is_some())));
    let batch = Batch::parse(bytes.clone(), crc32c::crc32c(&bytes), |_| ()).unwrap();
    ForSink::Batch { epoch: EPOCH, id, batch, responses: vec![(0, answers.encode())], has_more }
}

fn decided(seq: u64) -> ForSink {
    batch(seq, Some(&format!("key-{seq}")), false)
}

fn open(dir: &Path, retain: Retain) -> Writer {
    Writer::open(dir, CLUSTER, SHARD, retain).unwrap()
}

/// An outbox that has begun, and has taken all this.
fn written(dir: &Path, retain: Retain, start: Milestone, items: &[ForSink]) -> Writer {
    let mut writer = open(dir, retain);
    writer.take(&ForSink::State(start)).unwrap();
    items.iter().for_each(|item| writer.take(item).unwrap());
    writer.flush().unwrap();
    writer
}

/// All that a reader finds, in words.
fn read(reader: &mut OutboxReader) -> Vec<String> {
    let mut words = Vec::new();
    loop {
        words.push(match reader.read_next().unwrap() {
            Next::End => return words,
            Next::Segment(SegmentHead { cluster, shard, start, has_gap }) => {
                assert_eq!((cluster, shard, start), (CLUSTER, SHARD, milestone(start.barrier)));
                format!("{}{}", if has_gap { "gap " } else { "" }, start.barrier)
            }
            Next::Batch(batch) => {
                let more = if batch.origin().has_more { "+" } else { "" };
                format!("#{}{more}", batch.origin().instance.seq)
            }
        });
    }
}

/// Reads so many things that come next.
fn pass(reader: &mut OutboxReader, count: usize) {
    (0..count).for_each(|_| assert!(!matches!(reader.read_next().unwrap(), Next::End)));
}

const ALL: Retain = Retain::Bytes(u64::MAX);

#[test]
fn what_is_written_is_read_in_its_order_over_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut reader = OutboxReader::new(dir.path());
    assert_eq!(read(&mut reader), [""; 0], "nothing is there yet");
    let items = [decided(1), batch(2, None, false), ForSink::Barrier(milestone(1)), decided(3)];
    let mut writer = written(dir.path(), ALL, milestone(0), &items);
    assert_eq!(read(&mut reader), ["0", "#1", "1", "#3"], "and what decides nothing is not there");
    writer.take(&decided(4)).unwrap();
    assert_eq!(read(&mut reader), [""; 0], "it is not flushed");
    writer.flush().unwrap();
    writer.take(&ForSink::Barrier(milestone(2))).unwrap();
    assert_eq!(read(&mut reader), ["#4", "2"]);
}

#[test]
fn p3_a_component_is_marked_up_to_its_last_batch_that_decides() {
    let dir = tempfile::tempdir().unwrap();
    let items = [
        batch(1, Some("a"), true),
        batch(2, None, true),
        batch(3, Some("b"), true),
        batch(4, None, false),
        batch(5, Some("c"), false),
        batch(6, Some("d"), true),
        batch(7, Some("e"), false),
    ];
    written(dir.path(), ALL, milestone(0), &items);
    assert_eq!(read(&mut OutboxReader::new(dir.path())), ["0", "#1+", "#3", "#5", "#6+", "#7"]);
}

#[test]
fn p2_a_restart_writes_again_what_is_behind_the_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (ForSink::Barrier(milestone(1)), ForSink::Barrier(milestone(2)));
    written(dir.path(), ALL, milestone(0), &[decided(1), one, decided(2), decided(3), two, decided(4)]);
    // The order behind the barrier is another one this time, and not all of it is there again.
    let again = [decided(3), decided(2)];
    written(dir.path(), ALL, milestone(1), &again);
    assert_eq!(read(&mut OutboxReader::new(dir.path())), ["0", "#1", "1", "#3", "#2"]);
    written(dir.path(), ALL, milestone(0), &[]);
    assert_eq!(read(&mut OutboxReader::new(dir.path())), ["0"]);
}

#[test]
fn a_snapshot_of_another_replica_leaves_a_gap_that_stays_marked() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = written(dir.path(), ALL, milestone(0), &[decided(1)]);
    writer.take(&ForSink::State(milestone(4))).unwrap();
    writer.take(&ForSink::Barrier(milestone(5))).unwrap();
    let all = ["0", "#1", "gap 4", "5"];
    assert_eq!(read(&mut OutboxReader::new(dir.path())), all);
    written(dir.path(), ALL, milestone(4), &[]);
    assert_eq!(read(&mut OutboxReader::new(dir.path())), all[..3]);
    written(dir.path(), ALL, milestone(9), &[]);
    assert_eq!(read(&mut OutboxReader::new(dir.path())), ["0", "#1", "gap 4", "gap 9"]);
}

/// What is kept begins at the newest gap, or with the oldest segment.
#[test]
fn an_outbox_tells_from_where_on_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let published = Arc::new(Published::default());
    let mut writer = open(dir.path(), Retain::Unpublished(published.clone()));
    assert_eq!(writer.kept_from().unwrap(), None, "the shard has said nothing");
    writer.take(&ForSink::State(milestone(0))).unwrap();
    writer.take(&ForSink::Barrier(milestone(1))).unwrap();
    assert_eq!(writer.kept_from().unwrap(), Some(milestone(0)));
    published.raise(1);
    writer.prune().unwrap();
    assert_eq!(writer.kept_from().unwrap(), Some(milestone(1)));
    writer.take(&ForSink::State(milestone(4))).unwrap();
    writer.take(&ForSink::Barrier(milestone(5))).unwrap();
    assert_eq!(writer.kept_from().unwrap(), Some(milestone(4)), "a gap is before it");
}

#[test]
fn an_outbox_tells_whether_it_has_what_a_cursor_does_not_cover() {
    let dir = tempfile::tempdir().unwrap();
    let published = Arc::new(Published::default());
    assert!(!published.is_behind(None), "there is nothing");
    let mut writer = written(
        dir.path(),
        Retain::Unpublished(published.clone()),
        milestone(0),
        &[decided(3), batch(5, None, false)],
    );
    let mut cursor = Cursor::nothing(CLUSTER, SHARD, TopicId::default());
    assert!(published.is_behind(None) && published.is_behind(Some(&cursor)));
    (cursor.epoch, cursor.frontier) = (EPOCH, Frontier::from([3, 0, 0, 0, 0, 0, 0, 0, 0]));
    assert!(!published.is_behind(Some(&cursor)), "what decides nothing is not published");
    writer.take(&decided(7)).unwrap();
    writer.flush().unwrap();
    assert!(published.is_behind(Some(&cursor)));
}

/// A cursor that was set back lies before what others have published and this replica has given up.
#[test]
fn p4_who_lacks_what_a_cursor_does_not_cover_may_fence_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let published = Arc::new(Published::default());
    let items = [decided(1), ForSink::Barrier(milestone(1)), decided(20)];
    let mut writer = written(dir.path(), Retain::Unpublished(published.clone()), milestone(0), &items);
    let mut source = OutboxSource::new(dir.path(), published.clone());
    let mut cursor = Cursor::nothing(CLUSTER, SHARD, TopicId::default());
    assert!(source.rewind(&cursor).is_ok() && !source.may_lack(), "all is there");
    published.raise(1);
    writer.prune().unwrap();
    assert!(source.may_lack());
    let lacking = *source.rewind(&cursor).unwrap_err().downcast::<Lacking>().unwrap();
    assert_eq!(lacking, Lacking { shard: SHARD, barrier: 1 });
    let command = "isonomy publish reset --shard 2 --from kept";
    assert!(lacking.to_string().contains(command), "{lacking}");
    cursor.pass(&milestone(1));
    source.rewind(&cursor).unwrap();
    let batch = source.next().unwrap().unwrap();
    assert_eq!(isonomy_wire::published::PublishedBatch::parse(batch).unwrap().origin().instance.seq, 20);
}

#[test]
fn the_oldest_segments_go_when_there_are_too_many_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = written(dir.path(), Retain::Bytes(1000), milestone(0), &[decided(1)]);
    let mut reader = OutboxReader::new(dir.path());
    assert_eq!(read(&mut reader), ["0", "#1"]);
    for barrier in 1..4 {
        writer.take(&ForSink::Barrier(milestone(barrier))).unwrap();
        writer.take(&decided(barrier + 1)).unwrap();
    }
    writer.flush().unwrap();
    writer.prune().unwrap();
    assert_eq!(segments(dir.path()).unwrap(), [3], "each holds more than 500 bytes");
    assert_eq!(read(&mut reader), ["3", "#4"], "a reader that is late goes on with what is there");
}

#[test]
fn what_is_published_goes_and_the_rest_is_the_backlog() {
    let dir = tempfile::tempdir().unwrap();
    let published = Arc::new(Published::default());
    let retain = Retain::Unpublished(published.clone());
    let items = [decided(1), ForSink::Barrier(milestone(1)), decided(2)];
    let mut writer = written(dir.path(), retain, milestone(0), &items);
    let mut reader = OutboxReader::new(dir.path());
    let mut upto = |batches| {
        pass(&mut reader, batches);
        let (segment, offset) = reader.position().unwrap_or_default();
        published.set(segment, offset);
        writer.prune().unwrap();
        writer.backlog()
    };
    let all = upto(0);
    let one = (all - 2 * HEAD_BYTES as u64) / 2;
    assert_eq!(upto(2), all - HEAD_BYTES as u64 - one);
    assert_eq!(segments(dir.path()).unwrap(), [0, 1], "it is still read");
    assert_eq!(upto(1), one);
    assert_eq!(segments(dir.path()).unwrap(), [1]);
    assert_eq!(upto(1), 0);
}

#[test]
fn a_batch_that_was_not_written_whole_comes_later_and_a_damaged_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), ALL, milestone(0), &[decided(1), decided(2)]);
    let path = segment_path(dir.path(), 0);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let mut reader = OutboxReader::new(dir.path());
    assert_eq!(read(&mut reader), ["0", "#1"]);
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(read(&mut reader), ["#2"]);
    let damaged = whole.len() - 10;
    std::fs::write(&path, [&whole[..damaged], &[!whole[damaged]], &whole[damaged + 1..]].concat()).unwrap();
    let mut reader = OutboxReader::new(dir.path());
    pass(&mut reader, 2);
    let second = HEAD_BYTES as u64 + (whole.len() - HEAD_BYTES) as u64 / 2;
    let error = reader.read_next().unwrap_err();
    assert!(
        matches!(&error, OutboxError::Batch(at, offset, BadBatch::Damaged) if *at == path && *offset == second)
    );
    // A segment whose end is missing, although another one follows.
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    std::fs::write(segment_path(dir.path(), 1), [0; HEAD_BYTES]).unwrap();
    let mut reader = OutboxReader::new(dir.path());
    pass(&mut reader, 2);
    assert!(matches!(reader.read_next().unwrap_err(), OutboxError::Batch(..)));
    std::fs::write(&path, &whole).unwrap();
    let mut reader = OutboxReader::new(dir.path());
    pass(&mut reader, 3);
    assert!(matches!(reader.read_next().unwrap_err(), OutboxError::Head(_)));
}

#[test]
fn the_thread_keeps_what_a_shard_says_and_shows_how_far_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (feed, end) = connect_sink();
    let keeper = Keeper::start(vec![Kept { writer: open(dir.path(), ALL), end }]).unwrap();
    let say = |items: Vec<ForSink>| feed.items.send(items).unwrap();
    say(vec![ForSink::State(milestone(0)), decided(1)]);
    say(vec![decided(2), ForSink::Barrier(milestone(1)), decided(3)]);
    let began = Instant::now();
    while feed.stand.kept() < 1 {
        assert!(began.elapsed() < Duration::from_secs(60), "it is kept");
        std::thread::yield_now();
    }
    say(vec![decided(4)]);
    keeper.stop();
    assert_eq!(read(&mut OutboxReader::new(dir.path())), ["0", "#1", "#2", "1", "#3", "#4"]);
}

#[test]
fn a_disk_that_refuses_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("outbox");
    let (feed, end) = connect_sink();
    let keeper = Keeper::start(vec![Kept { writer: open(&dir, ALL), end }]).unwrap();
    let moved = root.path().join("moved");
    std::fs::rename(&dir, &moved).unwrap();
    feed.items.send(vec![ForSink::State(milestone(0)), decided(1), ForSink::Barrier(milestone(1))]).unwrap();
    feed.items.send(vec![decided(2)]).unwrap();
    while feed.stand.kept() < 1 {
        if moved.exists() {
            std::fs::rename(&moved, &dir).unwrap();
        }
        std::thread::yield_now();
    }
    keeper.stop();
    assert_eq!(read(&mut OutboxReader::new(&dir)), ["0", "#1", "1", "#2"]);
}
