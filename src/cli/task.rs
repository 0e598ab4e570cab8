//! `spacebot task …`: the task board of an agent. It is read from the database. What is written goes
//! through the running daemon, which begins at once; without one, into the database.

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use super::arguments::TaskAction;
use super::chat::printable;
use crate::clock::SystemClock;
use crate::config::{ApiConfig, Config};
use crate::db::{Db, DbError};
use crate::error::{Fault, Kind};
use crate::tasks::{
    self, Actor, Attempt, Filter, NewTask, Priority, Status, Subtask, Task, TaskError, Tasks,
};
use crate::text;

/// The daemon answers after its commit; a slow disk takes seconds.
const DAEMON_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest answer of the daemon, in bytes: one task.
const MAX_RESPONSE_BYTES: u64 = 1 << 20;
/// Longest title in a list, in bytes.
const TITLE_BYTES: usize = 80;

#[derive(Debug, thiserror::Error)]
pub enum TaskCommandError {
    #[error("{0}")]
    Task(#[from] TaskError),
    #[error("{0}")]
    Invalid(String),
    #[error("agent {0} has no database yet")]
    NoBoard(String),
    #[error("the daemon said {status}: {message}")]
    Refused { status: u16, message: String },
    #[error("the daemon does not answer as expected: {0}")]
    Daemon(String),
    #[error("the output could not be written: {0}")]
    Output(#[from] io::Error),
}

impl From<DbError> for TaskCommandError {
    fn from(error: DbError) -> Self {
        TaskCommandError::Task(TaskError::Database(error))
    }
}

impl Fault for TaskCommandError {
    fn kind(&self) -> Kind {
        match self {
            TaskCommandError::Task(error) => error.kind(),
            TaskCommandError::NoBoard(_) => Kind::NotFound,
            TaskCommandError::Daemon(_) => Kind::Transient,
            _ => Kind::Invalid,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            TaskCommandError::Task(error) => error.hint(),
            TaskCommandError::NoBoard(_) => Some("start the daemon once"),
            TaskCommandError::Daemon(_) => Some("is another program listening on api.port?"),
            _ => None,
        }
    }
}

/// Does what the command line asks.
///
/// # Errors
/// It could not be done.
pub fn run(
    config: &Config,
    agent: Option<&str>,
    as_json: bool,
    action: TaskAction,
) -> Result<(), TaskCommandError> {
    let command = Command::new(config, agent, as_json)?;
    match action {
        TaskAction::List { status, priority, all, limit } => {
            let filter = Filter {
                status: parsed(status.as_deref(), Status::parse, "a status")?,
                priority: parsed(priority.as_deref(), Priority::parse, "a priority")?,
                open: !all && status.is_none(),
                limit,
                ..Filter::default()
            };
            command.list(&filter)
        }
        TaskAction::Show { number } => command.show(number),
        TaskAction::Approve { number } => {
            command.write(&format!("/{number}/approve"), json!({}), move |connection, now| {
                tasks::approve(connection, number, &Actor::Operator, now)
            })
        }
        TaskAction::Cancel { number } => {
            command.write(&format!("/{number}/cancel"), json!({}), move |connection, now| {
                tasks::cancel(connection, number, &Actor::Operator, now)
            })
        }
        TaskAction::Create { title, description, priority, subtasks, ready } => {
            let body = json!({
                "title": title, "description": description.clone().unwrap_or_default(),
                "priority": priority, "subtasks": subtasks, "ready": ready,
            });
            let new = NewTask {
                description: description.unwrap_or_default(),
                priority: parsed(Some(&priority), Priority::parse, "a priority")?.unwrap_or_default(),
                status: if ready { Status::Ready } else { Status::Backlog },
                subtasks: subtasks.into_iter().map(|title| Subtask { title, completed: false }).collect(),
                ..NewTask::new(title, Actor::Operator)
            };
            command.write("", body, move |connection, now| tasks::create(connection, new, now))
        }
    }
}

fn parsed<T>(
    text: Option<&str>,
    parse: impl Fn(&str) -> Option<T>,
    what: &str,
) -> Result<Option<T>, TaskCommandError> {
    let wrong = |text: &str| TaskCommandError::Invalid(format!("{text:?} is not {what}"));
    text.map(|text| parse(text).ok_or_else(|| wrong(text))).transpose()
}

struct Command<'a> {
    config: &'a Config,
    agent: String,
    json: bool,
}

impl<'a> Command<'a> {
    fn new(config: &'a Config, agent: Option<&str>, json: bool) -> Result<Self, TaskCommandError> {
        let missing = || format!("there is no agent {:?} in the config", agent.unwrap_or_default());
        let agent = config.agent(agent).ok_or_else(|| TaskCommandError::Invalid(missing()))?;
        Ok(Self { config, agent: agent.id.to_string(), json })
    }

    fn board(&self) -> Result<Tasks, TaskCommandError> {
        let file = self.config.data_folder.join("agents").join(&self.agent).join("data/spacebot.db");
        if !file.exists() {
            return Err(TaskCommandError::NoBoard(self.agent.clone()));
        }
        Ok(Tasks::new(Db::open_inline(&file, None)?, SystemClock::shared()))
    }

