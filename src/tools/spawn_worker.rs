//! `spawn_worker`: give a task to a process with shell and files; its result comes back later.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Tool, ToolContext, ToolError, arguments_of, schema_of, started};
use crate::effect::Ask;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// The whole task: the worker sees nothing else of the conversation.
    task: String,
    /// True to keep the worker after its first result, for more messages by `route`.
    #[serde(default)]
    interactive: bool,
    /// The type of the task, if it is one of those that are listed for you.
    #[serde(default)]
    task_type: Option<String>,
}

pub struct SpawnWorker;

/// The same where nobody can write to the worker later on.
pub struct SpawnDetached;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Detached {
    /// The whole task: the worker sees nothing else of the conversation.
    task: String,
    /// The type of the task, if it is one of those that the config names.
    #[serde(default)]
    task_type: Option<String>,
}

impl Tool for SpawnDetached {
    fn name(&self) -> &'static str {
        SpawnWorker.name()
    }

    fn parameters(&self) -> Value {
        schema_of::<Detached>()
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Detached { task, task_type } = arguments_of(arguments)?;
        spawn(task, false, task_type, context)
    }
}

fn spawn(
    task: String,
    interactive: bool,
    task_type: Option<String>,
    context: &mut ToolContext<'_>,
) -> Result<String, ToolError> {
    if task.trim().is_empty() {
        return Err(ToolError::Invalid("task is empty".to_owned()));
    }
    started(context.desk.ask(Ask::SpawnWorker { task, interactive, task_type })?)
}

impl Tool for SpawnWorker {
    fn name(&self) -> &'static str {
        "spawn_worker"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { task, interactive, task_type } = arguments_of(arguments)?;
        spawn(task, interactive, task_type, context)
    }
}
