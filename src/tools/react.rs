//! `react`: put an emoji on the last message of the person.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Tool, ToolContext, ToolError, arguments_of, schema_of};
use crate::effect::Effect;

/// Longest emoji or short name, in bytes.
const MAX_EMOJI_BYTES: usize = 64;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// One emoji, such as 👍, or its short name.
    emoji: String,
}

pub struct React;

impl Tool for React {
    fn name(&self) -> &'static str {
        "react"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { emoji } = arguments_of(arguments)?;
        let emoji = emoji.trim();
        if emoji.is_empty() || emoji.len() > MAX_EMOJI_BYTES || emoji.chars().any(char::is_whitespace) {
            return Err(ToolError::Invalid("emoji must be one emoji or short name".to_owned()));
        }
        context.desk.tell(Effect::React { emoji: emoji.to_owned() });
        Ok("reacted".to_owned())
    }
}
