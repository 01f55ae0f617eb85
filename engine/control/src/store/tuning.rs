//! The settings of a cluster, and a member's word that a fast quorum cannot be formed: two keys, each changed by
//! compare-and-swap only.

use super::connection::Failed;
use super::{Store, got, revision};
use crate::error::{Error, Tried};
use crate::tuning::{BadTuning, Chosen, Word};
use etcd_client::{
    Compare, CompareOp, EventType, GetOptions, KeyValue, Txn, TxnOp, WatchOptions, WatchStream,
};

/// The key of the settings, below the prefix.
const SETTINGS_KEY: &str = "settings";
/// The key of the word, below the prefix. One range has both keys.
const WORD_KEY: &str = "settings/slow";
/// How many keys of that range are read. There are two.
const KEYS_MAX: i64 = 8;

/// A value as it lies in etcd; none if there is none, or what is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept<T> {
    /// The value.
    pub value: Result<Option<T>, BadTuning>,
    /// The revision that wrote it; 0 if there is none. A change names it.
    pub revision: i64,
}

impl<T> Kept<T> {
    pub(crate) const NONE: Kept<T> = Kept { value: Ok(None), revision: 0 };
}

/// Both values, at one revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tuned {
    /// The settings.
    pub settings: Kept<Chosen>,
    /// The word of a member.
    pub word: Kept<Word>,
    /// The revision. A watch that begins behind it misses nothing.
    pub revision: i64,
}

/// A change of one of the two.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TuningEvent {
    /// The settings are now these.
    Settings(Kept<Chosen>),
    /// The word is now this one.
    Word(Kept<Word>),
}

/// A watch on both keys.
#[derive(Debug)]
pub struct TuningWatch(WatchStream);

/// What has come of a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Swapped {
    /// It was made.
    Done,
    /// Somebody else has changed the key since it was read. Nothing was changed.
    Moved,
}

impl Store {
    /// Both values.
    ///
    /// # Errors
    /// Whatever keeps etcd from answering. What is wrong with a value is part of it.
    pub async fn tuned(&mut self) -> Result<Tuned, Error> {
        let options = || Some(GetOptions::new().with_prefix().with_limit(KEYS_MAX));
        let key = self.key(SETTINGS_KEY);
        let key = key.as_str();
        let answer = self.connection.call(async |mut client| client.get(key, options()).await).await?;
        let mut tuned = Tuned { settings: Kept::NONE, word: Kept::NONE, revision: revision(answer.header()) };
        for kv in answer.kvs() {
            match self.tuning_event(kv, true) {
                Some(TuningEvent::Settings(settings)) => tuned.settings = settings,
                Some(TuningEvent::Word(word)) => tuned.word = word,
                None => {}
            }
        }
        Ok(tuned)
    }

    /// Writes settings in place of those of a revision.
    ///
    /// # Errors
    /// [`Error::Unsettled`] if no endpoint says what has come of it.
    pub async fn choose(&mut self, known: i64, chosen: &Chosen) -> Result<Swapped, Error> {
        let key = self.key(SETTINGS_KEY);
        self.swap(&key, known, Some(chosen.to_json())).await
    }

    /// Writes a word in place of that of a revision, or takes it away.
    ///
    /// # Errors
    /// [`Error::Unsettled`] if no endpoint says what has come of it.
    pub async fn say(&mut self, known: i64, word: Option<&Word>) -> Result<Swapped, Error> {
        let key = self.key(WORD_KEY);
        self.swap(&key, known, word.map(Word::to_json)).await
    }

    /// Watches both keys from `revision` on.
    ///
    /// # Errors
    /// Whatever keeps etcd from it.
    pub async fn watch_tuning(&mut self, revision: i64) -> Result<TuningWatch, Error> {
        let key = self.key(SETTINGS_KEY);
        let key = key.as_str();
        let options = || Some(WatchOptions::new().with_prefix().with_start_revision(revision));
        let call = async |mut client: etcd_client::Client| {
            let mut stream = client.watch(key, options()).await?;
            // etcd says first whether the watch stands.
            stream.message().await?;
            Ok(stream)
        };
        Ok(TuningWatch(self.connection.call(call).await?))
    }

    /// The next changes, in their order.
    ///
    /// # Errors
    /// The watch has ended, for whatever reason: read both keys, and watch from there.
    pub async fn next_tuning(&mut self, watch: &mut TuningWatch) -> Result<Vec<TuningEvent>, Error> {
        match watch.0.message().await {
            Ok(Some(answer)) if !answer.canceled() => {
                let event = |event: &etcd_client::Event| {
                    self.tuning_event(event.kv()?, event.event_type() == EventType::Put)
                };
                Ok(answer.events().iter().filter_map(event).collect())
            }
            Ok(answer) => {
                let why = answer.map_or_else(String::new, |answer| answer.cancel_reason().to_owned());
                Err(Error::Unreachable(Tried(vec![("a watch".into(), format!("etcd has ended it: {why}"))])))
            }
            Err(error) => Err(self.connection.failed(error)),
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.keys.prefix)
    }

    fn tuning_event(&self, kv: &KeyValue, is_put: bool) -> Option<TuningEvent> {
        let name = kv.key().strip_prefix(self.keys.prefix.as_bytes())?;
        if name == SETTINGS_KEY.as_bytes() {
            return Some(TuningEvent::Settings(kept(kv, is_put, Chosen::parse)));
        }
        (name == WORD_KEY.as_bytes()).then(|| TuningEvent::Word(kept(kv, is_put, Word::parse)))
    }

    /// Changes a key if it is still as it was read. An answer that is lost is no harm: whoever finds there what was to
    /// be there is done.
    async fn swap(&mut self, key: &str, known: i64, value: Option<Vec<u8>>) -> Result<Swapped, Error> {
        let change = match &value {
            Some(value) => TxnOp::put(key, value.as_slice(), None),
            None => TxnOp::delete(key, None),
        };
        let unmoved = Compare::mod_revision(key, CompareOp::Equal, known);
        let txn = Txn::new().when([unmoved]).and_then([change]).or_else([TxnOp::get(key, None)]);
        let answer = match self.connection.call(async |mut client| client.txn(txn.clone()).await).await {
            Ok(answer) => answer,
            Err(Failed::Unreachable { tried, is_sent: true }) => return Err(Error::Unsettled(tried)),
            Err(failed) => return Err(failed.into()),
        };
        let there = got(&answer).next().and_then(|got| got.kvs().first().map(|kv| kv.value().to_vec()));
        Ok(if answer.succeeded() || there == value { Swapped::Done } else { Swapped::Moved })
    }
}

fn kept<T>(kv: &KeyValue, is_put: bool, parse: impl Fn(&[u8]) -> Result<T, BadTuning>) -> Kept<T> {
    if !is_put {
        return Kept::NONE;
    }
    Kept { value: parse(kv.value()).map(Some), revision: kv.mod_revision() }
}
