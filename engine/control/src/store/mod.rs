//! The keys of a cluster in etcd: the record, changed by compare-and-swap only, and who is alive.

use crate::error::Error;
use crate::id::{Incarnation, MemberId, parse_member};
use crate::mark::{MARKS_MAX, Mark, MarkKey, Marks};
use crate::presence::Presence;
use crate::record::Record;
use crate::settings::{BadSettings, Settings};
use connection::{Connection, Failed};
use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, GetResponse, KeyValue, ResponseHeader, Txn, TxnOp,
    TxnOpResponse, TxnResponse,
};
use isonomy_wire::id::REPLICAS_MAX;
use std::sync::Arc;

mod classify;
mod connection;
mod lease;
mod tuning;
mod watch;

pub use lease::Lease;
pub use tuning::{Kept, Swapped, Tuned, TuningEvent, TuningWatch};
pub use watch::{Event, Watch};

/// The key of the record, below the prefix.
const RECORD_KEY: &str = "epoch";
/// The keys of the living, below the prefix: the number of the member and its data directory follow.
const ALIVE_KEY: &str = "alive/";
/// How many signs of life are read: those of two epochs of the largest cluster.
const ALIVE_MAX: i64 = 2 * REPLICAS_MAX as i64;
/// The keys of the marks, below the prefix: the change, the kind and the number of the member follow.
const MARKS_KEY: &str = "change/";

/// A record as it lies in etcd.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// The revision of etcd that wrote it. A replacement names it.
    pub revision: i64,
}

/// Everything that lies below the prefix, at one revision.
#[derive(Debug)]
pub struct Listing {
    /// The revision. A watch that begins behind it misses nothing.
    pub revision: i64,
    /// The record, or why there is none.
    pub record: Result<Stored, Error>,
    /// Who is alive.
    pub alive: Vec<Presence>,
    /// What members have told of themselves in a change.
    pub marks: Marks,
}

/// The keys of one cluster in etcd. Each call has a deadline, tries all endpoints, and is safe to repeat.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    keys: Keys,
}

/// Which keys those are, and whose.
#[derive(Clone, Debug)]
struct Keys {
    cluster: String,
    prefix: String,
    record: String,
}

impl Store {
    /// The keys of a cluster. Nothing is connected until the first call.
    ///
    /// # Errors
    /// [`BadSettings`] if the settings cannot be used.
    pub fn new(settings: Arc<Settings>, cluster: &str) -> Result<Store, BadSettings> {
        settings.check()?;
        let prefix = settings.prefix.clone();
        let keys = Keys { cluster: cluster.into(), record: format!("{prefix}{RECORD_KEY}"), prefix };
        Ok(Store { connection: Connection::new(settings), keys })
    }

    /// Begins a cluster: writes its first record where there is none.
    ///
    /// # Errors
    /// [`Error::Exists`] or [`Error::Bad`] with what is there; nothing is changed then.
    pub async fn init(&mut self, record: &Record) -> Result<Stored, Error> {
        let absent = Compare::create_revision(self.keys.record.as_str(), CompareOp::Equal, 0);
        match self.write(record, absent, None).await? {
            Written::Done(stored) => Ok(stored),
            Written::Not(Some(there)) => {
                Err(Error::Exists { key: self.keys.record.clone(), there: Box::new(there.record) })
            }
            // Whoever wrote it has taken it away again.
            Written::Not(None) => Err(Error::Moved { key: self.keys.record.clone(), there: None }),
        }
    }

    /// The record as a majority of etcd has it.
    ///
    /// # Errors
    /// [`Error::Absent`] if there is none, [`Error::Bad`] if it is no record of this cluster.
    pub async fn get(&mut self) -> Result<Stored, Error> {
        let key = self.keys.record.as_str();
        let answer = self.connection.call(async |mut client| client.get(key, None).await).await?;
        self.keys.stored(answer.kvs().first())?.ok_or_else(|| self.keys.absent())
    }

