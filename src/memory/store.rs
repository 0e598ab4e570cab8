//! The SQL of the tables `memories` and `associations`.
//!
//! `change_seq` is handed out inside the write transaction, and SQLite lets one transaction write at a
//! time: a reader that sees a number sees all lower ones. The indexes rely on that. (The next number is
//! the highest one plus one; whoever deletes rows for good must keep the highest one somewhere first.)

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::record::{Association, Memory, MemoryType, NewAssociation, Sort, Source};
use crate::clock::Timestamp;
use crate::db::{DbError, rusqlite};

const COLUMNS: &str = "id, content, memory_type, importance, created_at, updated_at, last_accessed_at, \
                       access_count, source, channel_id, forgotten, change_seq";

/// An id that sorts by the time of its memory.
pub(super) fn new_id(created_at: Timestamp) -> String {
    let seconds = u64::try_from(created_at.0.div_euclid(1000)).unwrap_or(0);
    let nanoseconds = u32::try_from(created_at.0.rem_euclid(1000)).unwrap_or(0) * 1_000_000;
    Uuid::new_v7(uuid::Timestamp::from_unix_time(seconds, nanoseconds, 0, 0)).to_string()
}

/// Stores the memory with its associations and returns its `change_seq`.
pub(super) fn insert(
    connection: &Connection,
    memory: &Memory,
    associations: &[NewAssociation],
) -> Result<i64, DbError> {
    let change = next_change(connection)?;
    connection
        .prepare_cached(
            "INSERT INTO memories (id, content, memory_type, importance, created_at, updated_at,
                 last_accessed_at, access_count, source, channel_id, forgotten, change_seq)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?9, 0, ?10)",
        )?
        .execute(params![
            memory.id,
            memory.content,
            memory.memory_type.as_str(),
            memory.importance,
            memory.created_at.0,
            memory.updated_at.0,
            memory.last_accessed_at.0,
            memory.source.as_ref().map(Source::to_string),
            memory.channel_id,
            change,
        ])?;
    for association in associations {
        insert_association(connection, &memory.id, association, memory.updated_at)?;
    }
    Ok(change)
}

/// False when a line with this key was imported before.
pub(super) fn import(connection: &Connection, key: i64, memory: &Memory) -> Result<bool, DbError> {
    let sql = "INSERT INTO memory_imports (key) VALUES (?1) ON CONFLICT DO NOTHING";
    if connection.prepare_cached(sql)?.execute([key])? == 0 {
        return Ok(false);
    }
    insert(connection, memory, &[]).map(|_| true)
}

fn insert_association(
    connection: &Connection,
    source_id: &str,
    association: &NewAssociation,
    now: Timestamp,
) -> Result<(), DbError> {
    let live = connection
        .prepare_cached("SELECT 1 FROM memories WHERE id = ?1 AND forgotten = 0")?
        .exists([&association.target_id])?;
    if !live {
        return Err(DbError::NotFound(association.target_id.clone()));
    }
    connection
        .prepare_cached(
            "INSERT INTO associations (id, source_id, target_id, relation_type, weight, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (source_id, target_id, relation_type) DO UPDATE SET weight = excluded.weight",
        )?
        .execute(params![
            new_id(now),
            source_id,
            association.target_id,
            association.relation_type.as_str(),
            association.weight,
            now.0,
        ])?;
    Ok(())
}

/// True when the memory was there and is now forgotten.
pub(super) fn forget(
    connection: &Connection,
    id: &str,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<bool, DbError> {
    let change = next_change(connection)?;
    let changed = connection
        .prepare_cached(
            "UPDATE memories SET forgotten = 1, forget_reason = ?2, updated_at = ?3, change_seq = ?4
             WHERE id = ?1 AND forgotten = 0",
        )?
        .execute(params![id, reason, now.0, change])?;
    Ok(changed == 1)
}

/// Counts one access for each id. No change for the indexes: nothing they hold is different.
pub(super) fn touch(connection: &Connection, ids: &str, now: Timestamp) -> Result<(), DbError> {
    connection
        .prepare_cached(
            "UPDATE memories SET access_count = access_count + 1, last_accessed_at = ?2
             WHERE id IN (SELECT value FROM json_each(?1))",
        )?
        .execute(params![ids, now.0])?;
    Ok(())
}

/// A JSON list, as [`touch`] and [`load`] take it.
pub(super) fn id_list<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    serde_json::Value::from_iter(ids).to_string()
}

