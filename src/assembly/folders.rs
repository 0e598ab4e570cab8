//! The folders that the daemon makes, and the lock on the one that holds all of them.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use spacebot::error::Kind;

use super::StartError;

/// Readable by nobody else: conversations are private.
pub(super) fn make_folder(path: &Path) -> Result<(), StartError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| StartError::io(format!("folder {}", path.display()), &error))
}

pub(super) fn lock_folder(folder: &Path) -> Result<Flock<File>, StartError> {
    let path = folder.join("spacebot.lock");
    let open = File::options().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(|error| StartError::io(format!("lock {}", path.display()), &error))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| StartError {
        what: format!("data folder {}", folder.display()),
        reason: match error {
            nix::errno::Errno::EWOULDBLOCK => "it is in use".to_owned(),
            error => error.to_string(),
        },
        kind: Kind::Invalid,
        hint: Some("another spacebot is running with this data folder".to_owned()),
    })
}
