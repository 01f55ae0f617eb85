//! Whether this process may use io_uring, call by call and operation by operation, since a profile may forbid each by
//! itself. The executors' library, glommio, ends a process that lacks a call or operation, with a text that names
//! none.

use io_uring::squeue::Entry;
use io_uring::types::Fd;
use io_uring::{IoUring, Probe, opcode};
use std::fmt;
use std::io::{Error, ErrorKind};
use std::ptr::{null, null_mut};

/// The entries of the ring that is tried, on which one operation is under way at a time.
const ENTRIES: u32 = 8;
/// A file that does not exist, so that no operation that is tried has an effect.
const NO_FILE: Fd = Fd(-1);

/// A system call of io_uring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// io_uring_setup
    Setup,
    /// io_uring_register
    Register,
    /// io_uring_enter
    Enter,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Call::Setup => "io_uring_setup",
            Call::Register => "io_uring_register",
            Call::Enter => "io_uring_enter",
        })
    }
}

/// Why executors cannot use io_uring.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A system call fails.
    #[error("io_uring is refused: {call} fails with \"{source}\"; {}", remedy(*.call, .source))]
    Call {
        /// The system call.
        call: Call,
        /// The system's error.
        source: Error,
    },
    /// The kernel does not know these operations.
    #[error("io_uring lacks {}; Linux 5.8 or later is needed", .0.join(", "))]
    Unknown(Vec<&'static str>),
    /// The kernel knows these operations and does not let this process use them.
    #[error(
        "io_uring refuses {}; lift the restriction on these operations, which a policy of the system (SELinux, \
         AppArmor, BPF) or the program that starts this process imposes",
        .0.join(", ")
    )]
    Operations(Vec<&'static str>),
}

/// The remedy for a system call that fails.
fn remedy(call: Call, error: &Error) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let disabled = read("/proc/sys/kernel/io_uring_disabled");
    let is_filtered = read("/proc/self/status").lines().any(|line| line.starts_with("Seccomp:\t2"));
    let profile = "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile (Docker: \
                   --security-opt seccomp=FILE; Kubernetes: securityContext.seccompProfile; systemd: SystemCallFilter=)";
    let forbids = matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOSYS));
    match (call, disabled.trim(), error.raw_os_error()) {
        (Call::Setup, "1" | "2", Some(libc::EPERM)) => format!(
            "the sysctl kernel.io_uring_disabled is {}; set it to 0{}",
            disabled.trim(),
            if is_filtered { format!(", and {profile}") } else { String::new() }
        ),
        _ if forbids && is_filtered => profile.to_owned(),
        (Call::Setup, _, Some(libc::ENOSYS)) => {
            "the kernel does not have io_uring; Linux 5.8 or later is needed".to_owned()
        }
        _ if forbids => {
            "a policy of the system (SELinux, AppArmor) forbids io_uring to this process; allow io_uring"
                .to_owned()
        }
        (_, _, Some(libc::ENOMEM)) => {
            "raise the limit of locked memory (`ulimit -l`, LimitMEMLOCK= in a systemd unit) or of memory"
                .to_owned()
        }
        (_, _, Some(libc::EMFILE | libc::ENFILE)) => crate::files::REMEDY.to_owned(),
        _ => "check the kernel log".to_owned(),
    }
}

/// Tries everything that the executors of Isonomy look at when they start, and everything that they submit.
///
/// # Errors
/// A system call is refused, or operations are unknown or refused.
pub fn check() -> Result<(), Refused> {
    let failed = |call| move |source| Refused::Call { call, source };
    let mut ring = IoUring::new(ENTRIES).map_err(failed(Call::Setup))?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(failed(Call::Register))?;
    let operations = operations();
    let named = |names: Vec<&'static str>, refused: fn(Vec<&'static str>) -> Refused| {
        if names.is_empty() { Ok(()) } else { Err(refused(names)) }
    };
    let is_unknown = |(_, code, _): &&(_, u8, _)| !probe.is_supported(*code);
    let unknown = operations.iter().filter(is_unknown).map(|(name, ..)| *name).collect();
    named(unknown, Refused::Unknown)?;
    named(refused(&mut ring, &operations).map_err(failed(Call::Enter))?, Refused::Operations)
}

/// The operations that this ring does not take, whatever their arguments are.
fn refused(ring: &mut IoUring, operations: &[(&'static str, u8, Entry)]) -> Result<Vec<&'static str>, Error> {
    let mut names = Vec::new();
    for (name, _, entry) in operations {
        let result = attempt(ring, entry)?;
        if matches!(-result, libc::EACCES | libc::EPERM) {
            names.push(*name);
        }
    }
    Ok(names)
}

/// Submits an operation and waits for its result.
#[allow(unsafe_code)]
fn attempt(ring: &mut IoUring, entry: &Entry) -> Result<i32, Error> {
    // SAFETY: the entry names no file and no memory, so there is none that would have to live.
    unsafe { ring.submission().push(entry) }.expect("the ring is empty");
    while let Err(error) = ring.submit_and_wait(1) {
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let completion = ring.completion().next();
    Ok(completion.ok_or_else(|| Error::other("nothing has completed"))?.result())
}

/// The operations that glommio asks for when it starts, and the one beyond these by which it cancels. Each has no
/// file and no memory, so that it ends at once, with an error.
fn operations() -> Vec<(&'static str, u8, Entry)> {
    macro_rules! list {
        ($($name:ident $arguments:tt),+ $(,)?) => {
            vec![$((stringify!($name), opcode::$name::CODE, opcode::$name::new $arguments .build())),+]
        };
    }
    list![
        Nop(),
        Readv(NO_FILE, null(), 0),
        Writev(NO_FILE, null(), 0),
        Fsync(NO_FILE),
        ReadFixed(NO_FILE, null_mut(), 0, 0),
        WriteFixed(NO_FILE, null(), 0, 0),
        PollAdd(NO_FILE, 0),
        PollRemove(0),
        SendMsg(NO_FILE, null()),
        RecvMsg(NO_FILE, null_mut()),
        Timeout(null()),
        TimeoutRemove(0),
        Accept(NO_FILE, null_mut(), null_mut()),
        AsyncCancel(0),
        LinkTimeout(null()),
        Connect(NO_FILE, null(), 0),
        Fallocate(NO_FILE, 0),
        OpenAt(NO_FILE, null()),
        Close(NO_FILE),
        Statx(NO_FILE, null(), null_mut()),
        Read(NO_FILE, null_mut(), 0),
        Write(NO_FILE, null(), 0),
        Send(NO_FILE, null(), 0),
        Recv(NO_FILE, null_mut(), 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::register::Restriction;

    #[test]
    fn what_an_executor_needs_is_there() {
        check().unwrap();
    }

    #[test]
    fn operations_that_are_restricted_are_named() {
        let mut ring = IoUring::builder().setup_r_disabled().build(ENTRIES).unwrap();
        let allowed = operations().into_iter().filter(|(name, ..)| !["Writev", "Connect"].contains(name));
        let mut allowed: Vec<_> = allowed.map(|(_, code, _)| Restriction::sqe_op(code)).collect();
        ring.submitter().register_restrictions(&mut allowed).unwrap();
        ring.submitter().register_enable_rings().unwrap();
        let refused = refused(&mut ring, &operations()).unwrap();
        assert_eq!(refused, ["Writev", "Connect"]);
        assert!(Refused::Operations(refused).to_string().contains("refuses Writev, Connect"));
    }
}
