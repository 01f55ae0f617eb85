//! Sessions: a retried request executes once (law, section 6b, S1 to S5).
//!
//! All commands of a session execute in one order at every replica, because every batch has its sessions
//! in its footprint. So the state of the sessions is equal at every replica.

mod copy;
pub(crate) mod idle;
mod source;

use crate::limits::SESSION_RESULT_BYTES_MAX;
use crate::mutant::{self, Mutant};
use bytes::Bytes;
use isonomy_wire::answer::{Answer, Answers};
use isonomy_wire::command::{Attach, Command};
use isonomy_wire::id::SessionId;
use isonomy_wire::source::{Owner, SourceName, Standing};
use source::Source;
use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, Range};
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

/// One open or named session (S2).
#[derive(Clone, Debug)]
pub struct Session {
    low: u64,
    answered_below: u64,
    stored: VecDeque<Stored>,
    stored_bytes: usize,
    /// The further state of a named session.
    source: Option<Box<Source>>,
}

impl Default for Session {
    fn default() -> Session {
        Session { low: 1, answered_below: 0, stored: VecDeque::new(), stored_bytes: 0, source: None }
    }
}

impl Session {
    /// The next number; all numbers below are executed, and no others.
    pub fn low(&self) -> u64 {
        self.low
    }

    /// The owner of the session; an opened session belongs to nobody.
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

    /// S5: gives the session to another process, if it belongs to the owner that the Attach expects.
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
    pub fn fate(&self, numbers: Range<u64>) -> Fate {
        let number = numbers.start;
        if mutant::is(Mutant::EarlyNumbers) && number > self.low {
            return Fate::Execute;
        }
        if number > self.low {
            return Fate::Early;
        }
        if numbers.end > self.low {
            return Fate::Execute;
        }
        let stored = self.stored.iter().find(|stored| (stored.first..stored.end).contains(&number));
        Fate::Executed(stored.and_then(|stored| stored.answer(number)).unwrap_or(Answer::Duplicate))
    }

    /// The answers to a request that was executed, whole and exactly as it is.
    pub fn response(&self, numbers: Range<u64>) -> Option<Bytes> {
        let same = |stored: &&Stored| stored.first == numbers.start && stored.end == numbers.end;
        self.stored.iter().find(same).map(|stored| stored.response.clone())
    }

    /// All numbers below `end` are executed or left out (S5).
    pub fn advance(&mut self, end: u64) {
        self.low = self.low.max(end);
    }

    /// Keeps the answers of a request until they are known to have arrived.
    pub fn store(&mut self, numbers: Range<u64>, starts: Option<Box<[u64]>>, response: Bytes) {
        let Range { start: first, end } = numbers;
        if end <= self.answered_below {
            return;
        }
        self.stored_bytes += response.len();
        self.stored.push_back(Stored { first, end, starts, response });
        while self.stored_bytes > SESSION_RESULT_BYTES_MAX {
            self.drop_oldest();
        }
    }

    /// This session's share of the state hash.
    #[inline]
    fn digest(&self, id: SessionId) -> u64 {
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

/// All sessions of a shard.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    sessions: BTreeMap<SessionId, Session>,
    /// The number of named sessions.
    sources: usize,
    /// The number of the sessions of idempotency keys.
    keyed: usize,
    /// The bytes of their answers.
    keyed_bytes: usize,
    hash: u64,
}

impl Sessions {
    /// S4: opens the session.
    pub fn open(&mut self, id: SessionId) {
        let source = id.is_named().then(Box::default);
        let is_new = self.insert(id, Session { source, ..Session::default() });
        assert!(is_new, "{id:?} was opened twice");
    }

    /// Adds a session. Returns whether it is new.
    fn insert(&mut self, id: SessionId, session: Session) -> bool {
        self.hash = self.hash.wrapping_add(session.digest(id));
        self.sources += usize::from(id.is_named());
        if id.is_keyed() {
            self.keyed += 1;
            self.keyed_bytes += session.stored_bytes;
        }
        self.sessions.insert(id, session).is_none()
    }

    /// S4: ends the session. Returns whether it was open.
    pub fn end(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.remove(&id) else { return false };
        self.hash = self.hash.wrapping_sub(session.digest(id));
        self.sources -= usize::from(id.is_named());
        if id.is_keyed() {
            self.keyed -= 1;
            self.keyed_bytes -= session.stored_bytes;
        }
        true
    }

    /// S5: begins a named session, which needs no Open.
    pub fn begin(&mut self, id: SessionId) {
        if !self.sessions.contains_key(&id) {
            self.open(id);
        }
    }

    /// S6: begins the session of an idempotency key, whose only number is that of the first command that executes.
    pub fn begin_keyed(&mut self, id: SessionId, number: u64) {
        if !self.sessions.contains_key(&id) {
            self.insert(id, Session { low: number, ..Session::default() });
        }
    }

    /// Lets `change` work on a session, if it is there.
    pub fn with<R>(&mut self, id: SessionId, change: impl FnOnce(&mut Session) -> R) -> Option<R> {
        let session = self.sessions.get_mut(&id)?;
        let (before, bytes) = (session.digest(id), session.stored_bytes);
        let result = change(session);
        if id.is_keyed() {
            self.keyed_bytes = self.keyed_bytes + session.stored_bytes - bytes;
        }
        self.hash = self.hash.wrapping_sub(before).wrapping_add(session.digest(id));
        Some(result)
    }

