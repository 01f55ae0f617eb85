//! The contents of `identity.json`.

use super::{data_dir, not_written, sync_dir};
use isonomy_mesh::Roster;
use isonomy_mesh::fatal::Fatal;
use isonomy_protocol::contract::Position;
use isonomy_protocol::log::LogId;
use isonomy_protocol::log::chain::Known;
use isonomy_wire::id::{ClusterId, Epoch, RecordId, ReplicaId, ShardId};
use isonomy_wire::message::Start;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

/// The layout that this release writes.
const FORMAT: u32 = 2;
/// How many epochs a directory remembers: the one in which its replica takes part, and the one from which the state
/// comes.
const PARTS_MAX: usize = 2;

/// Who the directory belongs to, and what its replica must remember besides its logs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    format: u32,
    /// The name of the cluster.
    pub cluster: String,
    /// The backup that its cluster began with, if it was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    /// The id of the cluster that its replica has joined, in hexadecimal digits, if the name gives another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    joined: Option<String>,
    /// The number of the member that owns the directory.
    pub member: u8,
    /// The number of shards.
    pub shards: u16,
    /// Random, made with the directory (G6).
    pub(super) incarnation: String,
    /// All members have confirmed that they never met another directory of this replica, or the record of its epoch
    /// names it.
    pub(super) formed: bool,
    /// How many processes have taken part with it (G6).
    pub(super) starts: u64,
    /// The newest process of each peer that was heard, by the peer's directory (G6).
    pub(super) peer_starts: BTreeMap<String, MetStart>,
    /// Its part in each epoch that matters.
    pub(super) epochs: BTreeMap<u32, Part>,
    /// Why a peer has refused it as set back (G6). No process runs with it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) set_back: Option<String>,
}

/// The part of a directory in an epoch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The record that the replica has entered, in hexadecimal digits; none before a restored replica has started.
    record: Option<String>,
    /// The place of the replica.
    pub replica: u8,
    /// The number of members.
    pub replicas: u8,
    /// Whether its logs began with the snapshots of a backup.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_restored: bool,
    /// The incarnations of the peers that were met, by their places (G6).
    pub(super) peers: BTreeMap<u8, String>,
    /// A record that the log of each shard has held: noted when it has begun, and before a snapshot
    /// counts. A log that ends before it has lost records (D6).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) reached: BTreeMap<u16, u64>,
}

impl Part {
    fn new(record: Option<String>, replica: ReplicaId, replicas: u8) -> Part {
        let (peers, reached) = (BTreeMap::new(), BTreeMap::new());
        Part { record, replica: replica.0, replicas, is_restored: false, peers, reached }
    }
}

/// A process of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetStart {
    pub(super) number: u64,
    pub(super) nonce: u64,
}

/// Why a directory does not enter an epoch.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Misfit {
    #[error(
        "the replica has entered epoch {known}, and is told to enter epoch {there}: etcd was restored from an old backup, \
         or the prefix is that of another cluster; put back etcd's newest state, or name the epoch of the backup if the \
         cluster was restored (`isonomy member init --epoch {known}`)"
    )]
    Backwards { known: u32, there: u32 },
    #[error(
        "the replica has entered the record {known} of epoch {epoch}, and is told to enter the record {there}: etcd was \
         restored from an old backup, or the members were named in another way before; put back etcd's newest state"
    )]
    OtherRecord { epoch: u32, known: String, there: String },
    #[error(
        "the cluster of the directory has {known} members, not {there}; configure {known} members, since only members \
         that are named in etcd can be changed (docs/MEMBERSHIP.md)"
    )]
    Members { known: u8, there: u8 },
    #[error("the directory belongs to replica {known}, not {there}; check `data_dir` and `replica`")]
    Replica { known: u8, there: u8 },
}

impl Identity {
    /// The identity of a fresh directory.
    pub(super) fn new(expected: &super::Expected, origin: Option<String>) -> Identity {
        let named = ClusterId::of_name(&expected.cluster);
        let joined = expected.cluster_id.filter(|id| *id != named && origin.is_none());
        Identity {
            format: FORMAT,
            cluster: expected.cluster.clone(),
            origin,
            joined: joined.map(|id| id.to_string()),
            member: expected.member,
            shards: expected.shards,
            incarnation: format!("{:032x}", rand::random::<u128>()),
            formed: false,
            starts: 0,
            peer_starts: BTreeMap::new(),
            epochs: BTreeMap::new(),
            set_back: None,
        }
    }

    /// A cluster that was restored is another one whatever its name. Its members would not agree
    /// with one that began empty or from another backup, so none of these takes part.
    pub fn cluster_id(&self) -> ClusterId {
        let joined = self.joined.as_deref().and_then(parse).map(ClusterId);
        joined.unwrap_or_else(|| match &self.origin {
            Some(origin) => ClusterId::of_name(&format!("{} restored from {origin}", self.cluster)),
            None => ClusterId::of_name(&self.cluster),
        })
    }

    /// The newest epoch that the replica has entered, and its part there. None before the first start.
    pub fn newest(&self) -> Option<(Epoch, &Part)> {
        self.epochs.last_key_value().map(|(epoch, part)| (Epoch(*epoch), part))
    }

