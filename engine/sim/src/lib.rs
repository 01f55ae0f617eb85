//! Whole clusters and their clients in one thread, from one seed: the production core, its log
//! format and the production client conversation over a model of network, disks and clocks.
//!
//! [`world::run`] runs a seed: first everything fails that can, then all but a legal minority
//! works again and everything that was ever seen must be decided and executed. The assertions of
//! the law's section 10 are checked as soon as an event can break them, each in its own file of
//! [`check`], against a [`ghost`] that knows what no replica knows, one for each epoch. A seed gives the same events
//! each time.

pub mod check;
pub mod client;
pub mod contention;
pub mod coverage;
pub mod disk;
pub mod ghost;
pub mod history;
pub mod keyed;
pub mod network;
pub mod node;
pub mod outbox;
pub mod plan;
pub mod queue;
pub mod restated;
pub mod source;
pub mod store;
pub mod transfer;
pub mod view;
pub mod world;
