//! Published decisions, sent to Kafka exactly once, and proposals that come from Kafka, each decided once.
//!
//! A [`publisher::Publisher`] is a thread that sends the published batches of one shard from a [`publisher::Source`] to
//! a partition of a topic. Each transaction holds batches and the [`cursor`] behind them. A publisher that takes over first
//! makes Kafka refuse the one before it (the transactional id is the same), and only then reads the cursor. A
//! [`consumer::Consumer`] is a thread that proposes the records of a topic. `docs/KAFKA.md` has the contracts.

mod check;
mod client;
pub mod consumer;
pub mod cursor;
pub mod decision;
mod error;
mod failpoint;
pub mod outbox;
pub mod publisher;
mod read;
mod record;
mod reset;
pub mod settings;
mod standing;
mod stop;
mod topic_id;
mod transaction;
pub mod trial;

pub use check::{Facts, Unfit, create_topics};
pub use error::Error;
pub use read::{is_lost_connection, published};
pub use reset::reset;
pub use standing::{Standing, TopicStanding, standing, topics};
pub use stop::Stop;
pub use topic_id::topic_id;
