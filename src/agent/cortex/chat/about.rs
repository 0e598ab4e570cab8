//! The conversation that the operator asks about: its last lines, in front of the question.

use crate::agent::AgentParts;
use crate::conversation::{Line, Role};
use crate::db::DbError;
use crate::id::ConversationId;
use crate::prompts;
use crate::text;
use crate::turn::{self, Part};

/// Lines of the conversation, of which the newest stay that have room.
const LINES_MAX: usize = 50;
/// Tokens of all lines together.
const TOKENS_MAX: usize = 8_000;
/// Bytes of one line: about what a person writes at once.
const LINE_BYTES: usize = 2_000;

/// None: there is no such conversation.
pub(super) fn channel(parts: &AgentParts, channel: &ConversationId) -> Result<Option<String>, DbError> {
    let lines = parts.conversations.history(channel, LINES_MAX)?.lines;
    if lines.is_empty() {
        return Ok(None);
    }
    let mut left = TOKENS_MAX;
    let written = lines.iter().rev().take(LINES_MAX).map(|line| written(parts, line));
    let mut written: Vec<String> = written
        .take_while(|line| {
            let rest = left.checked_sub(text::estimate_tokens(line));
            rest.inspect(|rest| left = *rest).is_some()
        })
        .collect();
    written.push(turn::write(&[Part::Note(format!("{} {channel}", prompts::notice("cortex_channel")))]));
    written.reverse();
    Ok(Some(written.join("\n")))
}

fn written(parts: &AgentParts, line: &Line) -> String {
    let sender = match line.role {
        Role::User => line.sender_name.clone(),
        Role::Assistant => parts.config.display_name.clone(),
        // It stands in a fence of its own.
        Role::Event | Role::Earlier => return text::shorten(&line.content, LINE_BYTES).into_owned(),
    };
    let text = text::shorten(&line.content, LINE_BYTES).into_owned();
    turn::write(&[Part::Said { sender, at: line.at, text }])
}
