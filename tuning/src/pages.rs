//! Huge pages, and an allocator whose large blocks lie in them.
//!
//! With pages of 4 KiB, a program that touches random places of large tables waits for the processor to walk the page
//! tables at each of them.

use rustix::mm::{Advice, madvise};
use std::alloc::{GlobalAlloc, Layout, System};

/// The size of a huge page, and of the smallest block that is worth one.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Asks for huge pages in a range of memory. A system that has none works, but is slower.
///
/// # Safety
/// The range is memory of the caller.
#[allow(unsafe_code)]
pub(crate) unsafe fn advise_huge(range: *mut u8, bytes: usize) {
    // SAFETY: the caller vouches for the range, and advice changes no contents.
    let _ = unsafe { madvise(range.cast(), bytes, Advice::LinuxHugepage) };
}

/// The system's allocator, but large blocks lie in huge pages.
pub struct Allocator;

/// The layout that is asked of the system for a caller's layout.
fn adapted(layout: Layout) -> Layout {
    let is_large = layout.size() >= HUGE_PAGE_BYTES;
    let aligned = is_large.then(|| layout.align_to(HUGE_PAGE_BYTES).ok()).flatten();
    aligned.unwrap_or(layout)
}

// SAFETY: all blocks come from the system's allocator, for a layout of the same size and of at least the same
// alignment, and go back to it for the same layout. Advice changes no contents.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let adapted = adapted(layout);
        // SAFETY: the size is the caller's.
        let block = unsafe { System.alloc(adapted) };
        if adapted.align() == HUGE_PAGE_BYTES && !block.is_null() {
            let whole_pages = adapted.size() / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
            // SAFETY: the range lies in the block.
            unsafe { advise_huge(block, whole_pages) };
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() < HUGE_PAGE_BYTES {
            // SAFETY: the layout is the caller's.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: as above, and the block has the layout's size.
        unsafe {
            let block = self.alloc(layout);
            if !block.is_null() {
                block.write_bytes(0, layout.size());
            }
            block
        }
    }

    /// Small blocks grow in place where they can, as they do without this allocator.
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.size().max(size) < HUGE_PAGE_BYTES {
            // SAFETY: the block was given for this layout, which was not adapted, and the new one is not adapted
            // either.
            return unsafe { System.realloc(block, layout, size) };
        }
        // SAFETY: the caller vouches for the new layout; both blocks have the bytes that are copied.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                new.copy_from_nonoverlapping(block, layout.size().min(size));
                self.dealloc(block, layout);
            }
            new
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block was given for this layout.
        unsafe { System.dealloc(block, adapted(layout)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator;

    #[test]
    fn large_blocks_begin_at_a_huge_page_and_keep_their_bytes_when_they_grow() {
        let mut bytes: Vec<u8> = vec![7; HUGE_PAGE_BYTES + 5];
        assert!(bytes.as_ptr().addr().is_multiple_of(HUGE_PAGE_BYTES));
        bytes.resize(5 * HUGE_PAGE_BYTES, 8);
        assert!(bytes[..HUGE_PAGE_BYTES + 5].iter().all(|byte| *byte == 7));
        bytes.truncate(10);
        bytes.shrink_to_fit();
        assert_eq!(bytes, [7; 10]);
        for size in [100, HUGE_PAGE_BYTES] {
            assert!(vec![0u8; size].iter().all(|byte| *byte == 0));
        }
    }
}
