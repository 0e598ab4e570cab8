//! The texts of files that are being taken: one UTF-8 file each, beside the database, until all of it
//! is in. Only windows of it are ever in memory.

use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::PathBuf;

use super::chunk::first_end;
use super::{IngestError, TEXT_BYTES_MAX};

/// Ending of a text that is still being written.
const UNFINISHED: &str = "part";

#[derive(Debug, Clone)]
pub(super) struct Texts(PathBuf);

/// What a finished text came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measure {
    pub(super) bytes: u64,
    pub(super) chunks: usize,
    pub(super) blank: bool,
}

impl Texts {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    fn path(&self, hash: &str) -> PathBuf {
        self.0.join(format!("{hash}.txt"))
    }

    /// Bytes of a text that is there whole.
    pub(super) fn length(&self, hash: &str) -> Option<u64> {
        fs::metadata(self.path(hash)).ok().map(|metadata| metadata.len())
    }

    pub(super) fn remove(&self, hash: &str) {
        // It may be gone already; what stays is removed at the next start.
        fs::remove_file(self.path(hash)).ok();
    }

    /// Removes everything but the texts of these files.
    pub(super) fn keep_only(&self, hashes: &[String]) {
        let Ok(entries) = fs::read_dir(&self.0) else { return };
        let kept: Vec<_> = hashes.iter().map(|hash| self.path(hash)).collect();
        for entry in entries.flatten() {
            if !kept.contains(&entry.path()) {
                fs::remove_file(entry.path()).ok(); // tried again at the next start
            }
        }
    }

    /// Stores what `write` writes, whole and on disk, or nothing.
    pub(super) fn store<T>(
        &self,
        hash: &str,
        write: impl FnOnce(&mut Bounded) -> Result<T, IngestError>,
    ) -> Result<T, IngestError> {
        let failed = |error: std::io::Error| IngestError::io(self.0.display().to_string(), &error);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(failed)?;
        let unfinished = self.0.join(format!("{hash}.{UNFINISHED}"));
        let outcome = File::create(&unfinished).map_err(failed).and_then(|file| {
            let mut bounded = Bounded { file, written: 0 };
            let value = write(&mut bounded)?;
            bounded.file.sync_all().map_err(failed)?;
            fs::rename(&unfinished, self.path(hash)).map_err(failed)?;
            Ok(value)
        });
        if outcome.is_err() {
            fs::remove_file(&unfinished).ok(); // the error says more
        }
        outcome
    }

    /// At most `size` characters from `offset` on, ending with a line where that is possible.
    pub(super) fn chunk(&self, hash: &str, offset: u64, size: usize) -> Result<String, IngestError> {
        let path = self.path(hash);
        let file = File::open(&path).map_err(|error| IngestError::io(path.display().to_string(), &error))?;
        let chunk = read_chunk(&file, offset, size)?;
        if chunk.is_empty() {
            let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(IngestError::io(path.display().to_string(), &error));
        }
        Ok(chunk)
    }

    pub(super) fn measure(&self, hash: &str, size: usize) -> Result<Measure, IngestError> {
        let path = self.path(hash);
        let file = File::open(&path).map_err(|error| IngestError::io(path.display().to_string(), &error))?;
        let mut measure = Measure { bytes: 0, chunks: 0, blank: true };
        loop {
            let chunk = read_chunk(&file, measure.bytes, size)?;
            if chunk.is_empty() {
                return Ok(measure);
            }
            measure.bytes += chunk.len() as u64;
            measure.chunks += 1;
            measure.blank &= chunk.trim().is_empty();
        }
    }
}

/// Empty at the end of the text.
fn read_chunk(file: &File, offset: u64, size: usize) -> Result<String, IngestError> {
    let failed = |error: std::io::Error| IngestError::io("the kept text", &error);
    // One character more than the chunk may have, of the longest kind.
    let mut window = vec![0; 4 * (size + 1)];
    let mut filled = 0;
    while filled < window.len() {
        match file.read_at(&mut window[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    window.truncate(filled);
    let text = match std::str::from_utf8(&window) {
        Ok(text) => text,
        // The window may end within a character.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&window[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => {
            return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidData, "it is damaged")));
        }
    };
    Ok(text[..first_end(text, size)].to_owned())
}

/// A file that takes so much and no more; NUL becomes a blank, because no text needs it.
pub(super) struct Bounded {
    file: File,
    written: u64,
}

impl Bounded {
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), IngestError> {
        self.written += bytes.len() as u64;
        if self.written > TEXT_BYTES_MAX {
            let reason = format!("its text has more than {} MiB", TEXT_BYTES_MAX >> 20);
            return Err(IngestError::left(reason, "split it into smaller files"));
        }
        let write = |file: &mut File| match bytes.contains(&0) {
            true => {
                let clean: Vec<u8> = bytes.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
                file.write_all(&clean)
            }
            false => file.write_all(bytes),
        };
        write(&mut self.file).map_err(|error| IngestError::io("the kept text", &error))
    }
}
