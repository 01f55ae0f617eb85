//! Streams: a retried request executes once (law, section 6b, S1 to S5).
//!
//! All commands of a stream execute in one order everywhere, because every batch has its streams
//! in its footprint. So what is kept here is the same at every replica.

mod copy;

use crate::limits::STREAM_RESULT_BYTES_MAX;
use bytes::Bytes;
use isonomy_wire::answer::{Answer, Answers};
use isonomy_wire::command::STREAM_WINDOW;
use isonomy_wire::id::StreamId;
use std::collections::{BTreeMap, VecDeque};
use xxhash_rust::xxh3::xxh3_64;

/// The answers to one executed request.
#[derive(Clone, Debug)]
struct Stored {
    first: u64,
    /// The number behind its last.
    end: u64,
    /// The first number of each command, where commands take more than one; else the place of a
    /// number is its distance from `first`.
    starts: Option<Box<[u64]>>,
    response: Bytes,
}

impl Stored {
    fn answer(&self, number: u64) -> Option<Answer> {
        let place = match &self.starts {
            None => (number - self.first) as usize,
            Some(starts) => starts.partition_point(|start| *start <= number) - 1,
        };
        Answers::parse(self.response.clone()).ok()?.to_vec().into_iter().nth(place)
    }
}

/// What is to be done with a number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It was not executed yet.
    Execute,
    /// It was; this is the answer it got, or `Duplicate`.
    Executed(Answer),
    /// It lies above the window.
    OutOfWindow,
}

/// One open or named stream (S2).
#[derive(Clone, Debug)]
pub struct Stream {
    low: u64,
    /// Executed numbers above `low`: disjoint, ascending, not adjacent, each [start, end).
    executed: Vec<(u64, u64)>,
    answered_below: u64,
    /// The number behind the highest that was executed.
    highest: u64,
    stored: VecDeque<Stored>,
    stored_bytes: usize,
}

impl Default for Stream {
    fn default() -> Stream {
        Stream {
            low: 1,
            executed: Vec::new(),
            answered_below: 0,
            highest: 1,
            stored: VecDeque::new(),
            stored_bytes: 0,
        }
    }
}

impl Stream {
    /// All numbers below are executed.
    pub fn low(&self) -> u64 {
        self.low
    }

