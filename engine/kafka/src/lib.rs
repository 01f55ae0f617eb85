//! Published decisions, sent to Kafka exactly once.
//!
//! A [`publisher::Publisher`] is a thread that sends the published batches of one shard from a [`publisher::Source`] to
//! a partition of a topic. Each transaction holds batches and the [`cursor`] behind them. A publisher that takes over first
//! makes Kafka refuse the one before it (the transactional id is the same), and only then reads the cursor. `docs/KAFKA.md`
//! has the contract.

mod check;
mod client;
pub mod cursor;
mod error;
pub mod outbox;
pub mod publisher;
mod read;
pub mod settings;
mod topic_id;

pub use check::{Facts, Unfit, create_topics};
pub use error::Error;
pub use read::published;
pub use topic_id::topic_id;
