//! `/api/tasks`: the board for operators. What is written is told to the hub, so that a task that was
//! made ready starts at once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Api, get_only, method_not_allowed};
use crate::command::Command;
use crate::error::{Fault, Kind, log_line};
use crate::http::server::{Outcome, Request, Response, promise};
use crate::id::AgentId;
use crate::tasks::{
    self, Actor, Changed, Filter, LISTED_MAX, NewTask, Priority, Status, Subtask, TaskError, Tasks,
};

/// Longest wait for a commit; what is written may come about all the same.
const COMMIT_WAIT_MAX: Duration = Duration::from_secs(30);

/// The boards of all agents.
pub type Boards = BTreeMap<AgentId, Tasks>;

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
        match request.method {
            "POST" => self.create_task(request).unwrap_or_else(Outcome::Respond),
            _ => Outcome::Respond(get_only(request, || either(self.list_tasks(request)))),
        }
    }

    /// `rest`: what follows `/api/tasks/`.
    pub(super) fn task(&self, request: &Request<'_>, rest: &str) -> Outcome {
        let (number, verb) = rest.split_once('/').unwrap_or((rest, ""));
        let Ok(number) = number.parse() else { return Outcome::Respond(not_found("there is no such task")) };
        let change = match verb {
            "" => return Outcome::Respond(get_only(request, || either(self.show_task(request, number)))),
            "approve" => tasks::approve,
            "cancel" => tasks::cancel,
            _ => return Outcome::Respond(not_found("there is nothing at this address")),
        };
        if request.method != "POST" {
            return Outcome::Respond(method_not_allowed());
        }
        let target = if request.body.is_empty() { Ok(Target::default()) } else { read(request) };
        let board = target.and_then(|target: Target| self.board(target.agent_id.as_deref()));
        match board {
            Ok((agent, board)) => self.write(agent, board, move |connection, now| {
                change(connection, number, &Actor::Operator, now)
            }),
            Err(refusal) => Outcome::Respond(refusal),
        }
    }

    /// Answers after the commit, without holding a thread until then. By then the hub knows.
    fn write(&self, agent: &AgentId, board: &Tasks, work: impl tasks::Work) -> Outcome {
        let (promise, later) = promise(COMMIT_WAIT_MAX, late);
        let (agent, hub) = (agent.clone(), self.hub.clone());
        board.begin_write(work, move |changed| {
            let Changed { task, news, .. } = match changed {
                Ok(changed) => changed,
                Err(error) => return promise.keep(refused(&error)),
            };
            // The hub never waits for the thread of the database, which this may be. One that is gone
            // reads the board at its next start.
            hub.send(Command::Tasks { agent, news }).ok();
            promise.keep(Response::json(200, &json!({ "task": task })));
        });
        Outcome::Later(later)
    }

    fn board(&self, agent: Option<&str>) -> Result<(&AgentId, &Tasks), Response> {
        let id = agent.map_or_else(|| self.facts.get().default_agent.clone(), AgentId::new);
        self.boards.get_key_value(&id).ok_or_else(|| not_found("there is no such agent"))
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

    fn create_task(&self, request: &Request<'_>) -> Result<Outcome, Response> {
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
        Ok(self.write(agent, board, move |connection, now| tasks::create(connection, new, now)))
    }
}

fn late() -> Response {
    Response::error(503, Kind::Transient, "the disk is slow; look at the board before you try again")
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
