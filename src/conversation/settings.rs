//! What is set for one conversation, by its people and not by the config.

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension, params};
use crate::id::ConversationId;
use crate::message::Inbound;

/// What the agent answers in company. Who writes directly is always answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResponseMode {
    #[default]
    Active,
    /// It reads and remembers, and answers commands only.
    Observe,
    /// It answers who addresses it.
    MentionOnly,
}

impl ResponseMode {
    pub fn as_str(self) -> &'static str {
        match self {
            ResponseMode::Active => "active",
            ResponseMode::Observe => "observe",
            ResponseMode::MentionOnly => "mention_only",
        }
    }

    /// True when these messages together are worth a turn.
    pub fn answers<'a>(self, mut messages: impl Iterator<Item = &'a Inbound>) -> bool {
        messages.any(|message| {
            message.direct
                || match self {
                    ResponseMode::Active => true,
                    ResponseMode::Observe => false,
                    ResponseMode::MentionOnly => message.addressed,
                }
        })
    }

    /// Writes it, within the caller's transaction.
    ///
    /// # Errors
    /// Nothing is stored.
    pub fn set(
        self,
        connection: &Connection,
        conversation: &ConversationId,
        now: Timestamp,
    ) -> Result<(), DbError> {
        let sql = "INSERT INTO channel_settings (channel_id, response_mode, updated_at) VALUES (?1, ?2, ?3)
                   ON CONFLICT (channel_id) DO UPDATE SET response_mode = ?2, updated_at = ?3";
        connection.prepare_cached(sql)?.execute(params![conversation.as_str(), self.as_str(), now.0])?;
        Ok(())
    }
}

pub(super) fn response_mode(
    connection: &Connection,
    conversation: &ConversationId,
) -> Result<ResponseMode, DbError> {
    let stored: Option<String> = connection
        .prepare_cached("SELECT response_mode FROM channel_settings WHERE channel_id = ?1")?
        .query_row([conversation.as_str()], |row| row.get(0))
        .optional()?;
    let Some(stored) = stored else { return Ok(ResponseMode::default()) };
    [ResponseMode::Active, ResponseMode::Observe, ResponseMode::MentionOnly]
        .into_iter()
        .find(|mode| mode.as_str() == stored)
        .ok_or_else(|| DbError::Corrupt(format!("response mode {stored:?}")))
}
