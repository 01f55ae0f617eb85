//! Troubles that pass by themselves. A start that meets one waits, logs the reason, and goes on. All other
//! troubles end the start.

use isonomy_mesh::fatal::{Fatal, Reason};
use isonomy_tuning::disk::free_bytes;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The first pause before another try; it doubles up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LAST: Duration = Duration::from_secs(2);
/// The time between two checks whether the process was asked to stop.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a name server may take. The thread of a lookup lives until the system itself gives up, so few such
/// threads may run.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(5);
/// The first and the longest time after which a lasting trouble is logged again; the time doubles in between.
const TOLD_AGAIN_FIRST: Duration = Duration::from_secs(10);
const TOLD_AGAIN_LAST: Duration = Duration::from_secs(600);

/// What a start waits for.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The disk or the user's quota is full.
    #[error(
        "{}: there is no room on the disk ({source}); {free_bytes} bytes are free. Make room there (never by \
         removing files of the data directory), or raise the quota",
        .path.display()
    )]
    Room {
        /// The path that was to be written.
        path: PathBuf,
        /// The bytes that are free there for every user.
        free_bytes: u64,
        /// What the system says.
        source: io::Error,
    },
    /// A name has no address yet.
    #[error(
        "the name '{host}', given by `listen` or by the own member's `host`, cannot be looked up: {source}. \
         Check the name and the resolver (/etc/hosts, /etc/resolv.conf), or set `listen` to an address"
    )]
    Name {
        /// The name.
        host: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// No interface has the address yet.
    #[error(
        "{} of '{host}' is not an address of this machine yet ({source}). Check the interfaces of this \
         machine, or set `listen`",
        list(addresses)
    )]
    Address {
        /// What `listen` says.
        host: String,
        /// What it stands for.
        addresses: Vec<SocketAddr>,
        /// What the system says.
        source: io::Error,
    },
}

impl Trouble {
    /// The trouble behind an error of a file, if it passes.
    pub fn of_file(path: &Path, source: io::Error) -> Result<Trouble, io::Error> {
        if !is_lack_of_room(source.kind()) {
            return Err(source);
        }
        // The file may not exist; its directory, or one above it, does.
        let place = path.ancestors().find(|place| place.exists()).unwrap_or(Path::new("/"));
        let free_bytes = free_bytes(place).unwrap_or(0);
        Ok(Trouble::Room { path: path.into(), free_bytes, source })
    }
}

/// For a caller that cannot wait until the trouble has passed.
impl From<Trouble> for Fatal {
    fn from(trouble: Trouble) -> Fatal {
        let reason = match trouble {
            Trouble::Room { .. } => Reason::Disk,
            Trouble::Name { .. } | Trouble::Address { .. } => Reason::Machine,
        };
        Fatal::passing(reason, trouble.to_string())
    }
}

/// Whether a file could not be written because the disk or the quota has no room.
pub fn is_lack_of_room(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Addresses as text.
pub fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ")
}

/// Decides when a lasting condition is logged again, less often each time.
#[derive(Debug)]
pub struct Reminder {
    due: Instant,
    pause: Duration,
}

impl Reminder {
    /// Due after `first`.
    pub fn new(first: Duration) -> Reminder {
        Reminder { due: Instant::now() + first, pause: TOLD_AGAIN_FIRST }
    }

    /// Whether the condition is due to be logged.
    pub fn is_due(&mut self) -> bool {
        let is_due = Instant::now() >= self.due;
        if is_due {
            self.due = Instant::now() + self.pause;
            self.pause = (2 * self.pause).min(TOLD_AGAIN_LAST);
        }
        is_due
    }
}

/// One start that waits: the time until the next try, and the reason that was logged.
pub struct Wait {
    reminder: Reminder,
    pause: Duration,
    waited: bool,
}

impl Wait {
    /// Nothing was tried yet.
    #[expect(clippy::new_without_default, reason = "a wait begins now, which no default says")]
    pub fn new() -> Wait {
        Wait { reminder: Reminder::new(Duration::ZERO), pause: PAUSE_FIRST, waited: false }
    }