    /// The number behind the highest that was executed.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    fn limit(&self) -> u64 {
        self.low.min(self.answered_below.max(1)) + STREAM_WINDOW
    }

    /// S3: the client has the answers to all lower numbers.
    pub fn on_answered_below(&mut self, below: u64) {
        self.answered_below = self.answered_below.max(below);
        while self.stored.front().is_some_and(|stored| stored.end <= self.answered_below) {
            self.drop_oldest();
        }
    }

    /// S5: the source knows that all lower numbers are done, or do not exist.
    pub fn skip_below(&mut self, below: u64) {
        if below > self.low {
            self.mark(self.low, below - self.low);
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(stored) = self.stored.pop_front() {
            self.stored_bytes -= stored.response.len();
        }
    }

    /// Whether none of these numbers was executed and all are in the window: a whole request at
    /// once, which is what nearly always comes.
    #[inline]
    pub fn is_fresh(&self, first: u64, numbers: u64) -> bool {
        first >= self.highest && first + numbers <= self.limit()
    }

    /// Whether all numbers from `first` to before `end` are marked above `low`, as one range.
    fn is_marked(&self, first: u64, end: u64) -> bool {
        let next = self.executed.partition_point(|(start, _)| *start <= first);
        next.checked_sub(1).is_some_and(|at| end <= self.executed[at].1)
    }

    /// What is to be done with one number.
    pub fn fate(&self, number: u64) -> Fate {
        if number >= self.limit() {
            return Fate::OutOfWindow;
        }
        if number >= self.low && !self.is_marked(number, number + 1) {
            return Fate::Execute;
        }
        let stored = self.stored.iter().find(|stored| (stored.first..stored.end).contains(&number));
        Fate::Executed(stored.and_then(|stored| stored.answer(number)).unwrap_or(Answer::Duplicate))
    }

    /// The answers to a request that was executed, whole and exactly as it is.
    pub fn response(&self, first: u64, numbers: u64) -> Option<Bytes> {
        let end = first + numbers;
        if end > self.low && !self.is_marked(first, end) {
            return None;
        }
        let same = |stored: &&Stored| stored.first == first && stored.end == end;
        self.stored.iter().find(same).map(|stored| stored.response.clone())
    }

    /// These numbers were executed.
    pub fn mark(&mut self, first: u64, numbers: u64) {
        let mut end = first + numbers;
        self.highest = self.highest.max(end);
        if first > self.low {
            self.mark_above(first, end);
            return;
        }
        end = end.max(self.low);
        // What was marked above may now follow without a gap.
        let joined = self.executed.partition_point(|(start, _)| *start <= end);
        for (_, range_end) in self.executed.drain(..joined) {
            end = end.max(range_end);
        }
        self.low = end;
    }

    fn mark_above(&mut self, mut first: u64, mut end: u64) {
        let from = self.executed.partition_point(|(_, range_end)| *range_end < first);
        let to = self.executed.partition_point(|(start, _)| *start <= end);
        for (start, range_end) in self.executed.drain(from..to) {
            first = first.min(start);
            end = end.max(range_end);
        }
        self.executed.insert(from, (first, end));
    }

    /// Keeps the answers of a request until they are known to have arrived.
    pub fn store(&mut self, first: u64, numbers: u64, starts: Option<Box<[u64]>>, response: Bytes) {
        let end = first + numbers;
        if end <= self.answered_below {
            return;
        }
        self.stored_bytes += response.len();
        self.stored.push_back(Stored { first, end, starts, response });
        while self.stored_bytes > STREAM_RESULT_BYTES_MAX {
            self.drop_oldest();
        }
    }

    /// This stream's share of the state hash.
    #[inline]
    fn digest(&self, id: StreamId) -> u64 {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&id.high.to_le_bytes());
        bytes[8..16].copy_from_slice(&id.low.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.low.to_le_bytes());
        bytes[24..].copy_from_slice(&self.highest.to_le_bytes());
        xxh3_64(&bytes)
    }
}

/// All streams of a shard.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    streams: BTreeMap<StreamId, Stream>,
    hash: u64,
}

impl Streams {
    /// S4: the stream is open from here on.
    pub fn open(&mut self, id: StreamId) {
        let stream = Stream::default();
        self.hash = self.hash.wrapping_add(stream.digest(id));
        let before = self.streams.insert(id, stream);
        assert!(before.is_none(), "{id:?} was opened twice");
    }

    /// S4: the stream is no more. Whether it was open.
    pub fn end(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.streams.remove(&id) else { return false };
        self.hash = self.hash.wrapping_sub(stream.digest(id));
        true
    }

    /// Lets `change` work on an open or named stream. Named ones need no Open (S5).
    pub fn with<R>(&mut self, id: StreamId, change: impl FnOnce(&mut Stream) -> R) -> Option<R> {
        if id.is_named() && !self.streams.contains_key(&id) {
            self.open(id);
        }
        let stream = self.streams.get_mut(&id)?;
        let before = stream.digest(id);
        let result = change(stream);
        self.hash = self.hash.wrapping_sub(before).wrapping_add(stream.digest(id));
        Some(result)
    }

    /// Takes one out, for a copy that is used up.
    pub(crate) fn take_first(&mut self) -> Option<(StreamId, Stream)> {
        self.streams.pop_first()
    }

    /// An open stream.
    pub fn get(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(&id)
    }

    /// All streams.
    pub fn iter(&self) -> impl Iterator<Item = (&StreamId, &Stream)> {
        self.streams.iter()
    }

    /// The number of open and named streams.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// The streams' share of the state hash.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::answer::ResponseBuilder;
    use isonomy_wire::id::{Epoch, InstanceId, ReplicaId, ShardId};
    use proptest::prelude::*;

    fn response(count: u32) -> Bytes {
        let mut builder = ResponseBuilder::new(Epoch(1), ShardId(0));
        for index in 0..count {
            builder.committed(InstanceId::new(ReplicaId(0), 1), index, u64::from(index) + 10);
        }
        builder.encode()
    }

