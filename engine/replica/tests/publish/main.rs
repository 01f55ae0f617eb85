//! Decisions of a real cluster in a real Kafka, whatever happens to those who publish them.

#[allow(dead_code)] // Each test binary uses its own part.
#[path = "../../../kafka/tests/support/broker.rs"]
mod broker;
mod publishers;
mod resets;
#[path = "../support/mod.rs"]
mod support;
mod topics;
mod world;
