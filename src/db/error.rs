//! What can go wrong with the database.

use std::path::PathBuf;

use rusqlite::ErrorCode;

use crate::error::{Fault, Kind};

#[derive(Debug, Clone, thiserror::Error)]
pub enum DbError {
    #[error("cannot open {path}: {reason}")]
    Open { path: PathBuf, reason: String },
    #[error("migration {name}: {reason}")]
    Migration { name: String, reason: String },
    #[error("the disk is full")]
    Full,
    /// Of a limit of ours.
    #[error("{0}")]
    NoRoom(String),
    #[error("too many writes wait for the disk")]
    QueueFull,
    #[error("the database file is locked by another process")]
    Busy,
    #[error("the database file is damaged: {0}")]
    Corrupt(String),
    #[error("the disk does not read or write: {0}")]
    Disk(String),
    #[error("{0}")]
    Sql(String),
    #[error("no such row: {0}")]
    NotFound(String),
    #[error("{0}")]
    Refused(String),
    #[error("the database is closed")]
    Closed,
}

impl Fault for DbError {
    fn kind(&self) -> Kind {
        match self {
            DbError::Full | DbError::NoRoom(_) | DbError::QueueFull => Kind::Full,
            DbError::Busy | DbError::Disk(_) | DbError::Closed => Kind::Transient,
            DbError::NotFound(_) => Kind::NotFound,
            DbError::Open { .. } | DbError::Migration { .. } | DbError::Corrupt(_) | DbError::Refused(_) => {
                Kind::Invalid
            }
            DbError::Sql(_) => Kind::Bug,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            DbError::Open { .. } => {
                Some("check that the folder exists and belongs to the user of the daemon")
            }
            DbError::Migration { .. } => {
                Some("the file was written by another version; go back to it or restore a backup")
            }
            DbError::Full => {
                Some("free some space; nothing that was accepted is lost, work goes on by itself")
            }
            DbError::Busy => Some("another spacebot process is writing to this data folder"),
            DbError::Corrupt(_) => {
                Some("stop the daemon, copy the data folder, then try `sqlite3 FILE .recover`")
            }
            _ => None,
        }
    }
}

/// Of a file beside the database.
impl From<std::io::Error> for DbError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => DbError::Full,
            _ => DbError::Disk(error.to_string()),
        }
    }
}

impl From<rusqlite::types::FromSqlError> for DbError {
    fn from(error: rusqlite::types::FromSqlError) -> Self {
        DbError::Corrupt(format!("a value of an unexpected type: {error}"))
    }
}

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => DbError::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => DbError::Busy,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => DbError::Corrupt(error.to_string()),
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly) => {
                DbError::Disk(error.to_string())
            }
            _ if matches!(error, rusqlite::Error::QueryReturnedNoRows) => {
                DbError::NotFound("query".to_owned())
            }
            _ => DbError::Sql(error.to_string()),
        }
    }
}
