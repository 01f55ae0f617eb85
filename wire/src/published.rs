//! Published decisions: what has been decided, in the order of execution, for everyone who reads the log from outside.
//!
//! A *published batch* holds the decisions of one executed instance. It is the same bytes in the outbox of a replica and
//! in a topic. All numbers are little endian, and nothing is padded:
//!
//! ```text
//! head, 64 bytes                                    entry, 16 bytes and key and value
//!   0  u32  magic, the bytes "ISOD"                   0  u64  key_seq; the highest byte is the kind:
//!   4  u32  crc32c of all that follows                        1 the key's value was decided, 2 its life has ended
//!   8  u32  length of the whole batch, in bytes       8  u32  length of the value
//!  12  u8   version, 1                               12  u16  length of the key
//!  13  u8   flags: 1 = more of its component follow  14  u16  the command's index in its instance
//!  14  u16  shard                                    16  key, then value
//!  16  u128 cluster
//!  32  u32  epoch
//!  36  u32  number of entries
//!  40  u64  sequence number of the instance
//!  48  u8   row of the instance, then 15 bytes zero
//! ```
//!
//! The entries stand in the order of execution. A command that has changed nothing has no entry: a read, a DecideIf
//! that was rejected, a retry of what was executed before. So the `key_seq` of a key's entries are 1, 2, 3 and so on, up to
//! the entry that ends the key's life, which has the `key_seq` of the key's last decision.

use crate::answer::{Answers, BadResponse};
use crate::command::{
    BATCH_BYTES_MAX, BATCH_COMMANDS_MAX, Batch, Command, KEY_BYTES_MAX, Part, VALUE_BYTES_MAX,
};
use crate::id::{ClusterId, CommandId, Epoch, InstanceId, ReplicaId, ShardId};
use bytes::Bytes;

/// The size of the head, in bytes.
pub const HEAD_BYTES: usize = 64;
/// The size of an entry without key and value, in bytes.
pub const ENTRY_BYTES: usize = 16;
/// The size of the largest batch, in bytes.
pub const PUBLISHED_BYTES_MAX: usize = HEAD_BYTES + BATCH_COMMANDS_MAX * ENTRY_BYTES + BATCH_BYTES_MAX;
/// The version of the layout.
pub const PUBLISHED_VERSION: u8 = 1;

const MAGIC: [u8; 4] = *b"ISOD";
const MORE: u8 = 1;
const DECIDED: u64 = 1;
const DELETED: u64 = 2;
const KIND_SHIFT: u32 = 56;
const KEY_SEQ_MASK: u64 = (1 << KIND_SHIFT) - 1;

/// Where a published batch comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The cluster.
    pub cluster: ClusterId,
    /// The shard.
    pub shard: ShardId,
    /// The epoch of the instance.
    pub epoch: Epoch,
    /// The instance.
    pub instance: InstanceId,
    /// Whether the next batch belongs to the same component, which only has an effect as a whole.
    pub has_more: bool,
}

/// What a command has done to its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Its value is the key's `key_seq`-th decision.
    Decided {
        /// The number of the decision in the key's life, from 1.
        key_seq: u64,
    },
    /// It has ended the key's life.
    Deleted {
        /// The number of the key's last decision.
        key_seq: u64,
    },
}

impl Effect {
    fn to_word(self) -> u64 {
        match self {
            Effect::Decided { key_seq } => DECIDED << KIND_SHIFT | key_seq,
            Effect::Deleted { key_seq } => DELETED << KIND_SHIFT | key_seq,
        }
    }

    fn of_word(word: u64) -> Option<Effect> {
        let key_seq = word & KEY_SEQ_MASK;
        match word >> KIND_SHIFT {
            DECIDED => Some(Effect::Decided { key_seq }),
            DELETED => Some(Effect::Deleted { key_seq }),
            _ => None,
        }
    }
}

/// One published decision, borrowed from its batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision<'a> {
    /// The command's index in its instance.
    pub index: u16,
    /// What it has done.
    pub effect: Effect,
    /// The key.
    pub key: &'a [u8],
    /// The value; empty if the key's life has ended.
    pub value: &'a [u8],
}

/// Builds published batches. The builder can be used again.
#[derive(Debug, Default)]
pub struct PublishedBuilder {
    bytes: Vec<u8>,
    entries: u32,
}

impl PublishedBuilder {
    /// Adds a decision. Key and value are within the limits of commands.
    pub fn push(&mut self, decision: &Decision<'_>) {
        if self.bytes.is_empty() {
            self.bytes.resize(HEAD_BYTES, 0);
        }
        let Decision { index, effect, key, value } = *decision;
        self.bytes.extend_from_slice(&effect.to_word().to_le_bytes());
        self.bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
        self.bytes.extend_from_slice(&index.to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.entries += 1;
    }

    /// Adds what the commands of one part of a batch have done, which its response tells.
    ///
    /// # Errors
    ///
    /// [`BadResponse`] if the response is none.
    pub fn push_part(
        &mut self,
        origin: &Origin,
        batch: &Batch,
        part: &Part,
        response: Bytes,
    ) -> Result<(), BadResponse> {
        let answers = Answers::parse(response)?;
        let commands = (part.index..).zip(batch.commands_of(part));
        for ((index, command), (id, effect)) in commands.zip(answers.effects()) {
            // A retry has the answer, and with it the id, of the command that was executed.
            let Some(effect) = effect.filter(|_| id == origin.command(index)) else { continue };
            let Command { key, value, .. } = command;
            self.push(&Decision { index: index as u16, effect, key, value });
        }
        Ok(())
    }

    /// Whether nothing was decided so far.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The whole batch, after which the builder is empty; `None` if nothing was decided.
    pub fn finish(&mut self, origin: &Origin) -> Option<&[u8]> {
        let entries = std::mem::take(&mut self.entries);
        if entries == 0 {
            return None;
        }
        let length = self.bytes.len() as u32;
        let mut put = |at: usize, bytes: &[u8]| self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(8, &length.to_le_bytes());
        put(12, &[PUBLISHED_VERSION, if origin.has_more { MORE } else { 0 }]);
        put(14, &origin.shard.0.to_le_bytes());
        put(16, &origin.cluster.0.to_le_bytes());
        put(32, &origin.epoch.0.to_le_bytes());
        put(36, &entries.to_le_bytes());
        put(40, &origin.instance.seq.to_le_bytes());
        put(48, &[origin.instance.row.0]);
        let crc = crc32c::crc32c(&self.bytes[8..]);
        self.bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        Some(&self.bytes)
    }

    /// Forgets a batch that was finished.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries = 0;
    }
}

