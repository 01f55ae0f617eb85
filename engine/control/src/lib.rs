//! The membership of a cluster in etcd (law, section 9): who the members are, in which epoch, and who of them lives.
//!
//! [`record`] is what lies in etcd, [`plan`] makes the records of a change, [`store`] writes one in place of another, and
//! [`service`] follows them for a process, on a thread of its own, also while etcd is gone, and carries changes on
//! ([`driver`]). `docs/MEMBERSHIP.md` has the layout and what comes of each failure.

mod backoff;
mod bad;
mod cache;
mod check;
pub mod driver;
mod error;
mod follow;
pub mod id;
pub mod join;
pub mod mark;
pub mod places;
pub mod plan;
mod presence;
pub mod record;
#[cfg(test)]
mod sample;
pub mod service;
pub mod settings;
pub mod store;
mod text;
pub mod tuning;

pub use bad::BadRecord;
pub use cache::CacheError;
pub use error::{Error, Tried};
pub use follow::{Refused, follows};
pub use presence::Presence;
pub use text::describe;