    fn list(&self, filter: &Filter) -> Result<(), TaskCommandError> {
        let tasks = self.board()?.list(filter)?;
        let mut out = io::stdout().lock();
        if self.json {
            return Ok(writeln!(out, "{}", json!(tasks))?);
        }
        for task in &tasks {
            let title = text::one_line(&printable(&task.title), TITLE_BYTES);
            let (number, status, priority) = (task.number, task.status.as_str(), task.priority.as_str());
            writeln!(out, "{number:>5}  {status:<16}  {priority:<8}  {title}")?;
        }
        Ok(())
    }

    fn show(&self, number: u64) -> Result<(), TaskCommandError> {
        let board = self.board()?;
        let (task, attempts) = (board.get(number)?, board.attempts(number)?);
        let mut out = io::stdout().lock();
        if self.json {
            return Ok(writeln!(out, "{}", json!({ "task": task, "attempts": attempts }))?);
        }
        Ok(write_task(&mut out, &task, &attempts)?)
    }

    /// Over the daemon, or in the database when none answers.
    fn write(&self, path: &str, mut body: Value, work: impl tasks::Work) -> Result<(), TaskCommandError> {
        body["agent_id"] = json!(self.agent);
        let task = match self.over_daemon(path, &body)? {
            Some(task) => task,
            None => {
                let task = self.board()?.write(work)?.task;
                if task.status == Status::Ready {
                    eprintln!("spacebot: no daemon answers; a worker begins after its next start");
                }
                json!(task)
            }
        };
        let mut out = io::stdout().lock();
        if self.json {
            return Ok(writeln!(out, "{task}")?);
        }
        let text = |key: &str| task[key].as_str().unwrap_or_default().to_owned();
        Ok(writeln!(out, "task {} is {}: {}", task["number"], text("status"), printable(&text("title")))?)
    }

    /// `None`: nobody listens there.
    fn over_daemon(&self, path: &str, body: &Value) -> Result<Option<Value>, TaskCommandError> {
        let api = &self.config.api;
        if !api.enabled {
            return Ok(None);
        }
        let mut request = client().post(address(api, path)).content_type("application/json");
        if let Some(token) = &api.auth_token {
            request = request.header("authorization", format!("Bearer {}", token.reveal()));
        }
        let mut response = match request.send(body.to_string()) {
            Ok(response) => response,
            Err(ureq::Error::Io(error)) if error.kind() == ErrorKind::ConnectionRefused => return Ok(None),
            Err(error) => return Err(TaskCommandError::Daemon(error.to_string())),
        };
        let status = response.status().as_u16();
        let text = response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_string();
        let text = text.map_err(|error| TaskCommandError::Daemon(error.to_string()))?;
        let answer: Value =
            serde_json::from_str(&text).map_err(|error| TaskCommandError::Daemon(error.to_string()))?;
        if status >= 400 {
            let message = answer["error"]["message"].as_str().unwrap_or_default().to_owned();
            return Err(TaskCommandError::Refused { status, message });
        }
        Ok(Some(answer["task"].clone()))
    }
}

fn client() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(DAEMON_TIMEOUT))
        .max_redirects(0)
        .build()
        .into()
}

fn address(api: &ApiConfig, path: &str) -> String {
    let host = if api.bind.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { api.bind };
    format!("http://{}/api/tasks{path}", SocketAddr::new(host, api.port))
}

fn write_task(out: &mut impl Write, task: &Task, attempts: &[Attempt]) -> io::Result<()> {
    let (number, status) = (task.number, task.status.as_str());
    writeln!(out, "#{number} {}", printable(&task.title))?;
    writeln!(out, "{status}, {}, revision {}", task.priority.as_str(), task.revision)?;
    let born = task.place.as_ref().map(|place| format!(" in {}", place.conversation)).unwrap_or_default();
    writeln!(out, "created {} by {}{born}", task.created_at.to_rfc3339(), task.created_by)?;
    if let Some(by) = &task.approved_by {
        writeln!(out, "approved by {by}")?;
    }
    if !task.description.is_empty() {
        writeln!(out, "\n{}", printable(&task.description))?;
    }
    for (at, subtask) in task.subtasks.iter().enumerate() {
        let mark = if subtask.completed { 'x' } else { ' ' };
        writeln!(
            out,
            "{}{}. [{mark}] {}",
            if at == 0 { "\n" } else { "" },
            at + 1,
            printable(&subtask.title)
        )?;
    }
    if !task.metadata.is_empty() {
        writeln!(out, "\n{}", json!(task.metadata))?;
    }
    for (at, attempt) in attempts.iter().enumerate() {
        let outcome = attempt.outcome.as_deref().unwrap_or("at work");
        let summary = attempt.summary.as_deref().map(printable).unwrap_or_default();
        let (started, worker) = (attempt.started_at.to_rfc3339(), attempt.worker);
        writeln!(out, "{}{started} worker:{worker} {outcome} {summary}", if at == 0 { "\n" } else { "" })?;
    }
    if let Some(result) = &task.result {
        writeln!(out, "\n{}", printable(result))?;
    }
    Ok(())
}
