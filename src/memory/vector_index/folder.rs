//! The folder of the index: a file appears there whole or not at all, and ends with its checksum.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::VectorError;

/// Bytes that are handed to the system at a time.
const BLOCK: usize = 1 << 20;
/// The checksum at the end of each file.
pub(super) const TRAILER: usize = 4;
/// Files under this name are not finished.
const UNFINISHED: &str = "unfinished-";
/// Who has it locked may write.
const LOCK: &str = "lock";

/// Asked before every act that changes the folder; an error is taken as the disk's.
pub type Probe = Arc<dyn Fn(&'static str) -> io::Result<()> + Send + Sync>;

#[derive(Clone)]
pub(super) struct Folder {
    path: PathBuf,
    probe: Option<Probe>,
}

impl Folder {
    /// # Errors
    /// There is something else at `path`, or it cannot be made.
    pub(super) fn open(path: &Path, probe: Option<Probe>) -> Result<Self, VectorError> {
        fs::create_dir_all(path).map_err(|error| VectorError::file(path, &error))?;
        Ok(Self { path: path.to_owned(), probe })
    }

    /// The right to write here, held until the file is dropped. None: another process has it.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn lock(&self) -> Result<Option<File>, VectorError> {
        let failed = |error: &io::Error| self.error(LOCK, error);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(self.path(LOCK));
        let file = file.map_err(|error| failed(&error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(&error)),
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// # Errors
    /// The probe's.
    pub(super) fn probe(&self, act: &'static str) -> io::Result<()> {
        self.probe.as_ref().map_or(Ok(()), |probe| probe(act))
    }

    /// Writes a file under another name, with its checksum at the end, syncs it and gives it its name.
    /// Returns the checksum.
    ///
    /// # Errors
    /// The disk's, or those of `content`; then nothing has changed under this name.
    pub(super) fn publish(
        &self,
        name: &str,
        content: impl FnOnce(&mut Sink<'_>) -> Result<(), VectorError>,
    ) -> Result<u32, VectorError> {
        let unfinished = self.path(&format!("{UNFINISHED}{name}"));
        let result = self.write(&unfinished, content).and_then(|checksum| {
            let named = self.probe("rename").and_then(|()| fs::rename(&unfinished, self.path(name)));
            named.and_then(|()| self.sync()).map_err(|error| self.error(name, &error))?;
            Ok(checksum)
        });
        if result.is_err() {
            // Whatever is left there is removed by the next open.
            self.remove_file(&unfinished).ok();
        }
        result
    }

    fn write(
        &self,
        path: &Path,
        content: impl FnOnce(&mut Sink<'_>) -> Result<(), VectorError>,
    ) -> Result<u32, VectorError> {
        let failed = |error: io::Error| VectorError::file(path, &error);
        self.probe("create").map_err(failed)?;
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path).map_err(failed)?;
        let mut sink = Sink {
            folder: self,
            path,
            file,
            block: Vec::with_capacity(BLOCK),
            sum: crc32fast::Hasher::new(),
        };
        content(&mut sink)?;
        let checksum = sink.sum.clone().finalize();
        sink.put(&checksum.to_le_bytes())?;
        sink.hand_over().map_err(failed)?;
        self.probe("sync").and_then(|()| sink.file.sync_all()).map_err(failed)?;
        Ok(checksum)
    }

    /// Makes names durable.
    fn sync(&self) -> io::Result<()> {
        self.probe("sync folder")?;
        File::open(&self.path)?.sync_all()
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), VectorError> {
        self.remove_file(&self.path(name)).map_err(|error| self.error(name, &error))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.probe("remove")?;
        fs::remove_file(path)
    }

    /// Removes the files of the index that `keep` does not name, and nothing else that may have got there.
    pub(super) fn sweep(&self, keep: &[String]) {
        for name in self.names() {
            let ours = name.starts_with(UNFINISHED) || name.starts_with(super::segment_file::PREFIX);
            if ours
                && !keep.contains(&name)
                && let Err(error) = self.remove(&name)
            {
                // It is in nobody's way; the next open tries again.
                log::warn!("{error}");
            }
        }
    }

    pub(super) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// A whole small file without its checksum, which is compared. None when there is none.
    ///
    /// # Errors
    /// In words, why it cannot be used.
    pub(super) fn read(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, String> {
        let file = match File::open(self.path(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let mut bytes = Vec::new();
        // One more than allowed shows that it is too long.
        let limit = bytes_max as u64 + 1;
        file.take(limit).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() > bytes_max {
            return Err(format!("{name} is longer than {bytes_max} bytes"));
        }
        let Some((content, trailer)) = bytes.split_last_chunk::<TRAILER>() else {
            return Err(format!("{name} is too short"));
        };
        if crc32fast::hash(content) != u32::from_le_bytes(*trailer) {
            return Err(format!("{name} is damaged"));
        }
        bytes.truncate(bytes.len() - TRAILER);
        Ok(Some(bytes))
    }

    fn error(&self, name: &str, error: &io::Error) -> VectorError {
        VectorError::file(&self.path(name), error)
    }
}

/// Where the content of a new file goes.
pub(super) struct Sink<'a> {
    folder: &'a Folder,
    path: &'a Path,
    file: File,
    block: Vec<u8>,
    sum: crc32fast::Hasher,
}

impl Sink<'_> {
    pub(super) fn put(&mut self, mut bytes: &[u8]) -> Result<(), VectorError> {
        self.sum.update(bytes);
        while !bytes.is_empty() {
            let room = BLOCK - self.block.len();
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == BLOCK {
                self.hand_over().map_err(|error| VectorError::file(self.path, &error))?;
            }
        }
        Ok(())
    }

    fn hand_over(&mut self) -> io::Result<()> {
        self.folder.probe("write")?;
        self.file.write_all(&self.block)?;
        self.block.clear();
        Ok(())
    }
}
