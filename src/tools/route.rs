//! `route`: send a message to a worker that runs or waits.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Tool, ToolContext, ToolError, arguments_of, process_of, schema_of, started};
use crate::effect::Ask;
use crate::id::ProcessKind;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// The worker as the status block names it, such as `worker:7`.
    worker_id: String,
    /// What the worker shall read.
    message: String,
}

pub struct Route;

impl Tool for Route {
    fn name(&self) -> &'static str {
        "route"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { worker_id, message } = arguments_of(arguments)?;
        let worker = process_of(ProcessKind::Worker, &worker_id)?;
        started(context.desk.ask(Ask::Route { worker, message })?)
    }
}
