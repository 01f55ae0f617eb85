//! How a member that starts finds its cluster and takes its place there. Each call blocks, on a runtime of its own, and
//! ends early when its process is told to stop.

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
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

/// How often a claim is planned anew because the record has changed meanwhile. All members of a cluster may claim their
/// places at once.
const CLAIM_TRIES: u32 = 32;

/// How often a call looks whether the process is told to stop.
const LOOK_EVERY: Duration = Duration::from_millis(20);
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
/// has followed, from the file `cache`. When `is_over` says so, the call ends as if etcd had not answered.
///
/// # Errors
///
/// [`JoinError`] if neither gives a record that the member may follow.
pub fn first_record(
    settings: &Settings,
    cluster: &str,
    cache: &Path,
    is_over: impl Fn() -> bool,
) -> Result<Record, JoinError> {
    let known = Cache::new(cache).load(cluster)?;
    let mut store = Store::new(Arc::new(settings.clone()), cluster)?;
    let patience = if known.is_some() { KNOWN_PATIENCE } else { Duration::MAX };
    let get = async { timeout(patience, store.get()).await.unwrap_or_else(|_| Err(no_answer())) };
    match (block_on(get, is_over)?, known) {
        (Ok(Stored { record, .. }), None) => Ok(record),
        (Ok(Stored { record, .. }), Some(known)) => {
            follows(&known, &record).map_err(JoinError::Refused)?;
            Ok(record)
        }
        (Err(Error::Bad { key, why }), _) => Err(Error::Bad { key, why }.into()),
        (Err(error), None) => Err(error.into()),
        (Err(Error::Absent(key)), Some(known)) => {
            log::warn!(
                "the members are those of {}, because there is no record at {key} any more",
                cache.display()
            );
            Ok(known)
        }
        (Err(error), Some(known)) => {
            log::warn!("the members are those of {}, because etcd gave no record: {error}", cache.display());
            Ok(known)
        }
    }
}

/// Takes the place of a member with a data directory, so that another directory cannot pass for this one later. A
/// place that was taken with the same directory costs no call to etcd. `cache` and `is_over` are those of
/// [`first_record`].
///
/// # Errors
///
/// [`JoinError`] if the place is taken by another directory, or etcd does not take the claim.
pub fn take_place(
    settings: &Settings,
    record: &Record,
    cache: &Path,
    member: MemberId,
    incarnation: Incarnation,
    is_over: impl Fn() -> bool,
) -> Result<(), JoinError> {
    if claim(record, member, incarnation)? == *record {
        return Ok(());
    }
    if let Some(known) = Cache::new(cache).load(&record.cluster)?
        && known.membership.count(|it| it == incarnation) > 0
    {
        // The number is another's by now, and this directory is no empty one.
        return Err(Refusal::Former(member).into());
    }
    let mut store = Store::new(Arc::new(settings.clone()), &record.cluster)?;
    // In one call: a connection belongs to the runtime that has opened it.
    let take = async {
        let mut tries = 0;
        loop {
            let known = store.get().await?;
            follows(record, &known.record).map_err(JoinError::Refused)?;
            let next = claim(&known.record, member, incarnation)?;
            tries += 1;
            match store.replace(&known, &next).await {
                Ok(_) => return Ok(()),
                Err(Error::Moved { .. }) if tries < CLAIM_TRIES => {}
                Err(error) => return Err(error.into()),
            }
        }
    };
    block_on(take, is_over)?
}

fn no_answer() -> Error {
    Error::Unreachable(Tried::default())
}

/// Runs a call until it is done or the process is told to stop.
fn block_on<T, E: From<Error>>(
    call: impl Future<Output = Result<T, E>>,
    is_over: impl Fn() -> bool,
) -> Result<Result<T, E>, JoinError> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(JoinError::Runtime)?;
    let over = async {
        while !is_over() {
            sleep(LOOK_EVERY).await;
        }
    };
    let done = runtime.block_on(async {
        tokio::select! {
            done = call => done,
            () = over => Err(no_answer().into()),
        }
    });
    // A name that is still looked up, on a thread of its own, holds nobody up.
    runtime.shutdown_background();
    Ok(done)
}