    /// Logs the reason to wait, and returns the pause before the next try. An error that does not pass is returned.
    pub fn on_failure(&mut self, fatal: Fatal) -> Result<Duration, Fatal> {
        if !fatal.passes {
            return Err(fatal);
        }
        if self.reminder.is_due() {
            log::warn!("the start waits: {fatal}. The start goes on by itself");
        }
        self.waited = true;
        let pause = self.pause;
        self.pause = (2 * pause).min(PAUSE_LAST);
        Ok(pause)
    }

    /// The trouble has passed.
    pub fn on_success(&self) {
        if self.waited {
            log::info!("the start goes on, because the trouble has passed");
        }
    }
}

/// Tries until the attempt succeeds or fails for good. `None`: the process was asked to stop meanwhile.
pub fn patiently<T>(
    stopping: &AtomicBool,
    mut attempt: impl FnMut() -> Result<T, Fatal>,
) -> Result<Option<T>, Fatal> {
    let mut wait = Wait::new();
    while !stopping.load(Ordering::Relaxed) {
        match attempt() {
            Ok(done) => {
                wait.on_success();
                return Ok(Some(done));
            }
            // The process stops, so nobody waits for the result any more.
            Err(_) if stopping.load(Ordering::Relaxed) => return Ok(None),
            Err(fatal) => {
                let until = Instant::now() + wait.on_failure(fatal)?;
                while Instant::now() < until && !stopping.load(Ordering::Relaxed) {
                    std::thread::sleep(LOOK_EVERY);
                }
            }
        }
    }
    Ok(None)
}

/// Looks a name up, on a thread of its own: a name server that does not answer must not keep the process from
/// being stopped.
pub fn look_up(stopping: &AtomicBool, host: &str) -> Result<Vec<SocketAddr>, Trouble> {
    let (sender, found) = channel();
    let (name, began) = (host.to_owned(), Instant::now());
    let failed = |source: io::Error| Trouble::Name { host: host.into(), source };
    let ask = move || {
        // Nobody may wait any more.
        let _ = sender.send((name.as_str(), 0).to_socket_addrs().map(Iterator::collect));
    };
    std::thread::Builder::new().name("lookup".into()).spawn(ask).map_err(failed)?;
    loop {
        match found.recv_timeout(LOOK_EVERY) {
            Ok(found) => return found.map_err(failed),
            Err(RecvTimeoutError::Timeout)
                if began.elapsed() < LOOKUP_PATIENCE && !stopping.load(Ordering::Relaxed) => {}
            Err(_) => {
                let text = format!("no name server answered in {LOOKUP_PATIENCE:?}");
                return Err(failed(io::Error::new(ErrorKind::TimedOut, text)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_mesh::fatal::Reason;

    #[test]
    fn a_full_disk_and_a_full_quota_pass_and_a_read_only_disk_does_not() {
        let of = |errno| Trouble::of_file(Path::new("/nowhere/x"), io::Error::from_raw_os_error(errno));
        assert!(of(libc::ENOSPC).unwrap().to_string().contains("/nowhere/x"));
        assert!(of(libc::EDQUOT).is_ok());
        for errno in [libc::EROFS, libc::EACCES, libc::EMFILE, libc::EIO, libc::EINVAL] {
            assert!(of(errno).is_err());
        }
    }

    #[test]
    fn what_passes_is_tried_again_and_what_does_not_ends_at_once() {
        let stopping = AtomicBool::new(false);
        let trouble = || Trouble::Name { host: "db1".into(), source: io::Error::other("not yet") };
        let mut tries = 0;
        let done = patiently(&stopping, || {
            tries += 1;
            if tries < 3 { Err(Fatal::from(trouble())) } else { Ok(tries) }
        });
        assert_eq!(done.unwrap(), Some(3));
        let fatal = patiently::<()>(&stopping, || Err(Fatal::new(Reason::Machine, "no"))).unwrap_err();
        assert_eq!(fatal.reason, Reason::Machine);
        stopping.store(true, Ordering::Relaxed);
        assert!(patiently::<()>(&stopping, || unreachable!("it was told to stop")).unwrap().is_none());
    }
}