    fn key_seq(fate: Fate) -> u64 {
        match fate {
            Fate::Executed(Answer::Committed { key_seq, .. }) => key_seq,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn s2_a_repeated_number_gets_its_first_answer() {
        let mut stream = Stream::default();
        assert!(stream.is_fresh(1, 4));
        stream.mark(1, 4);
        stream.store(1, 4, None, response(4));
        assert!(!stream.is_fresh(4, 2));
        assert_eq!(key_seq(stream.fate(3)), 12);
        assert_eq!(stream.response(1, 4), Some(response(4)));
        assert_eq!(stream.fate(5), Fate::Execute);
    }

    #[test]
    fn s2_skips_take_many_numbers_and_one_answer() {
        let mut stream = Stream::default();
        stream.mark(1, 12);
        stream.store(1, 12, Some([1, 2, 12].into()), response(3));
        assert_eq!(key_seq(stream.fate(1)), 10);
        assert_eq!(key_seq(stream.fate(11)), 11);
        assert_eq!(key_seq(stream.fate(12)), 12);
    }

    #[test]
    fn s3_answered_below_drops_answers_and_refuses_nothing() {
        let mut stream = Stream::default();
        stream.mark(1, 4);
        stream.store(1, 4, None, response(4));
        stream.on_answered_below(5);
        assert_eq!(stream.fate(3), Fate::Executed(Answer::Duplicate));
        assert_eq!(stream.fate(5), Fate::Execute);
        stream.on_answered_below(2);
        assert_eq!(stream.answered_below, 5, "a late copy does not turn it back");
    }

    #[test]
    fn s2_the_window_starts_at_what_is_unanswered() {
        let mut stream = Stream::default();
        stream.mark(1, 100);
        assert_eq!(stream.fate(STREAM_WINDOW), Fate::Execute);
        assert_eq!(stream.fate(STREAM_WINDOW + 1), Fate::OutOfWindow);
        stream.on_answered_below(50);
        assert_eq!(stream.fate(STREAM_WINDOW + 49), Fate::Execute);
        assert_eq!(stream.fate(STREAM_WINDOW + 50), Fate::OutOfWindow);
    }

    #[test]
    fn stored_answers_are_bounded() {
        let mut stream = Stream::default();
        let large = Bytes::from(vec![0; STREAM_RESULT_BYTES_MAX / 3]);
        for first in 1..10 {
            stream.mark(first, 1);
            stream.store(first, 1, None, large.clone());
        }
        assert_eq!(stream.stored.len(), 3);
        assert_eq!(stream.fate(1), Fate::Executed(Answer::Duplicate));
    }

    #[test]
    fn named_streams_need_no_open_and_opened_ones_do() {
        let mut streams = Streams::default();
        assert_eq!(streams.with(StreamId::named("file"), |stream| stream.low()), Some(1));
        let opened = StreamId { high: 1 << 63, low: 9 };
        assert_eq!(streams.with(opened, |stream| stream.low()), None);
        streams.open(opened);
        let hash = streams.hash();
        streams.with(opened, |stream| stream.mark(1, 3));
        assert_ne!(streams.hash(), hash);
        assert!(streams.end(opened) && !streams.end(opened));
    }

    proptest! {
        /// The ranges against a set of numbers.
        #[test]
        fn marks_are_a_set(runs in prop::collection::vec((1u64..60, 1u64..12), 1..40)) {
            let mut stream = Stream::default();
            let mut model = std::collections::BTreeSet::new();
            for (first, numbers) in runs {
                stream.mark(first, numbers);
                model.extend(first..first + numbers);
                for number in 1..80 {
                    let executed = matches!(stream.fate(number), Fate::Executed(_));
                    prop_assert_eq!(executed, model.contains(&number), "{}", number);
                }
                let low = (1..).find(|number| !model.contains(number)).unwrap();
                prop_assert_eq!(stream.low(), low);
                let ranges = &stream.executed;
                prop_assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
            }
        }
    }
}
