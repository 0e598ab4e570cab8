//! `task_create`: put a task on the board, where it waits for a person's approval.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Tool, ToolContext, ToolError, arguments_of, schema_of};
use crate::conversation::SCHEDULED;
use crate::error::Fault;
use crate::id::ProcessId;
use crate::message::Place;
use crate::tasks::{Actor, Metadata, NewTask, Priority, Subtask, TaskError, Tasks};

/// Instances behind which nobody is told a result: jobs, and the operator who asks the cortex.
const NOBODY: [&str; 2] = [SCHEDULED, "cortex"];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// One line that says what will be done.
    title: String,
    /// Everything that the worker has to know.
    #[serde(default)]
    #[schemars(with = "String", skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// medium when absent.
    #[serde(default)]
    #[schemars(with = "Priority", skip_serializing_if = "Option::is_none")]
    priority: Option<Priority>,
    /// Its parts, one line each.
    #[serde(default)]
    subtasks: Vec<String>,
    /// Notes as a JSON object.
    #[serde(default)]
    #[schemars(with = "Metadata", skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
}

pub struct TaskCreate {
    tasks: Tasks,
    process: ProcessId,
    place: Place,
}

impl TaskCreate {
    pub fn new(tasks: Tasks, process: ProcessId, place: Place) -> Self {
        Self { tasks, process, place }
    }
}

impl Tool for TaskCreate {
    fn name(&self) -> &'static str {
        "task_create"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn changes(&self) -> bool {
        true
    }

    fn call(&mut self, arguments: Value, _context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let arguments: Arguments = arguments_of(arguments)?;
        let subtask = |title| Subtask { title, completed: false };
        let new = NewTask {
            description: arguments.description.unwrap_or_default(),
            priority: arguments.priority.unwrap_or_default(),
            subtasks: arguments.subtasks.into_iter().map(subtask).collect(),
            metadata: arguments.metadata.unwrap_or_default(),
            // A job has no listeners when its run is over.
            place: Some(self.place.clone()).filter(|place| !NOBODY.contains(&place.instance.as_str())),
            ..NewTask::new(arguments.title, Actor::Process(self.process))
        };
        let task = self.tasks.create(new).map_err(|error| tool_error(&error))?.task;
        Ok(json!({ "created": task.number, "status": task.status, "revision": task.revision }).to_string())
    }
}

pub(super) fn tool_error(error: &TaskError) -> ToolError {
    match error {
        TaskError::NotFound(_) => ToolError::NotFound(error.to_string()),
        TaskError::Invalid(_) => ToolError::Invalid(error.to_string()),
        TaskError::Transition { .. }
        | TaskError::Conflict { .. }
        | TaskError::Forbidden(_)
        | TaskError::Full(_) => ToolError::Denied(error.to_string()),
        TaskError::Database(_) => {
            log::warn!("{}", crate::error::log_line(error));
            // Only the kind: paths are nothing that a model needs to know.
            ToolError::Failed(format!("the task board does not work now ({})", error.kind().notice()))
        }
    }
}
