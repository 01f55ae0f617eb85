//! The log of a shard: records gather in groups, which are written one after the other into segments.

pub(crate) mod disk;
pub(crate) mod groups;
pub(crate) mod probe;
pub(crate) mod recover;
pub(crate) mod segment;
mod writer;

pub(crate) use writer::Writer;
