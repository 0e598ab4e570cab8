//! `cancel`: stop a branch or a worker of this conversation.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Tool, ToolContext, ToolError, arguments_of, process_of, schema_of, started};
use crate::effect::Ask;
use crate::id::ProcessKind;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    process_type: Stoppable,
    /// The process as the status block names it, such as `worker:7`.
    process_id: String,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Stoppable {
    Branch,
    Worker,
}

pub struct CancelProcess;

impl Tool for CancelProcess {
    fn name(&self) -> &'static str {
        "cancel"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { process_type, process_id, reason } = arguments_of(arguments)?;
        let kind = match process_type {
            Stoppable::Branch => ProcessKind::Branch,
            Stoppable::Worker => ProcessKind::Worker,
        };
        let process = process_of(kind, &process_id)?;
        started(context.desk.ask(Ask::Cancel { process, reason })?)
    }
}
