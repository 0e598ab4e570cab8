//! Where skills lie, and the only way to their files: the kernel resolves each path below the open folder
//! of the skill (openat2, RESOLVE_BENEATH), so that neither `..` nor a link leads out of it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstatat};

/// The folder of skills below the data folder, or below a workspace.
const SKILLS: &str = "skills";
/// Entries of a folder that are looked at.
const ENTRIES_MAX: usize = 1024;
/// Folders of a skill whose files are listed beside those at its top.
const SUPPORT_FOLDERS: [&str; 4] = ["assets", "references", "scripts", "templates"];
/// Support files that are listed.
const LISTED_MAX: usize = 64;

/// Who can write there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// `skills/` of the data folder: the operator, and nobody else.
    Instance,
    /// `workspace/skills/` of an agent: its workers too.
    Workspace,
}

impl Tier {
    pub fn as_str(self) -> &'static str {
        match self {
            Tier::Instance => "instance",
            Tier::Workspace => "workspace",
        }
    }
}

/// One folder of skills. It need not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    tier: Tier,
    /// The folder that `skills` is in.
    parent: PathBuf,
}

impl Place {
    /// Of the whole daemon.
    pub fn instance(data_folder: &Path) -> Self {
        Self { tier: Tier::Instance, parent: data_folder.to_owned() }
    }

    /// Of one agent.
    pub fn workspace(workspace: &Path) -> Self {
        Self { tier: Tier::Workspace, parent: workspace.to_owned() }
    }

    pub fn tier(&self) -> Tier {
        self.tier
    }

    pub fn path(&self) -> PathBuf {
        self.parent.join(SKILLS)
    }

    /// What counts as a folder of skills, or of one: in a workspace no link, as workers could lead the
    /// daemon anywhere by one.
    fn is_folder(&self, path: &Path) -> io::Result<bool> {
        let metadata = match self.tier {
            Tier::Instance => fs::metadata(path),
            Tier::Workspace => fs::symlink_metadata(path),
        };
        metadata.map(|metadata| metadata.is_dir())
    }

    /// The names of the folders in it, sorted, and whether there are more entries than are looked at.
    /// None: there is no such place.
    pub(super) fn folders(&self) -> io::Result<Option<(Vec<String>, bool)>> {
        let path = self.path();
        match self.is_folder(&path) {
            Ok(true) => {}
            Ok(false) => return Err(io::Error::other("is no folder")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut entries = fs::read_dir(&path)?;
        let names =
            entries.by_ref().take(ENTRIES_MAX).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let is_skill =
            |name: &String| !name.starts_with('.') && self.is_folder(&path.join(name)).unwrap_or(false);
        let mut names: Vec<String> = names.filter(is_skill).collect();
        names.sort();
        Ok(Some((names, entries.next().is_some())))
    }

    fn resolve(&self) -> ResolveFlag {
        let beneath = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        match self.tier {
            Tier::Instance => beneath,
            Tier::Workspace => beneath | ResolveFlag::RESOLVE_NO_SYMLINKS,
        }
    }

    fn open_folder(&self, folder: &str) -> io::Result<OwnedFd> {
        let open = |path: &Path| {
            File::options().read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(path).map(OwnedFd::from)
        };
        match self.tier {
            // The operator may keep a skill elsewhere and link it.
            Tier::Instance => open(&self.path().join(folder)),
            Tier::Workspace => {
                let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
                let below = Path::new(SKILLS).join(folder);
                Ok(openat2(open(&self.parent)?, &below, how.resolve(self.resolve()))?)
            }
        }
    }

    /// A text file in the folder of a skill, of at most `bytes_max`; never waits, also not for a pipe.
    pub(super) fn read(&self, folder: &str, path: &Path, bytes_max: u64) -> io::Result<String> {
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
            .resolve(self.resolve());
        let file: File = openat2(self.open_folder(folder)?, path, how).map_err(told)?.into();
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("is no regular file"));
        }
        let mut bytes = Vec::new();
        file.take(bytes_max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            return Err(io::Error::other(format!("is longer than {bytes_max} bytes")));
        }
        String::from_utf8(bytes).map_err(|error| {
            io::Error::other(format!("is no UTF-8 text from byte {} on", error.utf8_error().valid_up_to()))
        })
    }

    /// The files that a skill brings along, with their sizes in bytes.
    pub(super) fn files(&self, folder: &str) -> Vec<(String, u64)> {
        let Ok(top) = self.open_folder(folder) else { return Vec::new() };
        let mut files = entries(&top, "");
        for name in SUPPORT_FOLDERS {
            let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
            if let Ok(below) = openat2(&top, name, how.resolve(self.resolve())) {
                files.extend(entries(&below, &format!("{name}/")));
            }
        }
        files.retain(|(name, _)| name != super::SKILL_FILE);
        files.sort();
        files.truncate(LISTED_MAX);
        files
    }
}

/// The regular files of a folder whose names are not hidden.
fn entries(folder: &OwnedFd, prefix: &str) -> Vec<(String, u64)> {
    let Some(mut dir) = folder.try_clone().ok().and_then(|folder| Dir::from_fd(folder).ok()) else {
        return Vec::new();
    };
    let entry = |entry: nix::Result<nix::dir::Entry>| {
        let name = entry.ok()?.file_name().to_str().ok()?.to_owned();
        let status = fstatat(folder.as_fd(), name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        let is_file = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        (is_file && !name.starts_with('.'))
            .then(|| (format!("{prefix}{name}"), u64::try_from(status.st_size).unwrap_or(0)))
    };
    dir.iter().take(ENTRIES_MAX).filter_map(entry).collect()
}

/// A path below the folder of a skill: no `..`, and nothing hidden, where keys and histories lie.
pub(super) fn is_plain(path: &Path) -> bool {
    let plain = |part: Component<'_>| match part {
        Component::Normal(name) => !name.as_encoded_bytes().starts_with(b"."),
        _ => false,
    };
    path.components().next().is_some() && path.components().all(plain)
}

fn told(error: Errno) -> io::Error {
    match error {
        Errno::EXDEV | Errno::ELOOP => io::Error::other("a link leads out of the skill's folder"),
        Errno::ENOSYS => io::Error::other("this kernel cannot confine paths (openat2 is missing)"),
        error => error.into(),
    }
}
