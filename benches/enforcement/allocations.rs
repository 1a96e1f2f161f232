//! The allocator of the release program, counting what each thread asks of it.

use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

/// The program's own allocator, so that what is measured in this process is what runs in the service.
#[global_allocator]
static ALLOCATOR: Counting = Counting(MiMalloc);

struct Counting(MiMalloc);

thread_local! {
    /// Needs neither an allocation nor a destructor, so the allocator may use it.
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread has asked for memory.
pub(crate) fn so_far() -> u64 {
    ASKED.get()
}

fn count() {
    ASKED.set(ASKED.get() + 1);
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its trait; this one counts and hands on")]
// SAFETY: every call is handed on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: what the caller has promised.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: what the caller has promised.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: what the caller has promised.
        unsafe { self.0.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: what the caller has promised.
        unsafe { self.0.dealloc(pointer, layout) }
    }
}
