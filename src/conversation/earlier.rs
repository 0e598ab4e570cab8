//! What was said before a conversation began, as its platform told it: one line at the head of the history,
//! written with the first message, so that it is there once and the same bytes in every turn.

use serde::Serialize;

use super::Place;
use super::history::{NewLine, Role, append};
use crate::clock::Timestamp;
use crate::config::LimitsConfig;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, params};
use crate::id::ConversationId;
use crate::message::{Earlier, Inbound};
use crate::prompts::{self, Template};
use crate::text::{self, CHARACTERS_PER_TOKEN};
use crate::turn::{self, Part};

/// Longest text and name of one of its messages, in bytes.
const TEXT_BYTES: usize = 400;
const NAME_BYTES: usize = 64;
/// All of its messages together: some 3,000 tokens, and in a small window no more than an eighth of it.
const BYTES_MAX: usize = 12 * 1024;
const WINDOW_PART: usize = 8;

/// Room for what was said before; the newest has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EarlierRoom {
    pub lines: usize,
    pub bytes: usize,
}

impl EarlierRoom {
    pub fn of(limits: &LimitsConfig) -> Self {
        let bytes = limits.context_window.saturating_mul(CHARACTERS_PER_TOKEN) / WINDOW_PART;
        Self { lines: limits.history_backfill_count, bytes: bytes.min(BYTES_MAX) }
    }
}

/// As the model reads it, in this order.
#[derive(Serialize)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    from: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    you: bool,
    text: String,
}

/// The line's text; none where nothing has room.
pub(super) fn content(earlier: Vec<Earlier>, room: EarlierRoom) -> Result<Option<String>, DbError> {
    let failed = |error: &dyn std::fmt::Display| DbError::Refused(error.to_string());
    let (mut lines, mut bytes) = (Vec::new(), 0);
    for one in earlier.into_iter().rev().take(room.lines) {
        let written = Written {
            at: one.at.map(Timestamp::to_rfc3339),
            from: text::one_line(&one.sender_name, NAME_BYTES),
            you: one.own,
            text: text::one_line(&one.text, TEXT_BYTES),
        };
        // So nothing in it looks like one of our tags, and it stays JSON.
        let line = serde_json::to_string(&written).map_err(|error| failed(&error))?.replace('<', "\\u003c");
        bytes += line.len();
        if bytes > room.bytes {
            break;
        }
        lines.push(line);
    }
    if lines.is_empty() {
        return Ok(None);
    }
    lines.reverse();
    let context = serde_json::json!({ "lines": lines });
    let text = prompts::render(Template::Earlier, &context).map_err(|error| failed(&error))?;
    Ok(Some(turn::write(&[Part::Earlier(text)])))
}

/// When the first message came that is no command.
pub(super) fn begun(
    connection: &Connection,
    conversation: &ConversationId,
) -> Result<Option<Timestamp>, DbError> {
    // Answered messages are deleted in time, and lines may have left the window; some of it is always there.
    let sql = "SELECT min(at) FROM (
                   SELECT min(received_at) AS at FROM inbox WHERE conversation_id = ?1 AND command = 0
                   UNION ALL SELECT min(created_at) FROM conversation_messages WHERE channel_id = ?1
                   UNION ALL SELECT min(first_at) FROM conversation_summaries WHERE channel_id = ?1)";
    let first: Option<i64> =
        connection.prepare_cached(sql)?.query_row(params![conversation.as_str()], |row| row.get(0))?;
    Ok(first.map(Timestamp))
}

/// Begins the conversation of the message with what was said before it.
pub(super) fn insert(
    connection: &Connection,
    message: &Inbound,
    content: Option<String>,
    now: Timestamp,
) -> Result<(), DbError> {
    let Some(content) = content else { return Ok(()) };
    let place = Place {
        conversation: message.conversation.clone(),
        instance: message.instance.clone(),
        direct: message.direct,
        name: message.place.clone(),
    };
    // Of now, because it is in the history from now on.
    let line = NewLine { role: Role::Earlier, sender_id: None, sender_name: None, content, at: now };
    append(connection, &place, &[line], now)
}
