//! The window of a conversation in the database: where it starts, what stands in front of it, and the
//! changes of both. Each change raises the generation of the channel and is refused when that has
//! moved since it was read.

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension, Row, params};
use crate::id::ConversationId;
use crate::text::CHARACTERS_PER_TOKEN;

use super::archive;
use super::compaction::{InPlace, Leaving};
use super::history::{Role, tokens};

/// Most lines of a window that are weighed at once. The window never gets near: it is bounded by
/// `history_messages`, and what a silent channel has gathered leaves it in steps.
const WEIGHED_MAX: usize = 20_000;
/// Summaries that one conversation can have in front of its window; tiers keep them far below.
const SUMMARIES_MAX: usize = 256;
/// What the fence around a summary adds to it for the estimate of tokens (`turn::write`).
const FENCE_CHARACTERS: usize = 92;
/// The same for one whose text is a sentence of ours.
const MARKER_CHARACTERS: usize = FENCE_CHARACTERS + 160;

/// Stands for lines that have left the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub id: i64,
    /// 1: of lines, n + 1: of summaries of tier n.
    pub tier: u32,
    pub first_line: i64,
    pub last_line: i64,
    pub lines: u64,
    pub from: Timestamp,
    pub to: Timestamp,
    /// None: the lines left without a summary.
    pub text: Option<String>,
    /// A summary may still follow.
    pub awaited: bool,
}

impl Summary {
    /// Estimate of what it takes in a prompt.
    pub fn tokens(&self) -> usize {
        let characters =
            self.text.as_ref().map_or(MARKER_CHARACTERS, |text| FENCE_CHARACTERS + text.chars().count());
        characters.div_ceil(CHARACTERS_PER_TOKEN)
    }
}

/// A line of the window, weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight {
    pub id: i64,
    pub role: Role,
    pub tokens: usize,
}

/// What a decision about a window is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    pub generation: i64,
    pub summaries: Vec<Summary>,
    /// Oldest first.
    pub lines: Vec<Weight>,
}

/// Where a window starts, and how often that and its summaries have changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) start: i64,
    pub(super) generation: i64,
}

pub(super) fn state(connection: &Connection, conversation: &ConversationId) -> Result<State, DbError> {
    let state = connection
        .prepare_cached("SELECT window_start, generation FROM channels WHERE id = ?1")?
        .query_row([conversation.as_str()], |row| Ok(State { start: row.get(0)?, generation: row.get(1)? }))
        .optional()?;
    Ok(state.unwrap_or_default())
}

const COLUMNS: &str = "id, tier, first_line, last_line, lines, first_at, last_at, content, awaited";

fn summary(row: &Row<'_>) -> Result<Summary, crate::db::rusqlite::Error> {
    Ok(Summary {
        id: row.get(0)?,
        tier: row.get(1)?,
        first_line: row.get(2)?,
        last_line: row.get(3)?,
        lines: row.get(4)?,
        from: Timestamp(row.get(5)?),
        to: Timestamp(row.get(6)?),
        text: row.get(7)?,
        awaited: row.get(8)?,
    })
}

/// Those that stand in front of the window, oldest first.
pub(super) fn summaries(
    connection: &Connection,
    conversation: &ConversationId,
) -> Result<Vec<Summary>, DbError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM conversation_summaries
         WHERE channel_id = ?1 AND replaced_by IS NULL ORDER BY first_line LIMIT ?2"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![conversation.as_str(), SUMMARIES_MAX], summary)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// These, oldest first, also when others stand in their place by now.
pub(super) fn summaries_of(connection: &Connection, ids: &[i64]) -> Result<Vec<Summary>, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM conversation_summaries WHERE id = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        found.extend(statement.query_row([id], summary).optional()?);
    }
    found.sort_by_key(|summary| summary.first_line);
    Ok(found)
}

pub(super) fn window(connection: &Connection, conversation: &ConversationId) -> Result<Window, DbError> {
    let State { start, generation } = state(connection, conversation)?;
    let sql = "SELECT id, role, length(content), coalesce(length(sender_name), 0) FROM conversation_messages
               WHERE channel_id = ?1 AND id >= ?2 ORDER BY id LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![conversation.as_str(), start, WEIGHED_MAX], |row| {
        let role = Role::parse(row.get_ref(1)?.as_str()?);
        Ok(Weight { id: row.get(0)?, role, tokens: tokens(role, row.get(2)?, row.get(3)?) })
    })?;
    let lines = rows.collect::<Result<_, _>>()?;
    Ok(Window { generation, summaries: summaries(connection, conversation)?, lines })
}

