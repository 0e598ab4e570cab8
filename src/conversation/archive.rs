//! The exact words of lines that have left the window: compressed, and found again. For a while they stand
//! in `conversation_messages` too; whoever reads old lines gets them from either place without noticing.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, params};
use crate::id::ConversationId;

use super::compaction::Unread;
use super::history::{self, Line, Role};

/// Most plain bytes of one archive; more lines make more archives. Bounds what reading one needs.
const PACK_BYTES_MAX: usize = 4 << 20;
/// One archive holds at least one line, however long: the most that is unpacked.
const UNPACK_BYTES_MAX: u64 = 64 << 20;
/// Lines in `conversation_messages` that one search looks at, and archives that it unpacks. Behind that it
/// says where to go on.
const SEARCH_LINES_MAX: usize = 20_000;
const SEARCH_ARCHIVES_MAX: usize = 64;
/// Archives whose plain lines one pass deletes: some milliseconds of the writing thread.
const FORGET_MAX: usize = 16;
/// Tries to take memories from an archive.
const TRIES_MAX: u32 = 3;

/// Lines as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) first_line: i64,
    pub(super) last_line: i64,
    pub(super) lines: usize,
    pub(super) body: Vec<u8>,
}

/// One line of a body.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    id: i64,
    role: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sender: Option<String>,
    at: i64,
    text: String,
}

impl Written {
    fn into_line(self) -> Line {
        Line {
            id: self.id,
            role: Role::parse(&self.role),
            sender_name: self.name,
            content: self.text,
            at: Timestamp(self.at),
        }
    }
}

/// The oldest `count` lines from `start` on, and the same packed.
pub(super) fn leaving(
    connection: &Connection,
    conversation: &ConversationId,
    start: i64,
    count: usize,
) -> Result<(Vec<Line>, Vec<Packed>), DbError> {
    let sql = "SELECT id, role, sender_name, content, created_at, sender_id FROM conversation_messages
               WHERE channel_id = ?1 AND id >= ?2 ORDER BY id LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![conversation.as_str(), start, count], |row| {
        Ok((history::line(row)?, row.get::<_, Option<String>>(5)?))
    })?;
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    let packed = pack(&rows)?;
    Ok((rows.into_iter().map(|(line, _)| line).collect(), packed))
}

fn pack(rows: &[(Line, Option<String>)]) -> Result<Vec<Packed>, DbError> {
    let mut packed = Vec::new();
    let mut rest = rows;
    while !rest.is_empty() {
        let mut plain = Vec::new();
        let mut count = 0;
        while count < rest.len() && (count == 0 || plain.len() < PACK_BYTES_MAX) {
            let (line, sender) = &rest[count];
            let written = Written {
                id: line.id,
                role: line.role.as_str().to_owned(),
                name: line.sender_name.clone(),
                sender: sender.clone(),
                at: line.at.0,
                text: line.content.clone(),
            };
            serde_json::to_writer(&mut plain, &written).map_err(|error| damaged(&error.to_string()))?;
            plain.push(b'\n');
            count += 1;
        }
        let (these, others) = rest.split_at(count);
        packed.push(Packed {
            first_line: these[0].0.id,
            last_line: these[count - 1].0.id,
            lines: count,
            body: compress(&plain)?,
        });
        rest = others;
    }
    Ok(packed)
}

fn compress(plain: &[u8]) -> Result<Vec<u8>, DbError> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).and_then(|()| encoder.finish()).map_err(|error| damaged(&error.to_string()))
}

fn unpack(body: &[u8]) -> Result<Vec<Line>, DbError> {
    let mut plain = String::new();
    ZlibDecoder::new(body)
        .take(UNPACK_BYTES_MAX)
        .read_to_string(&mut plain)
        .map_err(|error| damaged(&error.to_string()))?;
    let line = |text: &str| serde_json::from_str(text).map(Written::into_line);
    plain.lines().map(line).collect::<Result<_, _>>().map_err(|error| damaged(&error.to_string()))
}

