//! The data directory: one process at a time, and for ever the same cluster, replica and shards.

mod epoch;
mod identity;

pub(crate) use epoch::Before;
pub use epoch::{Claim, EpochDir};
pub use identity::{Identity, Part};

use crate::snapshot::store::sync_dir;
use crate::waiting::{Trouble, is_lack_of_room};
use identity::{load, parse, save, unwritten};
use isonomy_mesh::Roster;
use isonomy_mesh::fatal::{Fatal, Reason};
use isonomy_tuning::disk::FileSystem;
use isonomy_tuning::{file_size, files};
use isonomy_wire::id::{ClusterId, Epoch, ReplicaId, ShardId};
use isonomy_wire::message::Start;
use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

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
    /// The id of the cluster, for a new member of a cluster that runs. A restored cluster has another id than its name
    /// gives, and whoever learns the state from its members belongs to it.
    pub cluster_id: Option<ClusterId>,
    /// The number of the member that owns the directory.
    pub member: u8,
    /// The number of shards.
    pub shards: u16,
    /// Whether decisions must outlive a loss of power.
    pub outlives_power: bool,
}

/// What the cluster of a backup was when the backup was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Began {
    /// The epoch of its state.
    pub epoch: Epoch,
    /// The number of members.
    pub replicas: u8,
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
        let is_known = load(&path)?.is_some();
        check_others(&path, is_known)?;
        let lock = make(&path)?;
        tell_if_lost(expected);
        let identity = match load(&path)? {
            Some(identity) => identity,
            None => {
                make_shards(expected)?;
                check_fresh(expected, &path)?;
                let identity = Identity::new(expected, None);
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
        let formed = AtomicBool::new(identity.formed);
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
    /// takes it for a replica's. The new cluster goes on in the epoch of the backup, with as many members.
    pub fn restore(
        expected: &Expected,
        origin: &str,
        began: Began,
        fill: impl FnOnce(ClusterId) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        let path = &expected.path;
        check_empty(path)?;
        let _lock = make(path)?;
        make_shards(expected)?;
        make_logs(path, expected.shards, began.epoch)?;
        let mut identity = Identity::new(expected, Some(origin.to_owned()));
        identity.begin_restored(began.epoch, began.replicas);
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

    /// The newest epoch that the replica has entered; none before the first start.
    pub fn newest_epoch(&self) -> Option<Epoch> {
        self.identity().newest().map(|(epoch, _)| epoch)
    }

    /// Notes durably that the replica takes part in the epoch of a roster, and makes the directories of the logs. It
    /// blocks.
    ///
    /// # Errors
    ///
    /// The replica has entered a later epoch or another record, or nothing can be written.
    pub fn enter(&self, roster: &Roster) -> Result<EpochDir, Fatal> {
        let _writing = self.0.writing.lock().expect("nobody panics with it");
        let mut identity = self.identity().clone();
        let is_changed =
            identity.enter(roster).map_err(|misfit| data_dir(&self.0.path, &misfit.to_string()))?;
        // The logs' directories before the identity: where the epoch is known, its logs are.
        if is_changed {
            make_logs(&self.0.path, identity.shards, roster.epoch)?;
            save(&self.0.path, &identity).map_err(|error| unwritten(&self.0.path, error))?;
        }
        self.0.formed.store(identity.formed || roster.members == 1, Ordering::Release);
        *self.identity() = identity;
        Ok(EpochDir::new(self.clone(), roster.epoch))
    }

    /// Its part in an epoch that the replica has entered.
    pub(crate) fn at(&self, epoch: Epoch) -> EpochDir {
        EpochDir::new(self.clone(), epoch)
    }

    /// Where the epochs of a shard lie.
    pub(crate) fn shard_dir(&self, shard: ShardId) -> PathBuf {
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
        let members = self.identity().newest().map_or(0, |(_, part)| part.replicas);
        let is_formed = confirmed.len() + 1 == usize::from(members);
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
    load(path)?.ok_or_else(|| data_dir(path, none))
}

/// The random number of the directory of a replica; none if there is none yet, or none that reads, which is reported
/// when the directory is opened.
pub fn known_incarnation(path: &Path) -> Option<u128> {
    parse(&load(path).ok()??.incarnation)
}

/// Where the epochs of a shard lie.
pub fn shard_dir(path: &Path, shard: ShardId) -> PathBuf {
    path.join(format!("shard-{:03}", shard.0))
}

/// Where the log and the snapshots of a shard lie in an epoch.
pub fn epoch_dir(path: &Path, shard: ShardId, epoch: Epoch) -> PathBuf {
    shard_dir(path, shard).join(format!("epoch-{:06}", epoch.0))
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

/// Makes the directories of the logs of an epoch, durably.
fn make_logs(path: &Path, shards: u16, epoch: Epoch) -> Result<(), Fatal> {
    for shard in (0..shards).map(ShardId) {
        let (dir, above) = (epoch_dir(path, shard, epoch), shard_dir(path, shard));
        let made = fs::create_dir_all(&dir).and_then(|()| sync_dir(&above));
        made.map_err(|error| not_written(path, &dir, error))?;
    }
    Ok(())
}

/// Where there is an identity, there are the directories of all shards: they were durable before it. The same is true
/// of the logs of the newest epoch.
pub fn check_shards(path: &Path, identity: &Identity) -> Result<(), Fatal> {
    let dir = |shard| match identity.newest() {
        Some((epoch, _)) => epoch_dir(path, ShardId(shard), epoch),
        None => shard_dir(path, ShardId(shard)),
    };
    let mut dirs = (0..identity.shards).map(dir);
    match dirs.find(|dir| !dir.is_dir()) {
        Some(dir) => {
            Err(Fatal::damaged(&dir, "the directory of this shard is missing, and the shard's log with it"))
        }
        None => Ok(()),
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

fn check(expected: &Expected, identity: &Identity) -> Result<(), String> {
    let Identity { cluster, member, shards, .. } = identity;
    if *cluster != expected.cluster {
        let configured = &expected.cluster;
        return Err(format!(
            "the directory belongs to cluster '{cluster}', not '{configured}'; check `data_dir` and `cluster`"
        ));
    }
    if *member != expected.member {
        let configured = expected.member;
        return Err(format!(
            "the directory belongs to replica {member}, not {configured}; check `data_dir` and `replica`"
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

fn data_dir(path: &Path, what: &str) -> Fatal {
    Fatal::new(Reason::DataDir, format!("data directory {}: {what}", path.display()))
}

#[cfg(test)]
mod tests;
