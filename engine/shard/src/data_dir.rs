//! The data directory: one process at a time, and for ever the same cluster, replica and shards.

use crate::snapshot::store::sync_dir;
use crate::waiting::{Trouble, is_lack_of_room};
use isonomy_mesh::fatal::{Fatal, Reason};
use isonomy_protocol::admission::{Met, judge};
use isonomy_protocol::contract::Position;
use isonomy_protocol::log::LogId;
use isonomy_protocol::log::chain::Known;
use isonomy_tuning::disk::FileSystem;
use isonomy_tuning::{file_size, files};
use isonomy_wire::id::{ClusterId, ReplicaId, ShardId};
use isonomy_wire::message::Start;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The layout that this release writes.
const FORMAT: u32 = 1;
/// Names that may lie in a directory besides the shards. A directory that is a file system has the last of them.
const OWN_NAMES: [&str; 8] = [
    "identity.json",
    "identity.tmp",
    MEMBERSHIP_FILE,
    "membership.tmp",
    "settings.json",
    "settings.tmp",
    "LOCK",
    "lost+found",
];
/// The file with the newest record of the members, if these are named in etcd.
pub const MEMBERSHIP_FILE: &str = "membership.json";

/// How long a port or the lock of a data directory may stay taken, and the time between two tries.
pub const RESTART_PATIENCE: Duration = Duration::from_secs(15);
/// See [`RESTART_PATIENCE`].
pub const RESTART_RETRY: Duration = Duration::from_millis(20);

/// What the configuration says of a data directory, which the directory must agree with.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Where the directory is.
    pub path: PathBuf,
    /// The name of the cluster.
    pub cluster: String,
    /// The replica that owns the directory.
    pub replica: ReplicaId,
    /// The number of members.
    pub replicas: u8,
    /// The number of shards.
    pub shards: u16,
    /// Whether decisions must outlive a loss of power.
    pub outlives_power: bool,
}

/// The contents of `identity.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    format: u32,
    /// The name of the cluster.
    pub cluster: String,
    /// The backup that its cluster began with, if it was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    /// The replica that owns the directory.
    pub replica: u8,
    /// The number of members.
    pub replicas: u8,
    /// The number of shards.
    pub shards: u16,
    /// Random, made with the directory (G6).
    incarnation: String,
    /// The incarnations of the peers that were met (G6).
    peers: BTreeMap<u8, String>,
    /// All members have confirmed that they never met another directory of this replica.
    formed: bool,
    /// A record that the log of each shard has held: noted when it has begun, and before a snapshot
    /// counts. A log that ends before it has lost records (D6).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    reached: BTreeMap<u16, u64>,
    /// How many processes have taken part with it (G6).
    #[serde(default)]
    starts: u64,
    /// The newest process of each peer that was heard (G6).
    #[serde(default)]
    peer_starts: BTreeMap<u8, MetStart>,
    /// Why a peer has refused it as set back (G6). No process runs with it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    set_back: Option<String>,
}

/// A process of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetStart {
    number: u64,
    nonce: u64,
}

impl Identity {
    /// A cluster that was restored is another one whatever its name. Its members would not agree
    /// with one that began empty or from another backup, so none of these takes part.
    pub fn cluster_id(&self) -> ClusterId {
        match &self.origin {
            Some(origin) => ClusterId::of_name(&format!("{} restored from {origin}", self.cluster)),
            None => ClusterId::of_name(&self.cluster),
        }
    }

    /// The owner of a shard's log.
    pub fn log_id(&self, shard: ShardId) -> Result<LogId, String> {
        let none = || "identity.json names no incarnation".to_owned();
        let incarnation = parse(&self.incarnation).ok_or_else(none)?;
        Ok(LogId { cluster: self.cluster_id(), incarnation, replica: ReplicaId(self.replica), shard })
    }

