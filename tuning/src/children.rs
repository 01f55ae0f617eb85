//! Processes that end with the one that starts them.

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use std::io::{ErrorKind, Result};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The system kills the started process when this process has ended, in whatever way, since neither SIGKILL nor an
/// abort leaves time to end anything. The command must be spawned on the main thread, since the system watches the
/// end of the thread that spawns it.
pub fn end_with_this(command: &mut Command) {
    let parent = getpid();
    // The process gets a group of its own, since Ctrl-C is for this program, which ends the others in good order.
    command.process_group(0);
    // SAFETY: between fork and exec only system calls are made; nothing is allocated or locked.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || end_with(parent));
    }
}

/// Asks the system to kill this process when its parent has ended.
fn end_with(parent: Pid) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have ended before that.
    if getppid() == Some(parent) { Ok(()) } else { Err(ErrorKind::Interrupted.into()) }
}
