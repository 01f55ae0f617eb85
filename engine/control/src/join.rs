//! How a member that starts finds its cluster and takes its place there. Each call blocks, on a runtime of its own.

use crate::cache::{Cache, CacheError};
use crate::error::{Error, Tried};
use crate::follow::{Refused, follows};
use crate::id::{Incarnation, MemberId};
use crate::plan::{Refusal, claim};
use crate::record::Record;
use crate::settings::{BadSettings, Settings};
use crate::store::{Store, Stored};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// How often a claim is planned anew because the record has changed meanwhile. All members of a cluster may claim their
/// places at once.
const CLAIM_TRIES: u32 = 32;

/// How long etcd is asked by a member that knows a record already, and can start without etcd.
const KNOWN_PATIENCE: Duration = Duration::from_secs(3);

/// Why a member cannot start.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The settings cannot be used.
    #[error("{0}")]
    Settings(#[from] BadSettings),
    /// The file with the newest record cannot be used.
    #[error("{0}")]
    Cache(#[from] CacheError),
    /// etcd does not give the record, and no file has one.
    #[error("{0}")]
    Etcd(#[from] Error),
    /// The record in etcd is not of the history that this member has followed.
    #[error("{0}")]
    Refused(Refused),
    /// The place of the member is taken by another data directory, or is not there.
    #[error("{0}")]
    Refusal(#[from] Refusal),
    /// The system gives no runtime.
    #[error("no runtime for etcd: {0}; raise the limit on open files")]
    Runtime(std::io::Error),
}

impl JoinError {
    /// Whether the same call may succeed later, without a change by an operator of this machine.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            JoinError::Etcd(error) => {
                matches!(
                    error,
                    Error::Unreachable(_) | Error::Unsettled(_) | Error::Absent(_) | Error::Full(_)
                ) || matches!(error, Error::Moved { .. } | Error::Other { .. })
            }
            JoinError::Settings(_)
            | JoinError::Cache(_)
            | JoinError::Refused(_)
            | JoinError::Refusal(_)
            | JoinError::Runtime(_) => false,
        }
    }
}

/// The record with which a member starts: that of etcd or, as long as etcd does not give one, the newest that the member
/// has followed, from the file `cache`.
///
/// # Errors
///
/// [`JoinError`] if neither gives a record that the member may follow.
pub fn first_record(settings: &Settings, cluster: &str, cache: &Path) -> Result<Record, JoinError> {
    let known = Cache::new(cache).load(cluster)?;
    let mut store = Store::new(Arc::new(settings.clone()), cluster)?;
    let patience = if known.is_some() { KNOWN_PATIENCE } else { Duration::MAX };
    let there = runtime()?.block_on(async { timeout(patience, store.get()).await });
    let late =
        |_| Err(Error::Unreachable(Tried(vec![(settings.endpoints.join(", "), "no answer in time".into())])));
    match (there.unwrap_or_else(late), known) {
        (Ok(Stored { record, .. }), None) => Ok(record),
        (Ok(Stored { record, .. }), Some(known)) => {
            follows(&known, &record).map_err(JoinError::Refused)?;
            Ok(record)
        }
        (Err(Error::Bad { key, why }), _) => Err(Error::Bad { key, why }.into()),
        (Err(error), None) => Err(error.into()),
        (Err(error), Some(known)) => {
            log::warn!("the members are those of {}, since etcd was not asked: {error}", cache.display());
            Ok(known)
        }
    }
}

/// Takes the place of a member with a data directory, so that another directory cannot pass for this one later. A
/// place that was taken with the same directory costs no call to etcd.
///
/// # Errors
///
/// [`JoinError`] if the place is taken by another directory, or etcd does not take the claim.
pub fn take_place(
    settings: &Settings,
    record: &Record,
    member: MemberId,
    incarnation: Incarnation,
) -> Result<(), JoinError> {
    if claim(record, member, incarnation)? == *record {
        return Ok(());
    }
    let mut store = Store::new(Arc::new(settings.clone()), &record.cluster)?;
    runtime()?.block_on(async {
        let mut tries = 0;
        loop {
            let known = store.get().await?;
            let next = claim(&known.record, member, incarnation)?;
            tries += 1;
            match store.replace(&known, &next).await {
                Ok(_) => return Ok(()),
                Err(Error::Moved { .. }) if tries < CLAIM_TRIES => {}
                Err(error) => return Err(error.into()),
            }
        }
    })
}

fn runtime() -> Result<Runtime, JoinError> {
    Builder::new_current_thread().enable_all().build().map_err(JoinError::Runtime)
}
