//! The publisher against a real Kafka.

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod publishing;
mod refusals;
mod resets;
