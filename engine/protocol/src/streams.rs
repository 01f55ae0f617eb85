//! Streams: a retried request executes once (law, section 6b, S1 to S5).
//!
//! All commands of a stream execute in one order at every replica, because every batch has its streams
//! in its footprint. So the state of the streams is equal at every replica.

mod copy;
pub(crate) mod idle;
mod source;

use crate::limits::STREAM_RESULT_BYTES_MAX;
use crate::mutant::{self, Mutant};
use bytes::Bytes;
use isonomy_wire::answer::{Answer, Answers};
use isonomy_wire::command::{Attach, Command};
use isonomy_wire::id::StreamId;
use isonomy_wire::source::{Owner, SourceName, Standing};
use source::Source;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use xxhash_rust::xxh3::xxh3_64;

/// The answers to one executed request.
#[derive(Clone, Debug)]
struct Stored {
    first: u64,
    /// The number behind the last one of the request.
    end: u64,
    /// The first number of each command, if commands take more than one. Otherwise the place of a
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

/// The fate of a command by its number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The command comes next and executes.
    Execute,
    /// The command was executed before; this is the answer that it got, or `Duplicate`.
    Executed(Answer),
    /// The number before it was not executed yet.
    Early,
}

/// One open or named stream (S2).
#[derive(Clone, Debug)]
pub struct Stream {
    low: u64,
    answered_below: u64,
    stored: VecDeque<Stored>,
    stored_bytes: usize,
    /// The further state of a named stream.
    source: Option<Box<Source>>,
}

impl Default for Stream {
    fn default() -> Stream {
        Stream { low: 1, answered_below: 0, stored: VecDeque::new(), stored_bytes: 0, source: None }
    }
}

impl Stream {
    /// The next number; all numbers below are executed, and no others.
    pub fn low(&self) -> u64 {
        self.low
    }

    /// The owner of the stream; an opened stream belongs to nobody.
    pub fn owner(&self) -> Owner {
        self.source.as_ref().map_or(Owner::NOBODY, |source| source.owner)
    }

    /// The name of a source to which a process has attached.
    pub fn name(&self) -> Option<&SourceName> {
        self.source.as_ref()?.name.as_ref()
    }

    /// How many commands a source has decided.
    pub fn commands(&self) -> u64 {
        self.source.as_ref().map_or(0, |source| source.commands())
    }

    /// S5: gives the stream to another process, if it belongs to the owner that the Attach expects.
    pub fn attach(&mut self, attach: Attach) -> Standing {
        let source = self.source.get_or_insert_default();
        if source.attach(attach) {
            // No process asks again for the answers to another process.
            self.stored.clear();
            self.stored_bytes = 0;
        }
        source.standing(self.low)
    }

    /// S5: commands of a source have executed.
    pub fn say<'a>(&mut self, commands: impl Iterator<Item = Command<'a>>) {
        let Some(source) = &mut self.source else { return };
        commands.filter(|command| command.op.has_key()).for_each(|command| source.on_command(&command));
    }

    /// S3: the client has the answers to all lower numbers.
    pub fn on_answered_below(&mut self, below: u64) {
        self.answered_below = self.answered_below.max(below);
        while self.stored.front().is_some_and(|stored| stored.end <= self.answered_below) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(stored) = self.stored.pop_front() {
            self.stored_bytes -= stored.response.len();
        }
    }

    /// The fate of a command with these numbers. A run of skipped numbers of which some are done executes for the
    /// rest.
    #[inline]
    pub fn fate(&self, number: u64, run: u64) -> Fate {
        if mutant::is(Mutant::EarlyNumbers) && number > self.low {
            return Fate::Execute;
        }
        if number > self.low {
            return Fate::Early;
        }
        if number + run > self.low {
            return Fate::Execute;
        }
        let stored = self.stored.iter().find(|stored| (stored.first..stored.end).contains(&number));
        Fate::Executed(stored.and_then(|stored| stored.answer(number)).unwrap_or(Answer::Duplicate))
    }

    /// The answers to a request that was executed, whole and exactly as it is.
    pub fn response(&self, first: u64, numbers: u64) -> Option<Bytes> {
        let same = |stored: &&Stored| stored.first == first && stored.end == first + numbers;
        self.stored.iter().find(same).map(|stored| stored.response.clone())
    }

    /// All numbers below `end` are executed or left out (S5).
    pub fn advance(&mut self, end: u64) {
        self.low = self.low.max(end);
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
        let mut bytes = [0; 40];
        bytes[..8].copy_from_slice(&id.high.to_le_bytes());
        bytes[8..16].copy_from_slice(&id.low.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.low.to_le_bytes());
        let Some(source) = &self.source else { return xxh3_64(&bytes[..24]) };
        bytes[24..32].copy_from_slice(&source.owner.0.to_le_bytes());
        bytes[32..].copy_from_slice(&source.digest().to_le_bytes());
        xxh3_64(&bytes)
    }
}

/// All streams of a shard.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    streams: BTreeMap<StreamId, Stream>,
    /// The number of named streams.
    sources: usize,
    hash: u64,
}

impl Streams {
    /// S4: opens the stream.
    pub fn open(&mut self, id: StreamId) {
        let source = id.is_named().then(Box::default);
        let is_new = self.insert(id, Stream { source, ..Stream::default() });
        assert!(is_new, "{id:?} was opened twice");
    }

    /// Adds a stream. Returns whether it is new.
    fn insert(&mut self, id: StreamId, stream: Stream) -> bool {
        self.hash = self.hash.wrapping_add(stream.digest(id));
        self.sources += usize::from(id.is_named());
        self.streams.insert(id, stream).is_none()
    }

