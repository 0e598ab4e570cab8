//! The folder that file tools can reach. Every path is resolved by the kernel below the folder's
//! open descriptor (openat2, RESOLVE_BENEATH), so that no link and no race leads out of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::ToolError;
use crate::error::{Fault, Kind};

/// Longest file that is written or edited, in bytes.
pub(super) const MAX_FILE_BYTES: usize = 4 << 20;

#[derive(Debug, thiserror::Error)]
#[error("workspace {path}: {reason}")]
pub struct WorkspaceError {
    path: PathBuf,
    reason: String,
}

impl Fault for WorkspaceError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
    fn hint(&self) -> Option<&str> {
        Some("file tools need Linux 5.6 or newer")
    }
}

/// What is in a folder.
pub(super) struct Listing {
    /// Name, kind and size in bytes, by name.
    pub(super) entries: Vec<(String, &'static str, u64)>,
    pub(super) left_out: usize,
}

pub struct Workspace {
    path: PathBuf,
    root: OwnedFd,
}

impl Workspace {
    /// # Errors
    /// The folder cannot be opened, or the kernel has no openat2.
    pub fn open(path: &Path) -> Result<Self, WorkspaceError> {
        let failed = |reason: String| WorkspaceError { path: path.to_owned(), reason };
        let real = path.canonicalize().map_err(|error| failed(error.to_string()))?;
        let root = File::open(&real).map_err(|error| failed(error.to_string()))?;
        let workspace = Self { path: real, root: root.into() };
        workspace
            .resolve(Path::new("."), OFlag::O_DIRECTORY | OFlag::O_PATH)
            .map_err(|error| failed(error.to_string()))?;
        Ok(workspace)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn resolve(&self, relative: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
        openat2(&self.root, relative, how)
    }

    /// The path below the root: what the model wrote may be absolute.
    fn relative(&self, path: &str) -> Result<PathBuf, ToolError> {
        let path = Path::new(path.trim());
        let below =
            if path.is_absolute() { path.strip_prefix(&self.path).map_err(|_| outside(path))? } else { path };
        Ok(if below.as_os_str().is_empty() { PathBuf::from(".") } else { below.to_owned() })
    }

    /// A regular file for reading; never waits, also not for a FIFO.
    pub(super) fn read(&self, path: &str) -> Result<File, ToolError> {
        let relative = self.relative(path)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file: File = self.resolve(&relative, flags).map_err(|error| told(&relative, error))?.into();
        let kind = file.metadata().map_err(|error| ToolError::Failed(error.to_string()))?.file_type();
        if kind.is_dir() {
            return Err(ToolError::Invalid(format!("{path} is a folder; use file_list")));
        }
        if !kind.is_file() {
            let what = if kind.is_fifo() { "a pipe" } else { "no regular file" };
            return Err(ToolError::Denied(format!("{path} is {what}")));
        }
        Ok(file)
    }

    /// A whole text file of at most [`MAX_FILE_BYTES`].
    pub(super) fn read_text(&self, path: &str) -> Result<String, ToolError> {
        let mut bytes = Vec::new();
        let limit = MAX_FILE_BYTES as u64 + 1;
        self.read(path)?
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|error| ToolError::Failed(error.to_string()))?;
        if bytes.len() > MAX_FILE_BYTES {
            return Err(ToolError::Denied(format!("{path} is longer than {MAX_FILE_BYTES} bytes")));
        }
        String::from_utf8(bytes).map_err(|_| ToolError::Invalid(format!("{path} is no UTF-8 text")))
    }

