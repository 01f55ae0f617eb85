//! Keys and values in SQLite.

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

/// Bytes as people query them: as TEXT where they are text, else as BLOB. A zero byte is no text, since SQLite's tools end a
/// text there. Equal bytes are always stored alike.
pub(crate) struct Plain<'a>(pub(crate) &'a [u8]);

impl ToSql for Plain<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let is_text = std::str::from_utf8(self.0).is_ok() && !self.0.contains(&0);
        let value = if is_text { ValueRef::Text(self.0) } else { ValueRef::Blob(self.0) };
        Ok(ToSqlOutput::Borrowed(value))
    }
}
