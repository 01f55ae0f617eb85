//! Between glommio and the kernel: what its rings do that costs a shard dearly.
//!
//! Glommio has no options for it, so the linker puts functions of this module in the place of two of
//! its liburing's (`build.rs`): how rings are set up, here, and what is submitted.

#![allow(unsafe_code)]

mod submit;

pub(crate) use submit::PREEMPT;

use std::cell::RefCell;
use std::ffi::{c_int, c_uint};
use std::sync::atomic::{AtomicBool, Ordering};

/// `IORING_SETUP_COOP_TASKRUN`, Linux 5.19: completions are reported when the thread enters the kernel
/// for something else, as a shard does all the time. By default the kernel interrupts a thread for
/// everything that completes in its ring, even if it runs on another core: for a shard with many
/// connections that was a fifth of its CPU (docs/decisions/0011).
const COOP_TASKRUN: u32 = 1 << 8;

static COOPERATIVE: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The rings that this thread has set up. Some are closed again, such as those that only probe the kernel.
    static SET_UP: RefCell<Vec<c_int>> = const { RefCell::new(Vec::new()) };
}

fn was_set_up(fd: c_int) -> bool {
    SET_UP.with_borrow(|rings| rings.contains(&fd))
}

/// The reason why the rings of this process, whose shards have slept, are not as cheap as they can be.
pub(crate) fn complaint() -> Option<&'static str> {
    if !submit::is_active() {
        return Some(
            "the shard uses the rings of glommio itself, which costs up to a quarter of the shard's CPU; build \
             the program with cargo",
        );
    }
    let interrupts = "the kernel interrupts the shard for every arrival, which costs up to a fifth of the \
                      shard's CPU; use Linux 5.19 or later";
    (!COOPERATIVE.load(Ordering::Relaxed)).then_some(interrupts)
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
    let cooperative = setup(asked | COOP_TASKRUN);
    // An older kernel does not know the flag.
    let is_refused = cooperative < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL);
    COOPERATIVE.store(!is_refused, Ordering::Relaxed);
    let fd = (if is_refused { setup(asked) } else { cooperative }) as c_int;
    if fd >= 0 && !was_set_up(fd) {
        SET_UP.with_borrow_mut(|rings| rings.push(fd));
    }
    fd
}