    /// Writes `next` in place of `known`, if that is still there. An answer that is lost is no harm: whoever finds its
    /// own record there is done. Two writers have equal records only if they carry on the same change by the same step.
    /// The marks of a change go away with the change.
    ///
    /// # Errors
    /// [`Error::Moved`] with the record that is there instead. [`Error::Unsettled`] if no endpoint says what has come
    /// of it.
    pub async fn replace(&mut self, known: &Stored, next: &Record) -> Result<Stored, Error> {
        let change = |record: &Record| record.change().map(|(change, _)| change);
        let is_other = change(&known.record) != change(next);
        let also = is_other.then(|| {
            let marks = format!("{}{MARKS_KEY}", self.keys.prefix);
            TxnOp::delete(marks, Some(DeleteOptions::new().with_prefix()))
        });
        match self.write(next, self.keys.unmoved(known.revision), also).await? {
            Written::Done(stored) => Ok(stored),
            Written::Not(there) => {
                let there = there.map(|stored| Box::new(stored.record));
                Err(Error::Moved { key: self.keys.record.clone(), there })
            }
        }
    }

    /// Writes a mark, if the record is still the one of this revision, so that no mark outlives its change.
    ///
    /// # Errors
    /// [`Error::Moved`] if the record is another one.
    pub async fn mark(&mut self, revision: i64, mark: &Mark) -> Result<(), Error> {
        let put = TxnOp::put(self.keys.mark(&mark.key()), mark.to_json(), None);
        let get = TxnOp::get(self.keys.record.as_str(), None);
        let txn = Txn::new().when([self.keys.unmoved(revision)]).and_then([put]).or_else([get]);
        let answer = self.connection.call(async |mut client| client.txn(txn.clone()).await).await?;
        if answer.succeeded() {
            return Ok(());
        }
        let there = self.keys.found(&answer)?.map(|stored| Box::new(stored.record));
        Err(Error::Moved { key: self.keys.record.clone(), there })
    }

    /// The record, who is alive and what they have told, at one revision.
    ///
    /// # Errors
    /// Whatever keeps etcd from answering. What is wrong with the record is part of the listing.
    pub async fn list(&mut self) -> Result<Listing, Error> {
        let alive = GetOptions::new().with_prefix().with_limit(ALIVE_MAX);
        let record = TxnOp::get(self.keys.record.as_str(), None);
        let marks = GetOptions::new().with_prefix().with_limit(MARKS_MAX as i64);
        let txn = Txn::new().and_then([
            record,
            TxnOp::get(format!("{}{ALIVE_KEY}", self.keys.prefix), Some(alive)),
            TxnOp::get(format!("{}{MARKS_KEY}", self.keys.prefix), Some(marks)),
        ]);
        let answer = self.connection.call(async |mut client| client.txn(txn.clone()).await).await?;
        let kvs: Vec<_> = got(&answer).flat_map(|mut got| got.take_kvs()).collect();
        let record = kvs.iter().find(|kv| kv.key() == self.keys.record.as_bytes());
        Ok(Listing {
            revision: revision(answer.header()),
            record: self.keys.stored(record).and_then(|stored| stored.ok_or_else(|| self.keys.absent())),
            alive: kvs.iter().filter_map(|kv| self.keys.presence(kv)).collect(),
            marks: kvs.iter().filter_map(|kv| self.keys.read_mark(kv)).collect(),
        })
    }

