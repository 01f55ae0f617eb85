//! The latest decision of each key, in an SQLite file.

use crate::file::{File, FileError, Plain};
use crate::projection::{Batch, Failure, Look, Projection, Start};
use isonomy_kafka::decision::Decision;
use rusqlite::{OptionalExtension, Transaction, params};
use std::path::Path;

/// The latest decision of each key, in an SQLite file which others can query meanwhile. A delete removes the key's row. The
/// positions are moved in the transaction that writes the rows. docs/AGENT.md has the tables.
pub struct Table(File);

impl Table {
    /// Opens a file, which is created if there is none.
    ///
    /// # Errors
    ///
    /// [`FileError`] if the file cannot be read and written, or if it is none of this release.
    pub fn open(path: &Path) -> Result<Table, FileError> {
        File::open(path, "table").map(Table)
    }
}

impl Projection for Table {
    fn start(&mut self) -> Result<Start, Failure> {
        Ok(self.0.start()?)
    }

    fn key_seq(&mut self, key: &[u8]) -> Result<Option<u64>, Failure> {
        let statement = self.0.db().prepare_cached("SELECT key_seq FROM latest WHERE key = ?1");
        let found =
            statement.and_then(|mut it| it.query_row([Plain(key)], |row| row.get::<_, i64>(0)).optional());
        Ok(Some(found.map_err(|why| self.0.failed(why))?.map_or(0, i64::unsigned_abs)))
    }

    fn apply(&mut self, batch: &Batch<'_>) -> Result<(), Failure> {
        let write = |transaction: &Transaction<'_>| {
            batch.decisions.iter().try_for_each(|decision| write(transaction, decision))
        };
        Ok(self.0.write(batch, write)?)
    }

    fn on_look(&mut self, look: &Look<'_>) -> Result<(), Failure> {
        Ok(self.0.look(look)?)
    }
}

fn write(transaction: &Transaction<'_>, decision: &Decision) -> rusqlite::Result<()> {
    let Decision { id, key, key_seq, value, time_ms, .. } = decision;
    let Some(value) = value else {
        let mut statement = transaction.prepare_cached("DELETE FROM latest WHERE key = ?1")?;
        return statement.execute([Plain(key)]).map(drop);
    };
    transaction
        .prepare_cached(
            "INSERT INTO latest (key, value, key_seq, id, epoch, shard, time_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
             ON CONFLICT DO UPDATE SET value = ?2, key_seq = ?3, id = ?4, epoch = ?5, shard = ?6, time_ms = ?7",
        )?
        .execute(params![
            Plain(key),
            Plain(value),
            *key_seq as i64,
            id.to_string(),
            id.epoch.0,
            id.shard.0,
            time_ms
        ])
        .map(drop)
}