    /// What it knows of the log of a shard, beside which lies the snapshot of this barrier, or none (0).
    pub fn known(&self, shard: ShardId, snapshot: u64) -> Known {
        let reached = Position(self.reached.get(&shard.0).copied().unwrap_or(0));
        Known { reached, restored: self.origin.is_some(), snapshot }
    }

    fn met(&self, peer: ReplicaId) -> Option<Start> {
        let MetStart { number, nonce } = *self.peer_starts.get(&peer.0)?;
        Some(Start { number, nonce })
    }
}

/// An open data directory. Shards share it for what concerns all of them; nothing on the path of
/// a decision does.
#[derive(Clone, Debug)]
pub struct DataDir(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    cluster: ClusterId,
    incarnation: u128,
    start: Start,
    /// The contents of the file. The lock is held for a moment only, never while a task waits for the disk.
    identity: Mutex<Identity>,
    /// The lock that a writer of the file holds.
    writing: Mutex<()>,
    /// The members that have confirmed so far, and whether all have.
    confirmed: Mutex<BTreeSet<u8>>,
    formed: AtomicBool,
    /// Holds the lock until the process ends.
    _lock: File,
}

impl DataDir {
    /// Opens or makes the directory of the configuration.
    pub fn open(expected: &Expected) -> Result<DataDir, Fatal> {
        let path = expected.path.clone();
        let is_known = known(&path)?.is_some();
        check_others(&path, is_known)?;
        let lock = make(&path)?;
        tell_if_lost(expected);
        let identity = match known(&path)? {
            Some(identity) => identity,
            None => {
                make_shards(expected)?;
                check_fresh(expected, &path)?;
                let identity = new_identity(expected, None);
                save(&path, &identity).map_err(|error| unwritten(&path, error))?;
                identity
            }
        };
        check(expected, &identity).map_err(|what| data_dir(&path, &what))?;
        check_shards(&path, &identity)?;
        let incarnation = parse(&identity.incarnation)
            .ok_or_else(|| data_dir(&path, "identity.json names no incarnation"))?;
        if let Some(why) = &identity.set_back {
            return Err(set_back(&path, why));
        }
        let start = Start { number: identity.starts + 1, nonce: rand::random() };
        let cluster = identity.cluster_id();
        let formed = AtomicBool::new(identity.formed || identity.replicas == 1);
        Ok(DataDir(Arc::new(Inner {
            path,
            cluster,
            incarnation,
            start,
            identity: Mutex::new(identity),
            writing: Mutex::default(),
            confirmed: Mutex::default(),
            formed,
            _lock: lock,
        })))
    }

    /// Makes the directory of the configuration from the backup `origin`: `fill` writes what the
    /// new cluster begins with into the shards' directories. Until all of that is there nobody
    /// takes it for a replica's.
    pub fn restore(
        expected: &Expected,
        origin: &str,
        fill: impl FnOnce(ClusterId) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        let path = &expected.path;
        check_empty(path)?;
        let _lock = make(path)?;
        make_shards(expected)?;
        let identity = new_identity(expected, Some(origin.to_owned()));
        fill(identity.cluster_id())?;
        save(path, &identity).map_err(|error| unwritten(path, error))?;
        sync_dir(&path.join("..")).map_err(|error| data_dir(path, &error.to_string()))
    }

    /// Where the directory is.
    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    /// The cluster that it belongs to.
    pub fn cluster_id(&self) -> ClusterId {
        self.0.cluster
    }

    /// The random number of this directory.
    pub fn incarnation(&self) -> u128 {
        self.0.incarnation
    }

    /// Which process of this directory it is (G6).
    pub fn start(&self) -> Start {
        self.0.start
    }

    /// Where the log of a shard lies.
    pub fn shard_dir(&self, shard: ShardId) -> PathBuf {
        shard_dir(&self.0.path, shard)
    }

    /// G6: whether this replica may vote. An empty directory may not, until every member has said
    /// that it never met another one under this name: else a disk that was wiped would vote as if
    /// nothing had ever been promised.
    pub fn is_formed(&self) -> bool {
        self.0.formed.load(Ordering::Acquire)
    }

