//! `spacebot channel …`: the conversations of an agent and what holds in each. A running daemon reads what
//! is set here at its next turn.

use std::io::{self, Write};

use serde_json::json;

use super::arguments::ChannelAction;
use super::chat::printable;
use super::database::{self, AgentDatabaseError};
use crate::clock::SystemClock;
use crate::config::{AgentConfig, ChannelSettings, Config, Delegation, MemoryMode, ResponseMode};
use crate::conversation::{Conversations, Known, change_settings};
use crate::db::DbError;
use crate::error::{Fault, Kind};

/// Takes back what is set, so that the binding or the agent decides.
const DEFAULT: &str = "default";

#[derive(Debug, thiserror::Error)]
pub enum ChannelCommandError {
    #[error("{0}")]
    Agent(#[from] AgentDatabaseError),
    #[error("{0}")]
    Db(#[from] DbError),
    #[error("the output could not be written: {0}")]
    Output(#[from] io::Error),
    #[error("there is no conversation {0:?}")]
    UnknownConversation(String),
    #[error("{value:?} is not one of {known}")]
    Invalid { value: String, known: String },
}

impl Fault for ChannelCommandError {
    fn kind(&self) -> Kind {
        match self {
            ChannelCommandError::Agent(error) => error.kind(),
            ChannelCommandError::Db(error) => error.kind(),
            ChannelCommandError::Output(_) | ChannelCommandError::Invalid { .. } => Kind::Invalid,
            _ => Kind::NotFound,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            ChannelCommandError::Agent(error) => error.hint(),
            ChannelCommandError::Db(error) => error.hint(),
            ChannelCommandError::UnknownConversation(_) => Some("spacebot channel list shows them"),
            _ => None,
        }
    }
}

/// Does what the command line asks.
///
/// # Errors
/// It could not be done, and nothing is set.
pub fn run(config: &Config, agent: Option<&str>, action: &ChannelAction) -> Result<(), ChannelCommandError> {
    let (agent, db) = database::open(config, agent)?;
    let conversations = Conversations::new(db.clone(), SystemClock::shared());
    let mut out = io::stdout().lock();
    match action {
        ChannelAction::List { json } => {
            for known in conversations.known()? {
                writeln!(out, "{}", shown(agent, &known, *json))?;
            }
        }
        ChannelAction::Set { conversation, response_mode, delegation, memory_mode } => {
            let mut all = conversations.known()?.into_iter();
            let Some(mut known) = all.find(|known| known.conversation.as_str() == conversation) else {
                return Err(ChannelCommandError::UnknownConversation(conversation.clone()));
            };
            let response_mode = chosen(response_mode.as_deref(), &ResponseMode::ALL)?;
            let delegation = chosen(delegation.as_deref(), &Delegation::ALL)?;
            let memory_mode = chosen(memory_mode.as_deref(), &MemoryMode::ALL)?;
            let (id, now) = (known.conversation.clone(), conversations.now());
            known.set = db.write(move |connection| {
                change_settings(connection, &id, now, |settings| {
                    settings.response_mode = response_mode.unwrap_or(settings.response_mode);
                    settings.delegation = delegation.unwrap_or(settings.delegation);
                    settings.memory_mode = memory_mode.unwrap_or(settings.memory_mode);
                })
            })?;
            writeln!(out, "{}", shown(agent, &known, false))?;
        }
    }
    Ok(())
}

/// What to set: `None` leaves it, `Some(None)` takes it back.
fn chosen<T: Copy>(value: Option<&str>, all: &[(&str, T)]) -> Result<Option<Option<T>>, ChannelCommandError> {
    let Some(value) = value else { return Ok(None) };
    if value == DEFAULT {
        return Ok(Some(None));
    }
    let found = all.iter().find(|(name, _)| *name == value).map(|(_, found)| *found);
    found.map(|found| Some(Some(found))).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).chain([DEFAULT]).collect();
        ChannelCommandError::Invalid { value: value.to_owned(), known: names.join(", ") }
    })
}

/// One line: what holds, with a star where it is set for this conversation.
fn shown(agent: &AgentConfig, Known { conversation, instance, set }: &Known, as_json: bool) -> String {
    let holds = ChannelSettings::from(set.or(agent.channel_of(instance, conversation)));
    if as_json {
        return json!({
            "conversation": conversation.as_str(),
            "response_mode": holds.response_mode.as_str(),
            "delegation": holds.delegation.as_str(),
            "memory_mode": holds.memory_mode.as_str(),
            "set": {
                "response_mode": set.response_mode.map(ResponseMode::as_str),
                "delegation": set.delegation.map(Delegation::as_str),
                "memory_mode": set.memory_mode.map(MemoryMode::as_str),
            },
        })
        .to_string();
    }
    let star = |name: &str, is_set: bool| format!("{name}{}", if is_set { "*" } else { "" });
    format!(
        "{:<40} {:<14} {:<10} {}",
        printable(conversation.as_str()),
        star(holds.response_mode.as_str(), set.response_mode.is_some()),
        star(holds.delegation.as_str(), set.delegation.is_some()),
        star(holds.memory_mode.as_str(), set.memory_mode.is_some()),
    )
}
