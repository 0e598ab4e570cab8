//! Why the board said no.

use super::Status;
use crate::db::DbError;
use crate::error::{Fault, Kind};

#[derive(Debug, Clone, thiserror::Error)]
pub enum TaskError {
    #[error("there is no task {0}")]
    NotFound(u64),
    #[error("{0}")]
    Invalid(String),
    #[error("task {number} is {} and cannot become {}", from.as_str(), to.as_str())]
    Transition { number: u64, from: Status, to: Status },
    #[error("task {number} was changed meanwhile: it is at revision {found}, not {expected}")]
    Conflict { number: u64, expected: u64, found: u64 },
    #[error("{0}")]
    Forbidden(String),
    #[error("there are {0} open tasks already, which is the limit; finish or put some aside first")]
    Full(usize),
    #[error("{0}")]
    Database(#[from] DbError),
}

impl Fault for TaskError {
    fn kind(&self) -> Kind {
        match self {
            TaskError::NotFound(_) => Kind::NotFound,
            TaskError::Full(_) => Kind::Full,
            TaskError::Database(error) => error.kind(),
            TaskError::Invalid(_)
            | TaskError::Transition { .. }
            | TaskError::Conflict { .. }
            | TaskError::Forbidden(_) => Kind::Invalid,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            TaskError::Database(error) => error.hint(),
            _ => None,
        }
    }
}