    /// G6: a peer accepts this directory, and has noted it.
    pub fn on_accepted(&self, peer: ReplicaId) -> Result<(), Fatal> {
        if self.is_formed() {
            return Ok(());
        }
        let mut confirmed = self.0.confirmed.lock().expect("nobody panics with it");
        confirmed.insert(peer.0);
        let is_formed = confirmed.len() + 1 == usize::from(self.identity().replicas);
        if is_formed
            && self
                .change(|identity| !std::mem::replace(&mut identity.formed, true))
                .map_err(|error| unwritten(&self.0.path, error))?
        {
            self.0.formed.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// G6: whether this process has been counted.
    pub fn is_counted(&self) -> bool {
        self.identity().starts == self.0.start.number
    }

    /// G6: this process is about to say its first word: counted durably before that. One that never takes
    /// part takes no number, so that a directory that was set back does not come nearer to the newest by
    /// being started again. It blocks. False: the disk has no room for that, or the process no open file.
    pub fn count_start(&self) -> Result<bool, Fatal> {
        let number = self.0.start.number;
        self.change_if_it_can_be(|identity| std::mem::replace(&mut identity.starts, number) != number)
    }

    /// G6: the newest process of a peer that was heard.
    pub fn met(&self, peer: ReplicaId) -> Option<Start> {
        self.identity().met(peer)
    }

    /// G6: a process of a peer is about to be heard: noted durably before anything that it says counts,
    /// unless a newer one is by then. It blocks. False: the disk has no room for that, or the process no
    /// open file.
    pub fn note_start(&self, peer: ReplicaId, start: Start) -> Result<bool, Fatal> {
        self.change_if_it_can_be(|identity| {
            let met = Met { start: identity.met(peer), heard: 0 };
            let is_new = met.start != Some(start) && judge(met, start, None).is_ok();
            if is_new {
                let met = MetStart { number: start.number, nonce: start.nonce };
                identity.peer_starts.insert(peer.0, met);
            }
            is_new
        })
    }

    /// G6: a peer has found that this directory was set back. Noted durably, so that every later
    /// start with it ends at once, whoever can be reached then. It blocks.
    pub fn on_set_back(&self, why: &str) -> Fatal {
        let fatal = set_back(&self.0.path, why);
        let noted = self.change(|identity| {
            identity.set_back = Some(why.to_owned());
            true
        });
        match noted {
            Ok(_) => fatal,
            Err(error) => Fatal::new(Reason::Damaged, format!("{fatal}; {}", unwritten(&self.0.path, error))),
        }
    }

    /// Whether a peer may be who it says: the first time its incarnation is noted durably, later
    /// it has to be the same (G6).
    pub fn accept_peer(&self, peer: ReplicaId, incarnation: u128) -> Result<bool, Fatal> {
        if let Some(known) = self.identity().peers.get(&peer.0) {
            return Ok(parse(known) == Some(incarnation));
        }
        let is_new = |identity: &mut Identity| {
            let is_new = !identity.peers.contains_key(&peer.0);
            identity.peers.entry(peer.0).or_insert_with(|| format!("{incarnation:032x}"));
            is_new
        };
        self.change(is_new).map_err(|error| unwritten(&self.0.path, error))?;
        Ok(self.identity().peers.get(&peer.0).is_some_and(|known| parse(known) == Some(incarnation)))
    }

    /// The same check from memory, without waiting for the disk; `None` if memory does not have the answer.
    pub fn knows_peer(&self, peer: ReplicaId, incarnation: u128) -> Option<bool> {
        Some(parse(self.identity().peers.get(&peer.0)?) == Some(incarnation))
    }

    /// D6: what is known of the log of a shard, beside which lies the snapshot of this barrier, or none (0).
    pub fn known(&self, shard: ShardId, snapshot: u64) -> Known {
        self.identity().known(shard, snapshot)
    }

    /// D6: the log of a shard holds this record durably. It blocks until that is noted.
    pub fn note_reached(&self, shard: ShardId, record: Position) -> std::io::Result<()> {
        let rises = |identity: &mut Identity| {
            let reached = identity.reached.entry(shard.0).or_default();
            let rises = *reached < record.0;
            *reached = record.0.max(*reached);
            rises
        };
        self.change(rises).map(|_| ())
    }

    fn identity(&self) -> MutexGuard<'_, Identity> {
        self.0.identity.lock().expect("nobody panics with it")
    }

    /// Changes the contents of the file durably, if `change` returns that it changed them. Returns whether it did. No
    /// reader sees the change before it is durable, and readers do not wait for the disk.
    fn change(&self, change: impl FnOnce(&mut Identity) -> bool) -> std::io::Result<bool> {
        let _writing = self.0.writing.lock().expect("nobody panics with it");
        let mut identity = self.identity().clone();
        let is_changed = change(&mut identity);
        if is_changed {
            save(&self.0.path, &identity)?;
            *self.identity() = identity;
        }
        Ok(is_changed)
    }

    /// The same. False if nothing could be written for want of something that may come again.
    fn change_if_it_can_be(&self, change: impl FnOnce(&mut Identity) -> bool) -> Result<bool, Fatal> {
        match self.change(change) {
            Ok(_) => Ok(true),
            Err(error) if is_lacking(&error) => Ok(false),
            Err(error) => Err(unwritten(&self.0.path, error)),
        }
    }
}

fn is_lacking(error: &std::io::Error) -> bool {
    is_lack_of_room(error.kind()) || files::are_lacking(error)
}

/// The identity of a directory, for commands that only read. A replica may be running in the directory.
pub fn look(path: &Path) -> Result<Identity, Fatal> {
    let none = "the directory has no identity.json, so it does not belong to a replica; check the path";
    let identity = known(path)?.ok_or_else(|| data_dir(path, none))?;
    check_format(&identity).map_err(|what| data_dir(path, &what))?;
    Ok(identity)
}

/// Whether a directory is that of a replica.
pub fn has_identity(path: &Path) -> bool {
    path.join("identity.json").exists()
}

/// Where the log and the snapshots of a shard lie.
pub fn shard_dir(path: &Path, shard: ShardId) -> PathBuf {
    path.join(format!("shard-{:03}", shard.0))
}

/// Makes the directory if it is missing, and keeps other processes out.
fn make(path: &Path) -> Result<File, Fatal> {
    fs::create_dir_all(path).map_err(|error| not_written(path, path, error))?;
    lock(path)
}

/// Makes the directories of the shards, for a directory that is to get its identity.
fn make_shards(expected: &Expected) -> Result<(), Fatal> {
    let path = &expected.path;
    (0..expected.shards)
        .map(|shard| shard_dir(path, ShardId(shard)))
        .try_for_each(|dir| fs::create_dir_all(&dir).map_err(|error| not_written(path, &dir, error)))
}

/// Where there is an identity, there are the directories of all shards: they were durable before it.
pub fn check_shards(path: &Path, identity: &Identity) -> Result<(), Fatal> {
    let mut dirs = (0..identity.shards).map(|shard| shard_dir(path, ShardId(shard)));
    match dirs.find(|dir| !dir.is_dir()) {
        Some(dir) => {
            Err(Fatal::damaged(&dir, "the directory of this shard is missing, and the shard's log with it"))
        }
        None => Ok(()),
    }
}

/// The contents of identity.json, if the file exists.
fn known(path: &Path) -> Result<Option<Identity>, Fatal> {
    match fs::read_to_string(path.join("identity.json")) {
        Ok(text) => {
            let known = serde_json::from_str(&text);
            known.map_err(|error| {
                let what = format!(
                    "identity.json does not read: {error}; if the file is damaged, follow docs/OPERATIONS.md, \
                     \"Lost and damaged replicas\""
                );
                data_dir(path, &what)
            })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let what =
                format!("identity.json cannot be read: {error}; let this user read and write the directory");
            Err(data_dir(path, &what))
        }
    }
}

/// A directory without an identity holds no state either: a replica that took it for a fresh one
/// would vote without knowing what it once promised, or start from half of a backup.
fn check_fresh(expected: &Expected, path: &Path) -> Result<(), Fatal> {
    for shard in 0..expected.shards {
        let mut entries = fs::read_dir(shard_dir(path, ShardId(shard))).map_err(|error| {
            data_dir(path, &format!("a shard's directory cannot be read: {error}; let this user read it"))
        })?;
        if entries.next().is_some() {
            let what = "the directory holds a log or snapshots, but no identity.json. If `isonomy snapshot \
                        restore` was interrupted, empty the directory and restore again. Otherwise keep the \
                        directory for examination and follow docs/OPERATIONS.md, \"Lost and damaged replicas\"";
            return Err(data_dir(path, what));
        }
    }
    Ok(())
}

/// Whether there is nothing that a restore would mix with. A file system of its own comes with a
/// directory for what a check of it finds.
fn check_empty(path: &Path) -> Result<(), Fatal> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let what =
                format!("the directory cannot be read: {error}; name a directory that does not exist yet");
            return Err(data_dir(path, &what));
        }
    };
    for entry in entries {
        let entry = entry.map_err(|error| data_dir(path, &error.to_string()))?;
        if entry.file_name() != "lost+found" {
            let name = entry.file_name().display().to_string();
            let what = format!(
                "the directory is not empty ({name} is in it); name a directory that is empty or does not \
                 exist yet"
            );
            return Err(data_dir(path, &what));
        }
    }
    Ok(())
}

