//! `set_status`: what a worker is doing, and at the end what came of it.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Tool, ToolContext, ToolError, arguments_of, schema_of};
use crate::effect::Effect;
use crate::text;

/// Longest status, in bytes.
const MAX_STATUS_BYTES: usize = 256;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// One sentence.
    status: String,
    #[serde(default)]
    kind: StatusKind,
}

#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "snake_case")]
enum StatusKind {
    /// The work goes on.
    #[default]
    Progress,
    /// The work is over and this came of it.
    Outcome,
    /// The work is over and could not be done.
    Failure,
}

pub struct SetStatus;

impl Tool for SetStatus {
    fn name(&self) -> &'static str {
        "set_status"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { status, kind } = arguments_of(arguments)?;
        let text = text::one_line(&status, MAX_STATUS_BYTES);
        if text.is_empty() {
            return Err(ToolError::Invalid("status is empty".to_owned()));
        }
        context.desk.tell(match kind {
            StatusKind::Progress => Effect::Status { text },
            StatusKind::Outcome => Effect::Outcome { text, success: true },
            StatusKind::Failure => Effect::Outcome { text, success: false },
        });
        Ok("noted".to_owned())
    }
}
