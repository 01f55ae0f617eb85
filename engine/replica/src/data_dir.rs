//! The data directory: one process at a time, and for ever the same cluster, replica and shards.

use crate::config::Config;
use crate::fatal::{Fatal, Reason};
use isonomy_wire::id::{ReplicaId, ShardId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The layout that this release writes.
const FORMAT: u32 = 1;

/// What `identity.json` says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    format: u32,
    cluster: String,
    replica: u8,
    replicas: u8,
    shards: u16,
    /// Random, made with the directory (G6).
    incarnation: String,
    /// The incarnations of the peers that were met (G6).
    peers: BTreeMap<u8, String>,
    /// All members have confirmed that they never met another directory of this replica.
    formed: bool,
}

/// An open data directory. Shards share it for what concerns all of them; nothing on the path of
/// a decision does.
#[derive(Clone, Debug)]
pub(crate) struct DataDir(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    incarnation: u128,
    identity: Mutex<Identity>,
    /// Who has confirmed so far, and whether all have.
    confirmed: Mutex<BTreeSet<u8>>,
    formed: AtomicBool,
    /// Holds the lock until the process ends.
    _lock: File,
}

impl DataDir {
    /// Opens or makes the directory of the configuration.
    pub(crate) fn open(config: &Config) -> Result<DataDir, Fatal> {
        let path = config.data_dir.clone();
        let failed = |error: std::io::Error| data_dir(&path, &format!("{error}; it must be writable"));
        for shard in 0..config.shards {
            fs::create_dir_all(shard_dir(&path, ShardId(shard))).map_err(failed)?;
        }
        let lock = lock(&path)?;
        let identity = match fs::read_to_string(path.join("identity.json")) {
            Ok(text) => {
                let known = serde_json::from_str(&text);
                known.map_err(|error| data_dir(&path, &format!("identity.json does not read: {error}")))?
            }
            Err(error) if error.kind() == ErrorKind::NotFound => found(config, &path)?,
            Err(error) => return Err(failed(error)),
        };
        check(config, &identity).map_err(|what| data_dir(&path, &what))?;
        let incarnation = parse(&identity.incarnation)
            .ok_or_else(|| data_dir(&path, "identity.json names no incarnation"))?;
        let formed = AtomicBool::new(identity.formed || identity.replicas == 1);
        let (identity, confirmed) = (Mutex::new(identity), Mutex::default());
        Ok(DataDir(Arc::new(Inner { path, incarnation, identity, confirmed, formed, _lock: lock })))
    }

    /// The random number of this directory.
    pub(crate) fn incarnation(&self) -> u128 {
        self.0.incarnation
    }

    /// Where the log of a shard lies.
    pub(crate) fn shard_dir(&self, shard: ShardId) -> PathBuf {
        shard_dir(&self.0.path, shard)
    }

    /// G6: whether this replica may vote. An empty directory may not, until every member has said
    /// that it never met another one under this name: else a disk that was wiped would vote as if
    /// nothing had ever been promised.
    pub(crate) fn is_formed(&self) -> bool {
        self.0.formed.load(Ordering::Acquire)
    }

