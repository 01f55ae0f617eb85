//! Submissions that glommio makes without need, and the entries into the kernel that they cost.
//!
//! Before each round of tasks and before each sleep glommio sets a timer on either ring, and cancels it
//! afterwards; it links its rings, and then waits for them. That was twelve entries into the kernel
//! for each time that a shard woke up (docs/decisions/0013). Neither timer is of use to a shard,
//! whose tasks are short and end by themselves.

use io_uring::opcode;
use io_uring::squeue::Flags;
use isonomy_mesh::fatal::{Reason, stop};
use std::cell::RefCell;
use std::ffi::{c_int, c_uint};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What an executor must be given as its preemption timer, so that it is told from other timers:
/// nothing else in a shard waits for so long.
pub(crate) const PREEMPT: Duration = Duration::from_secs(3600);

const NOP: u8 = opcode::Nop::CODE;
const POLL_ADD: u8 = opcode::PollAdd::CODE;
const TIMEOUT: u8 = opcode::Timeout::CODE;
const ASYNC_CANCEL: u8 = opcode::AsyncCancel::CODE;
const WRITE: u8 = opcode::Write::CODE;
const IO_LINK: u8 = Flags::IO_LINK.bits();

const OTHER_LAYOUT: &str = "the ring of the glommio in this build has another layout than this program \
                            expects; build the program with the glommio that Cargo.toml names";

static ACTIVE: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The rings of this thread's executor: those that it submits to. That they were set up is not
    /// enough: one that only probes the kernel is closed, and a socket can get its number.
    static RINGS: RefCell<Vec<c_int>> = const { RefCell::new(Vec::new()) };
}

/// Whether a shard has slept here.
pub(crate) fn is_active() -> bool {
    ACTIVE.load(Ordering::Relaxed)
}

fn is_ring(fd: c_int) -> bool {
    RINGS.with_borrow(|rings| rings.contains(&fd))
}

/// `struct io_uring_sqe` of Linux.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sqe {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: c_int,
    /// Of a timer: how many completions end it.
    offset: u64,
    /// Of a timer: its `timespec`. Of a cancellation: the `user_data` of what it cancels.
    address: u64,
    length: u32,
    op_flags: u32,
    user_data: u64,
    rest: [u64; 3],
}

// The kernel's layout, as another crate has it.
const _: () = assert!(size_of::<Sqe>() == size_of::<io_uring::squeue::Entry>());

impl Sqe {
    /// Glommio's timer that ends with a number of completions, which wakes it by the write behind it.
    fn counts_completions(&self) -> bool {
        self.opcode == TIMEOUT && self.offset > 0 && self.flags & IO_LINK != 0
    }

    fn is_wake_up(&self) -> bool {
        self.opcode == WRITE && self.user_data == 0
    }

    fn preempts(&self) -> bool {
        // SAFETY: the timespec of a timer lives until the timer has completed.
        let duration = |timer: &Sqe| unsafe { *(timer.address as *const [i64; 2]) };
        let preempt = [PREEMPT.as_secs() as i64, i64::from(PREEMPT.subsec_nanos())];
        self.opcode == TIMEOUT && self.offset == 0 && duration(self) == preempt
    }

    fn cancels(&self, other: &Sqe) -> bool {
        self.opcode == ASYNC_CANCEL && self.address == other.user_data
    }

    /// Makes the entry complete at once. The submitter still gets a completion.
    fn make_void(&mut self) {
        *self = Sqe { opcode: NOP, fd: -1, user_data: self.user_data, ..Sqe::default() };
    }
}

/// `struct io_uring` of glommio's liburing, as far as it is read here. Glommio keeps its own declaration to itself,
/// so its version is pinned, and each ring is looked at when it is first used.
#[repr(C)]
struct Ring {
    _head_and_tail: [*mut u32; 2],
    mask: *const u32,
    entries: *const u32,
    _flags_dropped_array: [*mut u32; 3],
    sqes: *mut Sqe,
    sqe_head: u32,
    sqe_tail: u32,
    _size_place_pad: [u64; 4],
    _completions: [u64; 11],
    _flags: u32,
    fd: c_int,
}

