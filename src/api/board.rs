//! `/api/tasks`: the board for operators. What is written is told to the hub, so that a task that was
//! made ready starts at once.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Api, HUB_TIMEOUT, get_only, method_not_allowed};
use crate::command::Command;
use crate::error::{Fault, Kind, log_line};
use crate::http::server::{Outcome, Request, Response};
use crate::id::AgentId;
use crate::tasks::{
    Actor, Changed, Filter, LISTED_MAX, NewTask, Priority, Status, Subtask, TaskError, Tasks,
};

/// The boards of all agents.
pub struct Boards {
    /// Whose board is meant where none is named.
    pub default: AgentId,
    pub boards: BTreeMap<AgentId, Tasks>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Target {
    agent_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Creation {
    agent_id: Option<String>,
    title: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    priority: Priority,
    #[serde(default)]
    subtasks: Vec<String>,
    #[serde(default)]
    ready: bool,
}

impl Api {
    pub(super) fn tasks(&self, request: &Request<'_>) -> Outcome {
        if request.method == "POST" {
            return self.mailbox.with_turn(request, || either(self.create_task(request)));
        }
        Outcome::Respond(get_only(request, || either(self.list_tasks(request))))
    }

    /// `rest`: what follows `/api/tasks/`.
    pub(super) fn task(&self, request: &Request<'_>, rest: &str) -> Outcome {
        let (number, verb) = rest.split_once('/').unwrap_or((rest, ""));
        let Ok(number) = number.parse() else { return Outcome::Respond(not_found("there is no such task")) };
        let change = match verb {
            "" => return Outcome::Respond(get_only(request, || either(self.show_task(request, number)))),
            "approve" => Tasks::approve,
            "cancel" => Tasks::cancel,
            _ => return Outcome::Respond(not_found("there is nothing at this address")),
        };
        if request.method != "POST" {
            return Outcome::Respond(method_not_allowed());
        }
        let changed = || {
            let target = if request.body.is_empty() { Target::default() } else { read(request)? };
            let (agent, board) = self.board(target.agent_id.as_deref())?;
            let changed = change(board, number, Actor::Operator).map_err(|error| refused(&error))?;
            Ok(self.told(agent, changed))
        };
        self.mailbox.with_turn(request, || either(changed()))
    }

    fn board(&self, agent: Option<&str>) -> Result<(&AgentId, &Tasks), Response> {
        let id = agent.map_or_else(|| self.boards.default.clone(), AgentId::new);
        self.boards.boards.get_key_value(&id).ok_or_else(|| not_found("there is no such agent"))
    }

    fn list_tasks(&self, request: &Request<'_>) -> Result<Response, Response> {
        let (mut agent, mut filter) = (None, Filter { open: true, limit: LISTED_MAX, ..Filter::default() });
        for (name, value) in request.parameters().map_err(|error| invalid(&error))? {
            let wrong = || invalid(&format!("{name} cannot be {value:?}"));
            match name.as_ref() {
                "agent_id" => agent = Some(value.to_string()),
                "all" => filter.open = value == "false",
                "limit" => filter.limit = value.parse().map_err(|_| wrong())?,
                "priority" => filter.priority = Some(Priority::parse(&value).ok_or_else(wrong)?),
                "status" => {
                    filter.status = Some(Status::parse(&value).ok_or_else(wrong)?);
                    filter.open = false;
                }
                _ => return Err(invalid(&format!("there is no parameter {name:?}"))),
            }
        }
        let (_, board) = self.board(agent.as_deref())?;
        let tasks = board.list(&filter).map_err(|error| refused(&TaskError::Database(error)))?;
        Ok(Response::json(200, &json!({ "tasks": tasks })))
    }

    fn show_task(&self, request: &Request<'_>, number: u64) -> Result<Response, Response> {
        let parameters = request.parameters().map_err(|error| invalid(&error))?;
        let agent = parameters.iter().find(|(name, _)| name == "agent_id").map(|(_, value)| value.as_ref());
        let (_, board) = self.board(agent)?;
        let task = board.get(number).map_err(|error| refused(&error))?;
        let attempts = board.attempts(number).map_err(|error| refused(&TaskError::Database(error)))?;
        Ok(Response::json(200, &json!({ "task": task, "attempts": attempts })))
    }

    fn create_task(&self, request: &Request<'_>) -> Result<Response, Response> {
        let Creation { agent_id, title, description, priority, subtasks, ready } = read(request)?;
        let (agent, board) = self.board(agent_id.as_deref())?;
        let subtask = |title| Subtask { title, completed: false };
        let new = NewTask {
            description,
            priority,
            status: if ready { Status::Ready } else { Status::Backlog },
            subtasks: subtasks.into_iter().map(subtask).collect(),
            ..NewTask::new(title, Actor::Operator)
        };
        let changed = board.create(new).map_err(|error| refused(&error))?;
        Ok(self.told(agent, changed))
    }

    /// Tells the hub, which reads the board at its next start if it cannot hear now.
    fn told(&self, agent: &AgentId, changed: Changed) -> Response {
        let Changed { task, news, .. } = changed;
        let command = Command::Tasks { agent: agent.clone(), news };
        if self.hub.send_timeout(command, HUB_TIMEOUT).is_err() {
            log::warn!("the hub is busy or gone: the change of a task waits for the next start");
        }
        Response::json(200, &json!({ "task": task }))
    }
}

fn either(answer: Result<Response, Response>) -> Response {
    answer.unwrap_or_else(|refusal| refusal)
}

fn read<T: DeserializeOwned>(request: &Request<'_>) -> Result<T, Response> {
    serde_json::from_slice(request.body).map_err(|error| invalid(&error))
}

fn invalid(reason: &dyn std::fmt::Display) -> Response {
    Response::error(400, Kind::Invalid, reason)
}

fn not_found(reason: &str) -> Response {
    Response::error(404, Kind::NotFound, reason)
}

fn refused(error: &TaskError) -> Response {
    let status = match error {
        TaskError::NotFound(_) => 404,
        TaskError::Transition { .. } | TaskError::Conflict { .. } | TaskError::Forbidden(_) => 409,
        TaskError::Invalid(_) => 400,
        TaskError::Full(_) => 507,
        TaskError::Database(_) => {
            log::warn!("{}", log_line(error));
            503
        }
    };
    Response::error(status, error.kind(), error)
}
