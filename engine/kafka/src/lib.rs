//! Published decisions: the outbox of each shard.

pub mod outbox;
