//! `channel_recall`: what was said in this or another conversation, also long ago.

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
    /// Only lines that hold all these words.
    #[serde(default)]
    #[schemars(with = "String", skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    /// Only lines before this one: the number that an earlier answer gave as "earlier".
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "Option<usize>")]
    before: Option<usize>,
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
        let Arguments { channel, limit, query, before } = arguments_of(arguments)?;
        let failed = |error: crate::db::DbError| ToolError::Failed(error.to_string());
        let words: Vec<String> =
            query.iter().flat_map(|query| query.split_whitespace()).map(str::to_owned).collect();
        let channel = match channel {
            Some(channel) => self.find(&channel)?,
            None if !words.is_empty() => self.here.clone(),
            None => {
                let channels = self.conversations.channels(MAX_CHANNELS).map_err(failed)?;
                return Ok(json!({ "channels": channels }).to_string());
            }
        };
        let limit = limit.unwrap_or(DEFAULT_LINES).clamp(1, MAX_LINES);
        let before = before.map(|before| i64::try_from(before).unwrap_or(i64::MAX));
        let found = self.conversations.find(&channel, &words, before, limit).map_err(failed)?;
        let lines: Vec<_> = found
            .lines
            .iter()
            .map(|line| {
                let who = match line.role {
                    Role::User => line.sender_name.as_str(),
                    Role::Assistant => "you",
                    Role::Event => "event",
                    Role::Earlier => "before the conversation",
                };
                json!({ "at": line.at.to_rfc3339(), "who": who, "text": line.content })
            })
            .collect();
        let mut answer = json!({ "channel": channel.as_str(), "lines": lines });
        if let Some(earlier) = found.earlier {
            answer["earlier"] = json!(earlier);
        }
        Ok(answer.to_string())
    }
}
