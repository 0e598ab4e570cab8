//! The task board of one agent: what is to be done, who may begin it, what came of it.
//!
//! Every change is a compare-and-set on the task's revision within one transaction, so that of several
//! who want the same only one gets it. What a change means for running processes goes back to the
//! caller as [`TaskNews`], to be told to the hub after the commit.

mod asked;
mod attempts;
mod change;
mod error;
mod lifecycle;
mod metadata;
mod retry;
mod rows;

use serde::{Deserialize, Serialize};

pub use asked::{Asked, take};
pub use attempts::{Attempt, Claim, Concluded, Conclusion, claim, conclude, has_attempt, interrupt};
pub use change::{Change, NewTask, RESULT_BYTES_MAX, SUBTASKS_MAX, TITLE_BYTES_MAX};
pub use error::TaskError;
pub use lifecycle::{AttemptEnd, Priority, Status};
pub use metadata::{METADATA_BYTES_MAX, Metadata};
pub use retry::Retries;
pub use rows::{approve, cancel, change, create};

use crate::clock::{SharedClock, Timestamp};
use crate::db::rusqlite::Connection;
use crate::db::{Db, DbError};
use crate::effect::{ReadyTask, TaskNews};
use crate::id::{AgentId, ProcessId};
use crate::message::Place;

/// Tasks that are neither done nor failed; a board with more is nobody's plan any more.
pub const OPEN_TASKS_MAX: usize = 1000;
/// Tasks that one list shows.
pub const LISTED_MAX: usize = 200;

/// Who changes a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// At the command line or over the API.
    Operator,
    /// In a conversation, by name.
    Person(String),
    /// Another agent of this daemon.
    Agent(AgentId),
    /// A model.
    Process(ProcessId),
}

impl Actor {
    pub fn is_process(&self) -> bool {
        matches!(self, Actor::Process(_))
    }
}

/// As stored; what stands before the colon cannot be forged by a name.
impl std::fmt::Display for Actor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Actor::Operator => formatter.write_str("operator"),
            Actor::Person(name) => write!(formatter, "person:{name}"),
            Actor::Agent(agent) => write!(formatter, "agent:{agent}"),
            Actor::Process(process) => write!(formatter, "process:{process}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Subtask {
    pub title: String,
    #[serde(default)]
    pub completed: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Task {
    pub number: u64,
    pub title: String,
    pub description: String,
    pub status: Status,
    pub priority: Priority,
    pub subtasks: Vec<Subtask>,
    pub metadata: Metadata,
    pub revision: u64,
    /// Since it was approved.
    pub attempts: usize,
    /// Number of the process that is bound to it.
    pub worker: Option<u64>,
    /// Where it was born.
    #[serde(serialize_with = "place_name")]
    pub place: Option<Place>,
    #[serde(serialize_with = "shown")]
    pub created_by: Actor,
    #[serde(serialize_with = "shown_if_any")]
    pub approved_by: Option<Actor>,
    pub result: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// While it is ready: no worker takes it before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub completed_at: Option<Timestamp>,
}

fn shown<S: serde::Serializer>(actor: &Actor, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(actor)
}

fn shown_if_any<S: serde::Serializer>(actor: &Option<Actor>, serializer: S) -> Result<S::Ok, S::Error> {
    actor.as_ref().map(Actor::to_string).serialize(serializer)
}

fn place_name<S: serde::Serializer>(place: &Option<Place>, serializer: S) -> Result<S::Ok, S::Error> {
    place.as_ref().map(|place| place.conversation.as_str()).serialize(serializer)
}

impl Task {
    fn ready(&self, now: Timestamp) -> ReadyTask {
        ReadyTask {
            number: self.number,
            revision: self.revision,
            urgency: self.priority.urgency(),
            title: self.title.clone(),
            place: self.place.clone(),
            by_person: !self.approved_by.as_ref().is_some_and(Actor::is_process),
            wait: retry::wait(self.retry_at, now),
        }
    }
}

/// A task after a change, and what the hub has to hear of it.
#[derive(Debug, Clone)]
pub struct Changed {
    pub task: Task,
    /// What it was before.
    pub before: Status,
    pub news: Vec<TaskNews>,
}

impl Changed {
    fn between(before: Status, task: Task, now: Timestamp) -> Self {
        let (number, revision) = (task.number, task.revision);
        let mut news = Vec::new();
        let was_taken = matches!(before, Status::Ready | Status::InProgress);
        if was_taken && task.status != before {
            news.push(TaskNews::Withdrawn { number, revision });
        }
        if task.status == Status::Ready {
            news.push(TaskNews::Ready(task.ready(now)));
        }
        if task.asked.is_some() && task.status.is_over() && !before.is_over() {
            news.push(TaskNews::Answered);
        }
        Self { task, before, news }
    }
}

/// Which tasks a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub status: Option<Status>,
    pub priority: Option<Priority>,
    /// Only those born there.
    pub conversation: Option<String>,
    /// Only those changed since.
    pub since: Option<Timestamp>,
    /// Without those that are done or failed.
    pub open: bool,
    /// At most [`LISTED_MAX`].
    pub limit: usize,
}

