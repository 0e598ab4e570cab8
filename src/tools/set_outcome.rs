//! `set_outcome`: the only thing that a job says to anybody.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::speech::Speech;
use super::{Tool, ToolContext, ToolError, arguments_of, schema_of};
use crate::effect::Effect;

/// Longest text, in bytes; adapters cut it into messages, so this is a few screens.
const MAX_BYTES: usize = 16_000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// What the person shall read.
    content: String,
}

pub struct SetOutcome {
    speech: Speech,
}

impl SetOutcome {
    pub fn new(speech: Speech) -> Self {
        Self { speech }
    }
}

impl Tool for SetOutcome {
    fn name(&self) -> &'static str {
        "set_outcome"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { content } = arguments_of(arguments)?;
        let content = content.trim();
        if content.is_empty() {
            return Err(ToolError::Invalid(
                "content is empty; use skip when there is nothing to say".to_owned(),
            ));
        }
        if content.len() > MAX_BYTES {
            return Err(ToolError::Invalid(format!("content is longer than {MAX_BYTES} bytes")));
        }
        context.desk.tell(Effect::Deliver { content: self.speech.of_tool(content)? });
        Ok("noted".to_owned())
    }
}
