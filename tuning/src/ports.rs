//! TCP ports of this host.

use std::net::TcpListener;
use std::ops::Range;

/// The range in which ports are looked for. It lies below the range from which the system gives ports to outgoing
/// connections.
const PORTS: Range<u16> = 12_000..32_000;
/// How often a range of ports is tried before the search is given up.
const TRIES_MAX: usize = 1000;
/// The limit to which the system cuts a longer backlog without a word.
const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";

/// The search for free ports was given up.
#[derive(Debug, thiserror::Error)]
#[error(
    "no {count} x {length} free ports were found between {} and {}; stop processes that hold ports in this \
     range",
    PORTS.start,
    PORTS.end
)]
pub struct NoFreePorts {
    count: usize,
    length: u16,
}

/// The first ports of `count` ranges, each of `length` ports that are free on 127.0.0.1; no two ranges overlap.
/// Another process can take a port before the caller does. A server that is started on such a port ends at once.
///
/// # Errors
/// There is none if 1000 random places did not give so many ranges.
pub fn free_ranges(count: usize, length: u16) -> Result<Vec<u16>, NoFreePorts> {
    let mut bases: Vec<u16> = Vec::new();
    for _ in 0..TRIES_MAX {
        if bases.len() == count {
            break;
        }
        let base = rand::random_range(PORTS.start..PORTS.end - length);
        let is_apart = bases.iter().all(|other| other.abs_diff(base) >= length);
        if is_apart && (base..base + length).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            bases.push(base);
        }
    }
    if bases.len() < count {
        return Err(NoFreePorts { count, length });
    }
    Ok(bases)
}

/// How many connections the system lets wait at a port until they are taken, if it tells.
pub fn backlog_max() -> Option<u32> {
    std::fs::read_to_string(SOMAXCONN).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ranges_do_not_overlap() {
        // There are so many ranges that some of them would overlap if nothing kept them apart.
        let mut bases = free_ranges(40, 100).unwrap();
        bases.sort_unstable();
        assert_eq!(bases.len(), 40);
        assert!(bases.windows(2).all(|pair| pair[1] - pair[0] >= 100), "{bases:?}");
    }

    #[test]
    fn a_range_with_a_port_that_is_taken_is_not_free() {
        // The first port is taken, here or by another process.
        let _taken = TcpListener::bind(("127.0.0.1", PORTS.start));
        let error = free_ranges(1, PORTS.end - PORTS.start - 1).unwrap_err().to_string();
        assert!(error.contains("no 1 x 19999 free ports"), "{error}");
    }

    #[test]
    fn the_system_tells_its_backlog() {
        assert!(backlog_max().unwrap() > 0);
    }
}
