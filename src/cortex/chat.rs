//! `cortex_chat_messages`: the operator's conversation with the cortex, in threads.

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, params};

/// Messages of a thread that a turn sees.
pub const CHAT_CONTEXT: usize = 100;
/// Threads that are listed.
const THREADS_MAX: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatRole {
    User,
    Assistant,
}

impl ChatRole {
    fn as_str(self) -> &'static str {
        match self {
            ChatRole::User => "user",
            ChatRole::Assistant => "assistant",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChatMessage {
    /// Given by the database.
    pub id: i64,
    pub thread: String,
    pub role: ChatRole,
    pub content: String,
    /// Names of the tools that were called for an answer.
    pub tools: Vec<String>,
    pub at: String,
}

impl ChatMessage {
    pub fn new(thread: &str, role: ChatRole, content: impl Into<String>) -> Self {
        let (thread, content) = (thread.to_owned(), content.into());
        Self { id: 0, thread, role, content, tools: Vec::new(), at: String::new() }
    }
}

pub(super) fn insert(connection: &Connection, message: &ChatMessage, now: Timestamp) -> Result<i64, DbError> {
    let sql = "INSERT INTO cortex_chat_messages (thread_id, role, content, tool_calls, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5)";
    let tools =
        (!message.tools.is_empty()).then(|| serde_json::Value::from(message.tools.clone()).to_string());
    connection.prepare_cached(sql)?.execute(params![
        message.thread,
        message.role.as_str(),
        message.content,
        tools,
        now.0
    ])?;
    Ok(connection.last_insert_rowid())
}

/// The newest `limit` with ids from the one to the other, oldest first.
pub(super) fn last(
    connection: &Connection,
    thread: &str,
    (first, last): (i64, i64),
    limit: usize,
) -> Result<Vec<ChatMessage>, DbError> {
    let sql = "SELECT id, thread_id, role, content, tool_calls, created_at FROM cortex_chat_messages
               WHERE thread_id = ?1 AND id BETWEEN ?2 AND ?3 ORDER BY id DESC LIMIT ?4";
    let mut statement = connection.prepare_cached(sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![thread, first, last, limit], |row| {
        let role: String = row.get(2)?;
        let tools: Option<String> = row.get(4)?;
        Ok(ChatMessage {
            id: row.get(0)?,
            thread: row.get(1)?,
            role: if role == "user" { ChatRole::User } else { ChatRole::Assistant },
            content: row.get(3)?,
            tools: tools.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
            at: Timestamp(row.get(5)?).to_rfc3339(),
        })
    })?;
    let mut messages: Vec<_> = rows.collect::<Result<_, _>>()?;
    messages.reverse();
    Ok(messages)
}

pub(super) fn threads(connection: &Connection) -> Result<Vec<(String, u64)>, DbError> {
    let sql = "SELECT thread_id, count(*) FROM cortex_chat_messages GROUP BY thread_id
               ORDER BY max(id) DESC LIMIT ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([THREADS_MAX], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
