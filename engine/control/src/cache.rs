//! The newest record that a replica has followed, in a file, so that it can start while etcd is down and notice an etcd
//! that was set back.

use crate::bad::BadRecord;
use crate::record::{RECORD_BYTES_MAX, Record};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It cannot be read or written.
    #[error("{path}: {error}; the record that the replica follows must be kept there: make room, and let this user \
             write", path = .0.display(), error = .1)]
    Io(PathBuf, std::io::Error),
    /// It is no record of this cluster.
    #[error("{path}: {error}. Only if etcd answers and was never restored from a backup, remove the file: the record in etcd \
             is then followed as it is", path = .0.display(), error = .1)]
    Bad(PathBuf, BadRecord),
}

/// The file of one replica. Nobody else writes it.
#[derive(Clone, Debug)]
pub(crate) struct Cache(PathBuf);

impl Cache {
    pub(crate) fn new(path: &Path) -> Cache {
        Cache(path.into())
    }

    /// The record in the file, if there is one.
    pub(crate) fn load(&self, cluster: &str) -> Result<Option<Record>, CacheError> {
        let file = match File::open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io(error)),
        };
        let mut bytes = Vec::new();
        file.take(RECORD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| self.io(error))?;
        Record::parse(&bytes, cluster).map(Some).map_err(|why| CacheError::Bad(self.0.clone(), why))
    }

    /// Puts a record into the file. When this returns, a loss of power leaves the file with it; before, with the one
    /// that was there.
    pub(crate) fn keep(&self, record: &Record) -> Result<(), CacheError> {
        write_whole(&self.0, &record.to_json()).map_err(|error| self.io(error))
    }

    fn io(&self, error: std::io::Error) -> CacheError {
        CacheError::Io(self.0.clone(), error)
    }
}

/// Writes a file that is there as a whole or as it was before, also after a loss of power.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let unfinished = path.with_extension("tmp");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::record;

    #[test]
    fn the_newest_record_is_kept_and_found() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(&dir.path().join("membership.json"));
        assert!(cache.load("orders").unwrap().is_none());
        for n in [3, 5] {
            cache.keep(&record(n)).unwrap();
            assert_eq!(cache.load("orders").unwrap(), Some(record(n)));
        }
        let names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, ["membership.json"], "nothing else is left");
        assert!(matches!(cache.load("bids"), Err(CacheError::Bad(_, BadRecord::OtherCluster { .. }))));
    }

    #[test]
    fn a_file_that_is_no_record_is_no_missing_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("membership.json");
        for bytes in ["", "{", "{\"version\":2}"] {
            std::fs::write(&path, bytes).unwrap();
            assert!(matches!(Cache::new(&path).load("orders"), Err(CacheError::Bad(..))), "{bytes}");
        }
        let error = Cache::new(dir.path()).load("orders").unwrap_err();
        assert!(matches!(error, CacheError::Io(..)), "{error}");
        let nowhere = Cache::new(&dir.path().join("nowhere/membership.json"));
        let error = nowhere.keep(&record(3)).unwrap_err().to_string();
        assert!(error.contains("nowhere/membership.json: No such file"), "{error}");
    }
}
