//! What is set for one conversation, by its people or the operator, and not by the config.

use crate::clock::Timestamp;
use crate::config::{ChannelConfig, Delegation, MemoryMode, ResponseMode};
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension, Row, params};
use crate::id::{ConversationId, InstanceId};

/// Conversations that are listed.
const LISTED_MAX: u32 = 1000;

/// Changes what is set, within the caller's transaction.
///
/// # Errors
/// Nothing is stored.
pub fn change_settings(
    connection: &Connection,
    conversation: &ConversationId,
    now: Timestamp,
    change: impl FnOnce(&mut ChannelConfig),
) -> Result<ChannelConfig, DbError> {
    let mut settings = of(connection, conversation)?;
    change(&mut settings);
    let sql = "INSERT INTO channel_settings (channel_id, response_mode, delegation, memory_mode, updated_at)
                   VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (channel_id) DO UPDATE
                   SET response_mode = ?2, delegation = ?3, memory_mode = ?4, updated_at = ?5";
    connection.prepare_cached(sql)?.execute(params![
        conversation.as_str(),
        settings.response_mode.map(ResponseMode::as_str),
        settings.delegation.map(Delegation::as_str),
        settings.memory_mode.map(MemoryMode::as_str),
        now.0
    ])?;
    Ok(settings)
}

pub(super) fn of(connection: &Connection, conversation: &ConversationId) -> Result<ChannelConfig, DbError> {
    let sql = "SELECT response_mode, delegation, memory_mode FROM channel_settings WHERE channel_id = ?1";
    let stored = connection
        .prepare_cached(sql)?
        .query_row([conversation.as_str()], |row| Ok(read(row, 0)))
        .optional()?;
    stored.transpose().map(Option::unwrap_or_default)
}

/// A conversation, where it is held, and what is set for it.
#[derive(Debug, Clone)]
pub struct Known {
    pub conversation: ConversationId,
    pub instance: InstanceId,
    pub set: ChannelConfig,
}

/// Every conversation, the last active first.
pub(super) fn all(connection: &Connection) -> Result<Vec<Known>, DbError> {
    let sql = "SELECT c.id, c.instance, s.response_mode, s.delegation, s.memory_mode FROM channels c
                   LEFT JOIN channel_settings s ON s.channel_id = c.id
               ORDER BY c.last_activity_at DESC LIMIT ?1";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([LISTED_MAX])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Known {
            conversation: ConversationId::new(row.get_ref(0)?.as_str()?),
            instance: InstanceId::new(row.get_ref(1)?.as_str()?),
            set: read(row, 2)?,
        });
    }
    Ok(found)
}

fn read(row: &Row<'_>, first: usize) -> Result<ChannelConfig, DbError> {
    Ok(ChannelConfig {
        response_mode: value(row, first, &ResponseMode::ALL)?,
        delegation: value(row, first + 1, &Delegation::ALL)?,
        memory_mode: value(row, first + 2, &MemoryMode::ALL)?,
    })
}

fn value<T: Copy>(row: &Row<'_>, column: usize, all: &[(&str, T)]) -> Result<Option<T>, DbError> {
    let Some(stored) = row.get::<_, Option<String>>(column)? else { return Ok(None) };
    let known = all.iter().find(|(name, _)| *name == stored).map(|(_, value)| *value);
    known.map(Some).ok_or_else(|| DbError::Corrupt(format!("a setting of a conversation is {stored:?}")))
}
