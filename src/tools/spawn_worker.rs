//! `spawn_worker`: give a task to a process with shell and files; its result comes back later.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Tool, ToolContext, ToolError, arguments_of, read_skill, schema_of, started};
use crate::effect::Ask;
use crate::prompts;
use crate::skills::Skills;

/// Skills that are named for one task; a worker that is to read more has no time for the task.
const SUGGESTED_MAX: usize = 8;

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
    /// Names of skills that fit the task, which the worker reads first.
    #[serde(default)]
    suggested_skills: Vec<String>,
}

const NAME: &str = "spawn_worker";

pub struct SpawnWorker(Arc<Skills>);

impl SpawnWorker {
    /// Without skills there is nothing to suggest.
    pub fn new(skills: Arc<Skills>) -> Self {
        Self(skills)
    }
}

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
        NAME
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
        NAME
    }

    fn parameters(&self) -> Value {
        let mut schema = schema_of::<Arguments>();
        if self.0.is_empty()
            && let Some(properties) = schema["properties"].as_object_mut()
        {
            properties.remove("suggested_skills");
        }
        schema
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { mut task, interactive, task_type, suggested_skills } = arguments_of(arguments)?;
        if suggested_skills.len() > SUGGESTED_MAX {
            return Err(ToolError::Invalid(format!("suggested_skills has more than {SUGGESTED_MAX} names")));
        }
        for name in &suggested_skills {
            read_skill::find(&self.0, name)?;
        }
        if !suggested_skills.is_empty() && !task.trim().is_empty() {
            // In the words of the task, so that a run that goes on after a restart has them too.
            let names = suggested_skills.join(", ");
            task = format!("{}\n\n{} {names}", task.trim_end(), prompts::notice("suggested_skills"));
        }
        spawn(task, interactive, task_type, context)
    }
}