/// What one transaction does to the board. Outer error: the database; inner: what the board says.
pub trait Work:
    FnOnce(&Connection, Timestamp) -> Result<Result<Changed, TaskError>, DbError> + Send + 'static
{
}

impl<F> Work for F where
    F: FnOnce(&Connection, Timestamp) -> Result<Result<Changed, TaskError>, DbError> + Send + 'static
{
}

#[derive(Clone)]
pub struct Tasks {
    db: Db,
    clock: SharedClock,
}

impl Tasks {
    pub fn new(db: Db, clock: SharedClock) -> Self {
        Self { db, clock }
    }

    /// # Errors
    /// A bound is passed, or nothing could be stored.
    pub fn create(&self, new: NewTask) -> Result<Changed, TaskError> {
        self.write(move |connection, now| create(connection, new, now))
    }

    /// # Errors
    /// There is no such task, or the database cannot be read.
    pub fn get(&self, number: u64) -> Result<Task, TaskError> {
        self.db.read(|connection| rows::get(connection, number))?.ok_or(TaskError::NotFound(number))
    }

    /// The most urgent first, within one priority the oldest.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn list(&self, filter: &Filter) -> Result<Vec<Task>, DbError> {
        self.db.read(|connection| rows::list(connection, filter))
    }

    /// How many tasks there are in each state, those with none left out.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn counts(&self) -> Result<Vec<(Status, usize)>, DbError> {
        self.db.read(rows::counts)
    }

    /// Changes one task.
    ///
    /// # Errors
    /// There is no such task, the change is not allowed, or somebody was quicker.
    pub fn change(&self, number: u64, change: Change, by: Actor) -> Result<Changed, TaskError> {
        self.write(move |connection, now| rows::change(connection, number, change, &by, now))
    }

    /// Runs one change, such as [`approve`], in a transaction of its own.
    ///
    /// # Errors
    /// What `work` says, or why nothing could be stored.
    pub fn write(&self, work: impl Work) -> Result<Changed, TaskError> {
        let now = self.clock.now();
        self.db.write(move |connection| work(connection, now))?
    }

    /// As [`Tasks::write`] without waiting; `done` is called once, as [`Db::submit_then`] does.
    pub fn begin_write(
        &self,
        work: impl Work,
        done: impl FnOnce(Result<Changed, TaskError>) + Send + 'static,
    ) {
        let now = self.clock.now();
        self.db.submit_then(
            move |connection| work(connection, now),
            move |changed| done(changed.unwrap_or_else(|error| Err(TaskError::Database(error)))),
        );
    }

    /// What a worker may take, in the order in which it should; last what still pauses.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn ready(&self, limit: usize) -> Result<Vec<ReadyTask>, DbError> {
        let now = self.clock.now();
        let ready = self.db.read(|connection| rows::ready(connection, now, limit))?;
        Ok(ready.iter().map(|task| task.ready(now)).collect())
    }

    /// The attempts at one task, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn attempts(&self, number: u64) -> Result<Vec<Attempt>, DbError> {
        self.db.read(|connection| attempts::of(connection, number))
    }
}

#[cfg(test)]
mod tests;
