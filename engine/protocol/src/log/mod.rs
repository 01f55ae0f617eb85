//! The log as bytes: records, and later segments and snapshots. Pure functions, so that a
//! simulator can run them against any disk.

pub mod record;
