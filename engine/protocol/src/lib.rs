//! EPaxos* as a pure state machine: no clock, no I/O, no randomness of its own.
//!
//! [`replica::Replica`] is one replica's part in one shard. Time, messages, requests and the
//! durability of its log are arguments; records to write, messages to send and replies are polled. The
//! law that the code cites by rule number (`C2`, `R5` ...) is `docs/PROTOCOL.md`.

// Every match on messages or records must handle a new variant explicitly.
#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

pub mod admission;
mod ahead;
mod attempt;
mod blocks;
mod check;
pub mod conflict;
pub mod contract;
pub mod epoch;
pub mod execute;
mod forgetting;
mod guardrail;
mod instance;
pub mod limits;
mod listed;
pub mod log;
pub mod machine;
pub mod marks;
pub mod mutant;
mod numbers;
mod outbox;
pub mod payload;
mod peers;
mod phase;
pub mod quorum;
mod replay;
pub mod replica;
mod requests;
pub mod sessions;
pub mod snapshot;
mod space;
pub mod state;
pub mod table;
mod told;
pub mod transfer;
