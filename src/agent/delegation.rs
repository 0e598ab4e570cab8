//! What agents ask of each other, carried from one database to the other.
//!
//! No transaction spans two databases, so each step is one that can come again: the request is a row that
//! the asking turn has committed; it becomes a task of the other agent under a key that is there once; then
//! the row is marked. The result goes back in the same way: it is written where the request has none, then
//! the task is marked as returned. A crash between two commits leaves the mark open, and the next start
//! carries again what then changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::AgentParts;
use super::link::ProcessDesk;
use super::worker::with_notice;
use crate::conversation::{DELEGATION_RESULT_BYTES, Delegation, NewDelegation};
use crate::db::DbError;
use crate::effect::{Effect, TaskNews};
use crate::id::AgentId;
use crate::message::Place;
use crate::prompts;
use crate::tasks::{self, Actor, Asked, NewTask, Status, TITLE_BYTES_MAX, Task, TaskError};
use crate::text;

/// Requests and results of each kind that one pass carries; the hub asks for the next pass.
const PASS_MAX: usize = 32;

/// Told to the hub as soon as it is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostNews {
    /// The board of this agent has a new task.
    Task(AgentId, TaskNews),
    /// A result waits in this conversation of the agent.
    Result(AgentId, Place),
}

type Agents = BTreeMap<AgentId, Arc<AgentParts>>;

/// Whether there is anything to carry from this agent's database to others.
///
/// # Errors
/// The database cannot be read.
pub fn has_post(parts: &AgentParts) -> Result<bool, DbError> {
    Ok(!parts.conversations.undelivered(0, 1)?.is_empty() || !parts.tasks().unreturned(0, 1)?.is_empty())
}

/// Carries what this agent has for others: its requests, and the results of what they have asked for. True
/// when there is more. One that cannot be carried does not keep back the others.
///
/// # Errors
/// The first failure; what it is about is carried again later.
pub fn carry(agents: &Agents, id: &AgentId, tell: &mut dyn FnMut(PostNews)) -> Result<bool, DbError> {
    let Some(own) = agents.get(id) else { return Ok(false) };
    let requests = own.conversations.undelivered(0, PASS_MAX)?;
    let results = own.tasks().unreturned(0, PASS_MAX)?;
    let more = requests.len() == PASS_MAX || results.len() == PASS_MAX;
    let asked = requests.iter().map(|request| ask(agents, own, request, tell)).fold(Ok(()), Result::and);
    let told = results.iter().map(|task| give_back(agents, own, task, tell)).fold(Ok(()), Result::and);
    asked.and(told).map(|()| more)
}

fn ask(
    agents: &Agents,
    own: &AgentParts,
    request: &Delegation,
    tell: &mut dyn FnMut(PostNews),
) -> Result<(), DbError> {
    let target = agents.get(&request.target);
    let refusal = match target {
        _ if request.refused => prompts::notice("delegation_limit").to_owned(),
        None => prompts::notice("delegation_gone").to_owned(),
        Some(target) => match deliver(own, target, request, tell)? {
            None => return own.conversations.delivered(request.id),
            Some(refused) => with_notice("delegation_refused", &refused.to_string()),
        },
    };
    let place = own.conversations.answer_delegation(&request.key(), &refusal)?;
    place.into_iter().for_each(|place| tell(PostNews::Result(own.config.id.clone(), place)));
    Ok(())
}

/// Makes a task of it; returns why the board of the other agent does not take it.
fn deliver(
    own: &AgentParts,
    target: &AgentParts,
    request: &Delegation,
    tell: &mut dyn FnMut(PostNews),
) -> Result<Option<TaskError>, DbError> {
    let new = task_of(&own.config.id, request);
    match target.tasks().write(move |connection, now| tasks::take(connection, new, now)) {
        Ok(changed) => {
            let id = &target.config.id;
            changed.news.into_iter().for_each(|news| tell(PostNews::Task(id.clone(), news)));
            Ok(None)
        }
        Err(TaskError::Database(error)) => Err(error),
        Err(refused) => Ok(Some(refused)),
    }
}

fn task_of(origin: &AgentId, request: &Delegation) -> NewTask {
    let mut metadata = Map::new();
    let from = json!({
        "agent": origin.as_str(), "conversation": request.conversation.as_str(), "messages": request.answers,
    });
    metadata.insert("delegated_by".to_owned(), bounded(from));
    NewTask {
        description: request.message.clone(),
        status: Status::Ready,
        metadata,
        asked: Some(Asked { by: origin.clone(), key: request.key() }),
        ..NewTask::new(text::one_line(&request.message, TITLE_BYTES_MAX), Actor::Agent(origin.clone()))
    }
}

/// A turn may be about many messages; their ids must not make the task too large.
fn bounded(mut from: Value) -> Value {
    if from.to_string().len() > tasks::METADATA_BYTES_MAX / 2 {
        from["messages"] = json!([]);
    }
    from
}

/// Takes the end of a task to who asked for it. If that agent is not there, it waits for a start with it.
fn give_back(
    agents: &Agents,
    own: &AgentParts,
    task: &Task,
    tell: &mut dyn FnMut(PostNews),
) -> Result<(), DbError> {
    let Some((asked, origin)) = task.asked.as_ref().and_then(|asked| Some((asked, agents.get(&asked.by)?)))
    else {
        return Ok(());
    };
    let place = origin.conversations.answer_delegation(&asked.key, &result_of(task))?;
    place.into_iter().for_each(|place| tell(PostNews::Result(origin.config.id.clone(), place)));
    own.tasks().returned(task.number)
}

fn result_of(task: &Task) -> String {
    let left = text::shorten(task.result.as_deref().unwrap_or_default(), DELEGATION_RESULT_BYTES);
    match task.status {
        Status::Failed => with_notice("task_gave_up", &left),
        _ if left.trim().is_empty() => prompts::notice("delegation_silent").to_owned(),
        _ => left.into_owned(),
    }
}

/// What a turn asks of other agents, for its commit.
pub(super) fn of(desk: &ProcessDesk<'_>) -> Vec<NewDelegation> {
    let told = desk.effects.iter().filter_map(|effect| match effect {
        Effect::Delegate { target, message, depth, limit } => Some(NewDelegation {
            target: AgentId::new(target),
            message: message.clone(),
            answers: desk.origin.answers.clone(),
            depth: *depth,
            limit: *limit,
        }),
        _ => None,
    });
    told.collect()
}
