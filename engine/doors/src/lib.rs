//! The doors of a replica for those who speak HTTP or gRPC: decisions, and the state of the replica for supervisors and
//! people.
//!
//! The doors run on one thread of their own, beside the cores of the shards. They know what the main thread of the
//! process [shows](view::Shown) them, and reach the shards as every client does. docs/HTTP.md and docs/GRPC.md are their
//! contracts.

mod accept;
mod batch;
mod body;
mod cluster;
mod decisions;
mod events;
pub mod feed;
mod grpc;
mod headers;
mod health;
mod identity;
mod json;
mod limits;
mod lingering;
mod metrics;
mod page;
mod problem;
mod proposal;
mod propose;
mod router;
mod server;
pub mod status;
mod stream;
pub mod view;

pub use limits::{GRPC_FILES_MAX, HTTP_FILES_MAX};
pub use server::{Doors, Settings};
