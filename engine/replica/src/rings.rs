//! How glommio's rings are set up.
//!
//! By default the kernel interrupts a thread for everything that completes in its ring, even if it
//! runs on another core: for a shard with many connections that was a fifth of its CPU
//! (docs/decisions/0011). Glommio has no option for it, so the linker puts this module between its
//! liburing and the kernel (`build.rs`).

#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint};
use std::sync::atomic::{AtomicBool, Ordering};

/// `IORING_SETUP_COOP_TASKRUN`, Linux 5.19: what has completed is told when the thread enters the kernel
/// for something else, as a shard does all the time.
const COOP_TASKRUN: u32 = 1 << 8;

static COOPERATIVE: AtomicBool = AtomicBool::new(false);

/// Whether the rings of this process do without interrupts.
pub(crate) fn are_cooperative() -> bool {
    COOPERATIVE.load(Ordering::Relaxed)
}

/// The start of `struct io_uring_params`; the rest is of no concern here.
#[repr(C)]
struct Params {
    _entries: [u32; 2],
    flags: u32,
}

/// Takes the place of liburing's function of this name.
///
/// # Safety
///
/// `params` points to a whole `struct io_uring_params`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___sys_io_uring_setup(entries: c_uint, params: *mut Params) -> c_int {
    // SAFETY: here and below as the caller promises. A call that fails leaves the parameters as they are.
    let asked = unsafe { (*params).flags };
    let setup = |flags: u32| unsafe {
        (*params).flags = flags;
        libc::syscall(libc::SYS_io_uring_setup, entries, params)
    };
    let ring = setup(asked | COOP_TASKRUN);
    // An older kernel does not know the flag.
    let is_refused = ring < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL);
    COOPERATIVE.store(!is_refused, Ordering::Relaxed);
    (if is_refused { setup(asked) } else { ring }) as c_int
}
