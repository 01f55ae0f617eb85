//! The doors of a replica for those who speak HTTP: its state for supervisors and people.
//!
//! The doors run on one thread of their own, beside the cores of the shards. They know what the main thread of the
//! process [shows](view::Shown) them.

mod health;
mod limits;
mod metrics;
mod page;
mod problem;
mod router;
mod server;
pub mod status;
pub mod view;

pub use server::{Doors, Settings};