/// A directory is a replica's alone: a path that leads to something else must not get a replica's files,
/// and whatever else lies there takes room and is mistaken for a part of it.
fn check_others(path: &Path, is_known: bool) -> Result<(), Fatal> {
    let Ok(entries) = fs::read_dir(path) else { return Ok(()) };
    let own = |name: &str| OWN_NAMES.contains(&name) || name.starts_with("shard-");
    let names = entries.flatten().map(|entry| entry.file_name().display().to_string());
    let Some(other) = names.filter(|name| !own(name)).min() else { return Ok(()) };
    if is_known {
        let path = path.display();
        log::warn!("data directory {path}: {other} does not belong to a replica; move {other} elsewhere");
        return Ok(());
    }
    let what = format!(
        "the directory holds {other}, which does not belong to a replica; check `data_dir`, and name a \
         directory that is empty"
    );
    Err(data_dir(path, &what))
}

/// Logs a warning if the directory does not keep synced data.
fn tell_if_lost(expected: &Expected) {
    if expected.outlives_power
        && let Some(warning) = in_memory(&expected.path)
    {
        log::warn!("data directory {warning}");
    }
}

/// A warning if synced data of a directory is lost with the machine's power all the same.
pub fn in_memory(dir: &Path) -> Option<String> {
    let warning = "the file system of the directory is in memory (tmpfs) and is lost with the machine's power, \
                   in spite of durability \"fsync\"; use a directory on a disk";
    FileSystem::of(dir).ok()?.is_in_memory().then(|| format!("{}: {warning}", dir.display()))
}

