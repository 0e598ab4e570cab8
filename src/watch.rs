//! Says that files have changed: one thread waits in one `poll` for the kernel's word (inotify) or for
//! a ring, and for nothing by the clock. Folders are watched, not files: editors and tools that manage
//! configurations put a new file, or a new link, in place of the old one.

mod fingerprint;
mod trail;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use crate::clock::SharedClock;
use crate::error::{Fault, Kind};
use crate::thread::Cancel;

pub use fingerprint::Fingerprint;
use trail::Names;

/// After the last change this long nothing more has to come: whoever writes several files is done then.
pub const SETTLE: Duration = Duration::from_secs(2);
/// However long the changes go on, the first of them waits no longer.
pub const SETTLE_MAX: Duration = Duration::from_secs(10);
/// A file that was written so lately may be half of what it will be, whatever woke us.
const FRESH_MILLISECONDS: i64 = 500;
/// Folders watched at once; far more than an installation has.
const FOLDERS_MAX: usize = 1024;
/// A way that changes while it is followed is followed again, so often.
const WALKS_MAX: usize = 4;

/// What is watched. It need not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched {
    File(PathBuf),
    /// All files in it, but not in folders below it.
    Folder(PathBuf),
}

impl Watched {
    pub fn path(&self) -> &Path {
        match self {
            Watched::File(path) | Watched::Folder(path) => path,
        }
    }
}

/// Why [`Watcher::wait`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// Something may have changed.
    Changed,
    /// Somebody rang.
    Rung,
    Cancelled,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    #[error("files are not watched: {0}")]
    Unavailable(Errno),
    #[error("{folder} is not watched: {reason}")]
    Folder { folder: PathBuf, reason: Errno },
    #[error("more than {FOLDERS_MAX} folders are to be watched")]
    TooMany,
}

impl Fault for WatchError {
    fn kind(&self) -> Kind {
        match self {
            WatchError::Unavailable(_) | WatchError::TooMany => Kind::Full,
            WatchError::Folder { reason: Errno::ENOSPC, .. } => Kind::Full,
            WatchError::Folder { .. } => Kind::Invalid,
        }
    }
    fn hint(&self) -> Option<&str> {
        Some(match self {
            WatchError::Unavailable(_) => "raise fs.inotify.max_user_instances; SIGHUP works without it",
            WatchError::Folder { reason: Errno::ENOSPC, .. } => {
                "raise fs.inotify.max_user_watches; SIGHUP works without it"
            }
            WatchError::Folder { .. } | WatchError::TooMany => "changes there take effect on SIGHUP",
        })
    }
}

/// Wakes the watcher; never blocks. Clones are the same bell.
#[derive(Clone)]
pub struct Bell(Arc<EventFd>);

impl Bell {
    /// # Errors
    /// The system has no descriptor left.
    pub fn new() -> nix::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(Arc::new(EventFd::from_value_and_flags(0, flags)?)))
    }

    pub fn ring(&self) {
        self.0.write(1).ok(); // full means that it rings already
    }
}

pub struct Watcher {
    clock: SharedClock,
    bell: Bell,
    inotify: Result<Inotify, Errno>,
    folders: BTreeMap<WatchDescriptor, Names>,
    list: Vec<Watched>,
}

