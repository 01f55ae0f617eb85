//! A data directory as the replica of an epoch sees it.

use super::identity::{Identity, MetStart, Part, parse, unwritten};
use super::{DataDir, epoch_dir, shard_dir};
use crate::snapshot::store::sync_dir;
use isonomy_mesh::fatal::Fatal;
use isonomy_protocol::admission::{Met, judge};
use isonomy_protocol::contract::Position;
use isonomy_protocol::log::LogId;
use isonomy_protocol::log::chain::Known;
use isonomy_wire::id::{Epoch, ReplicaId, ShardId};
use isonomy_wire::message::Start;
use std::fs;
use std::ops::Deref;
use std::path::PathBuf;

/// A data directory, and what it holds of one epoch.
#[derive(Clone, Debug)]
pub struct EpochDir {
    dir: DataDir,
    epoch: Epoch,
}

impl Deref for EpochDir {
    type Target = DataDir;

    fn deref(&self) -> &DataDir {
        &self.dir
    }
}

impl EpochDir {
    pub(super) fn new(dir: DataDir, epoch: Epoch) -> EpochDir {
        EpochDir { dir, epoch }
    }

    /// The owner of a shard's log.
    pub(crate) fn log_id(&self, shard: ShardId) -> LogId {
        self.identity().log_id(self.epoch, shard).expect("the epoch was entered")
    }

    /// Where the log of a shard lies.
    pub(crate) fn log_dir(&self, shard: ShardId) -> PathBuf {
        epoch_dir(self.path(), shard, self.epoch)
    }

    /// The owner of a shard's log in the epoch before, the number of the members, and where it lies, if it is
    /// remembered.
    pub(crate) fn before(&self, shard: ShardId) -> Option<Before> {
        let identity = self.identity();
        let epoch = Epoch(self.epoch.0 - 1);
        let members = identity.part(epoch)?.replicas;
        let log = identity.log_id(epoch, shard).ok()?;
        let known = identity.known(epoch, shard, 0);
        Some(Before { log, members, known, dir: epoch_dir(self.path(), shard, epoch) })
    }

    /// Removes what lies of a shard's earlier epochs. The state has a snapshot in this epoch, or came without any.
    pub(crate) fn remove_earlier(&self, shard: ShardId) -> std::io::Result<()> {
        let dir = shard_dir(self.path(), shard);
        let mut is_changed = false;
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let epoch = path.file_name().and_then(|name| name.to_str()?.strip_prefix("epoch-")?.parse().ok());
            if epoch.is_some_and(|epoch: u32| epoch < self.epoch.0) {
                fs::remove_dir_all(&path)?;
                is_changed = true;
            }
        }
        if is_changed { sync_dir(&dir) } else { Ok(()) }
    }

    /// G6: the newest process of a peer that was heard.
    pub fn met(&self, peer: ReplicaId) -> Option<Start> {
        self.identity().met(self.epoch, peer)
    }

    /// G6: a process of a peer is about to be heard: noted durably before anything that it says counts,
    /// unless a newer one is by then. It blocks. False: the disk has no room for that, or the process no
    /// open file.
    pub fn note_start(&self, peer: ReplicaId, start: Start) -> Result<bool, Fatal> {
        self.change_if_it_can_be(|identity| {
            let met = Met { start: identity.met(self.epoch, peer), heard: 0 };
            let Some(directory) = self.part_of(identity).peers.get(&peer.0).cloned() else { return false };
            let is_new = met.start != Some(start) && judge(met, start, None).is_ok();
            if is_new {
                let met = MetStart { number: start.number, nonce: start.nonce };
                identity.peer_starts.insert(directory, met);
            }
            is_new
        })
    }

    /// Whether a peer may be who it says: the first time its incarnation is noted durably, later it has to be the same
    /// (G6), unless the record names it, as it does when another learner has its place. It blocks.
    pub fn accept_peer(&self, peer: ReplicaId, claim: Claim) -> Result<bool, Fatal> {
        if let Some(known) = self.knows_peer(peer, claim) {
            return Ok(known);
        }
        let is_new = |identity: &mut Identity| {
            let is_new = knows(identity.part(self.epoch), peer, claim).is_none();
            if is_new {
                self.part_of(identity).peers.insert(peer.0, format!("{:032x}", claim.incarnation));
            }
            is_new
        };
        self.change(is_new).map_err(|error| unwritten(self.path(), error))?;
        Ok(self.knows_peer(peer, claim) == Some(true))
    }

    /// The same check from memory, without waiting for the disk; `None` if memory does not have the answer.
    pub fn knows_peer(&self, peer: ReplicaId, claim: Claim) -> Option<bool> {
        knows(self.identity().part(self.epoch), peer, claim)
    }

    /// D6: what is known of the log of a shard, beside which lies the snapshot of this barrier, or none (0).
    pub fn known(&self, shard: ShardId, snapshot: u64) -> Known {
        self.identity().known(self.epoch, shard, snapshot)
    }

    /// D6: the log of a shard holds this record durably. It blocks until that is noted.
    pub fn note_reached(&self, shard: ShardId, record: Position) -> std::io::Result<()> {
        let rises = |identity: &mut Identity| {
            let reached = self.part_of(identity).reached.entry(shard.0).or_default();
            let rises = *reached < record.0;
            *reached = record.0.max(*reached);
            rises
        };
        self.change(rises).map(|_| ())
    }

    fn part_of<'a>(&self, identity: &'a mut Identity) -> &'a mut Part {
        identity.epochs.get_mut(&self.epoch.0).expect("the epoch was entered")
    }
}

/// What a peer says of its data directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The incarnation of the directory.
    pub incarnation: u128,
    /// Whether the record of the epoch names this incarnation.
    pub is_named: bool,
}

fn knows(part: Option<&Part>, peer: ReplicaId, claim: Claim) -> Option<bool> {
    let is_it = parse(part?.peers.get(&peer.0)?) == Some(claim.incarnation);
    if is_it || !claim.is_named { Some(is_it) } else { None }
}

/// The log of a shard in the epoch before.
#[derive(Debug)]
pub(crate) struct Before {
    /// Its owner.
    pub(crate) log: LogId,
    /// The number of members.
    pub(crate) members: u8,
    /// What is known of it.
    pub(crate) known: Known,
    /// Where it lies.
    pub(crate) dir: PathBuf,
}
