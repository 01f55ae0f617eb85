//! Follows the record in etcd: lists, watches from there, and lists again when the watch ends.

use super::view::{Unfollowed, View};
use crate::backoff::Backoff;
use crate::cache::Cache;
use crate::error::Error;
use crate::follow::follows;
use crate::store::{Event, Listing, Store, Stored};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Sender;
use tokio::time::timeout;

/// How often a record is offered to the file again that the file has not taken.
const UNCACHED_RETRY: Duration = Duration::from_secs(1);

pub(super) struct Follower {
    store: Store,
    cache: Cache,
    views: Sender<View>,
    backoff: Backoff,
    /// A record that could not be put into the file.
    uncached: Option<Stored>,
}

impl Follower {
    pub(super) fn new(store: Store, cache: Cache, views: Sender<View>) -> Follower {
        Follower { store, cache, views, backoff: Backoff::new(), uncached: None }
    }

    /// Follows etcd for ever. A failure costs a pause and another listing, which also finds what a compaction has
    /// taken from the watch, and an etcd that was set back.
    pub(super) async fn run(&mut self) {
        loop {
            let Err(error) = self.follow().await else { continue };
            // Compacted: etcd is well, only the watch was too far behind.
            if !matches!(error, Error::Compacted(_)) {
                self.views.send_modify(|view| view.gone(error));
            }
            self.backoff.wait().await;
        }
    }

    async fn follow(&mut self) -> Result<(), Error> {
        let Listing { revision, record, alive, marks } = self.store.list().await?;
        self.on_record(record);
        self.views.send_modify(|view| {
            view.alive = alive.into_iter().map(|presence| (presence.incarnation, presence)).collect();
            view.marks = marks;
            view.reached();
        });
        let mut watch = self.store.watch(revision + 1).await?;
        self.backoff = Backoff::new();
        loop {
            match timeout(UNCACHED_RETRY, self.store.next(&mut watch)).await {
                Ok(events) => events?.into_iter().for_each(|event| self.on_event(event)),
                Err(_nothing_new) => {
                    if let Some(stored) = self.uncached.take() {
                        self.offer(stored);
                    }
                }
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Record(record) => self.on_record(record),
            Event::Alive(presence) => self.views.send_modify(|view| {
                view.alive.insert(presence.incarnation, presence);
            }),
            Event::Gone(incarnation) => self.views.send_modify(|view| {
                view.alive.remove(&incarnation);
            }),
            Event::Mark(mark) => self.views.send_modify(|view| view.marks.insert(mark)),
            Event::Unmarked(key) => self.views.send_modify(|view| view.marks.remove(&key)),
        }
    }

    fn on_record(&mut self, there: Result<Stored, Error>) {
        self.uncached = None;
        match there {
            Ok(stored) => self.offer(stored),
            Err(Error::Bad { why, .. }) => self.unfollowed(Unfollowed::Bad(why)),
            Err(_) if self.views.borrow().record.is_some() => self.unfollowed(Unfollowed::Removed),
            Err(_) => self.unfollowed(Unfollowed::Absent),
        }
    }

    /// Follows a record, once it is in the file, if it is newer than the known one.
    fn offer(&mut self, stored: Stored) {
        let Stored { record, revision } = &stored;
        let known = self.views.borrow().record.clone();
        let is_new = known.as_deref() != Some(record);
        let follows = known.as_ref().map_or(Ok(()), |known| follows(known, record));
        if let Err(refused) = follows {
            return self.unfollowed(Unfollowed::Refused(refused));
        }
        if is_new && let Err(error) = self.cache.keep(record) {
            self.uncached = Some(stored);
            return self.unfollowed(Unfollowed::Uncached(error.to_string()));
        }
        self.views.send_modify(|view| {
            view.record = Some(Arc::new(record.clone()));
            view.revision = Some(*revision);
            if view.unfollowed.take().is_some() {
                log::info!("the membership in etcd is followed again: {record}");
            }
        });
    }

    fn unfollowed(&mut self, why: Unfollowed) {
        self.views.send_modify(|view| {
            if view.unfollowed.as_ref() != Some(&why) {
                log::error!("the membership in etcd is not followed: {why}");
            }
            view.unfollowed = Some(why);
        });
    }
}
