//! Facts about the host: its cores, limits, memory, disks, ports and names, and what a process inherits from its
//! parent process.
//!
//! The programs of Isonomy ask this crate, and explain the facts themselves: an error of this crate names the fact,
//! and the program adds the option that mends it. The crate knows nothing of replicas, and no runtime.

pub mod children;
pub mod cores;
pub mod cpu;
pub mod direct;
pub mod disk;
pub mod environment;
pub mod file_size;
pub mod files;
pub mod host;
pub mod limits;
pub mod pages;
pub mod ports;
pub mod probe;
pub mod process;
pub mod signals;
pub mod uring;
