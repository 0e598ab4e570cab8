//! `spacebot channel …`: the conversations of an agent and what holds in each. A running daemon reads what
//! is set here at its next turn.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::json;

use super::arguments::{ChannelAction, ChannelChange};
use super::chat::printable;
use super::database::{self, AgentDatabaseError};
use crate::clock::SystemClock;
use crate::config::{
    AgentConfig, ChannelConfig, ChannelSettings, Config, Delegation, LlmConfig, MemoryMode, ModelOverrides,
    ResponseMode, WorkerContext,
};
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
    #[error("{0}")]
    Model(String),
}

impl Fault for ChannelCommandError {
    fn kind(&self) -> Kind {
        match self {
            ChannelCommandError::Agent(error) => error.kind(),
            ChannelCommandError::Db(error) => error.kind(),
            ChannelCommandError::Output(_)
            | ChannelCommandError::Invalid { .. }
            | ChannelCommandError::Model(_) => Kind::Invalid,
            ChannelCommandError::UnknownConversation(_) => Kind::NotFound,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            ChannelCommandError::Agent(error) => error.hint(),
            ChannelCommandError::Db(error) => error.hint(),
            ChannelCommandError::UnknownConversation(_) => Some("spacebot channel list shows them"),
            ChannelCommandError::Model(_) => Some("spacebot models shows the providers"),
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
                writeln!(out, "{}", shown(config, agent, &known, *json))?;
            }
        }
        ChannelAction::Set { conversation, change } => {
            let mut all = conversations.known()?.into_iter();
            let Some(mut known) = all.find(|known| known.conversation.as_str() == conversation) else {
                return Err(ChannelCommandError::UnknownConversation(conversation.clone()));
            };
            let wanted = Wanted::of(change, &config.llm)?;
            let (id, now) = (known.conversation.clone(), conversations.now());
            known.set = db
                .write(move |connection| change_settings(connection, &id, now, |set| wanted.put_into(set)))?;
            writeln!(out, "{}", shown(config, agent, &known, false))?;
        }
    }
    Ok(())
}

/// What to set: `None` leaves it, `Some(None)` takes it back.
type Choice<T> = Option<Option<T>>;

struct Wanted {
    response_mode: Choice<ResponseMode>,
    delegation: Choice<Delegation>,
    memory_mode: Choice<MemoryMode>,
    worker_context: Choice<WorkerContext>,
    /// As they are in the order of [`ModelOverrides::PROCESSES`].
    models: [Choice<String>; 4],
}

impl Wanted {
    fn of(change: &ChannelChange, llm: &LlmConfig) -> Result<Self, ChannelCommandError> {
        let model = |name: &Option<String>| model(name.as_deref(), llm);
        Ok(Self {
            response_mode: chosen(change.response_mode.as_deref(), &ResponseMode::ALL)?,
            delegation: chosen(change.delegation.as_deref(), &Delegation::ALL)?,
            memory_mode: chosen(change.memory_mode.as_deref(), &MemoryMode::ALL)?,
            worker_context: chosen(change.worker_context.as_deref(), &WorkerContext::ALL)?,
            models: [
                model(&change.channel_model)?,
                model(&change.branch_model)?,
                model(&change.worker_model)?,
                model(&change.compactor_model)?,
            ],
        })
    }

    fn put_into(self, set: &mut ChannelConfig) {
        set.response_mode = self.response_mode.unwrap_or(set.response_mode);
        set.delegation = self.delegation.unwrap_or(set.delegation);
        set.memory_mode = self.memory_mode.unwrap_or(set.memory_mode);
        set.worker_context = self.worker_context.unwrap_or(set.worker_context);
        let ModelOverrides { channel, branch, worker, compactor } = &mut set.models;
        for (model, wanted) in [channel, branch, worker, compactor].into_iter().zip(self.models) {
            if let Some(wanted) = wanted {
                *model = wanted;
            }
        }
    }
}

fn model(value: Option<&str>, llm: &LlmConfig) -> Result<Choice<String>, ChannelCommandError> {
    let Some(value) = value else { return Ok(None) };
    match llm.refuses(value) {
        _ if value == DEFAULT => Ok(Some(None)),
        Some(reason) => Err(ChannelCommandError::Model(reason)),
        None => Ok(Some(Some(value.to_owned()))),
    }
}

fn chosen<T: Copy>(value: Option<&str>, all: &[(&str, T)]) -> Result<Choice<T>, ChannelCommandError> {
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
fn shown(
    config: &Config,
    agent: &AgentConfig,
    Known { conversation, instance, set }: &Known,
    as_json: bool,
) -> String {
    let provided = |model: &str| config.llm.refuses(model).is_none();
    let (own, bound) = (set.clone().with_models(provided), agent.channel_of(instance, conversation));
    let holds = ChannelSettings::from(own.or(bound));
    if as_json {
        let models = |models: &ModelOverrides| json!(models.set().collect::<BTreeMap<_, _>>());
        return json!({
            "conversation": conversation.as_str(),
            "response_mode": holds.response_mode.as_str(),
            "delegation": holds.delegation.as_str(),
            "memory_mode": holds.memory_mode.as_str(),
            "worker_context": holds.worker_context.as_str(),
            "models": models(&holds.models),
            "set": {
                "response_mode": set.response_mode.map(ResponseMode::as_str),
                "delegation": set.delegation.map(Delegation::as_str),
                "memory_mode": set.memory_mode.map(MemoryMode::as_str),
                "worker_context": set.worker_context.map(WorkerContext::as_str),
                "models": models(&set.models),
            },
        })
        .to_string();
    }
    let star = |name: &str, is_set: bool| format!("{name}{}", if is_set { "*" } else { "" });
    let own = |process: &str, model: &str| set.models.set().any(|known| known == (process, model));
    let models = holds
        .models
        .set()
        .map(|(process, model)| format!(" {}={}", process, star(&printable(model), own(process, model))));
    let line = format!(
        "{:<40} {:<14} {:<10} {:<8} {:<6}{}",
        printable(conversation.as_str()),
        star(holds.response_mode.as_str(), set.response_mode.is_some()),
        star(holds.delegation.as_str(), set.delegation.is_some()),
        star(holds.memory_mode.as_str(), set.memory_mode.is_some()),
        star(holds.worker_context.as_str(), set.worker_context.is_some()),
        models.collect::<String>(),
    );
    line.trim_end().to_owned()
}