fn next_change(connection: &Connection) -> Result<i64, DbError> {
    Ok(last_change(connection)? + 1)
}

/// The highest `change_seq`, 0 for an empty table.
pub(super) fn last_change(connection: &Connection) -> Result<i64, DbError> {
    Ok(connection
        .prepare_cached("SELECT COALESCE(MAX(change_seq), 0) FROM memories")?
        .query_row([], |row| row.get(0))?)
}

pub(super) fn change_of(connection: &Connection, id: &str) -> Result<Option<i64>, DbError> {
    Ok(connection
        .prepare_cached("SELECT change_seq FROM memories WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?)
}

/// Rows and bytes of content above `after`, counted up to `rows_max` rows.
pub(super) fn pending(connection: &Connection, after: i64, rows_max: usize) -> Result<(u64, u64), DbError> {
    Ok(connection
        .prepare_cached(
            "SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM (
                 SELECT octet_length(content) AS bytes FROM memories WHERE change_seq > ?1 LIMIT ?2)",
        )?
        .query_row(params![after, count(rows_max)], |row| {
            Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()))
        })?)
}

/// Changed rows, forgotten ones too, with `after < change_seq <= through`, oldest change first.
pub(super) fn changes(
    connection: &Connection,
    after: i64,
    through: i64,
    limit: usize,
) -> Result<Vec<Memory>, DbError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM memories WHERE change_seq > ?1 AND change_seq <= ?2
         ORDER BY change_seq LIMIT ?3"
    ))?;
    let rows = statement.query_map(params![after, through, count(limit)], memory_of)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Hands rows changed after `after` to `take`, newest change first, until it has enough.
pub(super) fn newest_changes(
    connection: &Connection,
    after: i64,
    mut take: impl FnMut(Memory) -> bool,
) -> Result<(), DbError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM memories WHERE change_seq > ?1 ORDER BY change_seq DESC"
    ))?;
    let mut rows = statement.query([after])?;
    while let Some(row) = rows.next()? {
        if !take(memory_of(row)?) {
            break;
        }
    }
    Ok(())
}

pub(super) fn get(connection: &Connection, id: &str) -> Result<Option<Memory>, DbError> {
    Ok(connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM memories WHERE id = ?1"))?
        .query_row([id], memory_of)
        .optional()?)
}

/// The memories among `ids` that are not forgotten, as often and in the order in which they are named.
pub(super) fn load(connection: &Connection, ids: &str) -> Result<Vec<Memory>, DbError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM (SELECT value AS wanted FROM json_each(?1))
             CROSS JOIN memories ON id = wanted WHERE forgotten = 0"
    ))?;
    let rows = statement.query_map([ids], memory_of)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn list(
    connection: &Connection,
    sort: Sort,
    memory_type: Option<MemoryType>,
    limit: usize,
    skip: usize,
) -> Result<Vec<Memory>, DbError> {
    let order = match sort {
        Sort::Recent => "created_at DESC, change_seq DESC",
        Sort::Importance => "importance DESC, created_at DESC",
        Sort::MostAccessed => "access_count DESC, last_accessed_at DESC, change_seq DESC",
    };
    // Two statements, because `type = ?1 OR ?1 IS NULL` would keep SQLite from using an index.
    let filter = if memory_type.is_some() { "AND memory_type = ?3" } else { "" };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM memories WHERE forgotten = 0 {filter} ORDER BY {order} LIMIT ?1 OFFSET ?2"
    ))?;
    let rows = match memory_type {
        Some(memory_type) => {
            statement.query_map(params![count(limit), count(skip), memory_type.as_str()], memory_of)?
        }
        None => statement.query_map(params![count(limit), count(skip)], memory_of)?,
    };
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The newest memories of a span of time, the end not included.
pub(super) fn within(
    connection: &Connection,
    from: Timestamp,
    to: Timestamp,
    memory_type: Option<&str>,
    limit: usize,
) -> Result<Vec<Memory>, DbError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM memories WHERE forgotten = 0 AND created_at >= ?1 AND created_at < ?2
         AND (?3 IS NULL OR memory_type = ?3) ORDER BY created_at DESC LIMIT ?4"
    ))?;
    let rows = statement.query_map(params![from.0, to.0, memory_type, count(limit)], memory_of)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Live memories with a base importance below `highest` that were created before `before`.
