//! Carries changes on (law, section 9): every member that runs does, and whoever is first takes each step, so that a change
//! outlives the death of any of them at any moment.
//!
//! What is to be done next is a function of what the process knows ([`decide`]). It is done by compare-and-swap only.

use crate::backoff::Backoff;
use crate::error::Error;
use crate::id::ChangeId;
use crate::presence::Presence;
use crate::service::View;
use crate::store::{Store, Stored};
use std::time::Duration;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep, timeout};

mod decide;

pub use decide::{Action, decide, is_holder_missing};

/// The longest wait before a step that every member may take, so that not all of them take it at once.
const STAGGER_MAX: Duration = Duration::from_millis(50);
/// How long the next epoch waits for members that live and do not hold the state at the Seal yet, once enough do.
const HOLDERS_PATIENCE: Duration = Duration::from_millis(250);
/// How long it may take until what was written is seen. Then it is written again, which changes nothing if it is there.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// What a process has to tell of its shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// All shards lack little of what the others have.
    pub is_close: bool,
    /// The seal that all shards hold durably.
    pub held: Option<Held>,
}

/// The end of an epoch that a member holds durably in all shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// The change that the Seal names.
    pub change: ChangeId,
    /// The hash over the states of all shards.
    pub hash: u64,
}

/// Carries changes on for one member.
pub(crate) struct Driver {
    store: Store,
    own: Presence,
    views: Receiver<View>,
    reports: Receiver<Report>,
}

impl Driver {
    pub(crate) fn new(
        store: Store,
        own: Presence,
        views: Receiver<View>,
        reports: Receiver<Report>,
    ) -> Driver {
        Driver { store, own, views, reports }
    }

    /// Carries changes on for ever. It may end at any moment: whatever was begun goes on by what is known then.
    pub(crate) async fn run(&mut self) {
        let (mut backoff, mut told) = (Backoff::new(), String::new());
        let mut waits_since: Option<Instant> = None;
        loop {
            let Some((action, revision)) = self.action() else {
                waits_since = None;
                self.news().await;
                continue;
            };
            if matches!(action, Action::Replace { .. }) && is_holder_missing(&self.views.borrow()) {
                let waited = waits_since.get_or_insert_with(Instant::now).elapsed();
                if waited < HOLDERS_PATIENCE {
                    let _ = timeout(HOLDERS_PATIENCE.saturating_sub(waited), self.news()).await;
                    continue;
                }
            }
            let done = match &action {
                Action::Mark(mark) => self.store.mark(revision, mark).await,
                Action::Replace { known, next } => {
                    sleep(STAGGER_MAX.mul_f64(rand::random_range(0.0..1.0))).await;
                    if self.action().as_ref() != Some(&(action.clone(), revision)) {
                        continue;
                    }
                    let known = Stored { record: known.as_ref().clone(), revision };
                    self.store.replace(&known, next).await.map(drop)
                }
                Action::Tell(refusal) => {
                    tell(&mut told, refusal);
                    self.news().await;
                    continue;
                }
            };
            match done {
                // It is soon seen what was written, or who was first.
                Ok(()) | Err(Error::Moved { .. }) => {
                    backoff = Backoff::new();
                    let _ = timeout(SEEN_WITHIN, self.news()).await;
                }
                Err(error) => {
                    tell(&mut told, &error);
                    backoff.wait().await;
                }
            }
        }
    }

    /// What is to be done now, and in place of which revision of the record.
    fn action(&mut self) -> Option<(Action, i64)> {
        let report = *self.reports.borrow_and_update();
        let view = self.views.borrow_and_update();
        Some((decide(&view, &report, &self.own)?, view.revision?))
    }

    /// Waits for something new. Without a sender there is nothing new ever: the service ends.
    async fn news(&mut self) {
        let is_over = tokio::select! {
            changed = self.views.changed() => changed.is_err(),
            changed = self.reports.changed() => changed.is_err(),
        };
        if is_over {
            std::future::pending::<()>().await;
        }
    }
}

/// Logs why a change waits, unless that is what was logged last.
fn tell(told: &mut String, why: &impl ToString) {
    let why = why.to_string();
    if *told != why {
        log::warn!("the change of the members waits: {why}");
        *told = why;
    }
}
