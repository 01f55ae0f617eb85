//! Says that this member lives, and where it listens, under a lease that it renews.

use crate::backoff::Backoff;
use crate::error::Error;
use crate::presence::Presence;
use crate::store::{Lease, Store};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How often a sign of life is renewed while it stands.
const RENEWALS: u32 = 3;
/// How long the end waits for etcd to take the sign of life away. It goes away by itself.
const END_DEADLINE: Duration = Duration::from_secs(1);

pub(super) struct Publisher {
    store: Store,
    presence: Presence,
    life: Duration,
    lease: Option<Lease>,
}

impl Publisher {
    pub(super) fn new(store: Store, presence: Presence, life: Duration) -> Publisher {
        Publisher { store, presence, life, lease: None }
    }

    /// Publishes for ever. A lease that is lost gives way to another one.
    pub(super) async fn run(&mut self) {
        let mut backoff = Backoff::new();
        loop {
            match self.publish().await {
                Ok(()) => {
                    backoff = Backoff::new();
                    sleep(self.life / RENEWALS).await;
                }
                // The follower tells why etcd does not answer.
                Err(_) => backoff.wait().await,
            }
        }
    }

    async fn publish(&mut self) -> Result<(), Error> {
        let Some(lease) = self.lease else {
            self.lease = Some(self.store.publish(&self.presence, self.life).await?);
            return Ok(());
        };
        let renewed = self.store.renew(lease, &self.presence).await;
        if let Err(Error::LeaseOver) = renewed {
            self.lease = None;
        }
        renewed
    }

    pub(super) async fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            // What fails here, time does.
            let _ = timeout(END_DEADLINE, self.store.withdraw(lease)).await;
        }
    }
}