/// Takes the lock. A process that was killed keeps it for a moment, as it does its ports: its rings are
/// taken down after its end, and its last writes before that.
fn lock(path: &Path) -> Result<File, Fatal> {
    let name = path.join("LOCK");
    let file = File::create(&name).map_err(|error| not_written(path, &name, error))?;
    let (began, mut told) = (Instant::now(), false);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if began.elapsed() < RESTART_PATIENCE => {
                if !std::mem::replace(&mut told, true) {
                    let path = path.display();
                    log::info!(
                        "data directory {path}: another process uses the directory; this replica tries again \
                         for {RESTART_PATIENCE:?}"
                    );
                }
                std::thread::sleep(RESTART_RETRY);
            }
            Err(TryLockError::WouldBlock) => {
                let what = "another process uses the directory; stop that process, or give each replica a \
                            directory of its own";
                return Err(data_dir(path, what));
            }
            Err(TryLockError::Error(error)) => return Err(data_dir(path, &error.to_string())),
        }
    }
}

/// The identity of a fresh directory.
fn new_identity(expected: &Expected, origin: Option<String>) -> Identity {
    Identity {
        format: FORMAT,
        cluster: expected.cluster.clone(),
        origin,
        replica: expected.replica.0,
        replicas: expected.replicas,
        shards: expected.shards,
        incarnation: format!("{:032x}", rand::random::<u128>()),
        peers: BTreeMap::new(),
        formed: false,
        reached: BTreeMap::new(),
        starts: 0,
        peer_starts: BTreeMap::new(),
        set_back: None,
    }
}

