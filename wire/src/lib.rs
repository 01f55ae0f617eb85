//! The protocol of Isonomy: ids, commands, messages, frames and routing, and the client's side as a state machine.
//!
//! The crate is plain data without I/O. Feature `client` adds an asynchronous client on tokio.

pub mod address;
pub mod answer;
#[cfg(feature = "client")]
pub mod client;
pub mod command;
pub mod conversation;
pub mod deps;
pub mod epoch;
pub mod failure;
pub mod frame;
pub mod id;
pub mod latency;
pub mod message;
pub mod published;
pub mod route;
pub mod source;
pub mod tuning;
pub mod view;
