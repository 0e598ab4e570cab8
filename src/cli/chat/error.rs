//! Why a chat failed, as a sentence for the person at the terminal.

use std::path::PathBuf;

use super::ONCE_TIMEOUT;
use super::lines::MAX_LINE_BYTES;
use crate::error::{Fault, Kind};
use crate::message::attachment::{BYTES_MAX, FILES_MAX};

#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    #[error("no daemon answers at {address}: {reason}")]
    Unreachable { address: String, reason: String },
    #[error("the daemon at {address} does not take the token of this config")]
    Token { address: String },
    #[error("the daemon refused: {0}")]
    Refused(String),
    #[error("the daemon stopped before it answered; the message is kept and answered after the next start")]
    Lost,
    #[error("the daemon has gone")]
    Gone,
    #[error("no answer within {} seconds; the message is kept", ONCE_TIMEOUT.as_secs())]
    NoAnswer,
    #[error("the message is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    #[error("{0} cannot be read: {1}")]
    File(PathBuf, std::io::Error),
    #[error("a message takes at most {FILES_MAX} files")]
    TooManyFiles,
    #[error("the files are larger than {} MiB together", BYTES_MAX >> 20)]
    FilesTooLarge,
    #[error("the line is not UTF-8 text")]
    NotUtf8,
    #[error("{0} of the lines were not sent")]
    NotSent(usize),
    #[error("the input cannot be read: {0}")]
    Input(std::io::Error),
    #[error("the answer cannot be printed: {0}")]
    Output(std::io::Error),
    #[error("the thread that listens cannot start: {0}")]
    Thread(std::io::Error),
    #[error("the API is switched off in the config")]
    Disabled,
}

impl Fault for ChatError {
    fn kind(&self) -> Kind {
        match self {
            ChatError::Unreachable { .. }
            | ChatError::Lost
            | ChatError::Gone
            | ChatError::NoAnswer
            | ChatError::Thread(_) => Kind::Transient,
            ChatError::Token { .. } => Kind::Auth,
            ChatError::Refused(_)
            | ChatError::TooLong
            | ChatError::File(..)
            | ChatError::TooManyFiles
            | ChatError::FilesTooLarge
            | ChatError::NotUtf8
            | ChatError::NotSent(_)
            | ChatError::Input(_)
            | ChatError::Output(_)
            | ChatError::Disabled => Kind::Invalid,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            ChatError::Unreachable { .. } => {
                Some("start it with `spacebot run`, or name its config with --config")
            }
            ChatError::Token { .. } => {
                Some("name the config that the daemon was started with: --config, and the same variables")
            }
            ChatError::Disabled => Some("set api.enabled = true"),
            _ => None,
        }
    }
}
