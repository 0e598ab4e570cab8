//! The folder where files come in. Workers can write there, so nothing in it is trusted: the kernel
//! resolves every name below the workspace and follows no link (openat2), and only regular files that
//! lie directly in it are read or deleted.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, openat2, renameat2};
use nix::sys::stat::fstatat;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{FILE_BYTES_MAX, IngestError};

/// Its name in the workspace.
pub const FOLDER: &str = "ingest";
/// Entries of the folder that one look sees; further ones have their turn when these are gone.
const ENTRIES_MAX: usize = 1000;
/// Names that are tried for a copy while others are taken.
const NAMES_MAX: usize = 100;
const FILE_TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const NANOSECONDS: i64 = 1_000_000_000;

/// What tells whether a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub size: u64,
    pub modified_ns: i64,
}

pub(super) struct Entry {
    pub(super) name: String,
    pub(super) version: Version,
    pub(super) is_regular: bool,
}

pub(super) struct Folder(OwnedFd);

fn failed(errno: Errno) -> IngestError {
    IngestError::io(FOLDER, &io::Error::from(errno))
}

impl Folder {
    /// None when there is no such folder.
    pub(super) fn open(workspace: &Path) -> Result<Option<Self>, IngestError> {
        let root = File::open(workspace).map_err(|error| IngestError::io(FOLDER, &error))?;
        match resolve(&root.into(), FOLDER, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
            Ok(folder) => Ok(Some(Self(folder))),
            // A link or a file in its place is as good as none.
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR | Errno::EXDEV) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// By name; hidden entries and names that are no text are passed over.
    pub(super) fn list(&self) -> Result<Vec<Entry>, IngestError> {
        let own = self.0.try_clone().map_err(|error| IngestError::io(FOLDER, &error))?;
        let mut names = Vec::new();
        for entry in Dir::from_fd(own).map_err(failed)?.iter() {
            let entry = entry.map_err(failed)?;
            if let Ok(name) = entry.file_name().to_str()
                && !name.starts_with('.')
                && names.len() < ENTRIES_MAX
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        let entry = |name: String| {
            let status = fstatat(&self.0, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
            let version = Version {
                size: u64::try_from(status.st_size).unwrap_or(0),
                modified_ns: status.st_mtime * NANOSECONDS + status.st_mtime_nsec,
            };
            Some(Entry { name, version, is_regular: status.st_mode & FILE_TYPE == REGULAR })
        };
        Ok(names.into_iter().filter_map(entry).collect())
    }

    /// Of a regular file.
    pub(super) fn version(&self, name: &str) -> Option<Version> {
        self.open_file(name).ok().map(|(_, version)| version)
    }

    /// For reading; never waits, also not for a pipe.
    pub(super) fn open_file(&self, name: &str) -> Result<(File, Version), IngestError> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file: File = match resolve(&self.0, name, flags) {
            Ok(file) => file.into(),
            Err(Errno::EACCES) => {
                return Err(IngestError::left("it may not be read", "give the daemon's user the right"));
            }
            Err(error) => return Err(failed(error)),
        };
        let metadata = file.metadata().map_err(|error| IngestError::io(name, &error))?;
        if !metadata.is_file() {
            return Err(IngestError::left("it is no regular file", "put a file in its place"));
        }
        let modified_ns = metadata.mtime() * NANOSECONDS + metadata.mtime_nsec();
        Ok((file, Version { size: metadata.len(), modified_ns }))
    }

    /// Deletes the file if it is still this one.
    pub(super) fn remove(&self, name: &str, version: Version) -> Result<(), IngestError> {
        if self.version(name) != Some(version) {
            return Ok(());
        }
        match unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

fn resolve(root: &OwnedFd, name: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
    let resolve =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    openat2(root, name, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve))
}

/// Copies `source` into the folder of this workspace and returns the name that it got there: under a
/// hidden name first, so that nobody sees half of it.
///
/// # Errors
/// It is no file that can be taken, or cannot be copied.
pub fn add(workspace: &Path, source: &Path) -> Result<String, IngestError> {
    let here = |error: io::Error| IngestError::io(source.display().to_string(), &error);
    let name = source.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.'));
    let name = name.ok_or_else(|| IngestError::left("its name cannot be used", "give it another name"))?;
    super::format_of(name)?;
    let file = File::open(source).map_err(here)?;
    let metadata = file.metadata().map_err(here)?;
    if !metadata.is_file() {
        return Err(IngestError::left("it is no regular file", "name a file"));
    }
    super::take::check_size(metadata.len())?;
    let folder = workspace.join(FOLDER);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(here)?;
    if !fs::symlink_metadata(&folder).map_err(here)?.is_dir() {
        return Err(IngestError::left("the folder of the agent is a link", "put a folder in its place"));
    }
    let hidden = folder.join(format!(".{}.part", uuid::Uuid::now_v7()));
    let copied = copy(file, &hidden).and_then(|()| rename_free(&folder, &hidden, name));
    if copied.is_err() {
        fs::remove_file(&hidden).ok(); // the error says more
    }
    copied.map_err(here)
}

fn copy(file: File, to: &Path) -> io::Result<()> {
    // For the daemon's user, who may be another; nobody else gets into the folder.
    let mut target = File::options().write(true).create_new(true).mode(0o644).open(to)?;
    // It may grow while it is copied.
    io::copy(&mut file.take(FILE_BYTES_MAX + 1), &mut target)?;
    target.flush()?;
    target.sync_all()
}

/// Renames to `name`, or to `name (2)` and so on where that is taken.
fn rename_free(folder: &Path, from: &Path, name: &str) -> io::Result<String> {
    let path = PathBuf::from(name);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    for number in 1..=NAMES_MAX {
        let free = if number == 1 { name.to_owned() } else { format!("{stem} ({number}).{extension}") };
        let at = nix::fcntl::AT_FDCWD;
        match renameat2(at, from, at, &folder.join(&free), RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => return Ok(free),
            Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}