    /// Entries of a folder: name, kind and size.
    pub(super) fn list(&self, path: &str, limit: usize) -> Result<Listing, ToolError> {
        let relative = self.relative(path)?;
        let folder = self
            .resolve(&relative, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
            .map_err(|error| told(&relative, error))?;
        let failed = |error: Errno| ToolError::Failed(error.to_string());
        let mut names: Vec<std::ffi::OsString> = Vec::new();
        let mut more = 0;
        for entry in
            nix::dir::Dir::from_fd(folder.try_clone().map_err(|error| ToolError::Failed(error.to_string()))?)
                .map_err(failed)?
                .iter()
        {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
            if name == b"." || name == b".." {
                continue;
            }
            if names.len() < limit {
                names.push(std::os::unix::ffi::OsStringExt::from_vec(name))
            } else {
                more += 1
            }
        }
        names.sort();
        let entry = |name: &std::ffi::OsString| {
            let status =
                nix::sys::stat::fstatat(&folder, name.as_os_str(), nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)
                    .ok();
            let (mode, size) = status.map_or((0, 0), |status| {
                (status.st_mode & 0o170_000, u64::try_from(status.st_size).unwrap_or(0))
            });
            let kind = match mode {
                0o040_000 => "folder",
                0o100_000 => "file",
                0o120_000 => "link",
                _ => "other",
            };
            (name.to_string_lossy().into_owned(), kind, size)
        };
        Ok(Listing { entries: names.iter().map(entry).collect(), left_out: more })
    }

    /// Replaces the file in one step: readers see the old text or the new one.
    pub(super) fn write(&self, path: &str, text: &str, create_folders: bool) -> Result<(), ToolError> {
        if text.len() > MAX_FILE_BYTES {
            return Err(ToolError::Denied(format!("longer than {MAX_FILE_BYTES} bytes")));
        }
        let relative = self.relative(path)?;
        let name = relative.file_name().ok_or_else(|| ToolError::Invalid(format!("{path} names no file")))?;
        let parent =
            relative.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = self.folder(parent, create_folders)?;
        let mode = self.mode_of(&relative)?;
        let temporary = format!(".{}.new", uuid::Uuid::now_v7());
        let told_here = |error| told(&relative, error);
        let how = OpenHow::new()
            .flags(OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC)
            .mode(Mode::from_bits_truncate(0o600))
            .resolve(ResolveFlag::RESOLVE_BENEATH);
        let opened = openat2(&folder, temporary.as_str(), how).map_err(told_here)?;
        let outcome = fill(opened, text, mode)
            .and_then(|()| renameat(&folder, temporary.as_str(), &folder, name).map_err(told_here));
        if outcome.is_err() {
            // The error is about the file; what is left of the temporary one is only litter.
            unlinkat(&folder, temporary.as_str(), UnlinkatFlags::NoRemoveDir).ok();
        }
        outcome
    }

    /// The mode that the new file gets; refuses to replace anything but a file.
    fn mode_of(&self, relative: &Path) -> Result<u32, ToolError> {
        match self.resolve(relative, OFlag::O_PATH) {
            Ok(found) => {
                let metadata =
                    File::from(found).metadata().map_err(|error| ToolError::Failed(error.to_string()))?;
                if metadata.is_file() {
                    return Ok(metadata.permissions().mode() & 0o777);
                }
                Err(ToolError::Denied(format!("{} is no regular file", relative.display())))
            }
            Err(Errno::ENOENT) => Ok(0o644),
            Err(error) => Err(told(relative, error)),
        }
    }

    fn folder(&self, parent: &Path, create: bool) -> Result<OwnedFd, ToolError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        match self.resolve(parent, flags) {
            Ok(folder) => return Ok(folder),
            Err(Errno::ENOENT) if create => {}
            Err(error) => return Err(told(parent, error)),
        }
        let mut made = PathBuf::from(".");
        for component in parent.components() {
            let Component::Normal(name) = component else {
                if component == Component::CurDir {
                    continue;
                }
                return Err(outside(parent));
            };
            self.make_folder(&made, name)?;
            made.push(name);
        }
        self.resolve(parent, flags).map_err(|error| told(parent, error))
    }

    fn make_folder(&self, parent: &Path, name: &OsStr) -> Result<(), ToolError> {
        let folder =
            self.resolve(parent, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(|error| told(parent, error))?;
        match mkdirat(&folder, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(error) => Err(told(&parent.join(name), error)),
        }
    }
}

fn fill(file: OwnedFd, text: &str, mode: u32) -> Result<(), ToolError> {
    let failed = |error: std::io::Error| ToolError::Failed(error.to_string());
    let mut file = File::from(file);
    file.write_all(text.as_bytes()).map_err(failed)?;
    fchmod(&file, Mode::from_bits_truncate(mode)).map_err(|error| ToolError::Failed(error.to_string()))?;
    file.sync_all().map_err(failed)
}

fn outside(path: &Path) -> ToolError {
    ToolError::Denied(format!(
        "{} is outside of the workspace; tools reach nothing else, and identity files belong to the operator",
        path.display()
    ))
}

fn told(path: &Path, error: Errno) -> ToolError {
    match error {
        Errno::ENOENT => ToolError::NotFound(path.display().to_string()),
        Errno::EXDEV | Errno::ELOOP => outside(path),
        Errno::ENOSYS => {
            ToolError::Denied("this kernel cannot confine paths (openat2 is missing)".to_owned())
        }
        error => ToolError::Failed(format!("{}: {}", path.display(), error.desc())),
    }
}
