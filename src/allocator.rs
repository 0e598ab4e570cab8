//! The C library's allocator, told that this is a small board: few arenas, and memory that was freed
//! goes back to the system, as do the pages of a library that nobody uses.
//!
//! Its defaults give each of the short-lived process threads an arena of its own, and each arena keeps
//! the peak of the busiest turn that it has seen: 16 conversations at once held 8 MiB that nobody used.

#![allow(unsafe_code)] // calls into the C library that take and return plain numbers

#[cfg(target_os = "linux")]
use std::io::Read;
use std::path::Path;

/// What is read of the list of mappings: a process of ours has some hundred, of 700 bytes each.
#[cfg(target_os = "linux")]
const MAPPINGS_BYTES_MAX: u64 = 4 << 20;

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

/// Lets go of the code and constants of a loaded library, or of the program itself, after the last user of most of
/// it has gone. What is called again is read again, from the system's cache as a rule. Other systems than Linux
/// keep them.
#[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
pub fn give_back_library(library: &Path) {
    #[cfg(target_os = "linux")]
    for (start, length) in unwritten_mappings(library) {
        // SAFETY: nothing was ever written to this mapping of a file, so dropping its pages changes no byte
        // that a later read sees; the library is never unloaded, so the addresses are still its own. A
        // refusal changes nothing.
        unsafe {
            libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED);
        }
    }
}

/// Start and length of what is mapped of a file, cannot be written, and has no page that differs from the
/// file (what the loader has relocated does).
#[cfg(target_os = "linux")]
fn unwritten_mappings(file: &Path) -> Vec<(usize, usize)> {
    // As the system names it, without links on the way; a bare name is of a library that the loader found.
    let Some(name) = file.to_str() else { return Vec::new() };
    let named = file.canonicalize().map_or_else(|_| format!("/{name}"), |path| path.display().to_string());
    let mut text = String::new();
    let read = std::fs::File::open("/proc/self/smaps")
        .and_then(|smaps| smaps.take(MAPPINGS_BYTES_MAX).read_to_string(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut candidate = None;
    for line in text.lines() {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let Some(range) = range_of(first) {
            let can_write = rest.as_bytes().get(1) != Some(&b'-');
            let of_file = rest.contains(&named);
            candidate = (of_file && !can_write).then_some(range);
        } else if first == "Anonymous:" && rest.trim() == "0 kB" {
            found.extend(candidate.take());
        }
    }
    found
}

/// `7f00-7f80`, in hexadecimal.
#[cfg(target_os = "linux")]
fn range_of(text: &str) -> Option<(usize, usize)> {
    let (start, end) = text.split_once('-')?;
    let number = |digits| usize::from_str_radix(digits, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// The C library: loaded in every test, and with a part that the loader has relocated.
    fn library() -> std::path::PathBuf {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.contains("/libc.so") || line.contains("/libc-")).unwrap();
        line.split_whitespace().last().unwrap().into()
    }

    #[test]
    fn only_what_is_as_in_the_file_is_let_go_and_the_library_works_on() {
        let library = library();
        let mappings = unwritten_mappings(&library);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let of_library: Vec<&str> =
            maps.lines().filter(|line| line.ends_with(library.to_str().unwrap())).collect();
        assert!(mappings.len() < of_library.len(), "what is written to is left alone: {of_library:?}");
        let code = of_library.iter().find(|line| line.contains(" r-xp ")).unwrap();
        let code = range_of(code.split(' ').next().unwrap()).unwrap();
        assert!(mappings.contains(&code), "{mappings:x?} without {code:x?}");
        give_back_library(&library);
        assert_eq!(format!("{:?}", "works on".to_owned().into_bytes()).len(), 39);
    }

    /// KiB of a mapped file that are in memory.
    fn resident(file: &Path) -> u64 {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let of_file = smaps.lines().skip_while(|line| !line.ends_with(file.to_str().unwrap()));
        let rss = of_file.skip(1).find_map(|line| line.strip_prefix("Rss:")).unwrap();
        rss.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn pages_that_are_let_go_leave_the_memory_and_come_back_unchanged() {
        use std::os::fd::AsRawFd;
        const LENGTH: usize = 1 << 20;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("library");
        std::fs::write(&path, vec![7; LENGTH]).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let (private, read) = (libc::MAP_PRIVATE, libc::PROT_READ);
        // SAFETY: a new mapping of a file that nobody changes, and which stays until the end of the process.
        let mapped = unsafe {
            let start = libc::mmap(std::ptr::null_mut(), LENGTH, read, private, file.as_raw_fd(), 0);
            assert_ne!(start, libc::MAP_FAILED);
            std::slice::from_raw_parts(start.cast::<u8>(), LENGTH)
        };
        let sum = || mapped.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        assert_eq!((sum(), resident(&path)), (7 * LENGTH as u64, LENGTH as u64 / 1024));
        give_back_library(&path);
        assert_eq!(resident(&path), 0);
        assert_eq!(sum(), 7 * LENGTH as u64);
    }

    #[test]
    fn a_file_that_is_not_mapped_has_nothing_to_let_go() {
        for path in ["/etc/hostname", "/no/such/file"] {
            assert_eq!(unwritten_mappings(Path::new(path)), []);
            give_back_library(Path::new(path));
        }
    }
}
