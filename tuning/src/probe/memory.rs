//! The speed of memory: the time of a cache line that no cache has, and of the address of a page.

use crate::pages::{HUGE_PAGE_BYTES, advise_huge};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// The number of lines in 4 KiB.
const PAGE_LINES: usize = (4 << 10) / size_of::<Line>();
/// The number of lines in a huge page.
const HUGE_PAGE_LINES: usize = HUGE_PAGE_BYTES / size_of::<Line>();
/// The number of lines in 256 MiB, which is about what a million keys take at a replica, and more than caches hold.
const AREA_LINES: usize = 128 * HUGE_PAGE_LINES;
/// The number of lines in a chain: 4 MiB, which the third cache holds, or one line for each 4 KiB of the area.
const CHAIN_LINES: usize = AREA_LINES / PAGE_LINES;
/// The number of reads that do not wait for each other. As many overlap as the processor's first cache allows.
const PASS_READS: usize = 4096;
/// How long lines are read.
const SPAN: Duration = Duration::from_secs(1);

/// Room for the place of another line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(usize);

/// Times in memory that lies in huge pages, as the tables of a replica do.
pub struct Memory {
    /// Nanoseconds per read of a random line, with as many reads under way as the first cache allows: the cost of a
    /// look-up that was announced early enough.
    pub line_ns: f64,
    /// Nanoseconds that one read after the other of a line in the third cache takes longer if each line is on another
    /// 4 KiB: the wait for the address. The figure is low in huge pages, and high where the kernel has none to give
    /// or the host of a virtual machine maps its memory in small ones.
    pub address_ns: f64,
}

impl Memory {
    /// Reads random lines of 256 MiB for three seconds.
    pub fn measure() -> Memory {
        let mut room = Vec::with_capacity(AREA_LINES + HUGE_PAGE_LINES);
        let area = area(&mut room);
        let line_ns = line_ns(area);
        let together = chain_ns(area, |link| link);
        // The lines lie at different places of their pages, since otherwise few sets of a cache would have to hold
        // them all.
        let apart = chain_ns(area, |link| link * PAGE_LINES + link % PAGE_LINES);
        Memory { line_ns, address_ns: (apart - together).max(0.0) }
    }
}

/// Lines that begin with a huge page.
fn area(lines: &mut Vec<Line>) -> &mut [Line] {
    let room = lines.spare_capacity_mut();
    let begin = room.as_ptr().align_offset(HUGE_PAGE_BYTES);
    let pages = &mut room[begin..begin + AREA_LINES];
    // A kernel without huge pages is measured as it is.
    // SAFETY: the range is room of the vector.
    #[allow(unsafe_code)]
    unsafe {
        advise_huge(pages.as_mut_ptr().cast(), size_of_val(pages));
    }
    lines.resize(begin + AREA_LINES, Line(1));
    &mut lines[begin..]
}

fn line_ns(area: &[Line]) -> f64 {
    let mut random = SmallRng::seed_from_u64(1);
    let (began, mut spent, mut reads) = (Instant::now(), Duration::ZERO, 0);
    while began.elapsed() < SPAN {
        let places: Vec<usize> = (0..PASS_READS).map(|_| random.random_range(0..area.len())).collect();
        let pass = Instant::now();
        black_box(places.iter().fold(0, |all, place| all ^ area[*place].0));
        spent += pass.elapsed();
        reads += PASS_READS;
    }
    spent.as_nanos() as f64 / reads as f64
}

/// Nanoseconds per read in a chain whose lines, at these places, name each other in random order.
fn chain_ns(area: &mut [Line], place: impl Fn(usize) -> usize) -> f64 {
    let mut order: Vec<usize> = (0..CHAIN_LINES).map(place).collect();
    order.shuffle(&mut SmallRng::seed_from_u64(1));
    for (at, line) in order.iter().enumerate() {
        area[*line].0 = order[(at + 1) % CHAIN_LINES];
    }
    let follow = |from: usize| (0..CHAIN_LINES).fold(from, |line, _| area[line].0);
    let mut line = follow(order[0]);
    let (began, mut reads) = (Instant::now(), 0);
    while began.elapsed() < SPAN {
        line = follow(line);
        reads += CHAIN_LINES;
    }
    black_box(line);
    began.elapsed().as_nanos() as f64 / reads as f64
}
