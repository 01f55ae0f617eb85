//! The start of a shard: its thread, its executor, and what outlives its epochs.

use glommio::{Latency, LocalExecutorBuilder, Placement, PoolPlacement, Shares};
use isonomy_mesh::fatal::{Fatal, Reason, stop, stop_with};
use isonomy_mesh::{Roster, ShardEnd};
use std::path::Path;
use std::rc::Rc;
use std::thread::JoinHandle;

use crate::aside::Aside;
use crate::data_dir::DataDir;
use crate::feed::Feed;
use crate::log::groups::GROUP_BYTES_MAX;
use crate::log::probe;
use crate::mail::Mail;
use crate::net::listener::Listener;
use crate::rings::PREEMPT;
use crate::settings::{Ports, Settings};
use crate::shard::{Listeners, Shard};
use crate::signal::Signal;
use crate::time::ticker::TICK;
use crate::time::ticks::Ticks;
use crate::told::Told;
use crate::waiting::Wait;

/// The memory that is registered with the rings, which is a few groups of the log.
pub(crate) const IO_MEMORY_BYTES: usize = 4 * GROUP_BYTES_MAX;

/// Starts the executor of a shard on a thread of its own, in the epoch of `roster`, which the directory has entered. The thread ends when the shard was told to stop and has; a
/// shard that cannot go on ends the process ([`isonomy_mesh::fatal::stop`]).
///
/// # Errors
///
/// The system gives the process no thread.
pub fn spawn(
    settings: Settings,
    roster: Roster,
    data_dir: DataDir,
    ports: Ports,
    end: ShardEnd,
) -> Result<JoinHandle<()>, Fatal> {
    let name = format!("shard-{}", settings.shard.0);
    let run = move || {
        let placement = settings.core.map_or(Placement::Unbound, Placement::Fixed);
        let executor = LocalExecutorBuilder::new(placement)
            .name("shard")
            .io_memory(IO_MEMORY_BYTES)
            .preempt_timer(PREEMPT)
            // The pool has one thread, which belongs to the log: no other work may be given to it.
            .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
            .make();
        match executor {
            Ok(executor) => executor.run(run_shard(settings, roster, data_dir, ports, end)),
            Err(error) => {
                let text = format!(
                    "a shard cannot start its executor: {error}; check the limit on locked memory (memlock) \
                     and `cores`"
                );
                stop(Reason::Machine, &text)
            }
        }
    };
    let thread = std::thread::Builder::new().name(name).spawn(run);
    thread.map_err(|error| {
        Fatal::new(
            Reason::Machine,
            format!("a shard's thread cannot be started: {error}; raise the limit on threads"),
        )
    })
}

async fn run_shard(settings: Settings, roster: Roster, data_dir: DataDir, ports: Ports, end: ShardEnd) {
    let ticks = Ticks::start(TICK).unwrap_or_else(|error| {
        stop(
            Reason::Machine,
            &format!("the thread for a shard's ticks cannot be started: {error}; raise the limit on threads"),
        )
    });
    ticks.attach().await;
    let mail = Mail::new(end, roster);
    let is_usable = wait_for_room(&data_dir.shard_dir(settings.shard), &settings, &mail).await;
    if !is_usable.unwrap_or_else(|fatal| stop_with(&fatal)) {
        return;
    }
    let shard = make(settings, data_dir, mail, ticks).unwrap_or_else(|fatal| stop_with(&fatal));
    // Sockets, disk and timers matter equally: a wake-up that waited behind other work would delay every decision.
    let latency = Latency::Matters(PREEMPT);
    let queue = glommio::executor().create_task_queue(Shares::default(), latency, "shard");
    let listener = |port| Rc::new(Listener::new(port));
    let listeners = Listeners { peers: listener(ports.peers), clients: listener(ports.clients) };
    let main = glommio::spawn_local_into(shard.run(listeners), queue);
    main.expect("the queue was just made").await;
}

/// What outlives the epochs of a shard.
pub(crate) fn make(
    settings: Settings,
    data_dir: DataDir,
    mut mail: Mail,
    ticks: Ticks,
) -> Result<Rc<Shard>, Fatal> {
    let aside = Aside::start().map_err(|error| {
        let text =
            format!("a shard's thread for files cannot be started: {error}; raise the limit on threads");
        Fatal::new(Reason::Machine, text)
    })?;
    let (told, tick) = (Rc::new(Told::default()), Signal::default());
    let feed = mail.take_feed().map(Feed::new);
    Ok(Rc::new(Shard { settings, data_dir, mail, feed, aside, told, ticks, tick }))
}

/// Waits until the directory takes writes; false if the process was told to stop meanwhile.
async fn wait_for_room(dir: &Path, settings: &Settings, mail: &Mail) -> Result<bool, Fatal> {
    let mut wait = Wait::new();
    while !mail.is_stopping() {
        match probe::check_direct_io(dir, settings.shard).await {
            Ok(()) => {
                wait.on_success();
                return Ok(true);
            }
            Err(fatal) => glommio::timer::sleep(wait.on_failure(fatal)?).await,
        }
    }
    Ok(false)
}
