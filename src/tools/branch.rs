//! `branch`: fork the conversation to think with memory; the conclusion comes back later.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Tool, ToolContext, ToolError, arguments_of, schema_of, started};
use crate::effect::Ask;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// What to think about, look up, save or forget, in full sentences.
    description: String,
}

pub struct Branch;

impl Tool for Branch {
    fn name(&self) -> &'static str {
        "branch"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { description } = arguments_of(arguments)?;
        if description.trim().is_empty() {
            return Err(ToolError::Invalid("description is empty".to_owned()));
        }
        started(context.desk.ask(Ask::Branch { description })?)
    }
}
