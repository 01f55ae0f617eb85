//! Conditions that the machine must meet before a replica starts. Each refusal names the check that failed and the
//! remedy.

use crate::config::Config;
use crate::fatal::Fatal;
use crate::file_size;
use crate::files;
use isonomy_shard::Ports;
use isonomy_shard::data_dir::{RESTART_PATIENCE, RESTART_RETRY};
use isonomy_shard::waiting::{Trouble, list, look_up};
use isonomy_tuning::limits::{self, EXECUTOR_MEMLOCK_BYTES, Resource};
use isonomy_tuning::{cores, ports, uring};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The most connections to a port that may wait until the replica takes them. Further connections are dropped, and
/// the kernel of the connecting machine tries again after 1, 3, 7 ... seconds. The number is the default limit of
/// Linux; the library's own choice is 128, which a crowd of clients fills at once.
const BACKLOG: u32 = 4096;

/// Checks limits and io_uring, before anything is made. The clients that each shard may have: `connections_max`,
/// or as many as the limit of open files leaves.
pub(crate) fn check_machine(config: &Config) -> Result<u32, Fatal> {
    check_memlock(EXECUTOR_MEMLOCK_BYTES * u64::from(config.shards))?;
    uring::check().map_err(|refused| Fatal::machine(refused.to_string()))?;
    check_cores(&config.cores)?;
    file_size::check(config)?;
    if let Some(complaint) = ports::backlog_max().and_then(short_backlog) {
        log::warn!("{complaint}");
    }
    files::share_out(config)
}

/// A complaint if the machine's limit of connections that wait to be taken is too low.
fn short_backlog(allowed: u32) -> Option<String> {
    let complaint = || {
        format!(
            "this machine lets {allowed} connections wait at a port until the replica takes them; when more \
             clients connect at once, the others try again after 1 s or more. Set the sysctl \
             net.core.somaxconn to {BACKLOG} and start the replica again"
        )
    };
    (allowed < BACKLOG).then(complaint)
}

fn check_memlock(needed: u64) -> Result<(), Fatal> {
    let limit = raise(Resource::MEMLOCK, needed)?;
    if limit < needed {
        return Err(Fatal::machine(format!(
            "locked memory is limited to {limit} bytes, and io_uring needs {needed} bytes; raise the limit \
             (`ulimit -l`, LimitMEMLOCK= in a systemd unit)"
        )));
    }
    Ok(())
}

/// The limit, raised to the need as far as the system allows.
pub(crate) fn raise(resource: Resource, needed: u64) -> Result<u64, Fatal> {
    let failed = |error| Fatal::machine(format!("the limits of this process cannot be read: {error}"));
    limits::raise(resource, needed).map_err(failed)
}

fn check_cores(wanted: &[usize]) -> Result<(), Fatal> {
    match cores::first_unusable(wanted) {
        None => Ok(()),
        Some(core) => Err(Fatal::machine(format!(
            "`cores` names core {core}, but this process may use only {:?}; name cores of this list, or leave \
             `cores` out",
            cores::usable()
        ))),
    }
}

/// The ports of this replica.
pub(crate) struct Taken {
    pub(crate) ports: Vec<Ports>,
    /// The port for HTTP, if there is one.
    pub(crate) http: Option<TcpListener>,
    /// The port for gRPC, if there is one.
    pub(crate) grpc: Option<TcpListener>,
}

/// Takes all ports at the addresses that `listen` stands for, before anything else happens: a replica that cannot have
/// all of them does not start.
pub(crate) fn take_ports(
    stopping: &AtomicBool,
    config: &Config,
    addresses: &[SocketAddr],
) -> Result<Taken, Fatal> {
    let own = config.own();
    let shards = (0..config.shards).map(|shard| {
        let peers = take_port(stopping, config, addresses, "peer_base", own.peer_base, shard)?;
        let clients = take_port(stopping, config, addresses, "client_base", own.client_base, shard)?;
        Ok(Ports { peers, clients })
    });
    Ok(Taken {
        ports: shards.collect::<Result<_, Fatal>>()?,
        http: take_door("HTTP", "http.listen", config.http.as_deref())?,
        grpc: take_door("gRPC", "grpc.listen", config.grpc.as_deref())?,
    })
}

