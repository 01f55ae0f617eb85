//! The SQLite file of a projection: its schema, and the positions of those who read the topic into it.

mod bytes;

pub(crate) use bytes::Plain;

use crate::projection::{Batch, Look, Positions, Start};
use data_encoding::HEXLOWER;
use isonomy_kafka::cursor::TopicId;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Says that a file is one of a projection: the letters "ISOA".
const APPLICATION_ID: i32 = 0x4953_4f41;
/// The version of the schema.
const SCHEMA_VERSION: i32 = 1;
/// How long a statement waits for another one that writes to the file.
const BUSY_PATIENCE: Duration = Duration::from_secs(30);
/// The position of a partition that has none: no offset is so low.
const NOWHERE: i64 = -1;

/// Why a projection's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// SQLite fails.
    #[error("{}: {why}; check the file, its directory and the free space of the disk", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        why: rusqlite::Error,
    },
    /// Another program's file.
    #[error("{0} is an SQLite file, but none of this program; name another file, which is created then")]
    Foreign(PathBuf),
    /// Another release's file.
    #[error(
        "{path} has version {version} of the tables, and this release has {SCHEMA_VERSION}; use the release that wrote the \
         file, or make the projection anew in another file"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i32,
    },
    /// Another process has moved a position in between.
    #[error(
        "{path}: another process reads partition {partition} into this file; end one of them, or give each its own file or \
         its own partitions"
    )]
    Shared {
        /// The file.
        path: PathBuf,
        /// The partition.
        partition: i32,
    },
    /// The file has something that this program does not write.
    #[error("{path}: {what} is damaged; make the projection anew in another file")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What cannot be read.
        what: &'static str,
    },
}

impl FileError {
    /// Whether the disk is full or fails.
    pub fn is_disk_failure(&self) -> bool {
        use rusqlite::ErrorCode::{DiskFull, SystemIoFailure};
        let FileError::Sqlite { why, .. } = self else { return false };
        matches!(why.sqlite_error_code(), Some(DiskFull | SystemIoFailure))
    }
}

/// The file of a projection, as one reader of the topic has it.
pub(crate) struct File {
    path: PathBuf,
    db: Connection,
    /// Whose positions these are.
    reader: &'static str,
    positions: Positions,
}

impl File {
    /// Opens a file, which is created if there is none.
    pub(crate) fn open(path: &Path, reader: &'static str) -> Result<File, FileError> {
        let failed = |why| FileError::Sqlite { path: path.to_owned(), why };
        let mut db = Connection::open(path).map_err(failed)?;
        // With a write-ahead log others can query while the agent writes, and only a checkpoint waits for the disk. After a loss
        // of power the newest transactions may be missing, with their positions: they are read from Kafka again.
        let is_ready = db
            .busy_timeout(BUSY_PATIENCE)
            .and_then(|()| db.pragma_update(None, "journal_mode", "wal"))
            .and_then(|()| db.pragma_update(None, "synchronous", "normal"));
        is_ready.map_err(failed)?;
        prepare(&mut db, path)?;
        Ok(File { path: path.to_owned(), db, reader, positions: Positions::new() })
    }

    /// Where the reader goes on.
    pub(crate) fn start(&mut self) -> Result<Start, FileError> {
        let known: Option<String> = self
            .db
            .query_row("SELECT topic_id FROM source", [], |row| row.get(0))
            .optional()
            .map_err(|why| self.failed(why))?;
        let topic = known.map(|text| topic_id(&text).ok_or(()));
        let topic = topic.transpose().map_err(|()| self.damaged("the id of the topic"))?;
        self.positions = self.read_positions().map_err(|why| self.failed(why))?;
        Ok(Start { topic, positions: self.positions.clone() })
    }

