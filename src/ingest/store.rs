//! The SQL of the tables `ingestion_files` and `ingestion_progress`.

use std::str::FromStr;

use super::Chunk;
use super::folder::Version;
use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{self, Connection, OptionalExtension, Row, params};

/// Key of a file that could not be taken and has no hash.
const LEFT: &str = "left:";

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Processing,
    /// Every chunk is in.
    Completed,
    /// One chunk could not be read; the file is kept.
    Failed,
    /// It left the folder before all of it was in.
    Removed,
    /// It cannot be taken and is kept.
    Left,
}

impl Status {
    const ALL: [Status; 5] =
        [Status::Processing, Status::Completed, Status::Failed, Status::Removed, Status::Left];

    pub fn as_str(self) -> &'static str {
        match self {
            Status::Processing => "processing",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Removed => "removed",
            Status::Left => "left",
        }
    }
}

impl FromStr for Status {
    type Err = DbError;

    fn from_str(text: &str) -> Result<Self, DbError> {
        let found = Self::ALL.into_iter().find(|status| status.as_str() == text);
        found.ok_or_else(|| DbError::Corrupt(format!("{text:?} is no status of a file")))
    }
}

/// One row with what is known of its chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestedFile {
    /// SHA-256 in hex; `left:<name>` for a file without.
    pub hash: String,
    pub name: String,
    pub version: Version,
    pub status: Status,
    /// Why it failed or was left.
    pub reason: Option<String>,
    pub chunk_size: usize,
    pub total_chunks: usize,
    pub text_bytes: u64,
    pub next_offset: u64,
    /// Of the chunk at `next_offset`.
    pub failures: usize,
    pub done_chunks: usize,
    pub memories: usize,
    pub started_at: Timestamp,
    pub completed_at: Option<Timestamp>,
}

const SELECT: &str =
    "SELECT content_hash, filename, file_size, modified_ns, status, reason, chunk_size, total_chunks,
        text_bytes, next_offset, failures, started_at, completed_at,
        (SELECT count(*) FROM ingestion_progress AS p WHERE p.content_hash = f.content_hash),
        (SELECT coalesce(sum(memories), 0) FROM ingestion_progress AS p WHERE p.content_hash = f.content_hash)
    FROM ingestion_files AS f";

fn row_of(row: &Row<'_>) -> rusqlite::Result<IngestedFile> {
    let status = row.get_ref(4)?.as_str()?.parse().map_err(|error: DbError| {
        rusqlite::Error::FromSqlConversionFailure(4, rusqlite::types::Type::Text, Box::new(error))
    })?;
    Ok(IngestedFile {
        hash: row.get(0)?,
        name: row.get(1)?,
        version: Version { size: row.get(2)?, modified_ns: row.get(3)? },
        status,
        reason: row.get(5)?,
        chunk_size: row.get(6)?,
        total_chunks: row.get(7)?,
        text_bytes: row.get(8)?,
        next_offset: row.get(9)?,
        failures: row.get(10)?,
        started_at: Timestamp(row.get(11)?),
        completed_at: row.get::<_, Option<i64>>(12)?.map(Timestamp),
        done_chunks: row.get(13)?,
        memories: row.get(14)?,
    })
}

pub(super) fn file(connection: &Connection, hash: &str) -> Result<Option<IngestedFile>, DbError> {
    let sql = format!("{SELECT} WHERE content_hash = ?1");
    Ok(connection.prepare_cached(&sql)?.query_row([hash], row_of).optional()?)
}

pub(super) fn files(connection: &Connection) -> Result<Vec<IngestedFile>, DbError> {
    let mut statement = connection.prepare(&format!("{SELECT} ORDER BY started_at, content_hash"))?;
    Ok(statement.query_map([], row_of)?.collect::<Result<_, _>>()?)
}

/// A file whose text is ready; one that was there before goes on from where it was.
pub(super) fn begin(connection: &Connection, file: &IngestedFile) -> Result<(), DbError> {
    let sql = "INSERT INTO ingestion_files
            (content_hash, filename, file_size, modified_ns, chunk_size, total_chunks, text_bytes, started_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
        ON CONFLICT (content_hash) DO UPDATE SET filename = ?2, file_size = ?3, modified_ns = ?4, text_bytes = ?7,
            total_chunks = ?6, status = 'processing', reason = NULL, failures = 0, completed_at = NULL";
    connection.prepare_cached(sql)?.execute(params![
        file.hash,
        file.name,
        file.version.size,
        file.version.modified_ns,
        file.chunk_size,
        file.total_chunks,
        file.text_bytes,
        file.started_at.0,
    ])?;
    forget_left(connection, &file.name)
}

/// Notes that a file cannot be taken as it is.
pub(super) fn leave(
    connection: &Connection,
    name: &str,
    version: Version,
    reason: &str,
    now: Timestamp,
) -> Result<(), DbError> {
    let sql = "INSERT OR REPLACE INTO ingestion_files
        (content_hash, filename, file_size, modified_ns, status, reason, started_at, completed_at)
        VALUES (?1, ?2, ?3, ?4, 'left', ?5, ?6, ?6)";
    let values = params![format!("{LEFT}{name}"), name, version.size, version.modified_ns, reason, now.0];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// The file that could not be taken is gone or has become another.
pub(super) fn forget_left(connection: &Connection, name: &str) -> Result<(), DbError> {
    let sql = "DELETE FROM ingestion_files WHERE content_hash = ?1";
    connection.prepare_cached(sql)?.execute([format!("{LEFT}{name}")])?;
    Ok(())
}

pub(super) fn set_status(
    connection: &Connection,
    hash: &str,
    status: Status,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<(), DbError> {
    let sql =
        "UPDATE ingestion_files SET status = ?2, reason = ?3, completed_at = ?4 WHERE content_hash = ?1";
    connection.prepare_cached(sql)?.execute(params![hash, status.as_str(), reason, now.0])?;
    Ok(())
}

/// Counts a failed try; the last one ends the file.
pub(super) fn fail(
    connection: &Connection,
    hash: &str,
    reason: &str,
    over: bool,
    now: Timestamp,
) -> Result<(), DbError> {
    let sql = "UPDATE ingestion_files SET failures = failures + 1, reason = ?2 WHERE content_hash = ?1";
    connection.prepare_cached(sql)?.execute(params![hash, reason])?;
    if over {
        set_status(connection, hash, Status::Failed, Some(reason), now)?;
    }
    Ok(())
}

pub(super) fn finish_chunk(
    connection: &Connection,
    chunk: &Chunk,
    memories: usize,
    now: Timestamp,
) -> Result<(), DbError> {
    let sql = "UPDATE ingestion_files SET next_offset = ?3, failures = 0, reason = NULL,
            status = CASE WHEN ?3 >= text_bytes THEN 'completed' ELSE status END,
            completed_at = CASE WHEN ?3 >= text_bytes THEN ?4 END
        WHERE content_hash = ?1 AND next_offset = ?2 AND status = 'processing'";
    let changed =
        connection.prepare_cached(sql)?.execute(params![chunk.hash, chunk.from, chunk.to, now.0])?;
    if changed != 1 {
        return Err(DbError::Refused(format!("chunk {} is in already", chunk.index + 1)));
    }
    let sql = "INSERT INTO ingestion_progress (content_hash, chunk_index, memories, completed_at)
        VALUES (?1, ?2, ?3, ?4)";
    connection.prepare_cached(sql)?.execute(params![chunk.hash, chunk.index, memories, now.0])?;
    Ok(())
}
