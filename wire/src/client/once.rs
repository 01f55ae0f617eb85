//! Commands with idempotency keys.

use super::driver::{OwnedCommand, Way};
use super::{CallError, Client, Committed, Decided, Deleted, committed, decide, decide_if, decided, deleted};
use bytes::Bytes;

/// A handle to commands that take effect once, see [`Client::once`].
///
/// The cluster keeps only a hash of the idempotency key, so the key may have any length. Use an idempotency key for one command
/// only: another command under the same idempotency key is refused where both are in one shard, and executed where they are in
/// two. Commands with idempotency keys keep no order, neither among each other nor with other commands of the client.
#[derive(Debug)]
pub struct Once<'a> {
    pub(super) client: &'a Client,
    pub(super) idempotency_key: Bytes,
}

impl Once<'_> {
    /// Decides as [`Client::decide`] does.
    ///
    /// # Errors
    ///
    /// The errors of [`Client::decide`], and [`CallError::Failed`] with
    /// [`Error::KeyReused`](crate::conversation::Error::KeyReused) if the idempotency key stands for another command.
    pub async fn decide(
        self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Committed, CallError> {
        committed(self.client.call(Way::Keyed(self.idempotency_key), decide(key, value)).await?)
    }

    /// Decides as [`Client::decide_if`] does. A rejection is repeated as well, also when the key has changed since.
    ///
    /// # Errors
    ///
    /// The errors of [`Once::decide`].
    pub async fn decide_if(
        self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        expected: u64,
    ) -> Result<Decided, CallError> {
        decided(self.client.call(Way::Keyed(self.idempotency_key), decide_if(key, value, expected)).await?)
    }

    /// Ends the key's life as [`Client::delete`] does.
    ///
    /// # Errors
    ///
    /// The errors of [`Once::decide`].
    pub async fn delete(self, key: impl Into<Bytes>) -> Result<Option<Deleted>, CallError> {
        let command = OwnedCommand::Delete { key: key.into() };
        deleted(self.client.call(Way::Keyed(self.idempotency_key), command).await?)
    }
}