    fn read_positions(&self) -> rusqlite::Result<Positions> {
        let mut statement =
            self.db.prepare("SELECT partition, next_offset FROM positions WHERE reader = ?1")?;
        let rows = statement.query_map([self.reader], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    }

    pub(crate) fn db(&self) -> &Connection {
        &self.db
    }

    pub(crate) fn failed(&self, why: rusqlite::Error) -> FileError {
        FileError::Sqlite { path: self.path.clone(), why }
    }

    fn damaged(&self, what: &'static str) -> FileError {
        FileError::Damaged { path: self.path.clone(), what }
    }

    /// Writes what belongs to a batch, and moves the reader's positions, all in one transaction.
    pub(crate) fn write(
        &mut self,
        batch: &Batch<'_>,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), FileError> {
        let (path, reader) = (&self.path, self.reader);
        let failed = |why| FileError::Sqlite { path: path.clone(), why };
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = transaction.map_err(failed)?;
        for (&partition, &next) in batch.positions {
            let known = self.positions.get(&partition).copied().unwrap_or(NOWHERE);
            if !move_position(&transaction, reader, partition, known, next).map_err(failed)? {
                return Err(FileError::Shared { path: path.clone(), partition });
            }
        }
        keep_topic(&transaction, batch.topic).and_then(|()| write(&transaction)).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        self.positions.extend(batch.positions);
        Ok(())
    }

    /// Keeps how old what the reader shows may be.
    pub(crate) fn look(&mut self, look: &Look<'_>) -> Result<(), FileError> {
        let known_at_ms = look.age.map(|age| now_ms() - age.as_millis() as i64);
        let kept = (|| {
            let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for (partition, standing) in look.partitions {
                transaction
                    .prepare_cached(
                        "UPDATE positions SET end_offset = ?3, known_at_ms = coalesce(?4, known_at_ms) \
                         WHERE reader = ?1 AND partition = ?2",
                    )?
                    .execute(params![self.reader, partition, standing.end, known_at_ms])?;
            }
            transaction.commit()
        })();
        kept.map_err(|why| self.failed(why))
    }
}

/// Creates the tables in a new file, and refuses a file that has others.
fn prepare(db: &mut Connection, path: &Path) -> Result<(), FileError> {
    let failed = |why| FileError::Sqlite { path: path.to_owned(), why };
    // Two processes may open a new file at once.
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let number = |sql: &str| transaction.query_row(sql, [], |row| row.get::<_, i32>(0)).map_err(failed);
    let (id, version) = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
    match (id, version) {
        (APPLICATION_ID, SCHEMA_VERSION) => return Ok(()),
        (APPLICATION_ID, version) => return Err(FileError::Version { path: path.to_owned(), version }),
        (0, 0) if number("SELECT count(*) FROM sqlite_schema")? == 0 => {}
        _ => return Err(FileError::Foreign(path.to_owned())),
    }
    transaction
        .execute_batch(include_str!("schema.sql"))
        .and_then(|()| transaction.pragma_update(None, "application_id", APPLICATION_ID))
        .and_then(|()| transaction.pragma_update(None, "user_version", SCHEMA_VERSION))
        .and_then(|()| transaction.commit())
        .map_err(failed)
}

/// Moves a position that is still where this process has left it. False: another process has moved it.
fn move_position(
    transaction: &Transaction<'_>,
    reader: &str,
    partition: i32,
    known: i64,
    next: i64,
) -> rusqlite::Result<bool> {
    let moved = transaction
        .prepare_cached(
            "INSERT INTO positions (reader, partition, next_offset) VALUES (?1, ?2, ?3) \
             ON CONFLICT DO UPDATE SET next_offset = ?3 WHERE next_offset = ?4",
        )?
        .execute(params![reader, partition, next, known])?;
    Ok(moved == 1)
}

/// The first batch says of which topic the file is made.
fn keep_topic(transaction: &Transaction<'_>, topic: TopicId) -> rusqlite::Result<()> {
    let mut statement =
        transaction.prepare_cached("INSERT OR IGNORE INTO source (one, topic_id) VALUES (1, ?1)")?;
    statement.execute([topic.to_string()]).map(drop)
}

fn topic_id(text: &str) -> Option<TopicId> {
    Some(TopicId(HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()?))
}

/// Now, in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as i64)
}
