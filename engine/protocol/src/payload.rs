//! A batch with its footprint, by which conflicts are decided.

use bytes::Bytes;
use isonomy_wire::command::{Batch, Invalid, Numbering, Op, RequestBuilder};
use isonomy_wire::id::{RecordId, SessionId};
use isonomy_wire::route::{BARRIER_HASH, hash_key, hash_session};
use std::fmt;
use std::sync::Arc;

/// One entry of a footprint: a hash without its lowest bit, and whether it is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Access(u64);

impl Access {
    /// A read or write of everything that has this hash.
    #[inline]
    pub fn new(hash: u64, writes: bool) -> Access {
        Access(hash & !1 | u64::from(writes))
    }

    /// The hash. A collision is a false conflict, and all replicas see the collision alike.
    #[inline]
    pub fn hash(self) -> u64 {
        self.0 & !1
    }

    /// Whether the entry is written.
    #[inline]
    pub fn writes(self) -> bool {
        self.0 & 1 != 0
    }
}

/// The payload of an instance: a batch and its footprint. Cheap to clone.
#[derive(Clone)]
pub struct Payload {
    batch: Batch,
    footprint: Arc<[Access]>,
}

/// Shows the batch only, since the footprint follows from it.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.batch.fmt(f)
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Payload) -> bool {
        self.batch == other.batch
    }
}

impl Eq for Payload {}

impl Payload {
    /// Validates bytes from anywhere and computes their footprint: the keys of the commands in order, the sessions of
    /// the parts, and the hash by which barriers conflict.
    pub fn parse(bytes: Bytes, crc: u32) -> Result<Payload, Invalid> {
        // 64-byte commands are the common size.
        let mut keys = Vec::with_capacity(bytes.len() / 64 + 1);
        let mut barriers = false;
        let batch = Batch::parse(bytes, crc, |command| {
            barriers |= matches!(command.op, Op::Barrier | Op::Seal);
            if command.op.has_key() {
                keys.push(Access::new(hash_key(command.key), command.op.writes()));
            }
        })?;
        for part in batch.parts() {
            if part.session != SessionId::NONE {
                keys.push(Access::new(hash_session(part.session), true));
            }
        }
        keys.push(Access::new(BARRIER_HASH, barriers));
        Ok(Payload { batch, footprint: keys.into() })
    }

    /// A request of the replica's own with the commands that the builder holds.
    pub(crate) fn of_request(builder: &mut RequestBuilder, session: SessionId) -> Payload {
        let bytes = builder.encode(session, Numbering::NONE);
        let crc = crc32c::crc32c(&bytes);
        Payload::parse(bytes, crc).expect("own requests are valid")
    }

    /// Joins payloads in order, at least one.
    pub fn join(payloads: &[Payload]) -> Payload {
        if let [single] = payloads {
            return single.clone();
        }
        let batches: Vec<Batch> = payloads.iter().map(|payload| payload.batch.clone()).collect();
        // The keys come first, then the sessions, as if the joined batch had been parsed.
        let keys = payloads.iter().flat_map(|payload| payload.keys());
        let sessions = payloads.iter().flat_map(|payload| payload.sessions());
        let barriers = payloads.iter().any(Payload::is_barrier);
        let footprint = keys.chain(sessions).copied().chain([Access::new(BARRIER_HASH, barriers)]).collect();
        Payload { batch: Batch::join(&batches), footprint }
    }

    /// The batch.
    #[inline]
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Every access of the batch; keys come first, one for each command with a key, in order.
    #[inline]
    pub fn footprint(&self) -> &[Access] {
        &self.footprint
    }

    /// The accesses of the commands with a key, in the order of the commands.
    #[inline]
    pub fn keys(&self) -> &[Access] {
        let sessions = self.batch.parts().iter().filter(|part| part.session != SessionId::NONE).count();
        &self.footprint[..self.footprint.len() - sessions - 1]
    }

    /// The accesses of the parts' sessions.
    fn sessions(&self) -> &[Access] {
        &self.footprint[self.keys().len()..self.footprint.len() - 1]
    }

    /// Whether there is a barrier or a Seal among the commands (G4).
    #[inline]
    pub fn is_barrier(&self) -> bool {
        self.footprint.last().is_some_and(|access| access.writes())
    }

    /// The record that the batch names if it is a Seal (section 9).
    #[inline]
    pub fn seals(&self) -> Option<RecordId> {
        if !self.is_barrier() {
            return None;
        }
        let parts = self.batch.parts().iter();
        let mut commands = parts.flat_map(|part| self.batch.commands_of(part));
        commands.find(|command| command.op == Op::Seal)?.record()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: Bytes) -> Payload {
        let crc = crc32c::crc32c(&bytes);
        Payload::parse(bytes, crc).unwrap()
    }

    #[test]
    fn the_footprint_has_keys_in_order_and_sessions_as_writes() {
        let mut builder = RequestBuilder::default();
        builder.decide(b"a", b"1").unwrap();
        builder.skip(3).unwrap();
        builder.delete(b"b").unwrap();
        let session = SessionId::named("s");
        let numbered = parse(builder.encode(session, Numbering::at(1)));
        builder.read(b"c").unwrap();
        let read = parse(builder.encode(SessionId::NONE, Numbering::NONE));
        let keys = [Access::new(hash_key(b"a"), true), Access::new(hash_key(b"b"), true)];
        assert_eq!(numbered.keys(), keys);
        assert_eq!(numbered.footprint()[2], Access::new(hash_session(session), true));
        assert_eq!(read.footprint(), [Access::new(hash_key(b"c"), false), Access::new(BARRIER_HASH, false)]);

        let joined = Payload::join(&[numbered, read]);
        let again = parse(joined.batch().payload().clone());
        assert_eq!(joined.footprint(), again.footprint());
        assert_eq!(joined.keys().len(), 3);
    }
}
