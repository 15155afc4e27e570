//! The memory allocator of the program.
//!
//! Every step allocates and frees the same large tensors. An allocator that returns them to the
//! kernel has them mapped and zeroed again each time, which costs a third of a step.

use libmimalloc_sys::{mi_option_set, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h, version 3, which the bindings do not name.
const PURGE_DELAY: mi_option_t = 15;

/// Keeps freed memory for later allocations instead of returning it.
#[allow(unsafe_code)]
pub fn keep_memory() {
    // SAFETY: sets an integer in mimalloc's table of options, which checks the index; the library
    // allows this at any time.
    unsafe { mi_option_set(PURGE_DELAY, -1) }
}
