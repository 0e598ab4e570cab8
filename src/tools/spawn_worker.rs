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

impl Tool for SpawnWorker {
    fn name(&self) -> &'static str {
        "spawn_worker"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { task, interactive, task_type } = arguments_of(arguments)?;
        if task.trim().is_empty() {
            return Err(ToolError::Invalid("task is empty".to_owned()));
        }
        started(context.desk.ask(Ask::SpawnWorker { task, interactive, task_type })?)
    }
}