    /// G6: a peer accepts this directory, and has noted it.
    pub(crate) fn on_accepted(&self, peer: ReplicaId) -> Result<(), Fatal> {
        if self.is_formed() {
            return Ok(());
        }
        let mut confirmed = self.0.confirmed.lock().expect("nobody panics with it");
        confirmed.insert(peer.0);
        let mut identity = self.0.identity.lock().expect("nobody panics with it");
        if confirmed.len() + 1 == usize::from(identity.replicas) && !identity.formed {
            identity.formed = true;
            write(&self.0.path, &identity)?;
            self.0.formed.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Whether a peer may be who it says: the first time its incarnation is noted durably, later
    /// it has to be the same (G6).
    pub(crate) fn accept_peer(&self, peer: ReplicaId, incarnation: u128) -> Result<bool, Fatal> {
        let mut identity = self.0.identity.lock().expect("nobody panics with it");
        match identity.peers.get(&peer.0) {
            Some(known) => Ok(parse(known) == Some(incarnation)),
            None => {
                identity.peers.insert(peer.0, format!("{incarnation:032x}"));
                write(&self.0.path, &identity)?;
                Ok(true)
            }
        }
    }
}

fn shard_dir(path: &Path, shard: ShardId) -> PathBuf {
    path.join(format!("shard-{:03}", shard.0))
}

fn lock(path: &Path) -> Result<File, Fatal> {
    let file = File::create(path.join("LOCK")).map_err(|error| data_dir(path, &error.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(data_dir(
            path,
            "another process uses it; stop that one, or give each replica a directory of its own",
        )),
        Err(TryLockError::Error(error)) => Err(data_dir(path, &error.to_string())),
    }
}

/// A fresh directory becomes that of this replica.
fn found(config: &Config, path: &Path) -> Result<Identity, Fatal> {
    let identity = Identity {
        format: FORMAT,
        cluster: config.cluster.clone(),
        replica: config.replica.0,
        replicas: config.members.len() as u8,
        shards: config.shards,
        incarnation: format!("{:032x}", rand::random::<u128>()),
        peers: BTreeMap::new(),
        formed: false,
    };
    write(path, &identity)?;
    Ok(identity)
}

/// Writes the identity so that it is either the old or the new one, whatever happens.
fn write(path: &Path, identity: &Identity) -> Result<(), Fatal> {
    let text = serde_json::to_string_pretty(identity).expect("plain data encodes");
    let save = || {
        let temporary = path.join("identity.tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path.join("identity.json"))?;
        File::open(path)?.sync_all()
    };
    save().map_err(|error| data_dir(path, &format!("identity.json was not written: {error}")))
}

fn check(config: &Config, identity: &Identity) -> Result<(), String> {
    let Identity { format, cluster, replica, replicas, shards, .. } = identity;
    if *format != FORMAT {
        return Err(format!(
            "it has layout {format}, this release reads {FORMAT}; run the release that made it"
        ));
    }
    if *cluster != config.cluster {
        let configured = &config.cluster;
        return Err(format!("it belongs to cluster '{cluster}', not '{configured}'; check `data_dir`"));
    }
    if *replica != config.replica.0 {
        let configured = config.replica;
        return Err(format!(
            "it belongs to replica {replica}, not {configured}; check `data_dir` and `replica`"
        ));
    }
    if usize::from(*replicas) != config.members.len() {
        let configured = config.members.len();
        return Err(format!(
            "its cluster has {replicas} members, not {configured}; members cannot be changed yet"
        ));
    }
    if *shards != config.shards {
        let configured = config.shards;
        return Err(format!(
            "its cluster has {shards} shards, not {configured}; shards are fixed for a cluster's life"
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
mod tests {
    use super::*;
    use crate::config::{Durability, MemberConfig};

    fn config(path: &Path) -> Config {
        let member =
            |n: u16| MemberConfig { host: "127.0.0.1".into(), peer_base: 7100 + n, client_base: 7200 + n };
        Config {
            cluster: "test".into(),
            replica: ReplicaId(0),
            shards: 2,
            data_dir: path.join("data"),
            durability: Durability::Fsync,
            cores: Vec::new(),
            listen: "127.0.0.1".into(),
            connections_max: 8,
            log_budget: 1 << 30,
            members: (0..3).map(member).collect(),
        }
    }

    #[test]
    fn a_directory_keeps_its_identity_and_its_peers() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let first = DataDir::open(&config).unwrap();
        assert!(first.accept_peer(ReplicaId(1), 5).unwrap());
        let incarnation = first.incarnation();
        drop(first);
        let again = DataDir::open(&config).unwrap();
        assert_eq!(again.incarnation(), incarnation);
        assert!(again.accept_peer(ReplicaId(1), 5).unwrap());
        assert!(!again.accept_peer(ReplicaId(1), 6).unwrap(), "a wiped peer comes back as a stranger");
    }

    #[test]
    fn g6_an_empty_directory_votes_once_all_members_have_accepted_it() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let first = DataDir::open(&config).unwrap();
        first.on_accepted(ReplicaId(1)).unwrap();
        first.on_accepted(ReplicaId(1)).unwrap();
        assert!(!first.is_formed());
        drop(first);
        let again = DataDir::open(&config).unwrap();
        again.on_accepted(ReplicaId(2)).unwrap();
        assert!(!again.is_formed(), "each start asks all");
        again.on_accepted(ReplicaId(1)).unwrap();
        assert!(again.is_formed());
        drop(again);
        assert!(DataDir::open(&config).unwrap().is_formed());
    }

    #[test]
    fn it_is_refused_to_anyone_else() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let open = DataDir::open(&config).unwrap();
        let refused = |config: &Config| {
            let fatal = DataDir::open(config).unwrap_err();
            assert_eq!(fatal.reason, Reason::DataDir);
            fatal.to_string()
        };
        assert!(refused(&config).contains("another process"));
        drop(open);
        assert!(refused(&Config { cluster: "other".into(), ..config.clone() }).contains("'test'"));
        assert!(refused(&Config { replica: ReplicaId(1), ..config.clone() }).contains("replica 0"));
        assert!(refused(&Config { shards: 3, ..config.clone() }).contains("2 shards"));
    }
}