    /// S4: ends the stream. Returns whether it was open.
    pub fn end(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.streams.remove(&id) else { return false };
        self.hash = self.hash.wrapping_sub(stream.digest(id));
        self.sources -= usize::from(id.is_named());
        true
    }

    /// S5: begins a named stream, which needs no Open.
    pub fn begin(&mut self, id: StreamId) {
        if !self.streams.contains_key(&id) {
            self.open(id);
        }
    }

    /// Lets `change` work on a stream, if it is there.
    pub fn with<R>(&mut self, id: StreamId, change: impl FnOnce(&mut Stream) -> R) -> Option<R> {
        let stream = self.streams.get_mut(&id)?;
        let before = stream.digest(id);
        let result = change(stream);
        self.hash = self.hash.wrapping_sub(before).wrapping_add(stream.digest(id));
        Some(result)
    }

    /// Takes one stream out of a copy that is used up. The copy's hash and counts mean nothing from now on.
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

    /// The number of all streams.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// The number of opened streams.
    pub fn opened(&self) -> usize {
        self.streams.len() - self.sources
    }

    /// The number of named streams.
    pub fn sources(&self) -> usize {
        self.sources
    }

    /// The named streams behind `after`, in the order of their ids.
    pub fn sources_after(&self, after: StreamId) -> impl Iterator<Item = (&StreamId, &Stream)> {
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        self.streams.range(behind).filter(|(id, _)| id.is_named())
    }

    /// Whether there is no stream.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Verifies the counts. This is for tests, since it looks at everything.
    pub fn check(&self) {
        let hash = self.streams.iter().fold(0u64, |hash, (id, it)| hash.wrapping_add(it.digest(*id)));
        assert_eq!(self.hash, hash, "the hash of the streams");
        let named = self.streams.keys().filter(|id| id.is_named()).count();
        assert_eq!(self.sources, named, "the number of sources");
        for (id, stream) in &self.streams {
            let bytes = stream.stored.iter().map(|stored| stored.response.len()).sum::<usize>();
            assert_eq!(stream.stored_bytes, bytes, "the bytes of the answers of {id:?}");
            let is_due = |it: &Stored| it.end > stream.answered_below;
            assert!(stream.stored.front().is_none_or(is_due), "{id:?} keeps answers that have arrived");
            assert!(
                stream.stored.iter().all(|it| it.end <= stream.low),
                "{id:?} has answers of what comes next"
            );
        }
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
        stream.advance(5);
        stream.store(1, 4, None, response(4));
        assert_eq!(key_seq(stream.fate(3, 1)), 12);
        assert_eq!(stream.response(1, 4), Some(response(4)));
        assert_eq!(stream.response(1, 3), None);
        assert_eq!(stream.fate(5, 1), Fate::Execute);
    }

    #[test]
    fn s2_a_number_waits_for_the_one_before() {
        let mut stream = Stream::default();
        assert_eq!(stream.fate(2, 1), Fate::Early);
        stream.advance(2);
        assert_eq!(stream.fate(2, 1), Fate::Execute);
    }

    #[test]
    fn s2_skips_take_many_numbers_and_one_answer() {
        let mut stream = Stream::default();
        stream.advance(13);
        stream.store(1, 12, Some([1, 2, 12].into()), response(3));
        assert_eq!(key_seq(stream.fate(1, 1)), 10);
        assert_eq!(key_seq(stream.fate(2, 10)), 11);
        assert_eq!(key_seq(stream.fate(12, 1)), 12);
        assert_eq!(stream.fate(10, 5), Fate::Execute, "a run of which some numbers are done");
    }

    #[test]
    fn s3_answered_below_drops_answers_and_refuses_nothing() {
        let mut stream = Stream::default();
        stream.advance(5);
        stream.store(1, 4, None, response(4));
        stream.on_answered_below(5);
        assert_eq!(stream.fate(3, 1), Fate::Executed(Answer::Duplicate));
        assert_eq!(stream.fate(5, 1), Fate::Execute);
        stream.on_answered_below(2);
        assert_eq!(stream.answered_below, 5, "a late copy does not turn it back");
    }

    #[test]
    fn stored_answers_are_bounded() {
        let mut stream = Stream::default();
        let large = Bytes::from(vec![0; STREAM_RESULT_BYTES_MAX / 3]);
        for first in 1..10 {
            stream.advance(first + 1);
            stream.store(first, 1, None, large.clone());
        }
        assert_eq!(stream.stored.len(), 3);
        assert_eq!(stream.fate(1, 1), Fate::Executed(Answer::Duplicate));
    }

    #[test]
    fn streams_are_opened_or_begun_once_and_end_for_good() {
        let mut streams = Streams::default();
        let named = StreamId::named("file");
        assert_eq!(streams.with(named, |stream| stream.low()), None);
        streams.begin(named);
        streams.with(named, |stream| stream.advance(7));
        streams.begin(named);
        assert_eq!(streams.with(named, |stream| stream.low()), Some(7));
        assert_eq!((streams.len(), streams.sources()), (1, 1));
        let opened = StreamId { high: 1 << 63, low: 9 };
        assert_eq!(streams.with(opened, |stream| stream.low()), None);
        streams.open(opened);
        let hash = streams.hash();
        streams.with(opened, |stream| stream.advance(4));
        assert_ne!(streams.hash(), hash);
        assert!(streams.end(opened) && !streams.end(opened));
    }
}
