//! `task_update`: change a task. A branch may change any field of any task, a worker the parts and
//! notes of its own.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::task_create::tool_error;
use super::task_list::listed;
use super::{Tool, ToolContext, ToolError, arguments_of, number, schema_of};
use crate::effect::Effect;
use crate::id::ProcessId;
use crate::tasks::{Actor, Change, Metadata, Priority, Status, Subtask, Tasks};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    #[serde(deserialize_with = "needed_number")]
    task_number: u64,
    #[serde(default)]
    #[schemars(with = "String", skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(default)]
    #[schemars(with = "String", skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default)]
    #[schemars(with = "Status", skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(default)]
    #[schemars(with = "Priority", skip_serializing_if = "Option::is_none")]
    priority: Option<Priority>,
    /// All parts anew.
    #[serde(default)]
    #[schemars(with = "Vec<Subtask>", skip_serializing_if = "Option::is_none")]
    subtasks: Option<Vec<Subtask>>,
    /// The number of a part that is done, from 1.
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "Option<usize>")]
    complete_subtask: Option<usize>,
    #[serde(default)]
    #[schemars(with = "Metadata", skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
    /// Refuse when the task has another revision by now.
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "Option<usize>")]
    expected_revision: Option<usize>,
}

/// A number that models also write as text.
fn needed_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let found = number(deserializer)?.and_then(|number| u64::try_from(number).ok());
    found.ok_or_else(|| serde::de::Error::custom("a task number is needed"))
}

pub struct TaskUpdate {
    tasks: Tasks,
    process: ProcessId,
}

impl TaskUpdate {
    pub fn new(tasks: Tasks, process: ProcessId) -> Self {
        Self { tasks, process }
    }
}

impl Tool for TaskUpdate {
    fn name(&self) -> &'static str {
        "task_update"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn changes(&self) -> bool {
        true
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let arguments: Arguments = arguments_of(arguments)?;
        let change = Change {
            title: arguments.title,
            description: arguments.description,
            status: arguments.status,
            priority: arguments.priority,
            subtasks: arguments.subtasks,
            complete_subtask: arguments.complete_subtask,
            metadata: arguments.metadata,
            expected_revision: arguments.expected_revision.and_then(|revision| u64::try_from(revision).ok()),
            bound_to: None,
        };
        write(&self.tasks, arguments.task_number, change, self.process, context)
    }
}

fn write(
    tasks: &Tasks,
    task: u64,
    change: Change,
    process: ProcessId,
    context: &mut ToolContext<'_>,
) -> Result<String, ToolError> {
    let changed = tasks.change(task, change, Actor::Process(process)).map_err(|error| tool_error(&error))?;
    changed.news.into_iter().for_each(|news| context.desk.tell(Effect::Task(news)));
    Ok(listed(&changed.task).to_string())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OwnArguments {
    /// Your own task; it may be left out.
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "Option<usize>")]
    task_number: Option<usize>,
    /// All parts anew.
    #[serde(default)]
    #[schemars(with = "Vec<Subtask>", skip_serializing_if = "Option::is_none")]
    subtasks: Option<Vec<Subtask>>,
    /// The number of a part that is done, from 1.
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "Option<usize>")]
    complete_subtask: Option<usize>,
    #[serde(default)]
    #[schemars(with = "Metadata", skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
}

/// The variant of a worker that is bound to a task.
pub struct OwnTaskUpdate {
    tasks: Tasks,
    own: u64,
    process: ProcessId,
}

impl OwnTaskUpdate {
    pub fn new(tasks: Tasks, own: u64, process: ProcessId) -> Self {
        Self { tasks, own, process }
    }
}

impl Tool for OwnTaskUpdate {
    fn name(&self) -> &'static str {
        "task_update"
    }

    fn parameters(&self) -> Value {
        schema_of::<OwnArguments>()
    }

    fn changes(&self) -> bool {
        true
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let OwnArguments { task_number, subtasks, complete_subtask, metadata } = arguments_of(arguments)?;
        if task_number.is_some_and(|number| u64::try_from(number) != Ok(self.own)) {
            return Err(ToolError::Denied(format!("a worker may change only its own task, {}", self.own)));
        }
        let bound_to = Some(self.process.number);
        let change = Change { subtasks, complete_subtask, metadata, bound_to, ..Change::default() };
        write(&self.tasks, self.own, change, self.process, context)
    }
}
