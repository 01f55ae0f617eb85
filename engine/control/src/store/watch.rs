//! A watch on all keys of a cluster, from a revision on.

use super::{Store, Stored};
use crate::error::{Error, Tried};
use crate::id::Incarnation;
use crate::mark::{Mark, MarkKey};
use crate::presence::Presence;
use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};

/// What has happened to a key.
#[derive(Debug)]
pub enum Event {
    /// The record was written or taken away, or what was written is none.
    Record(Result<Stored, Error>),
    /// A member has published where it is.
    Alive(Presence),
    /// A member's sign of life is gone.
    Gone(Incarnation),
    /// A member has told something of itself in a change.
    Mark(Mark),
    /// What a member has told is gone.
    Unmarked(MarkKey),
}

/// A watch that stands.
#[derive(Debug)]
pub struct Watch(WatchStream);

impl Store {
    /// Watches all keys of the cluster from `revision` on.
    ///
    /// # Errors
    /// Whatever keeps etcd from it. That it does not have the revision any more is told by [`Store::next`].
    pub async fn watch(&mut self, revision: i64) -> Result<Watch, Error> {
        let prefix = self.keys.prefix.as_str();
        let options = || Some(WatchOptions::new().with_prefix().with_start_revision(revision));
        let call = async |mut client: etcd_client::Client| {
            let mut stream = client.watch(prefix, options()).await?;
            // etcd says first whether the watch stands.
            let first = stream.message().await?;
            Ok((stream, first))
        };
        let (stream, first) = self.connection.call(call).await?;
        let answer = first.ok_or_else(|| ended("before it stood"))?;
        check(&answer)?;
        Ok(Watch(stream))
    }

    /// The next events of a watch, in their order.
    ///
    /// # Errors
    /// The watch has ended: list, and watch from there. [`Error::Compacted`] says that etcd itself is well, but does not
    /// have the revisions that come next any more.
    pub async fn next(&mut self, watch: &mut Watch) -> Result<Vec<Event>, Error> {
        match watch.0.message().await {
            Ok(Some(answer)) => {
                check(&answer)?;
                Ok(answer.events().iter().filter_map(|event| self.event(event)).collect())
            }
            Ok(None) => Err(ended("by etcd")),
            Err(error) => Err(self.connection.failed(error)),
        }
    }

    fn event(&self, event: &etcd_client::Event) -> Option<Event> {
        let kv = event.kv()?;
        let is_put = event.event_type() == EventType::Put;
        if kv.key() == self.keys.record.as_bytes() {
            let stored = self.keys.stored(is_put.then_some(kv));
            return Some(Event::Record(stored.and_then(|stored| stored.ok_or_else(|| self.keys.absent()))));
        }
        let keys = &self.keys;
        if is_put {
            return keys.presence(kv).map(Event::Alive).or_else(|| keys.read_mark(kv).map(Event::Mark));
        }
        let gone = keys.whose(kv.key()).map(|(_, incarnation)| Event::Gone(incarnation));
        gone.or_else(|| keys.which_mark(kv.key()).map(Event::Unmarked))
    }
}

/// Whether etcd goes on with a watch.
fn check(answer: &WatchResponse) -> Result<(), Error> {
    match answer {
        _ if !answer.canceled() => Ok(()),
        _ if answer.compact_revision() > 0 => Err(Error::Compacted(answer.compact_revision())),
        _ if answer.cancel_reason().contains("permission denied") => {
            Err(Error::Permission(answer.cancel_reason().into()))
        }
        _ => Err(ended(answer.cancel_reason())),
    }
}

fn ended(why: &str) -> Error {
    Error::Unreachable(Tried(vec![("a watch".into(), format!("it was ended: {why}"))]))
}
