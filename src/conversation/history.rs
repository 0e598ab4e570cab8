//! The words that were exchanged, append-only. What a turn sees of them starts at the channel's
//! `window_start`, which moves rarely and far, so that the prompt prefix stays the same for many
//! turns (P9).

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension, Row, params};
use crate::id::{ConversationId, InstanceId};
use crate::text::estimate_tokens;

use super::Place;

/// As much of a conversation's last line is read for its topic; a list shows less.
const TOPIC_CHARACTERS: usize = 200;

/// Who speaks in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    User,
    Assistant,
    /// A result of a branch or worker, in the form of `turn::write`.
    Event,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Event => "event",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            _ => Role::Event,
        }
    }
}

/// A stored line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub id: i64,
    pub role: Role,
    pub sender_name: String,
    pub content: String,
    pub at: Timestamp,
}

/// A line to be stored.
#[derive(Debug, Clone)]
pub struct NewLine {
    pub role: Role,
    pub sender_id: Option<String>,
    pub sender_name: Option<String>,
    pub content: String,
    pub at: Timestamp,
}

/// A conversation that was active lately, with its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Active {
    pub conversation: ConversationId,
    /// With one person.
    pub direct: bool,
    pub last_active: Timestamp,
    /// The last line that a person said; both empty when nobody has.
    pub sender: String,
    pub text: String,
}

/// The lines that a turn sees.
#[derive(Debug, Default)]
pub struct History {
    pub lines: Vec<Line>,
    /// Set when the window became too long: where the next turn's window starts.
    pub next_start: Option<i64>,
}

fn line(row: &Row<'_>) -> Result<Line, crate::db::rusqlite::Error> {
    Ok(Line {
        id: row.get(0)?,
        role: Role::parse(row.get_ref(1)?.as_str()?),
        sender_name: row.get::<_, Option<String>>(2)?.unwrap_or_default(),
        content: row.get(3)?,
        at: Timestamp(row.get(4)?),
    })
}

/// All lines since the window's start, at most `max_lines` and `max_tokens` of them. When a bound is
/// passed, the later half is seen and the window moves there with the next commit.
pub(super) fn visible(
    connection: &Connection,
    conversation: &ConversationId,
    max_lines: usize,
    max_tokens: usize,
) -> Result<History, DbError> {
    let start: i64 = connection
        .prepare_cached("SELECT window_start FROM channels WHERE id = ?1")?
        .query_row([conversation.as_str()], |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    let sql = "SELECT id, role, sender_name, content, created_at FROM conversation_messages
               WHERE channel_id = ?1 AND id >= ?2 ORDER BY id DESC LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let mut lines = statement
        .query_map(params![conversation.as_str(), start, max_lines + 1], line)?
        .collect::<Result<Vec<_>, _>>()?;
    let fitting = fitting(&lines, max_lines, max_tokens);
    let mut history = History::default();
    if fitting < lines.len() {
        lines.truncate(fitting);
        history.next_start = lines.last().map(|line| line.id);
    }
    lines.reverse();
    history.lines = lines;
    Ok(history)
}

/// How many of the lines (newest first) are shown: all, or those of half the bounds.
fn fitting(newest_first: &[Line], max_lines: usize, max_tokens: usize) -> usize {
    let mut tokens = 0;
    let mut half = None;
    for (count, line) in newest_first.iter().enumerate() {
        tokens += estimate_tokens(&line.content);
        if half.is_none() && (tokens > max_tokens / 2 || count >= max_lines / 2) {
            half = Some(count.max(1));
        }
        if tokens > max_tokens || count >= max_lines {
            return half.unwrap_or(count).max(1);
        }
    }
    newest_first.len()
}

pub(super) fn between(
    connection: &Connection,
    conversation: &ConversationId,
    first: i64,
    last: i64,
) -> Result<Vec<Line>, DbError> {
    let sql = "SELECT id, role, sender_name, content, created_at FROM conversation_messages
               WHERE channel_id = ?1 AND id BETWEEN ?2 AND ?3 ORDER BY id";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![conversation.as_str(), first, last], line)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn last(
    connection: &Connection,
    conversation: &ConversationId,
    limit: usize,
) -> Result<Vec<Line>, DbError> {
    let sql = "SELECT id, role, sender_name, content, created_at FROM conversation_messages
               WHERE channel_id = ?1 ORDER BY id DESC LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut lines =
        statement.query_map(params![conversation.as_str(), limit], line)?.collect::<Result<Vec<_>, _>>()?;
    lines.reverse();
    Ok(lines)
}

pub(super) fn channels(connection: &Connection, limit: usize) -> Result<Vec<String>, DbError> {
    let mut statement =
        connection.prepare_cached("SELECT id FROM channels ORDER BY last_activity_at DESC LIMIT ?1")?;
    Ok(statement.query_map([limit], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

pub(super) fn active(
    connection: &Connection,
    here: &ConversationId,
    since: Timestamp,
    limit: usize,
) -> Result<Vec<Active>, DbError> {
    let sql = "SELECT c.id, c.direct, c.last_activity_at, coalesce(m.sender_name, ''), coalesce(substr(m.content, 1, ?4), '')
               FROM (SELECT id, direct, last_activity_at FROM channels
                     WHERE last_activity_at >= ?2 AND id <> ?1 ORDER BY last_activity_at DESC LIMIT ?3) c
               LEFT JOIN conversation_messages m ON m.id = (
                     SELECT id FROM conversation_messages
                     WHERE channel_id = c.id AND role = 'user' ORDER BY id DESC LIMIT 1)
               ORDER BY c.last_activity_at DESC";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![here.as_str(), since.0, limit, TOPIC_CHARACTERS], |row| {
        Ok(Active {
            conversation: ConversationId::new(row.get_ref(0)?.as_str()?),
            direct: row.get(1)?,
            last_active: Timestamp(row.get(2)?),
            sender: row.get(3)?,
            text: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Where a conversation takes place; none when nothing was said in it yet.
///
/// # Errors
/// The database cannot be read.
pub fn place(connection: &Connection, conversation: &ConversationId) -> Result<Option<Place>, DbError> {
    let sql = "SELECT instance, direct, coalesce(display_name, id) FROM channels WHERE id = ?1";
    let place = connection.prepare_cached(sql)?.query_row([conversation.as_str()], |row| {
        Ok(Place {
            conversation: conversation.clone(),
            instance: InstanceId::new(row.get_ref(0)?.as_str()?),
            direct: row.get(1)?,
            name: row.get(2)?,
        })
    });
    Ok(place.optional()?)
}

pub(super) fn append(
    connection: &Connection,
    place: &Place,
    lines: &[NewLine],
    window_start: Option<i64>,
    now: Timestamp,
) -> Result<(), DbError> {
    let sql = "INSERT INTO channels (id, platform, instance, display_name, direct, created_at, last_activity_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
               ON CONFLICT (id) DO UPDATE SET last_activity_at = ?6, window_start = coalesce(?7, window_start)";
    let (conversation, instance) = (place.conversation.as_str(), place.instance.as_str());
    connection.prepare_cached(sql)?.execute(params![
        conversation,
        place.instance.platform(),
        instance,
        place.name,
        place.direct,
        now.0,
        window_start
    ])?;
    let sql =
        "INSERT INTO conversation_messages (channel_id, role, sender_name, sender_id, content, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut statement = connection.prepare_cached(sql)?;
    for line in lines {
        statement.execute(params![
            conversation,
            line.role.as_str(),
            line.sender_name,
            line.sender_id,
            line.content,
            line.at.0
        ])?;
    }
    Ok(())
}
