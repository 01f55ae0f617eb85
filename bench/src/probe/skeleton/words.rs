//! The messages between the skeleton's parties: frames and messages of the wire, and commands of a fixed size.
//!
//! ```text
//! batch   = command*
//! command = 8 bytes as a header takes | key u128, little endian | value
//! ```

use isonomy_wire::frame::{Kind, Scope};
use isonomy_wire::id::{Epoch, ReplicaId, ShardId};
use isonomy_wire::message::{Handshake, Hello, Role};
use isonomy_wire::route::RULE_VERSION;

/// The number of replicas.
pub(crate) const REPLICAS: usize = 3;
/// The room that a read is offered, in bytes, which is several frames of the usual size.
pub(super) const READ_CHUNK_BYTES: usize = 256 << 10;
/// The offset of the key in a command.
pub(super) const KEY_AT: usize = 8;
const KEY_BYTES: usize = size_of::<u128>();

const EPOCH: Epoch = Epoch(1);
const SHARD: ShardId = ShardId(0);
pub(super) const HANDSHAKE: Scope = Scope { kind: Kind::Handshake, epoch: Epoch(0), shard: SHARD };
pub(super) const PEER: Scope = Scope { kind: Kind::Peer, epoch: EPOCH, shard: SHARD };
pub(super) const CLIENT: Scope = Scope { kind: Kind::Client, epoch: Epoch(0), shard: SHARD };
pub(super) const LOG: Scope = Scope { kind: Kind::Log, epoch: EPOCH, shard: SHARD };

/// The size of a command with a value of this size.
pub(crate) fn command_bytes(value_bytes: u64) -> usize {
    KEY_AT + KEY_BYTES + value_bytes as usize
}

/// The keys of a batch, in order.
pub(super) fn keys(batch: &[u8], command_bytes: usize) -> impl Iterator<Item = u128> {
    let commands = batch.chunks_exact(command_bytes);
    commands
        .map(|command| u128::from_le_bytes(command[KEY_AT..KEY_AT + KEY_BYTES].try_into().expect("16 bytes")))
}

/// The first message on a connection; nobody answers it.
pub(super) fn hello(role: Role) -> Handshake {
    Handshake::Hello(Hello { cluster: None, epoch: EPOCH, shard: SHARD, shards: 1, rule: RULE_VERSION, role })
}

/// The replicas other than this one.
pub(super) fn others(row: ReplicaId) -> impl Iterator<Item = ReplicaId> {
    (0..REPLICAS as u8).map(ReplicaId).filter(move |other| *other != row)
}
