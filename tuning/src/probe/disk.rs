//! The speed of the disk: the time of a small synchronous write, and large writes per second.

use crate::direct::{Aligned, BLOCK_BYTES, DirectError, FILL_BYTES, filled, reopened};
use hdrhistogram::Histogram;
use rustix::fs::OFlags;
use std::fs::File;
use std::io::Result;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The size of the file that is overwritten.
const FILE_BYTES: u64 = 64 << 20;
/// How long small writes are measured, and then large ones.
const SPAN: Duration = Duration::from_secs(2);
/// Longer writes count as this.
const WRITE_US_MAX: u64 = 60_000_000;

/// Figures of a disk.
pub struct Disk {
    /// The median time of an overwrite of 4 KiB that returns when it is durable.
    pub sync_p50_us: u64,
    /// 99 of 100 such overwrites took no longer.
    pub sync_p99_us: u64,
    /// Direct overwrites of 1 MiB, one after the other.
    pub write_mib_per_second: f64,
}

impl Disk {
    /// Writes to a nameless file of 64 MiB in `dir` for four seconds.
    ///
    /// # Errors
    /// The file cannot be made or filled there, or a write fails later.
    pub fn measure(dir: &Path) -> std::result::Result<Disk, DirectError> {
        let file = filled(dir, FILE_BYTES)?;
        let failed = |source| DirectError::NotOverwritten { dir: dir.into(), source };
        let (sync, write_mib_per_second) = overwrite(&file).map_err(failed)?;
        Ok(Disk {
            sync_p50_us: sync.value_at_quantile(0.5),
            sync_p99_us: sync.value_at_quantile(0.99),
            write_mib_per_second,
        })
    }
}

/// Times of small writes in microseconds, and MiB per second of large ones.
fn overwrite(file: &File) -> Result<(Histogram<u64>, f64)> {
    let latency = latency(&reopened(file, OFlags::DIRECT | OFlags::DSYNC)?)?;
    Ok((latency, bandwidth(&reopened(file, OFlags::DIRECT)?)?))
}

fn latency(file: &File) -> Result<Histogram<u64>> {
    let block = Aligned::new(BLOCK_BYTES);
    let mut latency = Histogram::new_with_bounds(1, WRITE_US_MAX, 3).expect("the bounds are legal");
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

fn bandwidth(file: &File) -> Result<f64> {
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
