//! Ids. Every id is a newtype, so that swapped arguments do not compile.

use core::fmt;
use core::str::FromStr;
use rkyv::{Archive, Deserialize, Serialize};

/// The most replicas that one cluster can have.
pub const REPLICAS_MAX: usize = 9;
/// The most places of an epoch: those of its members, and behind them those of the learners of a change, of which there
/// are at most as many as the next epoch has members (law, section 9).
pub const PLACES_MAX: usize = 2 * REPLICAS_MAX;
/// The most shards that one cluster can have.
pub const SHARDS_MAX: usize = 256;

/// A replica of an epoch, by its place, from 0 to below [`PLACES_MAX`]. The members have the first places, and learners
/// those behind them.
///
/// The id of a member also names its *row*: the instances that the member coordinates. A learner has none.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default,
)]
#[rkyv(derive(Clone, Copy))]
pub struct ReplicaId(pub u8);

impl ReplicaId {
    /// The index in a vector with one entry per replica.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An independent consensus group, from 0 to below the cluster's number of shards.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default,
)]
pub struct ShardId(pub u16);

/// A generation of the membership.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default,
)]
pub struct Epoch(pub u32);

/// The id of the record that names an epoch's members (law, section 9): a random number, made with the record.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default,
)]
pub struct RecordId(pub u128);

/// The identity of a cluster for its whole life; two clusters never talk to each other.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClusterId(pub u128);

impl ClusterId {
    /// The id of the cluster that operators call `name`.
    pub fn of_name(name: &str) -> ClusterId {
        ClusterId(xxhash_rust::xxh3::xxh3_128(name.as_bytes()))
    }
}

/// The text is empty, but no cluster has an empty name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the value is empty; give the cluster's name or its id")]
pub struct NoCluster;

impl FromStr for ClusterId {
    type Err = NoCluster;

    /// Parses an id of 32 hexadecimal digits. Any other text is the name of a cluster.
    ///
    /// # Errors
    ///
    /// [`NoCluster`] if the text is empty.
    fn from_str(text: &str) -> Result<ClusterId, NoCluster> {
        if text.is_empty() {
            return Err(NoCluster);
        }
        let is_id = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let id = u128::from_str_radix(text, 16).ok().filter(|_| is_id);
        Ok(id.map_or_else(|| ClusterId::of_name(text), ClusterId))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One consensus instance inside a shard and epoch: the `seq`-th of its coordinator's row.
///
/// `seq` counts 1, 2, 3 ... without gaps. Ids are ordered by (seq, row), which is the order inside a strongly
/// connected component (law, section 6).
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[rkyv(derive(Clone, Copy))]
pub struct InstanceId {
    /// The replica that coordinates the instance.
    pub row: ReplicaId,
    /// The place of the instance in the row, from 1.
    pub seq: u64,
}

impl InstanceId {
    /// The instance `seq` of `row`.
    pub fn new(row: ReplicaId, seq: u64) -> InstanceId {
        InstanceId { row, seq }
    }
}

impl PartialOrd for InstanceId {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InstanceId {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.seq, self.row).cmp(&(other.seq, other.row))
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.row.0, self.seq)
    }
}

/// A ballot of one instance. Round 0 belongs to the row's own replica (law, section 3).
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ballot {
    /// The number of the attempt; higher rounds win.
    pub round: u32,
    /// The replica that leads the round; it breaks ties.
    pub replica: ReplicaId,
}

impl Ballot {
    /// The ballot of the initial coordinator.
    pub const ZERO: Ballot = Ballot { round: 0, replica: ReplicaId(0) };

    /// The smallest ballot of `replica` above this one.
    #[must_use]
    pub fn next_for(self, replica: ReplicaId) -> Ballot {
        // Round 0 belongs to the initial coordinator alone, whatever the coordinator's index.
        if self.round > 0 && replica > self.replica {
            return Ballot { round: self.round, replica };
        }
        Ballot { round: self.round + 1, replica }
    }
}

impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.round == 0 { write!(f, "b0") } else { write!(f, "b{}.{}", self.round, self.replica.0) }
    }
}

/// The permanent id of a command: its instance and its place in the instance's batch.
/// It prints as `epoch.shard.row.seq.index`.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct CommandId {
    /// The epoch of the instance.
    pub epoch: Epoch,
    /// The shard of the instance.
    pub shard: ShardId,
    /// The instance.
    pub instance: InstanceId,
    /// The place in the batch, from 0.
    pub index: u32,
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CommandId { epoch, shard, instance, index } = self;
        write!(f, "{}.{}.{}.{}.{}", epoch.0, shard.0, instance.row.0, instance.seq, index)
    }
}

/// A text is no id of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoCommandId;

impl fmt::Display for NoCommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id has five numbers, epoch.shard.row.seq.index")
    }
}

impl core::error::Error for NoCommandId {}

impl FromStr for CommandId {
    type Err = NoCommandId;

    fn from_str(text: &str) -> Result<CommandId, NoCommandId> {
        fn number<T: FromStr>(part: Option<&str>) -> Result<T, NoCommandId> {
            let digits = part.filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
            digits.and_then(|digits| digits.parse().ok()).ok_or(NoCommandId)
        }
        let mut parts = text.split('.');
        let id = CommandId {
            epoch: Epoch(number(parts.next())?),
            shard: ShardId(number(parts.next())?),
            instance: InstanceId::new(ReplicaId(number(parts.next())?), number(parts.next())?),
            index: number(parts.next())?,
        };
        if parts.next().is_some() { Err(NoCommandId) } else { Ok(id) }
    }
}

/// The id of a session of numbered requests (law, section 6b), which a command has opened or a source has named.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[rkyv(derive(Clone, Copy))]
pub struct SessionId {
    /// Kind, shard and epoch for an opened session; kind and hash for a named one.
    pub high: u64,
    /// Row, sequence and index for an opened session; hash for a named one.
    pub low: u64,
}

impl SessionId {
    /// The id for requests without a session, such as reads and Opens.
    pub const NONE: SessionId = SessionId { high: 0, low: 0 };

    const OPENED: u64 = 1 << 63;
    const NAMED: u64 = 1 << 62;
    const KEYED: u64 = 1 << 61;

    /// The session that the Open command `id` makes. No two commands share an id, so no session
    /// can be opened twice (S1).
    ///
    /// # Panics
    ///
    /// When the index of the command is 2^16 or more, or the sequence number of its instance 2^40 or more.
    pub fn opened_by(id: CommandId) -> SessionId {
        assert!(id.index < 1 << 16 && id.instance.seq < 1 << 40, "a command id outgrew a session id");
        SessionId {
            high: Self::OPENED | u64::from(id.epoch.0) << 16 | u64::from(id.shard.0),
            low: u64::from(id.instance.row.0) << 56 | id.instance.seq << 16 | u64::from(id.index),
        }
    }

    /// The session of a source that numbers by itself, such as a file or a Kafka partition (S5).
    pub fn named(name: &str) -> SessionId {
        let hash = xxhash_rust::xxh3::xxh3_128(name.as_bytes());
        SessionId { high: Self::NAMED | (hash >> 66) as u64, low: hash as u64 }
    }

    /// The session of the one command that has this idempotency key (S6).
    pub fn keyed(idempotency_key: &[u8]) -> SessionId {
        let hash = xxhash_rust::xxh3::xxh3_128(idempotency_key);
        SessionId { high: Self::KEYED | (hash >> 67) as u64, low: hash as u64 }
    }

    /// Whether the session was opened by a command.
    pub fn is_opened(self) -> bool {
        self.high & Self::OPENED != 0
    }

    /// Whether the session is named by its source.
    pub fn is_named(self) -> bool {
        self.high & Self::NAMED != 0
    }

