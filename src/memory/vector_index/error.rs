//! What can go wrong with the vector index, and whether another try makes sense.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::{Fault, Kind};

#[derive(Debug, Clone, thiserror::Error)]
pub enum VectorError {
    #[error("the vector index, {path}: {reason}")]
    File { path: PathBuf, reason: String, kind: Kind },
    #[error("not a vector: {0}")]
    Vector(String),
    #[error("{0}")]
    Invalid(String),
    /// What the [`super::VectorSource`] said.
    #[error("the vectors of the database: {reason}")]
    Source { reason: String, kind: Kind },
    #[error("the search was stopped")]
    Cancelled,
}

impl VectorError {
    pub(super) fn file(path: &Path, error: &io::Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Kind::Full,
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory => {
                Kind::Invalid
            }
            _ => Kind::Transient,
        };
        Self::File { path: path.to_owned(), reason: error.to_string(), kind }
    }
}

impl Fault for VectorError {
    fn kind(&self) -> Kind {
        match self {
            VectorError::File { kind, .. } | VectorError::Source { kind, .. } => *kind,
            VectorError::Vector(_) | VectorError::Invalid(_) => Kind::Invalid,
            VectorError::Cancelled => Kind::Cancelled,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            VectorError::File { .. } => Some(
                "the folder holds nothing of its own: it may be deleted and is rebuilt from the database",
            ),
            _ => None,
        }
    }
}
