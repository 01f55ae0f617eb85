//! The membership in a real etcd.

mod access;
mod changes;
mod join;
mod leases;
mod outages;
mod restored;
mod store;
mod support;
mod tuning;