/// Takes a port. A process that was killed keeps its sockets for a moment: its rings are taken down after its
/// end, and its last writes before that.
fn take_port(
    stopping: &AtomicBool,
    config: &Config,
    addresses: &[SocketAddr],
    what: &str,
    base: u16,
    shard: u16,
) -> Result<TcpListener, Fatal> {
    let port = base + shard;
    let places: Vec<_> = addresses.iter().map(|address| SocketAddr::new(address.ip(), port)).collect();
    let (began, mut told) = (Instant::now(), false);
    loop {
        let error = match listen(&places) {
            Ok(listener) => return Ok(listener),
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::AddrInUse
                if began.elapsed() < RESTART_PATIENCE && !stopping.load(Ordering::Relaxed) =>
            {
                if !std::mem::replace(&mut told, true) {
                    log::info!("port {port} is taken; this replica tries again for {RESTART_PATIENCE:?}");
                }
                std::thread::sleep(RESTART_RETRY);
            }
            ErrorKind::AddrNotAvailable => {
                let (host, addresses) = (config.listen.clone(), addresses.to_vec());
                return Err(Trouble::Address { host, addresses, source: error }.into());
            }
            _ => {
                return Err(Fatal::machine(format!(
                    "shard {shard} cannot listen on port {port} of {} at {} ({what}): {error}; stop the \
                     process that has the port, or change `{what}`",
                    config.listen,
                    list(addresses)
                )));
            }
        }
    }
}

/// Takes the port of a door, if there is one.
fn take_door(what: &str, setting: &str, address: Option<&str>) -> Result<Option<TcpListener>, Fatal> {
    let Some(address) = address else { return Ok(None) };
    let refused = |error| {
        Fatal::machine(format!(
            "{what} cannot be answered at {address} (`{setting}`): {error}; stop the process that has the port, or change \
             `{setting}`"
        ))
    };
    let places = address.to_socket_addrs().map_err(refused)?;
    listen(&places.collect::<Vec<_>>()).map(Some).map_err(refused)
}

fn listen(places: &[SocketAddr]) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(places)?;
    // A second call of `listen` changes the backlog of a listening socket.
    rustix::net::listen(&listener, BACKLOG as i32)?;
    Ok(listener)
}

/// What is wrong with listening at these addresses: nobody on another machine reaches a loopback address,
/// which is what some systems give a machine's own name.
pub(crate) fn check_loopback(
    stopping: &AtomicBool,
    config: &Config,
    addresses: &[SocketAddr],
) -> Option<String> {
    let is_local = |addresses: &[SocketAddr]| addresses.iter().all(|address| address.ip().is_loopback());
    if !is_local(addresses) {
        return None;
    }
    let mut others = config.members.iter().filter(|member| **member != *config.own());
    let far = others.find(|member| {
        member.host != config.listen
            && !look_up(stopping, &member.host).is_ok_and(|addresses| is_local(&addresses))
    })?;
    Some(format!(
        "'{}' stands for {} here, which only this machine can reach, but {} is another machine: peers and \
         clients on other machines cannot connect. Set `listen` to an address of the network or to 0.0.0.0, or \
         correct the name (/etc/hosts)",
        config.listen,
        list(addresses),
        far.host
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_cuts_the_backlog_is_named() {
        assert!(short_backlog(128).unwrap().contains("lets 128 connections wait"));
        assert_eq!(short_backlog(4096), None);
    }

    #[test]
    fn an_unknown_core_is_named() {
        assert!(check_cores(&cores::usable()).is_ok());
        assert!(check_cores(&[9999]).unwrap_err().to_string().contains("9999"));
    }
}
