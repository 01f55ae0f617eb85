//! The membership of a cluster in etcd (law, section 9): who the members are, in which epoch, and who of them lives.

mod bad;
mod check;
mod follow;
pub mod id;
pub mod plan;
pub mod record;
#[cfg(test)]
mod sample;
mod text;

pub use bad::BadRecord;
pub use follow::{Refused, follows};
pub use text::describe;