impl Ring {
    /// Whether the fields hold what they must, if the layout is the one that is declared here.
    ///
    /// # Safety
    ///
    /// The fields up to `entries` are pointers into a ring that was set up, as every version of liburing has them.
    unsafe fn is_as_declared(&self) -> bool {
        // SAFETY: as the caller promises.
        let (mask, entries) = unsafe { (*self.mask, *self.entries) };
        entries.is_power_of_two()
            && mask == entries - 1
            && self.sqe_tail.wrapping_sub(self.sqe_head) <= entries
            && super::was_set_up(self.fd)
    }
}

/// The treatment of the entries that wait for submission.
#[derive(Debug, PartialEq)]
enum Step {
    Submit,
    /// Submit, and wait in the same call until something completes.
    SubmitAndWait,
    /// Not yet: nothing of it is needed.
    Hold,
}

/// Entries that wait for submission.
struct Waiting<'a> {
    /// The whole ring.
    sqes: &'a mut [Sqe],
    head: u32,
    count: u32,
}

impl Waiting<'_> {
    fn at(&mut self, index: u32) -> &mut Sqe {
        let place = self.head.wrapping_add(index) as usize % self.sqes.len();
        &mut self.sqes[place]
    }

    /// Voids the entries that are of no use.
    fn prepare(&mut self, is_ring: impl Fn(c_int) -> bool) -> Step {
        if self.count == 0 {
            // Perhaps the kernel has left something behind.
            return Step::Submit;
        }
        let first = *self.at(0);
        // The rings are linked only to sleep.
        if self.count == 1 && first.opcode == POLL_ADD && is_ring(first.fd) {
            return Step::SubmitAndWait;
        }
        if (0..self.count).all(|index| self.at(index).preempts()) {
            return Step::Hold;
        }
        for index in 0..self.count {
            if let Some(end) = self.end_of_idle_timer(index) {
                self.at(index).make_void();
                self.at(end).make_void();
            }
        }
        Step::Submit
    }

    /// The entry that goes with a timer which does not have to be set.
    fn end_of_idle_timer(&mut self, index: u32) -> Option<u32> {
        let timer = *self.at(index);
        let mut later = index + 1..self.count;
        if timer.counts_completions() {
            later.next().filter(|next| self.at(*next).is_wake_up())
        } else if timer.preempts() {
            later.find(|next| self.at(*next).cancels(&timer))
        } else {
            None
        }
    }
}

unsafe extern "C" {
    /// liburing's; with nothing to wait for it is `io_uring_submit`.
    fn io_uring_submit_and_wait(ring: *mut Ring, completions: c_uint) -> c_int;
}

