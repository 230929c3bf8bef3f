//! The setting of the allocator that the command uses.

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

/// `mi_option_purge_delay`, which the bindings do not name.
const PURGE_DELAY: mi_option_t = 15;
const SECONDS: std::ffi::c_long = 30;

/// Makes mimalloc keep freed memory for half a minute instead of a second before it returns it to the system.
///
/// A training step frees and asks for the same large buffers, some of them seconds later; clearing the pages of
/// those returned in between took a fifth of a DPT step. `MIMALLOC_PURGE_DELAY` (milliseconds) decides where it is
/// set. To be called first in `main`, while there is one thread.
pub fn keep_freed_memory() {
    // SAFETY: the option exists in every version of mimalloc that the bindings build, and no other thread
    // changes options.
    unsafe { mi_option_set_default(PURGE_DELAY, 1000 * SECONDS) };
}
