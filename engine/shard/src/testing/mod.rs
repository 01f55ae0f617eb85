//! What the unit tests of a shard share.

pub(crate) mod fixture;
pub(crate) mod rig;
#[path = "../../../replica/tests/support/volatile.rs"]
pub(crate) mod volatile;
