//! One shard of a replica on one pinned executor, which owns everything in the shard: the core, the log, the snapshots
//! and the connections. It is the only code of a cluster that names glommio.
//!
//! Tasks own their sockets, writers and transfers, and hand inputs to the pump (`pump.rs`), which alone borrows the
//! core. The task of the turns takes the core's outputs in their order, and sleeps. While a write is under way the next
//! batch gathers. The process reaches a shard through the mesh only.

mod aside;
pub mod data_dir;
mod feed;
mod io;
mod log;
mod mail;
mod net;
mod node;
mod open;
mod pump;
mod rings;
mod settings;
mod shard;
mod signal;
pub mod snapshot;
mod start;
mod tally;
mod tasks;
#[cfg(test)]
mod testing;
mod time;
mod told;
pub mod waiting;

pub use log::recover::{Recovered, SEGMENT_BYTES, verify as verify_log};
pub use net::limits;
pub use net::resolver::Resolver;
pub use settings::{Ports, Settings};
pub use start::spawn;
pub use time::ticker::{CLIENT_PATIENCE, PEER_PATIENCE};
