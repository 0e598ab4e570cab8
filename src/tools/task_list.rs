//! `task_list`: what is on the board.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::task_create::tool_error;
use super::{Tool, ToolContext, ToolError, arguments_of, number, schema_of};
use crate::tasks::{Filter, Priority, Status, Task, TaskError, Tasks};
use crate::text;

const DEFAULT_TASKS: usize = 20;
const MAX_TASKS: usize = 100;
/// Longest description or result in a listing, in bytes.
const LISTED_BYTES: usize = 500;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    #[serde(default)]
    #[schemars(with = "Status", skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(default)]
    #[schemars(with = "Priority", skip_serializing_if = "Option::is_none")]
    priority: Option<Priority>,
    /// 1 to 100 (20).
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "Option<usize>")]
    limit: Option<usize>,
}

pub struct TaskList {
    tasks: Tasks,
}

impl TaskList {
    pub fn new(tasks: Tasks) -> Self {
        Self { tasks }
    }
}

impl Tool for TaskList {
    fn name(&self) -> &'static str {
        "task_list"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn call(&mut self, arguments: Value, _context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { status, priority, limit } = arguments_of(arguments)?;
        let limit = limit.unwrap_or(DEFAULT_TASKS).clamp(1, MAX_TASKS);
        let filter = Filter { status, priority, limit, open: status.is_none(), ..Filter::default() };
        let found = self.tasks.list(&filter).map_err(|error| tool_error(&TaskError::Database(error)))?;
        Ok(json!({ "tasks": found.iter().map(listed).collect::<Vec<_>>() }).to_string())
    }
}

/// A task as a model reads it.
pub(super) fn listed(task: &Task) -> Value {
    let mut value = json!({
        "task_number": task.number, "title": task.title, "status": task.status, "priority": task.priority,
        "revision": task.revision,
    });
    let mut more = |name: &str, content: Value, is_there: bool| {
        if is_there {
            value[name] = content;
        }
    };
    more("description", json!(text::shorten(&task.description, LISTED_BYTES)), !task.description.is_empty());
    more("subtasks", json!(task.subtasks), !task.subtasks.is_empty());
    more("metadata", json!(task.metadata), !task.metadata.is_empty());
    more("attempts", json!(task.attempts), task.attempts > 0);
    let result = task.result.as_deref().unwrap_or_default();
    more("result", json!(text::shorten(result, LISTED_BYTES)), !result.is_empty());
    value
}
