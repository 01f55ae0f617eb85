//! Decisions of a real cluster in a real Kafka, whatever happens to those who publish them.

#[cfg(feature = "failpoints")]
mod attacks;
#[allow(dead_code)] // Each test binary uses its own part.
#[path = "../../../kafka/tests/support/broker.rs"]
mod broker;
mod brokers;
#[path = "../named/mod.rs"]
mod named;
mod publishers;
mod resets;
#[path = "../support/mod.rs"]
mod support;
mod topics;
mod world;
