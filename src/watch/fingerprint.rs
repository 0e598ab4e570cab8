//! What files hold, as one hash: the same hash means that there is nothing to read again.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use ring::digest::{Context, Digest, SHA256};

use super::Watched;

/// Bytes of one file that count; who reads it later refuses longer ones.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Files of one folder that count.
const FOLDER_FILES_MAX: usize = 256;
/// Digits that are shown.
const DIGITS: usize = 12;

/// The contents of a list of files and folders, with their names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Reads everything. What cannot be read counts by the reason.
    pub fn of(list: &[Watched]) -> Self {
        let mut context = Context::new(&SHA256);
        for watched in list {
            match watched {
                Watched::File(path) => add_file(&mut context, path),
                Watched::Folder(path) => add_folder(&mut context, path),
            }
        }
        Self::end(&context.finish())
    }

    fn end(digest: &Digest) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        formatter.write_str(&digits[..DIGITS])
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// With its length first, so that no two lists read alike.
fn add(context: &mut Context, bytes: &[u8]) {
    context.update(&(bytes.len() as u64).to_le_bytes());
    context.update(bytes);
}

fn add_file(context: &mut Context, path: &Path) {
    add(context, path.as_os_str().as_encoded_bytes());
    match read(path) {
        Ok(bytes) => add(context, &bytes),
        Err(error) => add(context, format!("{:?}", error.kind()).as_bytes()),
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let not_regular = || std::io::ErrorKind::InvalidInput.into();
    if !fs::metadata(path)?.is_file() {
        return Err(not_regular());
    }
    // What was put in its place in this moment may be a pipe, which would be waited for.
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(not_regular());
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn add_folder(context: &mut Context, path: &Path) {
    add(context, path.as_os_str().as_encoded_bytes());
    match entries(path) {
        Ok(paths) => paths.iter().for_each(|path| add_file(context, path)),
        Err(error) => add(context, format!("{:?}", error.kind()).as_bytes()),
    }
}

fn entries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.take(FOLDER_FILES_MAX);
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    Ok(paths)
}

/// Those that are named, and those in the folders that are named.
pub(super) fn files(list: &[Watched]) -> Vec<PathBuf> {
    let files = list.iter().flat_map(|watched| match watched {
        Watched::File(path) => vec![path.clone()],
        Watched::Folder(path) => entries(path).unwrap_or_default(),
    });
    files.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_a_content_changes_the_hash_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let list = [Watched::File(path("a")), Watched::File(path("b")), Watched::Folder(path("more"))];
        let mut seen = Vec::new();
        let mut changed = |what: &str| {
            let print = Fingerprint::of(&list);
            assert!(!seen.contains(&print), "{what}");
            seen.push(print);
        };
        changed("nothing is there");
        fs::write(path("a"), "one").unwrap();
        changed("a file");
        fs::write(path("a"), "on").unwrap();
        fs::write(path("b"), "e").unwrap();
        changed("another border");
        fs::create_dir(path("more")).unwrap();
        changed("a folder");
        fs::write(path("more/x"), "").unwrap();
        changed("an empty file");
        fs::rename(path("more/x"), path("more/y")).unwrap();
        changed("another name");
        fs::remove_file(path("a")).unwrap();
        fs::create_dir(path("a")).unwrap();
        changed("no file any more");
        fs::write(path("unwatched"), "x").unwrap();
        fs::rename(path("b"), path("c")).unwrap();
        fs::rename(path("c"), path("b")).unwrap();
        assert_eq!(seen.last().unwrap(), &Fingerprint::of(&list));
        assert_eq!(seen[0].to_string().len(), DIGITS);
    }
}
