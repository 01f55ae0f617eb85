//! Leases: a sign of life that goes away by itself when its member no longer renews it.

use super::Store;
use crate::error::Error;
use crate::presence::Presence;
use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use std::time::Duration;

/// A lease with a member's sign of life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease(i64);

impl Store {
    /// Publishes a sign of life that goes away when it is not renewed within about `ttl`, in whole seconds.
    ///
    /// # Errors
    /// Whatever keeps etcd from doing that.
    pub async fn publish(&mut self, presence: &Presence, ttl: Duration) -> Result<Lease, Error> {
        let seconds = ttl.as_secs() as i64;
        let grant = self.connection.call(async |mut client| client.lease_grant(seconds, None).await).await?;
        let lease = grant.id();
        let (key, value) = (self.keys.alive(presence.id, presence.incarnation), presence.to_json());
        let options = || Some(PutOptions::new().with_lease(lease));
        let put = async |mut client: etcd_client::Client| {
            client.put(key.as_str(), value.as_slice(), options()).await
        };
        self.connection.call(put).await?;
        Ok(Lease(lease))
    }

    /// Renews a sign of life, and writes it again if it was removed or written over.
    ///
    /// # Errors
    /// [`Error::LeaseOver`] if the lease is gone.
    pub async fn renew(&mut self, lease: Lease, presence: &Presence) -> Result<(), Error> {
        self.connection.call(async |mut client| client.lease_keep_alive(lease.0).await).await?;
        let (key, value) = (self.keys.alive(presence.id, presence.incarnation), presence.to_json());
        let is_there = Compare::value(key.as_str(), CompareOp::Equal, value.as_slice());
        let put = TxnOp::put(key.as_str(), value.as_slice(), Some(PutOptions::new().with_lease(lease.0)));
        let txn = Txn::new().when([is_there]).or_else([put]);
        self.connection.call(async |mut client| client.txn(txn.clone()).await).await?;
        Ok(())
    }

    /// Takes a sign of life away.
    ///
    /// # Errors
    /// Whatever keeps etcd from doing that. It goes away by itself then.
    pub async fn withdraw(&mut self, lease: Lease) -> Result<(), Error> {
        self.connection.call(async |mut client| client.lease_revoke(lease.0).await).await?;
        Ok(())
    }
}
