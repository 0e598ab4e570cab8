//! What can go wrong with memories.

use std::io::ErrorKind;
use std::path::PathBuf;

use tantivy::TantivyError;
use tantivy::directory::error::{LockError, OpenDirectoryError, OpenReadError, OpenWriteError};

use super::embed::EmbedError;
use super::vector_index::VectorError;
use crate::db::DbError;
use crate::error::{Fault, Kind};

#[derive(Debug, Clone, thiserror::Error)]
pub enum MemoryError {
    #[error("{0}")]
    Database(DbError),
    #[error("the text index in {folder}: {reason}")]
    Index { folder: PathBuf, reason: String, kind: Kind },
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Embedding(EmbedError),
    #[error("{0}")]
    VectorIndex(#[from] VectorError),
    #[error("there is no memory with the id {0:?}")]
    NotFound(String),
}

impl Fault for MemoryError {
    fn kind(&self) -> Kind {
        match self {
            MemoryError::Database(error) => error.kind(),
            MemoryError::Index { kind, .. } => *kind,
            MemoryError::Embedding(error) => error.kind(),
            MemoryError::VectorIndex(error) => error.kind(),
            MemoryError::Invalid(_) => Kind::Invalid,
            MemoryError::NotFound(_) => Kind::NotFound,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            MemoryError::Database(error) => error.hint(),
            MemoryError::Embedding(error) => error.hint(),
            MemoryError::VectorIndex(error) => error.hint(),
            MemoryError::Index { .. } => Some(
                "the folder holds nothing of its own: it may be deleted and is rebuilt from the database",
            ),
            _ => None,
        }
    }
}

impl From<DbError> for MemoryError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::NotFound(id) => MemoryError::NotFound(id),
            DbError::Refused(reason) => MemoryError::Invalid(reason),
            other => MemoryError::Database(other),
        }
    }
}

/// Whether an error of tantivy may pass ([`Kind::Transient`], [`Kind::Full`]), needs the operator
/// ([`Kind::Invalid`]) or means that the files are damaged ([`Kind::Bug`]) and have to be made anew.
pub(super) fn index_kind(error: &TantivyError) -> Kind {
    let io = match error {
        TantivyError::LockFailure(LockError::LockBusy, _) => return Kind::Transient,
        TantivyError::IoError(error) => error.kind(),
        TantivyError::LockFailure(LockError::IoError(error), _) => error.kind(),
        TantivyError::OpenReadError(OpenReadError::IoError { io_error, .. }) => io_error.kind(),
        TantivyError::OpenWriteError(OpenWriteError::IoError { io_error, .. }) => io_error.kind(),
        TantivyError::OpenDirectoryError(OpenDirectoryError::IoError { io_error, .. }) => io_error.kind(),
        _ => return Kind::Bug,
    };
    match io {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Kind::Full,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory => {
            Kind::Invalid
        }
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData => Kind::Bug,
        _ => Kind::Transient,
    }
}