    /// Writes a record, and does something else with it, if a condition holds; otherwise says what is there.
    async fn write(
        &mut self,
        record: &Record,
        condition: Compare,
        also: Option<TxnOp>,
    ) -> Result<Written, Error> {
        let key = self.keys.record.as_str();
        let put = [TxnOp::put(key, record.to_json(), None)];
        let then: Vec<_> = put.into_iter().chain(also).collect();
        let txn = Txn::new().when([condition]).and_then(then).or_else([TxnOp::get(key, None)]);
        let answer = match self.connection.call(async |mut client| client.txn(txn.clone()).await).await {
            Ok(answer) => answer,
            Err(Failed::Unreachable { tried, is_sent: true }) => return Err(Error::Unsettled(tried)),
            Err(failed) => return Err(failed.into()),
        };
        if answer.succeeded() {
            let revision = revision(answer.header());
            return Ok(Written::Done(Stored { record: record.clone(), revision }));
        }
        Ok(match self.keys.found(&answer)? {
            // An earlier try of this call, whose answer was lost, or another member's.
            Some(stored) if stored.record == *record => Written::Done(stored),
            there => Written::Not(there),
        })
    }
}

/// What the reads of a transaction have found.
fn got(answer: &TxnResponse) -> impl Iterator<Item = GetResponse> {
    answer.op_responses().into_iter().filter_map(|response| match response {
        TxnOpResponse::Get(got) => Some(got),
        _ => None,
    })
}

/// The revision of an answer. etcd's answers always have one.
fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, ResponseHeader::revision)
}

/// What has come of a write.
enum Written {
    Done(Stored),
    Not(Option<Stored>),
}

impl Keys {
    fn absent(&self) -> Error {
        Error::Absent(self.record.clone())
    }

    fn stored(&self, kv: Option<&KeyValue>) -> Result<Option<Stored>, Error> {
        let Some(kv) = kv else {
            return Ok(None);
        };
        let bad = |why| Error::Bad { key: self.record.clone(), why };
        let record = Record::parse(kv.value(), &self.cluster).map_err(bad)?;
        Ok(Some(Stored { record, revision: kv.mod_revision() }))
    }

    /// The condition that the record is still the one of a revision.
    fn unmoved(&self, revision: i64) -> Compare {
        Compare::mod_revision(self.record.as_str(), CompareOp::Equal, revision)
    }

    /// The record that a transaction has read.
    fn found(&self, answer: &TxnResponse) -> Result<Option<Stored>, Error> {
        let there = got(answer).next();
        self.stored(there.as_ref().and_then(|got| got.kvs().first()))
    }

    fn alive(&self, id: MemberId, incarnation: Incarnation) -> String {
        format!("{}{ALIVE_KEY}{id}/{incarnation}", self.prefix)
    }

    fn mark(&self, key: &MarkKey) -> String {
        format!("{}{MARKS_KEY}{}", self.prefix, key.path())
    }

    /// Whose sign of life a key is, if it is one.
    fn whose(&self, key: &[u8]) -> Option<(MemberId, Incarnation)> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?.strip_prefix(ALIVE_KEY)?;
        let (id, incarnation) = rest.split_once('/')?;
        Some((parse_member(id)?, incarnation.parse().ok()?))
    }

    /// A sign of life, if it reads. It decides nothing, so one that does not read is told and left out.
    fn presence(&self, kv: &KeyValue) -> Option<Presence> {
        let (id, incarnation) = self.whose(kv.key())?;
        match Presence::parse(id, incarnation, kv.value()) {
            Ok(presence) => Some(presence),
            Err(error) => {
                log::warn!("what member {id} has published in etcd does not parse and is left out: {error}");
                None
            }
        }
    }

    /// Which mark a key is, if it is one.
    fn which_mark(&self, key: &[u8]) -> Option<MarkKey> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?.strip_prefix(MARKS_KEY)?;
        MarkKey::parse(rest)
    }

    /// A mark, if it reads. One that does not only delays, so it is told and left out.
    fn read_mark(&self, kv: &KeyValue) -> Option<Mark> {
        let key = self.which_mark(kv.key())?;
        match Mark::parse(key, kv.value()) {
            Ok(mark) => Some(mark),
            Err(error) => {
                log::warn!("what lies in etcd at {} is no mark and is left out: {error}", self.mark(&key));
                None
            }
        }
    }
}
