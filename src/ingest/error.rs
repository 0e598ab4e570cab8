//! What can go wrong with a file that is to be taken.

use std::io;

use crate::db::DbError;
use crate::error::{Fault, Kind};

#[derive(Debug, Clone, thiserror::Error)]
pub enum IngestError {
    #[error("{0}")]
    Database(#[from] DbError),
    /// The file is left where it is until it changes.
    #[error("{reason}")]
    Left { reason: String, hint: &'static str },
    /// The file changed while it was read.
    #[error("it changed while it was read")]
    Changed,
    #[error("{what}: {reason}")]
    Io { what: String, reason: String, kind: Kind },
    #[error("cancelled")]
    Cancelled,
}

impl IngestError {
    pub(super) fn left(reason: impl Into<String>, hint: &'static str) -> Self {
        IngestError::Left { reason: reason.into(), hint }
    }

    pub(super) fn io(what: impl Into<String>, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Full,
            _ => Kind::Transient,
        };
        IngestError::Io { what: what.into(), reason: error.to_string(), kind }
    }
}

impl Fault for IngestError {
    fn kind(&self) -> Kind {
        match self {
            IngestError::Database(error) => error.kind(),
            IngestError::Left { .. } => Kind::Invalid,
            IngestError::Changed => Kind::Transient,
            IngestError::Io { kind, .. } => *kind,
            IngestError::Cancelled => Kind::Cancelled,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            IngestError::Database(error) => error.hint(),
            IngestError::Left { hint, .. } => Some(hint),
            _ => None,
        }
    }
}
