//! `isonomy serve`: one replica, until it is told to stop.

use crate::checks::{Taken, check_loopback, check_machine, take_ports};
use crate::config::{Config, ServeArgs};
use crate::fatal::{Fatal, Reason};
use crate::logging;
use crate::membership::Membership;
use crate::shards::Shards;
use crate::threads::no_thread;
use isonomy_shard::Ports;
use isonomy_shard::data_dir::DataDir;
use isonomy_shard::waiting::{look_up, patiently};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Freed memory that is kept instead of being returned: a loaded replica frees and takes receive
/// buffers all the time, and every page that comes back from the system is a fault.
const KEPT_FREE_BYTES: i32 = 256 << 20;
/// Blocks up to here come from the heap, not from mappings of their own.
const HEAP_BLOCK_BYTES_MAX: i32 = 32 << 20;

/// Runs a replica. Returns when it was told to stop and has.
pub(crate) fn run(args: ServeArgs) -> Result<(), Fatal> {
    logging::speak_apart().map_err(no_thread("for the log"))?;
    let mut config = Config::load(args)?;
    keep_freed_memory();
    let stopping = Arc::new(AtomicBool::new(false));
    heed_signals(&stopping)
        .map_err(|error| Fatal::new(Reason::Machine, format!("signals cannot be handled: {error}")))?;
    let decisions = serve(&mut config, &stopping)?.unwrap_or(0);
    logging::say_last(&format!(
        "isonomy: replica {} has stopped in good order, having executed {decisions} decisions",
        config.replica
    ));
    Ok(())
}

/// Starts the shards and runs them until the process is told to stop. Returns the number of decisions that they have
/// executed; `None` if the process was told to stop before that.
fn serve(config: &mut Config, stopping: &Arc<AtomicBool>) -> Result<Option<u64>, Fatal> {
    let Some(mut membership) = patiently(stopping, || Membership::find(config, stopping))? else {
        return Ok(None);
    };
    config.connections_max = check_machine(config)?;
    // The directory first: a second process must not even take a port.
    let expected = config.expected();
    let Some(data_dir) = patiently(stopping, || DataDir::open(&expected))? else { return Ok(None) };
    let join =
        || membership.as_mut().map_or(Ok(()), |membership| membership.join(config, &data_dir, stopping));
    let Some(()) = patiently(stopping, join)? else { return Ok(None) };
    let roster = match &membership {
        Some(membership) => membership.look(None).roster,
        None => config.roster(data_dir.newest_epoch()),
    };
    let enter = || if roster.own.is_some() { data_dir.enter(&roster).map(drop) } else { Ok(()) };
    let Some(()) = patiently(stopping, enter)? else { return Ok(None) };
    let listen = || -> Result<_, Fatal> {
        let addresses = look_up(stopping, &config.listen)?;
        Ok((take_ports(stopping, config, &addresses)?, addresses))
    };
    let Some((taken, addresses)) = patiently(stopping, listen)? else { return Ok(None) };
    let unreachable = check_loopback(stopping, config, &addresses);
    say_addresses(config, &taken, unreachable.as_deref());
    let mut shards = Shards::start(config, &data_dir, &roster, taken, unreachable, membership)?;
    if shards.wait_ready(stopping)? {
        announce(config);
    }
    shards.run(stopping).map(Some)
}

/// Sets `stopping` and wakes the calling thread when the process is told to stop.
fn heed_signals(stopping: &Arc<AtomicBool>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let (stopping, main) = (stopping.clone(), std::thread::current());
    let heed = move || {
        for _ in signals.forever() {
            stopping.store(true, Ordering::Relaxed);
            main.unpark();
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(heed).map(drop)
}

/// Where it is reached, before it waits for anything else.
fn say_addresses(config: &Config, taken: &Taken, unreachable: Option<&str>) {
    let range = |listener: fn(&Ports) -> &TcpListener| {
        let ends = [taken.ports.first(), taken.ports.last()];
        let ends = ends.map(|ports| ports.and_then(|ports| listener(ports).local_addr().ok()));
        match ends {
            [Some(first), Some(last)] if first != last => format!("{first} to {}", last.port()),
            [Some(first), _] => first.to_string(),
            _ => "an unknown address".into(),
        }
    };
    let door = |what: &str, listener: &Option<TcpListener>| {
        let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        address.map(|address| format!(", for {what} on {address}")).unwrap_or_default()
    };
    logging::say(&format!(
        "isonomy: replica {} listens for peers on {}, for clients on {}{}{}",
        config.replica,
        range(|ports| &ports.peers),
        range(|ports| &ports.clients),
        door("HTTP", &taken.http),
        door("gRPC", &taken.grpc)
    ));
    if let Some(unreachable) = unreachable {
        logging::say(&format!("isonomy: warning: {unreachable}"));
    }
}

#[cfg(target_env = "gnu")]
fn keep_freed_memory() {
    // SAFETY: called before any other thread exists; a refusal changes nothing.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_FREE_BYTES);
        libc::mallopt(libc::M_MMAP_THRESHOLD, HEAP_BLOCK_BYTES_MAX);
    }
}

/// Other C libraries have no such settings.
#[cfg(not(target_env = "gnu"))]
fn keep_freed_memory() {}

fn announce(config: &Config) {
    let own = config.own();
    logging::say(&format!(
        "isonomy: replica {} of {} in cluster '{}' serves {} shard(s), clients on {}, data in {}, durability {}",
        config.replica,
        config.members.len(),
        config.cluster,
        config.shards,
        own.client_address(),
        config.data_dir.display(),
        config.durability.name()
    ));
}