    /// Whether the session is that of an idempotency key.
    pub fn is_keyed(self) -> bool {
        self.high & !(Self::KEYED - 1) == Self::KEYED
    }

    /// The epoch and the instance of the Open, for an opened session.
    pub fn opened_in(self) -> Option<(Epoch, InstanceId)> {
        let row = ReplicaId((self.low >> 56) as u8);
        let epoch = Epoch((self.high >> 16) as u32);
        self.is_opened().then(|| (epoch, InstanceId::new(row, self.low >> 16 & ((1 << 40) - 1))))
    }

    /// The instance of the Open, for a session that was opened in this epoch.
    pub fn opened_during(self, epoch: Epoch) -> Option<InstanceId> {
        self.opened_in().filter(|(opened, _)| *opened == epoch).map(|(_, open)| open)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{:x}.{:x}", self.high, self.low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballots_are_never_shared_between_replicas_or_rounds() {
        let first = Ballot::ZERO.next_for(ReplicaId(2));
        assert_eq!(first, Ballot { round: 1, replica: ReplicaId(2) });
        assert_eq!(first.next_for(ReplicaId(3)), Ballot { round: 1, replica: ReplicaId(3) });
        assert_eq!(first.next_for(ReplicaId(2)), Ballot { round: 2, replica: ReplicaId(2) });
        assert_eq!(first.next_for(ReplicaId(0)), Ballot { round: 2, replica: ReplicaId(0) });
        assert!(Ballot::ZERO < Ballot::ZERO.next_for(ReplicaId(0)));
    }

    #[test]
    fn a_cluster_is_named_by_its_name_or_its_id() {
        let id = ClusterId::of_name("orders");
        assert_eq!(("orders".parse(), id.to_string().parse()), (Ok(id), Ok(id)));
        assert_eq!("00000000000000000000000000000abc".parse(), Ok(ClusterId(0xabc)));
        for name in ["abc", "+0000000000000000000000000000abc", "0000000000000000000000000000abcx"] {
            assert_eq!(name.parse(), Ok(ClusterId::of_name(name)));
        }
        assert_eq!("".parse::<ClusterId>(), Err(NoCluster));
    }

    #[test]
    fn session_ids_keep_their_kinds_apart() {
        let id = CommandId {
            epoch: Epoch(3),
            shard: ShardId(2),
            instance: InstanceId::new(ReplicaId(1), 77),
            index: 5,
        };
        let opened = SessionId::opened_by(id);
        assert!(opened.is_opened() && !opened.is_named());
        assert_eq!(opened.opened_in(), Some((Epoch(3), id.instance)));
        assert_eq!(opened.opened_during(Epoch(3)), Some(id.instance));
        assert_eq!((opened.opened_during(Epoch(2)), opened.opened_during(Epoch(4))), (None, None));
        let named = SessionId::named("orders.jsonl");
        assert!(named.is_named() && !named.is_opened());
        assert_ne!(named, SessionId::named("orders2.jsonl"));
        let keyed = SessionId::keyed(b"orders.jsonl");
        assert!(keyed.is_keyed() && !keyed.is_named() && !keyed.is_opened());
        let others = (0..64).map(|n| SessionId::named(&n.to_string())).chain([opened, SessionId::NONE]);
        assert_eq!(others.filter(|id| id.is_keyed()).count(), 0);
        assert_eq!(id.to_string(), "3.2.1.77.5");
    }

    #[test]
    fn an_id_of_a_command_is_read_as_it_prints() {
        let instance = InstanceId::new(ReplicaId(1), u64::MAX);
        let id = CommandId { epoch: Epoch(3), shard: ShardId(2), instance, index: 5 };
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "1.2.3.4", "1.2.3.4.5.6", "1.2.3.4.+5", "1.2.300.4.5", "a.2.3.4.5"] {
            assert_eq!(text.parse::<CommandId>(), Err(NoCommandId), "{text}");
        }
    }
}
