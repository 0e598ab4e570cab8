//! The words that were exchanged, append-only. What a turn sees of them are the summaries of what has
//! left the window, and the lines from the channel's `window_start` on. That start moves rarely and far
//! (`super::compaction`), so that the prompt prefix stays the same for many turns (P9).

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension, Row, params};
use crate::id::{ConversationId, InstanceId};
use crate::text::CHARACTERS_PER_TOKEN;

use super::Place;
use super::visit::SCHEDULED;
use super::window::{self, Summary};

/// Lines in which participants are looked for: who wrote before them has not taken part lately.
const PARTICIPANT_LINES: usize = 200;
/// As much of a conversation's last line is read for its topic; a list shows less.
const TOPIC_CHARACTERS: usize = 200;
/// What the fence around a person's line adds to it for the estimate of tokens (`turn::write`).
const FENCE_CHARACTERS: usize = 53;

/// Who speaks in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    User,
    Assistant,
    /// A result of a branch or worker, in the form of `turn::write`.
    Event,
    /// What was said before the conversation began, in the form of `turn::write`: nobody's word.
    Earlier,
}

impl Role {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Event => "event",
            Role::Earlier => "earlier",
        }
    }

    pub(super) fn parse(text: &str) -> Self {
        match text {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "earlier" => Role::Earlier,
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

impl Line {
    /// Estimate of what the line takes in a prompt.
    pub fn tokens(&self) -> usize {
        tokens(self.role, self.content.chars().count(), self.sender_name.chars().count())
    }
}

/// As [`Line::tokens`], from the lengths alone.
pub(super) fn tokens(role: Role, content: usize, name: usize) -> usize {
    let fence = if role == Role::User { FENCE_CHARACTERS + name } else { 0 };
    (content + fence).div_ceil(CHARACTERS_PER_TOKEN)
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

/// Somebody who has written in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// As the platform knows them.
    pub id: String,
    /// As they were called last.
    pub name: String,
    pub last: Timestamp,
}

/// What a turn sees.
#[derive(Debug, Default)]
pub struct History {
    /// What stands for the lines that have left the window, oldest first.
    pub summaries: Vec<Summary>,
    pub lines: Vec<Line>,
    /// The window holds more lines than were asked for; these are the newest.
    pub overflows: bool,
}

impl History {
    /// It shows what was said before the conversation began.
    pub fn holds_earlier(&self) -> bool {
        self.lines.iter().any(|line| line.role == Role::Earlier)
    }

    /// Estimate of what all of it takes in a prompt.
    pub fn tokens(&self) -> usize {
        self.summaries.iter().map(Summary::tokens).sum::<usize>()
            + self.lines.iter().map(Line::tokens).sum::<usize>()
    }
}

pub(super) fn line(row: &Row<'_>) -> Result<Line, crate::db::rusqlite::Error> {
    Ok(Line {
        id: row.get(0)?,
        role: Role::parse(row.get_ref(1)?.as_str()?),
        sender_name: row.get::<_, Option<String>>(2)?.unwrap_or_default(),
        content: row.get(3)?,
        at: Timestamp(row.get(4)?),
    })
}

/// The summaries and the lines of the window, at most `max_lines` of these.
pub(super) fn visible(
    connection: &Connection,
    conversation: &ConversationId,
    max_lines: usize,
) -> Result<History, DbError> {
    let start = window::state(connection, conversation)?.start;
    let sql = "SELECT id, role, sender_name, content, created_at FROM conversation_messages
               WHERE channel_id = ?1 AND id >= ?2 ORDER BY id DESC LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let mut lines = statement
        .query_map(params![conversation.as_str(), start, max_lines + 1], line)?
        .collect::<Result<Vec<_>, _>>()?;
    let overflows = lines.len() > max_lines;
    lines.truncate(max_lines);
    lines.reverse();
    Ok(History { summaries: window::summaries(connection, conversation)?, lines, overflows })
}

pub(super) fn channels(connection: &Connection, limit: usize) -> Result<Vec<String>, DbError> {
    let mut statement =
        connection.prepare_cached("SELECT id FROM channels ORDER BY last_activity_at DESC LIMIT ?1")?;
    Ok(statement.query_map([limit], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// Conversations with people. Nobody wrote to the runs of jobs.
pub(super) fn active(
    connection: &Connection,
    here: &ConversationId,
    since: Timestamp,
    limit: usize,
) -> Result<Vec<Active>, DbError> {
    let sql = "SELECT c.id, c.direct, c.last_activity_at, coalesce(m.sender_name, ''), coalesce(substr(m.content, 1, ?4), '')
               FROM (SELECT id, direct, last_activity_at FROM channels
                     WHERE last_activity_at >= ?2 AND id <> ?1 AND instance <> ?5 ORDER BY last_activity_at DESC LIMIT ?3) c
               LEFT JOIN conversation_messages m ON m.id = (
                     SELECT id FROM conversation_messages
                     WHERE channel_id = c.id AND role = 'user' ORDER BY id DESC LIMIT 1)
               ORDER BY c.last_activity_at DESC";
    let mut statement = connection.prepare_cached(sql)?;
    let values = params![here.as_str(), since.0, limit, TOPIC_CHARACTERS, SCHEDULED];
    let rows = statement.query_map(values, |row| {
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

/// Who wrote lately, the latest first.
pub(super) fn participants(
    connection: &Connection,
    conversation: &ConversationId,
    limit: usize,
) -> Result<Vec<Participant>, DbError> {
    let sql = "SELECT coalesce(sender_id, ''), coalesce(sender_name, ''), created_at, max(id) AS newest
               FROM (SELECT id, role, sender_id, sender_name, created_at FROM conversation_messages
                     WHERE channel_id = ?1 ORDER BY id DESC LIMIT ?2)
               WHERE role = 'user' GROUP BY sender_id ORDER BY newest DESC LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![conversation.as_str(), PARTICIPANT_LINES, limit], |row| {
        Ok(Participant { id: row.get(0)?, name: row.get(1)?, last: Timestamp(row.get(2)?) })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Where a conversation takes place; none when nothing was said in it yet.
///
/// # Errors
/// The database cannot be read.
pub fn place(connection: &Connection, conversation: &ConversationId) -> Result<Option<Place>, DbError> {
    if let Some(thread) = Place::thread_of(conversation) {
        return Ok(Some(Place::of_thread(thread)));
    }
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
    now: Timestamp,
) -> Result<(), DbError> {
    let sql =
        "INSERT INTO channels (id, platform, instance, display_name, direct, created_at, last_activity_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
               ON CONFLICT (id) DO UPDATE SET last_activity_at = ?6";
    let (conversation, instance) = (place.conversation.as_str(), place.instance.as_str());
    connection.prepare_cached(sql)?.execute(params![
        conversation,
        place.instance.platform(),
        instance,
        place.name,
        place.direct,
        now.0
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
