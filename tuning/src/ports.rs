//! TCP ports of this host.

use std::net::TcpListener;
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Mutex;

/// The range in which ports are looked for. It lies below the range from which the system gives ports to outgoing
/// connections.
const PORTS: Range<u16> = 12_000..32_000;
/// How often a range of ports is tried before the search is given up.
const TRIES_MAX: usize = 1000;
/// The ports that this process has given out, each held by a name of its own among the system's abstract sockets, which
/// vanish with the process. A server that is stopped for a moment must find its port free when it is started again.
static GIVEN: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());
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

/// The first ports of `count` ranges, each of `length` ports that are free on 127.0.0.1. For as long as this process lives,
/// none of them is given again, here or by another process that asks this function. A process that asks nobody can take
/// one before the caller does; a server that is started on such a port ends at once.
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
        if let Some(held) = (base..base + length).map(hold).collect::<Option<Vec<_>>>() {
            GIVEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).extend(held);
            bases.push(base);
        }
    }
    if bases.len() < count {
        return Err(NoFreePorts { count, length });
    }
    Ok(bases)
}

/// Holds a port that is free and that nobody else holds.
fn hold(port: u16) -> Option<UnixDatagram> {
    let name = SocketAddr::from_abstract_name(format!("isonomy-port-{port}")).ok()?;
    let held = UnixDatagram::bind_addr(&name).ok()?;
    TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(held)
}

/// How many connections the system lets wait at a port until they are taken, if it tells.
pub fn backlog_max() -> Option<u32> {
    std::fs::read_to_string(SOMAXCONN).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once() {
        // There are so many ranges that some of them would overlap if nothing kept them apart.
        let mut bases: Vec<u16> = (0..20).flat_map(|_| free_ranges(4, 10).unwrap()).collect();
        bases.sort_unstable();
        assert_eq!(bases.len(), 80);
        assert!(bases.windows(2).all(|pair| pair[1] - pair[0] >= 10), "{bases:?}");
        assert!(hold(bases[0]).is_none(), "another process is not given it, either");
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