fn damaged(reason: &str) -> DbError {
    DbError::Corrupt(format!("an archive of a conversation: {reason}"))
}

pub(super) fn insert(
    connection: &Connection,
    conversation: &ConversationId,
    packed: &Packed,
    unread: bool,
    now: Timestamp,
) -> Result<(), DbError> {
    let sql = "INSERT INTO conversation_archives (channel_id, first_line, last_line, lines, body, unread, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    connection.prepare_cached(sql)?.execute(params![
        conversation.as_str(),
        packed.first_line,
        packed.last_line,
        packed.lines,
        packed.body,
        unread,
        now.0
    ])?;
    Ok(())
}

/// Lines of a conversation before a line, newest first, from both places.
pub(super) struct Search<'a> {
    pub(super) conversation: &'a ConversationId,
    /// Only lines with a smaller id.
    pub(super) before: i64,
    pub(super) limit: usize,
    pub(super) matches: &'a dyn Fn(&Line) -> bool,
}

/// What a search found, oldest first.
#[derive(Debug, Default)]
pub struct Found {
    pub lines: Vec<Line>,
    /// There may be more before this line.
    pub earlier: Option<i64>,
}

impl Search<'_> {
    pub(super) fn run(&self, connection: &Connection) -> Result<Found, DbError> {
        let (mut lines, mut looked_to) = self.plain(connection)?;
        let mut statement = connection.prepare_cached(
            "SELECT last_line, body FROM conversation_archives
             WHERE channel_id = ?1 AND first_line < ?2 AND plain = 0 ORDER BY last_line DESC",
        )?;
        let mut rows = statement.query(params![self.conversation.as_str(), self.before])?;
        let mut unpacked = 0;
        while let Some(row) = rows.next()? {
            let last: i64 = row.get(0)?;
            if lines.get(self.limit).is_some_and(|line: &Line| line.id > last) {
                break;
            }
            if unpacked == SEARCH_ARCHIVES_MAX {
                looked_to = Some(looked_to.unwrap_or(i64::MIN).max(last + 1));
                break;
            }
            unpacked += 1;
            let body = row.get_ref(1)?.as_blob().map_err(|error| damaged(&error.to_string()))?;
            let wanted = |line: &Line| line.id < self.before && (self.matches)(line);
            lines.extend(unpack(body)?.into_iter().filter(wanted));
            lines.sort_by_key(|line| std::cmp::Reverse(line.id));
        }
        lines.retain(|line| looked_to.is_none_or(|to| line.id >= to));
        let more = lines.len() > self.limit;
        lines.truncate(self.limit);
        let earlier = if more { lines.last().map(|line| line.id) } else { looked_to };
        lines.reverse();
        Ok(Found { lines, earlier })
    }

    /// From `conversation_messages`, newest first, one more than wanted if there are more; and the line
    /// where the search was given up, if it was.
    fn plain(&self, connection: &Connection) -> Result<(Vec<Line>, Option<i64>), DbError> {
        let sql = "SELECT id, role, sender_name, content, created_at FROM conversation_messages
                   WHERE channel_id = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![self.conversation.as_str(), self.before, SEARCH_LINES_MAX])?;
        let (mut lines, mut looked, mut last) = (Vec::new(), 0, None);
        while lines.len() <= self.limit
            && let Some(row) = rows.next()?
        {
            let line = history::line(row)?;
            (looked, last) = (looked + 1, Some(line.id));
            if (self.matches)(&line) {
                lines.push(line);
            }
        }
        Ok((lines, last.filter(|_| looked == SEARCH_LINES_MAX)))
    }
}

