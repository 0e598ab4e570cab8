//! `reply`: say something to the person. Ends the turn.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::speech::Speech;
use super::{Tool, ToolContext, ToolError, arguments_of, schema_of};
use crate::effect::Effect;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// What to say, as the person shall read it.
    content: String,
}

pub struct Reply {
    speech: Speech,
}

impl Reply {
    pub fn new(speech: Speech) -> Self {
        Self { speech }
    }
}

impl Tool for Reply {
    fn name(&self) -> &'static str {
        "reply"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { content } = arguments_of(arguments)?;
        if content.trim().is_empty() {
            return Err(ToolError::Invalid("content is empty; use skip to stay silent".to_owned()));
        }
        context.desk.tell(Effect::Reply { content: self.speech.of_tool(&content)? });
        Ok("sent".to_owned())
    }
}
