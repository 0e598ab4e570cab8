//! The C library's allocator, told that this is a small board: few arenas, and memory that was freed
//! goes back to the system.
//!
//! Its defaults give each of the short-lived process threads an arena of its own, and each arena keeps
//! the peak of the busiest turn that it has seen: 16 conversations at once held 8 MiB that nobody used.

#![allow(unsafe_code)] // two calls into the C library that take and return plain numbers

/// Arenas. One more than one, so that two threads seldom wait for each other; boards have few cores.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS: libc::c_int = 2;
/// Blocks of this many bytes and more are mapped by themselves. It is the default, but naming it keeps
/// it from growing with the largest block that was ever freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BYTES: libc::c_int = 128 << 10;

/// Free memory kept at the top of an arena between turns; [`give_back`] returns it when nothing runs.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: libc::c_int = 1 << 20;

/// To be called once, before the first thread starts.
pub fn tune() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` sets two numbers under the allocator's own lock; an unknown one is refused.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
    }
}

/// Gives what is free back to the system: after a large user of memory has gone.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
