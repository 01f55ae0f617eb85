//! What memory gives: the time of a cache line that no cache has.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// About what a million keys take at a replica; more than caches hold.
const AREA_BYTES: usize = 256 << 20;
/// Reads that do not wait for each other: as many overlap as the processor's first cache allows.
const PASS_READS: usize = 4096;
/// How long lines are read.
const SPAN: Duration = Duration::from_secs(1);

#[derive(Clone)]
#[repr(align(64))]
struct Line(u64);

/// Nanoseconds per read of a random line, with as many reads under way as the first cache allows:
/// what a look-up costs that was announced early enough.
pub(crate) fn line_ns() -> f64 {
    let lines = vec![Line(1); AREA_BYTES / size_of::<Line>()];
    let mut random = SmallRng::seed_from_u64(1);
    let (began, mut spent, mut reads) = (Instant::now(), Duration::ZERO, 0);
    while began.elapsed() < SPAN {
        let places: Vec<usize> = (0..PASS_READS).map(|_| random.random_range(0..lines.len())).collect();
        let pass = Instant::now();
        black_box(places.iter().fold(0, |all, place| all ^ lines[*place].0));
        spent += pass.elapsed();
        reads += PASS_READS;
    }
    spent.as_nanos() as f64 / reads as f64
}
