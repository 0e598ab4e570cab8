//! Bytes of a file that the system holds in memory as long as there is room, and reads again otherwise.
//!
//! Mapping is `unsafe` because somebody else may change the file. The files of the index are written
//! once, under another name, and never changed afterwards; what somebody else cuts off while the daemon
//! runs would end it, as it would with every program that maps its files.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use memmap2::{Advice, Mmap};

#[derive(Debug)]
pub(super) enum Bytes {
    Mapped(Mmap, Range<usize>),
    Loaded(Vec<u8>),
}

impl Bytes {
    /// These bytes of the file, which has them: its length was looked at. Where files cannot be mapped
    /// they are read. `scattered` says that single places will be read, not one after the other.
    ///
    /// # Errors
    /// They can neither be mapped nor read.
    pub(super) fn of_file(file: &File, range: Range<usize>, scattered: bool) -> io::Result<Self> {
        // SAFETY: the file is ours, complete and never written again; see above.
        match unsafe { Mmap::map(file) } {
            Ok(map) if map.len() >= range.end => {
                if scattered {
                    // An advice; without it more is read ahead than is used.
                    map.advise(Advice::Random).ok();
                }
                Ok(Self::Mapped(map, range))
            }
            _ => {
                let mut bytes = vec![0; range.len()];
                file.read_exact_at(&mut bytes, range.start as u64)?;
                Ok(Self::Loaded(bytes))
            }
        }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map, range) => &map[range.clone()],
            Self::Loaded(bytes) => bytes,
        }
    }
}