impl Origin {
    /// The id of the instance's command with this index.
    pub fn command(&self, index: u32) -> CommandId {
        CommandId { epoch: self.epoch, shard: self.shard, instance: self.instance, index }
    }
}

/// Why bytes are no published batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadBatch {
    /// The bytes end before the batch does.
    #[error("the batch has {there} of its {length} bytes; read on behind the last whole batch")]
    CutOff {
        /// The bytes that are there.
        there: usize,
        /// The length of the batch, or of its head where that is cut off.
        length: usize,
    },
    /// The bytes do not begin as a published batch does.
    #[error(
        "these bytes are no published batch; check that the topic or file is one of `format = \"batch\"`"
    )]
    NoBatch,
    /// Another version has written the batch.
    #[error(
        "the batch has the layout {0}, and this release reads {PUBLISHED_VERSION}; use the release that wrote it"
    )]
    Version(u8),
    /// The checksum does not agree, or the entries do not add up.
    #[error("the batch is damaged; read it from another replica or from the topic's other brokers")]
    Damaged,
}

/// A published batch, validated.
#[derive(Clone, Copy, Debug)]
pub struct PublishedBatch<'a> {
    bytes: &'a [u8],
    origin: Origin,
    entries: u32,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has this length")
}

impl<'a> PublishedBatch<'a> {
    /// Validates the batch with which these bytes begin. More bytes may follow it.
    ///
    /// # Errors
    ///
    /// [`BadBatch`] if they begin with no whole batch.
    pub fn parse(bytes: &'a [u8]) -> Result<PublishedBatch<'a>, BadBatch> {
        let there = bytes.len();
        if there < HEAD_BYTES {
            return Err(BadBatch::CutOff { there, length: HEAD_BYTES });
        }
        if bytes[..4] != MAGIC {
            return Err(BadBatch::NoBatch);
        }
        if bytes[12] != PUBLISHED_VERSION {
            return Err(BadBatch::Version(bytes[12]));
        }
        let length = u32::from_le_bytes(array(bytes, 8)) as usize;
        if !(HEAD_BYTES..=PUBLISHED_BYTES_MAX).contains(&length) {
            return Err(BadBatch::Damaged);
        }
        let bytes = bytes.get(..length).ok_or(BadBatch::CutOff { there, length })?;
        if crc32c::crc32c(&bytes[8..]) != u32::from_le_bytes(array(bytes, 4)) {
            return Err(BadBatch::Damaged);
        }
        let origin = Origin {
            cluster: ClusterId(u128::from_le_bytes(array(bytes, 16))),
            shard: ShardId(u16::from_le_bytes(array(bytes, 14))),
            epoch: Epoch(u32::from_le_bytes(array(bytes, 32))),
            instance: InstanceId::new(ReplicaId(bytes[48]), u64::from_le_bytes(array(bytes, 40))),
            has_more: bytes[13] & MORE != 0,
        };
        let batch = PublishedBatch { bytes, origin, entries: u32::from_le_bytes(array(bytes, 36)) };
        let mut decisions = batch.decisions();
        let whole = (&mut decisions).count();
        (whole == batch.entries as usize && decisions.rest.is_empty())
            .then_some(batch)
            .ok_or(BadBatch::Damaged)
    }

    /// Where the batch comes from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The bytes of the batch.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The number of decisions.
    pub fn len(&self) -> usize {
        self.entries as usize
    }

    /// Whether there is no decision, which a batch of this release never has.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The decisions, in the order of execution.
    pub fn decisions(&self) -> Decisions<'a> {
        Decisions { rest: &self.bytes[HEAD_BYTES..] }
    }
}

/// The decisions of a batch. Ends at an entry that is none.
#[derive(Clone, Debug)]
pub struct Decisions<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Decisions<'a> {
    type Item = Decision<'a>;

    fn next(&mut self) -> Option<Decision<'a>> {
        let (head, rest) = self.rest.split_at_checked(ENTRY_BYTES)?;
        let effect = Effect::of_word(u64::from_le_bytes(array(head, 0)))?;
        let value_length = u32::from_le_bytes(array(head, 8)) as usize;
        let key_length = usize::from(u16::from_le_bytes(array(head, 12)));
        if key_length > KEY_BYTES_MAX || value_length > VALUE_BYTES_MAX {
            return None;
        }
        let (key, rest) = rest.split_at_checked(key_length)?;
        let (value, rest) = rest.split_at_checked(value_length)?;
        self.rest = rest;
        Some(Decision { index: u16::from_le_bytes(array(head, 14)), effect, key, value })
    }
}

#[cfg(test)]
mod tests;
