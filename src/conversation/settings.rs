//! What is set for one conversation, by its people or the operator, and not by the config.

use crate::clock::Timestamp;
use crate::config::{ChannelConfig, Delegation, MemoryMode, ModelOverrides, ResponseMode, WorkerContext};
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
    let sql = "INSERT OR REPLACE INTO channel_settings
                   (channel_id, response_mode, delegation, memory_mode, worker_context,
                    channel_model, branch_model, worker_model, compactor_model, updated_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let models = &settings.models;
    connection.prepare_cached(sql)?.execute(params![
        conversation.as_str(),
        settings.response_mode.map(ResponseMode::as_str),
        settings.delegation.map(Delegation::as_str),
        settings.memory_mode.map(MemoryMode::as_str),
        settings.worker_context.map(WorkerContext::as_str),
        models.channel,
        models.branch,
        models.worker,
        models.compactor,
        now.0
    ])?;
    Ok(settings)
}

/// What [`read`] reads, of the table `s`.
const COLUMNS: &str = "s.response_mode, s.delegation, s.memory_mode, s.worker_context,
    s.channel_model, s.branch_model, s.worker_model, s.compactor_model";

pub(super) fn of(connection: &Connection, conversation: &ConversationId) -> Result<ChannelConfig, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM channel_settings s WHERE channel_id = ?1");
    let stored = connection
        .prepare_cached(&sql)?
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
    let sql = format!(
        "SELECT c.id, c.instance, {COLUMNS} FROM channels c
             LEFT JOIN channel_settings s ON s.channel_id = c.id
         ORDER BY c.last_activity_at DESC LIMIT ?1"
    );
    let mut statement = connection.prepare(&sql)?;
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
        worker_context: value(row, first + 3, &WorkerContext::ALL)?,
        models: ModelOverrides {
            channel: row.get(first + 4)?,
            branch: row.get(first + 5)?,
            worker: row.get(first + 6)?,
            compactor: row.get(first + 7)?,
        },
    })
}

fn value<T: Copy>(row: &Row<'_>, column: usize, all: &[(&str, T)]) -> Result<Option<T>, DbError> {
    let Some(stored) = row.get::<_, Option<String>>(column)? else { return Ok(None) };
    let known = all.iter().find(|(name, _)| *name == stored).map(|(_, value)| *value);
    known.map(Some).ok_or_else(|| DbError::Corrupt(format!("a setting of a conversation is {stored:?}")))
}