/// Takes the place of liburing's function of this name.
///
/// # Safety
///
/// `ring` points to a `struct io_uring` of liburing that was set up, and no other thread uses it.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_io_uring_submit(ring: *mut Ring) -> c_int {
    // SAFETY: as the caller promises. What lies between head and tail was filled and is not the kernel's yet.
    let step = unsafe {
        let Ring { mask, sqes, sqe_head, sqe_tail, fd, .. } = *ring;
        if !is_ring(fd) {
            if !(*ring).is_as_declared() {
                stop(Reason::Machine, OTHER_LAYOUT);
            }
            RINGS.with_borrow_mut(|rings| rings.push(fd));
        }
        let sqes = std::slice::from_raw_parts_mut(sqes, *mask as usize + 1);
        let mut waiting = Waiting { sqes, head: sqe_head, count: sqe_tail.wrapping_sub(sqe_head) };
        waiting.prepare(is_ring)
    };
    match step {
        Step::Hold => 0,
        // SAFETY: here and below as the caller promises.
        Step::Submit => unsafe { io_uring_submit_and_wait(ring, 0) },
        Step::SubmitAndWait => {
            ACTIVE.store(true, Ordering::Relaxed);
            unsafe { io_uring_submit_and_wait(ring, 1) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: c_int = 7;
    const SOCKET: c_int = 12;

    static LONG: [i64; 2] = [PREEMPT.as_secs() as i64, 0];
    static SHORT: [i64; 2] = [10, 0];

    fn sqe(opcode: u8, user_data: u64) -> Sqe {
        Sqe { opcode, user_data, ..Sqe::default() }
    }

    fn timer(time: &'static [i64; 2], user_data: u64) -> Sqe {
        Sqe { address: time.as_ptr() as u64, ..sqe(TIMEOUT, user_data) }
    }

    fn counter(user_data: u64) -> Sqe {
        Sqe { offset: 128, flags: IO_LINK, ..timer(&LONG, user_data) }
    }

    fn poll(fd: c_int) -> Sqe {
        Sqe { fd, ..sqe(POLL_ADD, 9) }
    }

    fn cancel(target: u64) -> Sqe {
        Sqe { address: target, ..sqe(ASYNC_CANCEL, 0) }
    }

    fn void(user_data: u64) -> Sqe {
        Sqe { fd: -1, ..sqe(NOP, user_data) }
    }

    /// What is done with these, and what becomes of them. They lie across the end of the ring.
    fn prepare(entries: &[Sqe]) -> (Step, Vec<Sqe>) {
        let mut sqes = [sqe(POLL_ADD, 99); 8];
        let place = |index: usize| (6 + index) % 8;
        entries.iter().enumerate().for_each(|(index, entry)| sqes[place(index)] = *entry);
        let mut waiting = Waiting { sqes: &mut sqes, head: 6, count: entries.len() as u32 };
        let step = waiting.prepare(|fd| fd == RING);
        (step, (0..entries.len()).map(|index| sqes[place(index)]).collect())
    }

    #[test]
    fn a_timer_that_counts_is_void_and_so_is_its_wake_up() {
        let entries = [counter(3), sqe(WRITE, 0), poll(SOCKET)];
        assert_eq!(prepare(&entries), (Step::Submit, vec![void(3), void(0), poll(SOCKET)]));
    }

    #[test]
    fn a_write_of_the_log_behind_a_timer_is_written() {
        let entries = [counter(3), sqe(WRITE, 4)];
        assert_eq!(prepare(&entries), (Step::Submit, entries.to_vec()));
    }

    #[test]
    fn a_preemption_timer_is_held_until_it_is_cancelled() {
        assert_eq!(prepare(&[timer(&LONG, 3)]).0, Step::Hold);
        let entries = [timer(&LONG, 3), poll(SOCKET), cancel(3)];
        assert_eq!(prepare(&entries), (Step::Submit, vec![void(3), poll(SOCKET), void(0)]));
    }

    /// A void timer would complete now, and the round of tasks that follows would be skipped.
    #[test]
    fn a_preemption_timer_that_must_go_along_is_set() {
        let entries = [timer(&LONG, 3), poll(SOCKET), cancel(4)];
        assert_eq!(prepare(&entries), (Step::Submit, entries.to_vec()));
    }

    #[test]
    fn other_timers_are_set_and_cancelled() {
        let entries = [timer(&SHORT, 3), cancel(3)];
        assert_eq!(prepare(&entries), (Step::Submit, entries.to_vec()));
        assert_eq!(prepare(&[timer(&SHORT, 3)]).0, Step::Submit);
    }

    #[test]
    fn what_the_kernel_left_behind_is_submitted() {
        assert_eq!(prepare(&[]).0, Step::Submit);
    }

    #[test]
    fn linking_rings_is_sleeping() {
        assert_eq!(prepare(&[poll(RING)]).0, Step::SubmitAndWait);
        assert_eq!(prepare(&[poll(SOCKET)]).0, Step::Submit);
        assert_eq!(prepare(&[poll(RING), poll(SOCKET)]).0, Step::Submit);
    }
}
