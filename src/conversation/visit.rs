//! Visits: short conversations of the daemon with itself, each in a fresh channel, that end in at most one
//! word to somebody else. The functions take part in the transactions of whoever begins and ends a visit.

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension, params};
use crate::id::{ConversationId, InboxId, OutboxId};
use crate::message::{Content, Inbound};

use super::{NewLine, Place, Role, history, inbox, outbox};

/// The instance of visits that come by the clock.
pub const SCHEDULED: &str = "cron";

/// Puts what the visit is about into a channel that shows nothing of earlier visits.
///
/// # Errors
/// Nothing is stored.
pub fn begin_visit(
    connection: &Connection,
    place: &Place,
    message: &Inbound,
    now: Timestamp,
) -> Result<InboxId, DbError> {
    history::append(connection, place, &[], now)?;
    let channel = place.conversation.as_str();
    let sql = "UPDATE channels SET generation = generation + 1,
                   window_start = (SELECT coalesce(max(id), 0) + 1 FROM conversation_messages) WHERE id = ?1";
    connection.prepare_cached(sql)?.execute([channel])?;
    // Nothing stands in front of a fresh window.
    let sql =
        "UPDATE conversation_summaries SET replaced_by = id WHERE channel_id = ?1 AND replaced_by IS NULL";
    connection.prepare_cached(sql)?.execute([channel])?;
    inbox::insert(connection, message, now)?
        .ok_or_else(|| DbError::Refused(format!("{} was begun before", message.platform_id)))
}

/// Closes a visit: what it left open will not be looked at again.
///
/// # Errors
/// Nothing is stored.
pub fn end_visit(connection: &Connection, channel: &ConversationId, now: Timestamp) -> Result<(), DbError> {
    let sql = "UPDATE inbox SET answered_at = ?2 WHERE conversation_id = ?1 AND answered_at IS NULL";
    connection.prepare_cached(sql)?.execute(params![channel.as_str(), now.0])?;
    for table in ["branch_runs", "worker_runs"] {
        let sql = format!("UPDATE {table} SET relayed = 1 WHERE channel_id = ?1 AND relayed = 0");
        connection.prepare_cached(&sql)?.execute([channel.as_str()])?;
    }
    Ok(())
}

/// Says something in a conversation that nobody has asked for there: an answer on its way, and a line of
/// its history, so that the next turn knows of it.
///
/// # Errors
/// Nothing is stored.
pub fn say(connection: &Connection, place: &Place, text: &str, now: Timestamp) -> Result<OutboxId, DbError> {
    let content = Content::Text { text: text.to_owned() };
    let line = NewLine {
        role: Role::Assistant,
        sender_id: None,
        sender_name: None,
        content: text.to_owned(),
        at: now,
    };
    history::append(connection, place, &[line], now)?;
    outbox::insert(connection, place, &content, &[], now)
}

/// When the latest message, answer or step of a run was written: it is not earlier than that, if the clock
/// was right then.
///
/// # Errors
/// The database cannot be read.
pub fn last_written(connection: &Connection) -> Result<Timestamp, DbError> {
    let mut latest = 0;
    for (table, at) in [("inbox", "received_at"), ("outbox", "created_at"), ("run_journal", "at")] {
        let sql = format!("SELECT {at} FROM {table} ORDER BY id DESC LIMIT 1");
        let newest = connection.prepare_cached(&sql)?.query_row([], |row| row.get::<_, i64>(0)).optional()?;
        latest = latest.max(newest.unwrap_or_default());
    }
    Ok(Timestamp(latest))
}
