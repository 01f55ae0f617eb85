//! The best that the host gives: times and throughputs that no program on it can beat.

mod disk;
mod loopback;
mod memory;

pub use disk::Disk;
pub use loopback::Loopback;
pub use memory::Memory;