impl Watcher {
    /// Watches nothing yet. Where the kernel refuses, the bell still works; [`Watcher::watch`] tells.
    pub fn new(clock: SharedClock, bell: Bell) -> Self {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK);
        Self { clock, bell, inotify, folders: BTreeMap::new(), list: Vec::new() }
    }

    /// From now on a change of one of these, and of no other, ends [`Watcher::wait`]. To be called again
    /// after each change: the way to a file may be another one then.
    ///
    /// # Errors
    /// Not everything is watched; the rest is.
    pub fn watch(&mut self, list: &[Watched]) -> Result<(), WatchError> {
        self.list = list.to_vec();
        let inotify = self.inotify.as_ref().map_err(|reason| WatchError::Unavailable(*reason))?;
        let (mut outcome, mut wanted) = (Ok(()), trail::folders(list));
        let mut now = BTreeMap::new();
        for _ in 0..WALKS_MAX {
            (now, outcome) = add(inotify, &wanted);
            let again = trail::folders(list);
            if again == wanted {
                break;
            }
            wanted = again;
        }
        for old in self.folders.keys().filter(|old| !now.contains_key(old)) {
            inotify.rm_watch(*old).ok(); // gone with its folder already
        }
        self.folders = now;
        outcome
    }

    /// Blocks until something has changed and then nothing more for [`SETTLE`], or somebody rings.
    pub fn wait(&mut self, cancel: &Cancel) -> Woken {
        let bell = self.bell.clone();
        let _stop = cancel.on_cancel(move || bell.ring());
        let mut settle = Settle::default();
        loop {
            let now = self.clock.monotonic();
            if settle.due().is_some_and(|due| now >= due) {
                if settle.is_last(now) || !self.is_fresh() {
                    return Woken::Changed;
                }
                settle.changed(now);
            }
            if self.rung(settle.due().map(|due| due.saturating_sub(now))) {
                return if cancel.is_cancelled() { Woken::Cancelled } else { Woken::Rung };
            }
            if self.has_changed() {
                settle.changed(self.clock.monotonic());
            }
        }
    }

    /// Waits for either; true when it was the bell.
    fn rung(&self, wait: Option<Duration>) -> bool {
        let timeout = match wait {
            // One more, so that the time has come when it ends.
            Some(wait) => PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        let mut ready = vec![PollFd::new(self.bell.0.as_fd(), PollFlags::POLLIN)];
        ready.extend(self.inotify.iter().map(|inotify| PollFd::new(inotify.as_fd(), PollFlags::POLLIN)));
        match poll(&mut ready, timeout) {
            Ok(_) => self.bell.0.read().is_ok(),
            Err(_) => false, // interrupted: looked at again
        }
    }

    fn is_fresh(&self) -> bool {
        let now = self.clock.now().0;
        fingerprint::files(&self.list).iter().any(|file| {
            let written = file.metadata().and_then(|metadata| metadata.modified()).ok();
            let written = written.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let written = written.and_then(|at| i64::try_from(at.as_millis()).ok());
            // What is in the future says nothing: the clock was set.
            written.is_some_and(|at| (0..FRESH_MILLISECONDS).contains(&(now - at)))
        })
    }

    /// Takes what the kernel has to say.
    fn has_changed(&mut self) -> bool {
        let mut changed = false;
        while let Ok(inotify) = &self.inotify {
            match inotify.read_events() {
                Ok(events) => {
                    for event in events {
                        changed |= match (self.folders.get(&event.wd), &event.name) {
                            (Some(names), Some(name)) => names.matter(name),
                            // The folder itself is gone or another one.
                            (Some(_), None) => !event.mask.contains(AddWatchFlags::IN_ATTRIB),
                            // There was more than the kernel remembers, or it is about an old folder.
                            (None, _) => event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW),
                        };
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                Err(error) => {
                    log::warn!("files are no longer watched: {error} (hint: SIGHUP still works)");
                    self.inotify = Err(error);
                }
            }
        }
        changed
    }
}

/// When a series of changes is taken to be over.
#[derive(Default)]
struct Settle {
    quiet_at: Option<Duration>,
    latest: Option<Duration>,
}

impl Settle {
    fn changed(&mut self, now: Duration) {
        self.quiet_at = Some(now + SETTLE);
        self.latest = self.latest.or(Some(now + SETTLE_MAX));
    }

    fn due(&self) -> Option<Duration> {
        self.quiet_at.min(self.latest)
    }

    fn is_last(&self, now: Duration) -> bool {
        self.latest.is_some_and(|latest| now >= latest)
    }
}

type Added = (BTreeMap<WatchDescriptor, Names>, Result<(), WatchError>);

fn add(inotify: &Inotify, wanted: &BTreeMap<PathBuf, Names>) -> Added {
    // Not IN_MODIFY: what is still being written is not worth reading.
    let what = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    let mut added: BTreeMap<WatchDescriptor, Names> = BTreeMap::new();
    let mut outcome = if wanted.len() > FOLDERS_MAX { Err(WatchError::TooMany) } else { Ok(()) };
    for (folder, names) in wanted.iter().take(FOLDERS_MAX) {
        match inotify.add_watch(folder, what) {
            Ok(descriptor) => {
                let known = added.remove(&descriptor);
                let names = names.clone();
                added.insert(descriptor, known.map_or(names.clone(), |known| known.and(names)));
            }
            // It has gone in this moment: the walk is made again.
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(reason) => outcome = outcome.and(Err(WatchError::Folder { folder: folder.clone(), reason })),
        }
    }
    (added, outcome)
}

#[cfg(test)]
mod tests;
