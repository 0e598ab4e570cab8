//! `channel_recall`: what was said in this or another conversation.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Tool, ToolContext, ToolError, arguments_of, number, schema_of};
use crate::conversation::{Conversations, Role};
use crate::id::ConversationId;

const DEFAULT_LINES: usize = 50;
const MAX_LINES: usize = 100;
/// Conversations that a listing shows.
const MAX_CHANNELS: usize = 50;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// Id of a conversation, or a part of it; without it, all conversations are listed.
    #[serde(default)]
    channel: Option<String>,
    /// Latest lines to show, 1 to 100 (50).
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "Option<usize>")]
    limit: Option<usize>,
}

pub struct ChannelRecall {
    conversations: Conversations,
    here: ConversationId,
}

impl ChannelRecall {
    pub fn new(conversations: Conversations, here: ConversationId) -> Self {
        Self { conversations, here }
    }

    fn find(&self, wanted: &str) -> Result<ConversationId, ToolError> {
        if wanted == self.here.as_str() || wanted == "here" {
            return Ok(self.here.clone());
        }
        let channels = self
            .conversations
            .channels(MAX_CHANNELS)
            .map_err(|error| ToolError::Failed(error.to_string()))?;
        let wanted = wanted.to_lowercase();
        let found = channels.iter().find(|channel| channel.to_lowercase() == wanted);
        let found =
            found.or_else(|| channels.iter().find(|channel| channel.to_lowercase().contains(&wanted)));
        found
            .map(ConversationId::new)
            .ok_or_else(|| ToolError::NotFound(format!("no conversation matches {wanted:?}")))
    }
}

impl Tool for ChannelRecall {
    fn name(&self) -> &'static str {
        "channel_recall"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn call(&mut self, arguments: Value, _context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { channel, limit } = arguments_of(arguments)?;
        let failed = |error: crate::db::DbError| ToolError::Failed(error.to_string());
        let Some(channel) = channel else {
            let channels = self.conversations.channels(MAX_CHANNELS).map_err(failed)?;
            return Ok(json!({ "channels": channels }).to_string());
        };
        let channel = self.find(&channel)?;
        let limit = limit.unwrap_or(DEFAULT_LINES).clamp(1, MAX_LINES);
        let lines = self.conversations.recall(&channel, limit).map_err(failed)?;
        let lines: Vec<_> = lines
            .iter()
            .map(|line| {
                let who = match line.role {
                    Role::User => line.sender_name.as_str(),
                    Role::Assistant => "you",
                    Role::Event => "event",
                };
                json!({ "at": line.at.to_rfc3339(), "who": who, "text": line.content })
            })
            .collect();
        Ok(json!({ "channel": channel.as_str(), "lines": lines }).to_string())
    }
}
