//! The database of an agent, for commands that read or change it beside a daemon or without one.

use crate::config::{AgentConfig, Config};
use crate::db::{Db, DbError};
use crate::error::{Fault, Kind};

#[derive(Debug, thiserror::Error)]
pub enum AgentDatabaseError {
    #[error("there is no agent {0:?} in the config")]
    UnknownAgent(String),
    #[error("agent {0} has no database yet")]
    Absent(String),
    #[error("{0}")]
    Database(#[from] DbError),
}

impl Fault for AgentDatabaseError {
    fn kind(&self) -> Kind {
        match self {
            AgentDatabaseError::Database(error) => error.kind(),
            AgentDatabaseError::UnknownAgent(_) | AgentDatabaseError::Absent(_) => Kind::NotFound,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            AgentDatabaseError::Database(error) => error.hint(),
            AgentDatabaseError::Absent(_) => Some("start the daemon once"),
            AgentDatabaseError::UnknownAgent(_) => None,
        }
    }
}

/// The agent of this id, or the default one, and its database.
///
/// # Errors
/// There is no such agent, it was never started, or the database cannot be opened.
pub(super) fn open<'a>(
    config: &'a Config,
    agent: Option<&str>,
) -> Result<(&'a AgentConfig, Db), AgentDatabaseError> {
    let unknown = || AgentDatabaseError::UnknownAgent(agent.unwrap_or_default().to_owned());
    let agent = config.agent(agent).ok_or_else(unknown)?;
    let file = config.data_folder.join("agents").join(agent.id.as_str()).join("data/spacebot.db");
    if !file.exists() {
        return Err(AgentDatabaseError::Absent(agent.id.to_string()));
    }
    Ok((agent, Db::open_inline(&file, None)?))
}
