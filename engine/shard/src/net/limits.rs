//! How many connections without a place of their own a shard keeps, each of which takes an open file.

/// Connections to the port for peers that have not said who they are.
pub const STRANGERS_MAX: u32 = 16;
/// Connections to the port for clients beyond all places: those that have not said who they are or hear that there is no
/// place, and those that leave. When more come, the oldest that has no place goes.
pub const ARRIVING_MAX: u32 = 32;
/// Connections of operators, who get in where clients have taken all places: a few people, and what watches the
/// cluster.
pub const OPERATORS_MAX: u32 = 8;