    /// Its part in an epoch, if it remembers that.
    pub fn part(&self, epoch: Epoch) -> Option<&Part> {
        self.epochs.get(&epoch.0)
    }

    /// The owner of a shard's log in an epoch.
    pub fn log_id(&self, epoch: Epoch, shard: ShardId) -> Result<LogId, String> {
        let incarnation =
            parse(&self.incarnation).ok_or_else(|| "identity.json names no incarnation".to_owned())?;
        let part =
            self.part(epoch).ok_or_else(|| format!("identity.json does not know epoch {}", epoch.0))?;
        Ok(LogId { cluster: self.cluster_id(), incarnation, replica: ReplicaId(part.replica), epoch, shard })
    }

    /// What it knows of the log of a shard, beside which lies the snapshot of this barrier, or none (0).
    pub fn known(&self, epoch: Epoch, shard: ShardId, snapshot: u64) -> Known {
        let part = self.part(epoch);
        let reached = part.and_then(|part| part.reached.get(&shard.0).copied()).unwrap_or(0);
        Known { reached: Position(reached), restored: part.is_some_and(|part| part.is_restored), snapshot }
    }

    /// Notes the part that a restored directory begins with.
    pub(super) fn begin_restored(&mut self, epoch: Epoch, replicas: u8) {
        let part = Part { is_restored: true, ..Part::new(None, ReplicaId(self.member), replicas) };
        self.epochs.insert(epoch.0, part);
    }

    /// Notes the part in the epoch of a roster, in which the replica takes part from here on. Returns whether anything
    /// has changed.
    pub(super) fn enter(&mut self, roster: &Roster) -> Result<bool, Misfit> {
        let own = roster.own.expect("only who has a place enters").0;
        let (epoch, there) = (roster.epoch.0, hex(roster.record));
        if let Some((known, _)) = self.epochs.last_key_value()
            && *known > epoch
        {
            return Err(Misfit::Backwards { known: *known, there: epoch });
        }
        // The record names the directory, so no peer has to confirm that it is new.
        let is_named = roster.places[usize::from(own)].incarnation == parse(&self.incarnation);
        let forms = is_named && !self.formed && (own >= roster.members || epoch > 1);
        self.formed |= forms;
        match self.epochs.get_mut(&epoch) {
            Some(part) => {
                if let Some(known) = part.record.clone().filter(|known| *known != there) {
                    return Err(Misfit::OtherRecord { epoch, known, there });
                }
                if part.replicas != roster.members {
                    return Err(Misfit::Members { known: part.replicas, there: roster.members });
                }
                // A learner may get another place when another change is announced.
                let is_learner = |place: u8| place >= roster.members;
                if part.replica != own && !(is_learner(part.replica) && is_learner(own)) {
                    return Err(Misfit::Replica { known: part.replica, there: own });
                }
                Ok(part.record.replace(there).is_none() || forms)
            }
            None => {
                self.epochs.insert(epoch, Part::new(Some(there), ReplicaId(own), roster.members));
                while self.epochs.len() > PARTS_MAX {
                    self.epochs.pop_first();
                }
                Ok(true)
            }
        }
    }

    pub(super) fn met(&self, epoch: Epoch, peer: ReplicaId) -> Option<Start> {
        let incarnation = self.part(epoch)?.peers.get(&peer.0)?;
        let MetStart { number, nonce } = *self.peer_starts.get(incarnation)?;
        Some(Start { number, nonce })
    }
}

fn other_format(format: u32) -> String {
    format!(
        "the directory has layout {format}, and this release reads layout {FORMAT}; run the release that made the \
         directory"
    )
}

fn hex(record: RecordId) -> String {
    format!("{:032x}", record.0)
}

pub(super) fn parse(incarnation: &str) -> Option<u128> {
    u128::from_str_radix(incarnation, 16).ok()
}

/// Only the layout, which is read before anything else.
#[derive(Deserialize)]
struct Layout {
    format: u32,
}

/// The contents of identity.json, if the file exists.
pub(super) fn load(path: &Path) -> Result<Option<Identity>, Fatal> {
    match fs::read_to_string(path.join("identity.json")) {
        Ok(text) => read(&text).map(Some).map_err(|what| data_dir(path, &what)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let what =
                format!("identity.json cannot be read: {error}; let this user read and write the directory");
            Err(data_dir(path, &what))
        }
    }
}

fn read(text: &str) -> Result<Identity, String> {
    if let Ok(Layout { format }) = serde_json::from_str(text)
        && format != FORMAT
    {
        return Err(other_format(format));
    }
    serde_json::from_str(text).map_err(|error| {
        format!(
            "identity.json does not read: {error}; if the file is damaged, follow docs/OPERATIONS.md, \
             \"Lost and damaged replicas\""
        )
    })
}

/// Writes the identity atomically: whatever happens, the file holds either the old or the new identity.
pub(super) fn save(path: &Path, identity: &Identity) -> std::io::Result<()> {
    let text = serde_json::to_string_pretty(identity).expect("plain data encodes");
    let temporary = path.join("identity.tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path.join("identity.json"))?;
    sync_dir(path)
}

pub(super) fn unwritten(path: &Path, error: std::io::Error) -> Fatal {
    not_written(path, &path.join("identity.json"), error)
}
