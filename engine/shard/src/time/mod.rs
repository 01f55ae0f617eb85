//! What is due by time alone.

pub(crate) mod ticker;
pub(crate) mod ticks;
