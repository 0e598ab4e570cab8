//! `skip`: say nothing this time. Ends the turn.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Tool, ToolContext, ToolError, arguments_of, schema_of};
use crate::effect::Effect;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// Why silence is right; for the log, never shown.
    #[serde(default)]
    reason: String,
}

pub struct Skip;

impl Tool for Skip {
    fn name(&self) -> &'static str {
        "skip"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { reason } = arguments_of(arguments)?;
        context.desk.tell(Effect::Skip { reason });
        Ok("skipped".to_owned())
    }
}