/// Writes the identity atomically: whatever happens, the file holds either the old or the new identity.
fn save(path: &Path, identity: &Identity) -> std::io::Result<()> {
    let text = serde_json::to_string_pretty(identity).expect("plain data encodes");
    let temporary = path.join("identity.tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path.join("identity.json"))?;
    sync_dir(path)
}

fn unwritten(path: &Path, error: std::io::Error) -> Fatal {
    not_written(path, &path.join("identity.json"), error)
}

/// The reason why a file or directory could not be made: a lack of room, which passes, or a lasting reason.
fn not_written(path: &Path, file: &Path, error: std::io::Error) -> Fatal {
    match Trouble::of_file(file, error) {
        Ok(trouble) => trouble.into(),
        Err(error) => {
            let remedy = file_size::remedy(&error).unwrap_or_else(|| "let this user write there".to_owned());
            data_dir(path, &format!("{} could not be written: {error}; {remedy}", file.display()))
        }
    }
}

fn set_back(path: &Path, why: &str) -> Fatal {
    Fatal::new(Reason::Damaged, format!("data directory {}: {why}", path.display()))
}

fn check_format(Identity { format, .. }: &Identity) -> Result<(), String> {
    if *format != FORMAT {
        return Err(format!(
            "the directory has layout {format}, and this release reads layout {FORMAT}; run the release that \
             made the directory"
        ));
    }
    Ok(())
}

fn check(expected: &Expected, identity: &Identity) -> Result<(), String> {
    check_format(identity)?;
    let Identity { cluster, replica, replicas, shards, .. } = identity;
    if *cluster != expected.cluster {
        let configured = &expected.cluster;
        return Err(format!(
            "the directory belongs to cluster '{cluster}', not '{configured}'; check `data_dir` and `cluster`"
        ));
    }
    if *replica != expected.replica.0 {
        let configured = expected.replica;
        return Err(format!(
            "the directory belongs to replica {replica}, not {configured}; check `data_dir` and `replica`"
        ));
    }
    if *replicas != expected.replicas {
        let configured = expected.replicas;
        return Err(format!(
            "the cluster of the directory has {replicas} members, not {configured}; configure {replicas} \
             members, since members cannot be changed yet"
        ));
    }
    if *shards != expected.shards {
        let configured = expected.shards;
        return Err(format!(
            "the cluster of the directory has {shards} shards, not {configured}; configure {shards} shards, \
             since their number is fixed for a cluster's life"
        ));
    }
    Ok(())
}

fn parse(incarnation: &str) -> Option<u128> {
    u128::from_str_radix(incarnation, 16).ok()
}

fn data_dir(path: &Path, what: &str) -> Fatal {
    Fatal::new(Reason::DataDir, format!("data directory {}: {what}", path.display()))
}

#[cfg(test)]
mod tests;