    /// Takes one session out of a copy that is used up. The copy's hash and counts mean nothing from now on.
    pub(crate) fn take_first(&mut self) -> Option<(SessionId, Session)> {
        self.sessions.pop_first()
    }

    /// An open session.
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// All sessions.
    pub fn iter(&self) -> impl Iterator<Item = (&SessionId, &Session)> {
        self.sessions.iter()
    }

    /// The number of all sessions.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// The number of opened sessions.
    pub fn opened(&self) -> usize {
        self.sessions.len() - self.sources - self.keyed
    }

    /// The number of named sessions.
    pub fn sources(&self) -> usize {
        self.sources
    }

    /// The number of idempotency keys whose answers are kept, and the bytes of these answers.
    pub fn keyed(&self) -> (usize, usize) {
        (self.keyed, self.keyed_bytes)
    }

    /// The named sessions behind `after`, in the order of their ids.
    pub fn sources_after(&self, after: SessionId) -> impl Iterator<Item = (&SessionId, &Session)> {
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        self.sessions.range(behind).filter(|(id, _)| id.is_named())
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Verifies the counts. This is for tests, since it looks at everything.
    pub fn check(&self) {
        let hash = self.sessions.iter().fold(0u64, |hash, (id, it)| hash.wrapping_add(it.digest(*id)));
        assert_eq!(self.hash, hash, "the hash of the sessions");
        let named = self.sessions.keys().filter(|id| id.is_named()).count();
        assert_eq!(self.sources, named, "the number of sources");
        let keyed = self.sessions.iter().filter(|(id, _)| id.is_keyed()).map(|(_, it)| it.stored_bytes);
        let keyed = keyed.fold((0, 0), |(keys, bytes), stored| (keys + 1, bytes + stored));
        assert_eq!(self.keyed(), keyed, "the idempotency keys and the bytes of their answers");
        for (id, session) in &self.sessions {
            let bytes = session.stored.iter().map(|stored| stored.response.len()).sum::<usize>();
            assert_eq!(session.stored_bytes, bytes, "the bytes of the answers of {id:?}");
            let is_due = |it: &Stored| it.end > session.answered_below;
            assert!(session.stored.front().is_none_or(is_due), "{id:?} keeps answers that have arrived");
            assert!(
                session.stored.iter().all(|it| it.end <= session.low),
                "{id:?} has answers of what comes next"
            );
        }
    }

    /// The sessions' share of the state hash.
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
        let mut session = Session::default();
        session.advance(5);
        session.store(1..5, None, response(4));
        assert_eq!(key_seq(session.fate(3..4)), 12);
        assert_eq!(session.response(1..5), Some(response(4)));
        assert_eq!(session.response(1..4), None);
        assert_eq!(session.fate(5..6), Fate::Execute);
    }

    #[test]
    fn s2_a_number_waits_for_the_one_before() {
        let mut session = Session::default();
        assert_eq!(session.fate(2..3), Fate::Early);
        session.advance(2);
        assert_eq!(session.fate(2..3), Fate::Execute);
    }

    #[test]
    fn s2_skips_take_many_numbers_and_one_answer() {
        let mut session = Session::default();
        session.advance(13);
        session.store(1..13, Some([1, 2, 12].into()), response(3));
        assert_eq!(key_seq(session.fate(1..2)), 10);
        assert_eq!(key_seq(session.fate(2..12)), 11);
        assert_eq!(key_seq(session.fate(12..13)), 12);
        assert_eq!(session.fate(10..15), Fate::Execute, "a run of which some numbers are done");
    }

    #[test]
    fn s3_answered_below_drops_answers_and_refuses_nothing() {
        let mut session = Session::default();
        session.advance(5);
        session.store(1..5, None, response(4));
        session.on_answered_below(5);
        assert_eq!(session.fate(3..4), Fate::Executed(Answer::Duplicate));
        assert_eq!(session.fate(5..6), Fate::Execute);
        session.on_answered_below(2);
        assert_eq!(session.answered_below, 5, "a late copy does not turn it back");
    }

    #[test]
    fn stored_answers_are_bounded() {
        let mut session = Session::default();
        let large = Bytes::from(vec![0; SESSION_RESULT_BYTES_MAX / 3]);
        for first in 1..10 {
            session.advance(first + 1);
            session.store(first..first + 1, None, large.clone());
        }
        assert_eq!(session.stored.len(), 3);
        assert_eq!(session.fate(1..2), Fate::Executed(Answer::Duplicate));
    }

    #[test]
    fn sessions_are_opened_or_begun_once_and_end_for_good() {
        let mut sessions = Sessions::default();
        let named = SessionId::named("file");
        assert_eq!(sessions.with(named, |session| session.low()), None);
        sessions.begin(named);
        sessions.with(named, |session| session.advance(7));
        sessions.begin(named);
        assert_eq!(sessions.with(named, |session| session.low()), Some(7));
        assert_eq!((sessions.len(), sessions.sources()), (1, 1));
        let opened = SessionId { high: 1 << 63, low: 9 };
        assert_eq!(sessions.with(opened, |session| session.low()), None);
        sessions.open(opened);
        let hash = sessions.hash();
        sessions.with(opened, |session| session.advance(4));
        assert_ne!(sessions.hash(), hash);
        assert!(sessions.end(opened) && !sessions.end(opened));
    }
}