/// Puts `in_place` where the leaving lines stood, and keeps these in the archive. False, and nothing is
/// changed, when the window is not the one that they were read from.
pub(super) fn swap(
    connection: &Connection,
    conversation: &ConversationId,
    leaving: &Leaving,
    in_place: &InPlace,
    unread: bool,
    now: Timestamp,
) -> Result<bool, DbError> {
    let State { start, generation } = state(connection, conversation)?;
    let (Some(first), Some(last)) = (leaving.lines.first(), leaving.lines.last()) else { return Ok(false) };
    if generation != leaving.generation || !all_there(connection, conversation, start, leaving)? {
        return Ok(false);
    }
    for packed in &leaving.packed {
        archive::insert(connection, conversation, packed, unread, now)?;
    }
    let (text, awaited) = match in_place {
        InPlace::Summary(text) => (Some(text.clone()), false),
        InPlace::Marker { awaited } => (None, *awaited),
    };
    let mut new = Summary {
        id: 0,
        tier: 1,
        first_line: first.id,
        last_line: last.id,
        lines: leaving.lines.len() as u64,
        from: first.at,
        to: last.at,
        text,
        awaited,
    };
    let mut replaced = Vec::new();
    if *in_place == (InPlace::Marker { awaited: false })
        && let Some(before) = summaries(connection, conversation)?.pop()
        && before.text.is_none()
        && !before.awaited
    {
        // One marker for all that no summary will follow for.
        (new.first_line, new.from, new.lines) = (before.first_line, before.from, before.lines + new.lines);
        replaced.push(before.id);
    }
    insert(connection, conversation, &new, &replaced, now)?;
    let next = last.id + 1;
    let sql = "UPDATE channels SET window_start = ?2, generation = generation + 1 WHERE id = ?1";
    connection.prepare_cached(sql)?.execute(params![conversation.as_str(), next])?;
    Ok(true)
}

/// Whether the leaving lines are the oldest of the window, without a gap.
fn all_there(
    connection: &Connection,
    conversation: &ConversationId,
    start: i64,
    leaving: &Leaving,
) -> Result<bool, DbError> {
    let Some(last) = leaving.lines.last() else { return Ok(false) };
    let sql = "SELECT count(*) FROM conversation_messages WHERE channel_id = ?1 AND id >= ?2 AND id <= ?3";
    let count: usize = connection
        .prepare_cached(sql)?
        .query_row(params![conversation.as_str(), start, last.id], |row| row.get(0))?;
    Ok(count == leaving.lines.len())
}

/// Gives a marker the summary that was awaited. False when it has one, or the window has moved.
pub(super) fn fill(
    connection: &Connection,
    conversation: &ConversationId,
    generation: i64,
    summary: i64,
    text: &str,
) -> Result<bool, DbError> {
    if state(connection, conversation)?.generation != generation {
        return Ok(false);
    }
    let sql = "UPDATE conversation_summaries SET content = ?3, awaited = 0
               WHERE id = ?1 AND channel_id = ?2 AND content IS NULL AND replaced_by IS NULL";
    let changed = connection.prepare_cached(sql)?.execute(params![summary, conversation.as_str(), text])?;
    if changed == 1 {
        raise(connection, conversation)?;
    }
    Ok(changed == 1)
}

/// Puts one summary of the next tier in the place of several.
pub(super) fn roll(
    connection: &Connection,
    conversation: &ConversationId,
    generation: i64,
    several: &[i64],
    text: &str,
    now: Timestamp,
) -> Result<bool, DbError> {
    if state(connection, conversation)?.generation != generation {
        return Ok(false);
    }
    let all = summaries(connection, conversation)?;
    let found: Vec<&Summary> = all.iter().filter(|summary| several.contains(&summary.id)).collect();
    let (Some(first), Some(last)) = (found.first(), found.last()) else { return Ok(false) };
    if found.len() != several.len() {
        return Ok(false);
    }
    let new = Summary {
        id: 0,
        tier: found.iter().map(|summary| summary.tier).max().unwrap_or(1) + 1,
        first_line: first.first_line,
        last_line: last.last_line,
        lines: found.iter().map(|summary| summary.lines).sum(),
        from: first.from,
        to: last.to,
        text: Some(text.to_owned()),
        awaited: false,
    };
    insert(connection, conversation, &new, several, now)?;
    raise(connection, conversation)?;
    Ok(true)
}

fn raise(connection: &Connection, conversation: &ConversationId) -> Result<(), DbError> {
    let sql = "UPDATE channels SET generation = generation + 1 WHERE id = ?1";
    connection.prepare_cached(sql)?.execute([conversation.as_str()])?;
    Ok(())
}

fn insert(
    connection: &Connection,
    conversation: &ConversationId,
    new: &Summary,
    replaced: &[i64],
    now: Timestamp,
) -> Result<(), DbError> {
    let sql = "INSERT INTO conversation_summaries
                   (channel_id, tier, first_line, last_line, lines, first_at, last_at, content, awaited, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    connection.prepare_cached(sql)?.execute(params![
        conversation.as_str(),
        new.tier,
        new.first_line,
        new.last_line,
        new.lines,
        new.from.0,
        new.to.0,
        new.text,
        new.awaited,
        now.0
    ])?;
    let id = connection.last_insert_rowid();
    let sql = "UPDATE conversation_summaries SET replaced_by = ?2 WHERE id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    for old in replaced {
        statement.execute(params![old, id])?;
    }
    Ok(())
}
