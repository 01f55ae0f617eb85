//! The program under limits and profiles, as containers and service managers put them on.

use super::program;
use libc::{sock_filter, sock_fprog};
use std::io::Error;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Where a filter finds the number of the call, and the lower half of its second argument.
const CALL_AT: u32 = 0;
const SECOND_AT: u32 = if cfg!(target_endian = "little") { 24 } else { 28 };

/// The program in whose place this system call answers with an error; if `allowed` is given, unless its second
/// argument is that.
pub fn forbidding(call: libc::c_long, allowed: Option<u32>, errno: i32) -> Command {
    let load = |at| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
    let unless = |value, skip| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, skip, value);
    let answer = |what| step(libc::BPF_RET | libc::BPF_K, 0, 0, what);
    let refuse = answer(libc::SECCOMP_RET_ERRNO | errno as u32);
    let allow = answer(libc::SECCOMP_RET_ALLOW);
    let filter = match allowed {
        None => vec![load(CALL_AT), unless(call as u32, 1), refuse, allow],
        Some(second) => {
            vec![
                load(CALL_AT),
                unless(call as u32, 3),
                load(SECOND_AT),
                unless(second, 2),
                allow,
                allow,
                refuse,
            ]
        }
    };
    let mut command = program();
    // SAFETY: between fork and exec only system calls are made; nothing is allocated or locked.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || put_on(&filter));
    }
    command
}

fn step(code: u32, jump_if: u8, jump_else: u8, value: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: jump_if, jf: jump_else, k: value }
}

fn put_on(filter: &[sock_filter]) -> Result<(), Error> {
    let program = sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the filter lives until the call returns, and the kernel copies it.
    #[allow(unsafe_code)]
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
    };
    if refused { Err(Error::last_os_error()) } else { Ok(()) }
}

/// The program whose files may have so many bytes, and the limit no higher.
pub fn with_file_size(bytes: u64) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(format!("--fsize={bytes}:{bytes}")).arg(program().get_program());
    command
}