/// The lines from `first` to `last`, both included, from both places.
pub(super) fn between(
    connection: &Connection,
    conversation: &ConversationId,
    first: i64,
    last: i64,
) -> Result<Vec<Line>, DbError> {
    let sql = "SELECT id, role, sender_name, content, created_at FROM conversation_messages
               WHERE channel_id = ?1 AND id BETWEEN ?2 AND ?3 ORDER BY id";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![conversation.as_str(), first, last], history::line)?;
    let mut lines: Vec<Line> = rows.collect::<Result<_, _>>()?;
    let sql = "SELECT body FROM conversation_archives
               WHERE channel_id = ?1 AND last_line >= ?2 AND first_line <= ?3 AND plain = 0 ORDER BY last_line";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![conversation.as_str(), first, last])?;
    while let Some(row) = rows.next()? {
        let body = row.get_ref(0)?.as_blob().map_err(|error| damaged(&error.to_string()))?;
        lines.extend(unpack(body)?.into_iter().filter(|line| (first..=last).contains(&line.id)));
    }
    lines.sort_by_key(|line| line.id);
    Ok(lines)
}

/// The oldest archive of a conversation that memories are still to be taken from.
pub(super) fn unread(
    connection: &Connection,
    conversation: &ConversationId,
) -> Result<Option<Unread>, DbError> {
    let sql = "SELECT id, body FROM conversation_archives
               WHERE channel_id = ?1 AND unread = 1 ORDER BY id LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([conversation.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let body = row.get_ref(1)?.as_blob().map_err(|error| damaged(&error.to_string()))?;
    Ok(Some(Unread { archive: row.get(0)?, lines: unpack(body)? }))
}

pub(super) fn any_unread(connection: &Connection, conversation: &ConversationId) -> Result<bool, DbError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM conversation_archives WHERE channel_id = ?1 AND unread = 1)";
    Ok(connection.prepare_cached(sql)?.query_row([conversation.as_str()], |row| row.get(0))?)
}

/// Memories were taken from an archive, or the try failed: then it stays for another one, a few times.
///
/// # Errors
/// Nothing is stored.
pub fn read(connection: &Connection, archive: i64, taken: bool) -> Result<(), DbError> {
    let sql = "UPDATE conversation_archives
               SET tries = tries + (?2 = 0), unread = CASE WHEN ?2 OR tries + 1 >= ?3 THEN 0 ELSE 1 END
               WHERE id = ?1";
    connection.prepare_cached(sql)?.execute(params![archive, taken, TRIES_MAX])?;
    Ok(())
}

/// Deletes the plain copies of lines that were archived before `before`, once the archive has been seen
/// to give all of them back. The newest line of all stays: new ids count on from it.
pub(super) fn forget_plain(connection: &Connection, before: Timestamp) -> Result<usize, DbError> {
    let sql = "SELECT id, channel_id, first_line, last_line, lines, body FROM conversation_archives
               WHERE plain = 1 AND created_at < ?1
                   AND last_line < (SELECT max(id) FROM conversation_messages) ORDER BY id LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![before.0, FORGET_MAX])?;
    let mut deleted = 0;
    while let Some(row) = rows.next()? {
        let (archive, channel): (i64, String) = (row.get(0)?, row.get(1)?);
        let (first, last): (i64, i64) = (row.get(2)?, row.get(3)?);
        let lines: usize = row.get(4)?;
        let body = row.get_ref(5)?.as_blob().map_err(|error| damaged(&error.to_string()))?;
        if unpack(body).map(|unpacked| unpacked.len()).ok() != Some(lines) {
            log::error!("archive {archive} of {channel} cannot be read; its lines stay in the history too");
            continue;
        }
        let sql = "DELETE FROM conversation_messages WHERE channel_id = ?1 AND id BETWEEN ?2 AND ?3";
        deleted += connection.prepare_cached(sql)?.execute(params![channel, first, last])?;
        let sql = "UPDATE conversation_archives SET plain = 0 WHERE id = ?1";
        connection.prepare_cached(sql)?.execute([archive])?;
    }
    Ok(deleted)
}
