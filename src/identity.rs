//! Who the agent is: SOUL.md, IDENTITY.md and ROLE.md in the agent's folder, outside of the
//! workspace, so that no tool reaches them. They belong to the operator.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::error::{Fault, Kind};
use crate::text;

/// Longest identity file, in bytes; the rest is not read.
const MAX_FILE_BYTES: usize = 64 << 10;

const SOUL: (&str, &str) = ("SOUL.md", include_str!("../prompts/en/identity/SOUL.md"));
const IDENTITY: (&str, &str) = ("IDENTITY.md", include_str!("../prompts/en/identity/IDENTITY.md"));
const ROLE: (&str, &str) = ("ROLE.md", include_str!("../prompts/en/identity/ROLE.md"));

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub soul: String,
    pub identity: String,
    pub role: String,
}

#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct IdentityError {
    path: PathBuf,
    reason: String,
}

impl Fault for IdentityError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
    fn hint(&self) -> Option<&str> {
        Some("the file must be readable UTF-8 text")
    }
}

impl Identity {
    /// Reads the three files of `folder`; one that is missing is written from its template first.
    ///
    /// # Errors
    /// A file cannot be written or read.
    pub fn load_or_seed(folder: &Path) -> Result<Self, IdentityError> {
        Ok(Self { soul: load(folder, SOUL)?, identity: load(folder, IDENTITY)?, role: load(folder, ROLE)? })
    }

    /// Where the files of an agent are.
    pub fn files(folder: &Path) -> [PathBuf; 3] {
        [SOUL, IDENTITY, ROLE].map(|(name, _)| folder.join(name))
    }

    /// Reads the files again and writes none: one that is missing or unreadable leaves its old text in
    /// force, and is told.
    pub fn read_again(&self, folder: &Path) -> (Self, Vec<IdentityError>) {
        let mut mistakes = Vec::new();
        let mut again = |(name, _), old: &String| match read(&folder.join(name)) {
            Ok(text) => text,
            Err(error) => {
                mistakes.push(error);
                old.clone()
            }
        };
        let soul = again(SOUL, &self.soul);
        let (identity, role) = (again(IDENTITY, &self.identity), again(ROLE, &self.role));
        (Self { soul, identity, role }, mistakes)
    }
}

/// What the operator has written about a person; empty without a file.
///
/// # Errors
/// The file is there and cannot be read.
pub fn profile(folder: &Path, id: &str) -> Result<String, IdentityError> {
    let path = folder.join(format!("{id}.md"));
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        _ => read(&path),
    }
}

fn load(folder: &Path, (name, template): (&str, &str)) -> Result<String, IdentityError> {
    let path = folder.join(name);
    let failed = |reason: String| IdentityError { path: path.clone(), reason };
    match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(mut file) => file.write_all(template.as_bytes()).map_err(|error| failed(error.to_string()))?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error.to_string())),
    }
    read(&path)
}

fn read(path: &Path) -> Result<String, IdentityError> {
    let failed = |reason: String| IdentityError { path: path.to_owned(), reason };
    let is_file = fs::metadata(path).map_err(|error| failed(error.to_string()))?.is_file();
    if !is_file {
        return Err(failed("is no regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    file.take(MAX_FILE_BYTES as u64 + 4)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(error.to_string()))?;
    let is_long = bytes.len() > MAX_FILE_BYTES;
    let words = match std::str::from_utf8(&bytes) {
        Ok(words) => words,
        // A letter that the end of what is read has cut in two.
        Err(error) if is_long && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) => return Err(failed(format!("is no UTF-8 text from byte {} on", error.valid_up_to()))),
    };
    if is_long {
        log::warn!("{} is longer than {MAX_FILE_BYTES} bytes; the rest is not read", path.display());
    }
    Ok(text::prefix(words, MAX_FILE_BYTES).trim().to_owned())
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_seeded_once_and_edits_stay() {
        let folder = tempfile::tempdir().expect("folder");
        let seeded = Identity::load_or_seed(folder.path()).expect("seed");
        assert!(!seeded.soul.is_empty() && !seeded.identity.is_empty() && !seeded.role.is_empty());
        fs::write(folder.path().join("SOUL.md"), "kind 漢字").expect("write");
        let again = Identity::load_or_seed(folder.path()).expect("load");
        assert_eq!(again.soul, "kind 漢字");
        assert_eq!(again.role, seeded.role);
    }

    #[test]
    fn what_cannot_be_read_again_keeps_its_old_text_and_nothing_is_written() {
        let folder = tempfile::tempdir().expect("folder");
        let old = Identity::load_or_seed(folder.path()).expect("seed");
        fs::write(folder.path().join("SOUL.md"), "kind").expect("write");
        fs::remove_file(folder.path().join("IDENTITY.md")).expect("remove");
        fs::remove_file(folder.path().join("ROLE.md")).expect("remove");
        fs::create_dir(folder.path().join("ROLE.md")).expect("folder");
        let (new, mistakes) = old.read_again(folder.path());
        assert_eq!(new, Identity { soul: "kind".to_owned(), ..old });
        let told: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        assert!(
            told.len() == 2 && told[0].contains("IDENTITY.md") && told[1].contains("ROLE.md"),
            "{told:?}"
        );
        assert!(!folder.path().join("IDENTITY.md").exists());
    }

    #[test]
    fn what_is_no_text_keeps_its_old_text_and_a_long_one_is_cut_between_letters() {
        let folder = tempfile::tempdir().expect("folder");
        let old = Identity::load_or_seed(folder.path()).expect("seed");
        fs::write(folder.path().join("SOUL.md"), b"\xff\xfe bad").expect("write");
        let (new, mistakes) = old.read_again(folder.path());
        assert_eq!(new, old);
        assert!(mistakes.len() == 1 && mistakes[0].to_string().contains("no UTF-8 text"), "{mistakes:?}");
        fs::write(folder.path().join("SOUL.md"), "漢".repeat(MAX_FILE_BYTES)).expect("write");
        let (new, mistakes) = old.read_again(folder.path());
        assert!(mistakes.is_empty() && new.soul.chars().all(|letter| letter == '漢'));
        assert!(new.soul.len() <= MAX_FILE_BYTES && new.soul.len() > MAX_FILE_BYTES - 3);
    }

    #[test]
    fn a_folder_in_place_of_a_file_is_an_error() {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("ROLE.md")).expect("folder");
        assert!(Identity::load_or_seed(folder.path()).is_err());
    }
}
