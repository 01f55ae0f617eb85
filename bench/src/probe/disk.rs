//! What the disk gives: the time of a small synchronous write, and large writes per second.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use rustix::fs::OFlags;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::direct::{Aligned, BLOCK_BYTES, FILL_BYTES, filled, reopened};

/// The file that is overwritten.
const FILE_BYTES: u64 = 64 << 20;
/// How long small writes are made, and then large ones.
const SPAN: Duration = Duration::from_secs(2);
/// Longer writes count as this.
const WRITE_US_MAX: u64 = 60_000_000;

/// The figures.
pub(crate) struct Disk {
    /// Of an overwrite of 4 KiB that returns when it is durable.
    pub(crate) sync_p50_us: u64,
    pub(crate) sync_p99_us: u64,
    /// Direct overwrites of 1 MiB, one after the other.
    pub(crate) write_mib_per_second: f64,
}

/// Writes to a nameless file in `dir`.
pub(crate) fn measure(dir: &Path) -> Result<Disk> {
    let file = filled(dir, FILE_BYTES)?;
    let failed = || format!("writing in {} failed; check the disk and the kernel log", dir.display());
    let sync = latency(&reopened(&file, OFlags::DIRECT | OFlags::DSYNC)?).with_context(failed)?;
    let write_mib_per_second = bandwidth(&reopened(&file, OFlags::DIRECT)?).with_context(failed)?;
    Ok(Disk {
        sync_p50_us: sync.value_at_quantile(0.5),
        sync_p99_us: sync.value_at_quantile(0.99),
        write_mib_per_second,
    })
}

fn latency(file: &std::fs::File) -> Result<Histogram<u64>> {
    let block = Aligned::new(BLOCK_BYTES);
    let mut latency = Histogram::new_with_bounds(1, WRITE_US_MAX, 3)?;
    let began = Instant::now();
    for at in (0..FILE_BYTES).step_by(BLOCK_BYTES).cycle() {
        let written = Instant::now();
        file.write_all_at(block.as_slice(), at)?;
        latency.saturating_record((written.elapsed().as_micros() as u64).max(1));
        if began.elapsed() >= SPAN {
            break;
        }
    }
    Ok(latency)
}

fn bandwidth(file: &std::fs::File) -> Result<f64> {
    let piece = Aligned::new(FILL_BYTES);
    let (began, mut written) = (Instant::now(), 0);
    for at in (0..FILE_BYTES).step_by(FILL_BYTES).cycle() {
        file.write_all_at(piece.as_slice(), at)?;
        written += FILL_BYTES;
        if began.elapsed() >= SPAN {
            break;
        }
    }
    Ok((written >> 20) as f64 / began.elapsed().as_secs_f64())
}
