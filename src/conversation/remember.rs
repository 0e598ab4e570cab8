//! Up to where memories were taken from a conversation while it went on.

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension, params};
use crate::id::ConversationId;

use super::visit::SCHEDULED;
use super::{Conversations, Line, Place, archive, history};

/// Messages that are counted at most: far above every threshold.
const COUNTED_MAX: usize = 1_000;
/// Tries of the same lines before they are left to what takes memories from a full window.
pub const REMEMBER_TRIES: u32 = 3;

/// What was said since memories were last taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unremembered {
    /// Of people.
    pub messages: usize,
    /// When the first of them came.
    pub first_at: Timestamp,
    /// When memories were last taken, or the first message came.
    pub since: Timestamp,
}

/// Lines that memories were taken from: those behind `from`, up to `through`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Remembered {
    pub from: i64,
    pub through: i64,
    at: Option<Timestamp>,
}

impl Remembered {
    pub fn holds(&self, line: i64) -> bool {
        line > self.from && line <= self.through
    }
}

fn of(connection: &Connection, conversation: &ConversationId) -> Result<Remembered, DbError> {
    let sql = "SELECT from_line, through_line, at FROM memory_persistence WHERE channel_id = ?1";
    let found = connection.prepare_cached(sql)?.query_row([conversation.as_str()], |row| {
        Ok(Remembered { from: row.get(0)?, through: row.get(1)?, at: Some(Timestamp(row.get(2)?)) })
    });
    Ok(found.optional()?.unwrap_or_default())
}

/// Memories were taken up to this line, or it was given up; for the transaction that stores them.
///
/// # Errors
/// Nothing is stored.
pub fn remember(
    connection: &Connection,
    conversation: &ConversationId,
    through: i64,
    now: Timestamp,
) -> Result<(), DbError> {
    let sql = "INSERT INTO memory_persistence (channel_id, from_line, through_line, at) VALUES (?1, 0, ?2, ?3)
               ON CONFLICT (channel_id) DO UPDATE SET through_line = max(through_line, ?2), failures = 0, at = ?3";
    connection.prepare_cached(sql)?.execute(params![conversation.as_str(), through, now.0])?;
    Ok(())
}

fn fail(
    connection: &Connection,
    conversation: &ConversationId,
    through: i64,
    now: Timestamp,
) -> Result<bool, DbError> {
    let sql = "INSERT INTO memory_persistence (channel_id, from_line, through_line, failures, at)
               VALUES (?1, 0, 0, 1, ?2)
               ON CONFLICT (channel_id) DO UPDATE SET failures = failures + 1 RETURNING failures";
    let failures: u32 =
        connection.prepare_cached(sql)?.query_row(params![conversation.as_str(), now.0], |row| row.get(0))?;
    let given_up = failures >= REMEMBER_TRIES;
    if given_up {
        // Behind the lines that are passed over begins what memories are taken from.
        let sql = "UPDATE memory_persistence SET from_line = ?2, through_line = ?2, failures = 0, at = ?3
                   WHERE channel_id = ?1";
        connection.prepare_cached(sql)?.execute(params![conversation.as_str(), through, now.0])?;
    }
    Ok(given_up)
}

impl Conversations {
    /// What people have said since memories were last taken; none when that is nothing.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn unremembered(&self, conversation: &ConversationId) -> Result<Option<Unremembered>, DbError> {
        self.db.read(|connection| {
            let remembered = of(connection, conversation)?;
            let sql = "SELECT count(*), min(created_at) FROM (SELECT created_at FROM conversation_messages
                       WHERE channel_id = ?1 AND id > ?2 AND role = 'user' ORDER BY id LIMIT ?3)";
            let (messages, first_at): (usize, Option<i64>) = connection
                .prepare_cached(sql)?
                .query_row(params![conversation.as_str(), remembered.through, COUNTED_MAX], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
            let first_at = first_at.map(Timestamp);
            Ok(first_at.map(|first_at| Unremembered {
                messages,
                first_at,
                since: remembered.at.unwrap_or(first_at),
            }))
        })
    }

    /// The oldest lines that memories were not taken from, at most `limit`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn unremembered_lines(
        &self,
        conversation: &ConversationId,
        limit: usize,
    ) -> Result<Vec<Line>, DbError> {
        self.db.read(|connection| {
            let through = of(connection, conversation)?.through;
            let sql = "SELECT min(id), max(id) FROM (SELECT id FROM conversation_messages
                       WHERE channel_id = ?1 AND id > ?2 ORDER BY id LIMIT ?3)";
            let bounds: (Option<i64>, Option<i64>) = connection
                .prepare_cached(sql)?
                .query_row(params![conversation.as_str(), through, limit], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
            match bounds {
                (Some(first), Some(last)) => archive::between(connection, conversation, first, last),
                _ => Ok(Vec::new()),
            }
        })
    }

    /// Which lines of a conversation memories were taken from while it went on.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn remembered(&self, conversation: &ConversationId) -> Result<Remembered, DbError> {
        self.db.read(|connection| of(connection, conversation))
    }

    /// A run came to nothing. True when its lines, up to `through`, are now given up.
    ///
    /// # Errors
    /// Nothing is stored.
    pub fn not_remembered(&self, conversation: &ConversationId, through: i64) -> Result<bool, DbError> {
        let (conversation, now) = (conversation.clone(), self.now());
        self.db.write(move |connection| fail(connection, &conversation, through, now))
    }

    /// Where people have said something since memories were last taken, the latest first; not in the
    /// conversations that are runs of jobs.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn unremembered_places(&self, limit: usize) -> Result<Vec<Place>, DbError> {
        self.db.read(|connection| {
            let sql = "SELECT c.id FROM channels c LEFT JOIN memory_persistence m ON m.channel_id = c.id
                       WHERE c.instance <> ?2 AND EXISTS (SELECT 1 FROM conversation_messages
                           WHERE channel_id = c.id AND id > coalesce(m.through_line, 0) AND role = 'user')
                       ORDER BY c.last_activity_at DESC LIMIT ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![limit, SCHEDULED], |row| row.get::<_, String>(0))?;
            let mut places = Vec::new();
            for id in rows {
                places.extend(history::place(connection, &ConversationId::new(id?))?);
            }
            Ok(places)
        })
    }
}
