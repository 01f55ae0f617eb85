//! The agent against a real Kafka.

#[path = "../support/mod.rs"]
mod support;

mod hooks;
mod python;
mod reading;
mod refusals;