pub(super) fn below(
    connection: &Connection,
    highest: f64,
    before: Timestamp,
    limit: usize,
) -> Result<Vec<Memory>, DbError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM memories WHERE forgotten = 0 AND memory_type <> 'identity'
         AND importance < ?1 AND created_at < ?2 LIMIT ?3"
    ))?;
    let rows = statement.query_map(params![highest, before.0, count(limit)], memory_of)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Memories that were forgotten for this reason before `before`. Never the one with the highest change:
/// the numbers go on from it.
pub(super) fn forgotten_for(
    connection: &Connection,
    reason: &str,
    before: Timestamp,
    limit: usize,
) -> Result<Vec<Memory>, DbError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM memories WHERE forgotten = 1 AND forget_reason = ?1 AND updated_at < ?2
         AND change_seq < (SELECT max(change_seq) FROM memories) LIMIT ?3"
    ))?;
    let rows = statement.query_map(params![reason, before.0, count(limit)], memory_of)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Ties two memories, unless they are tied by this relation already.
pub(super) fn tie(
    connection: &Connection,
    source_id: &str,
    target_id: &str,
    relation: &str,
    weight: f64,
    now: Timestamp,
) -> Result<(), DbError> {
    connection
        .prepare_cached(
            "INSERT INTO associations (id, source_id, target_id, relation_type, weight, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (source_id, target_id, relation_type) DO NOTHING",
        )?
        .execute(params![new_id(now), source_id, target_id, relation, weight, now.0])?;
    Ok(())
}

/// Associations that begin or end at this memory.
pub(super) fn associations(connection: &Connection, id: &str) -> Result<Vec<Association>, DbError> {
    let mut statement = connection.prepare_cached(
        "SELECT source_id, target_id, relation_type, weight, created_at FROM associations
         WHERE source_id = ?1 OR target_id = ?1 ORDER BY created_at, id",
    )?;
    let rows = statement.query_map([id], |row| {
        Ok(Association {
            source_id: row.get(0)?,
            target_id: row.get(1)?,
            relation_type: word(row, 2)?,
            weight: row.get(3)?,
            created_at: Timestamp(row.get(4)?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn count_forgotten(connection: &Connection) -> Result<u64, DbError> {
    let sql = "SELECT COUNT(*) FROM memories WHERE forgotten = 1";
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

/// Memories that are not forgotten.
pub(super) fn count_live(connection: &Connection) -> Result<u64, DbError> {
    // The smallest index that has one entry for each of them.
    let sql = "SELECT COUNT(*) FROM memories INDEXED BY memories_created WHERE forgotten = 0";
    Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

pub(super) fn count_associations(connection: &Connection) -> Result<u64, DbError> {
    Ok(connection.query_row("SELECT COUNT(*) FROM associations", [], |row| row.get(0))?)
}

/// How many memories of each type are not forgotten; types without any are left out.
pub(super) fn count_by_type(connection: &Connection) -> Result<Vec<(MemoryType, u64)>, DbError> {
    let mut statement = connection.prepare_cached(
        "SELECT memory_type, COUNT(*) FROM memories WHERE forgotten = 0 GROUP BY memory_type",
    )?;
    let rows = statement.query_map([], |row| Ok((word(row, 0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn memory_of(row: &Row<'_>) -> rusqlite::Result<Memory> {
    Ok(Memory {
        id: row.get(0)?,
        content: row.get(1)?,
        memory_type: word(row, 2)?,
        importance: row.get(3)?,
        created_at: Timestamp(row.get(4)?),
        updated_at: Timestamp(row.get(5)?),
        last_accessed_at: Timestamp(row.get(6)?),
        access_count: row.get::<_, i64>(7)?.unsigned_abs(),
        source: row.get::<_, Option<String>>(8)?.map(|text| Source::parse(&text)),
        channel_id: row.get(9)?,
        forgotten: row.get(10)?,
        change_seq: row.get(11)?,
    })
}

fn word<T: std::str::FromStr<Err = super::MemoryError>>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    row.get_ref(column)?.as_str()?.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::<super::MemoryError>::new(error))
    })
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
