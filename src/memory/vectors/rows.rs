//! Statements on vectors and on the ties that follow from them.

use std::collections::HashMap;

use super::BATCH;
use super::blob;
use super::source::{self, unsigned};
use crate::config::MemoryUpkeepConfig;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension, params};
use crate::memory::record::{Memory, MemoryType};
use crate::memory::{proposals, store};

/// A text that has no vector yet: id, content and number of its last change.
pub(super) type Waiting = (String, String, i64);
/// A vector to be stored: the memory's id, the change that its text is of, the numbers.
pub(super) type Made = (String, i64, Vec<f32>);

/// The memories of these vectors.
pub(super) fn ids_of(connection: &Connection, keys: &[u64]) -> Result<HashMap<u64, String>, DbError> {
    let sql = "SELECT v.key, v.memory_id FROM json_each(?1) wanted CROSS JOIN memory_vectors v ON v.key = wanted.value";
    let mut statement = connection.prepare_cached(sql)?;
    let rows =
        statement.query_map([source::key_list(keys)], |row| Ok((unsigned(row.get(0)?), row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The vectors of all memories of a type, ascending.
pub(super) fn keys_of(connection: &Connection, memory_type: MemoryType) -> Result<Vec<u64>, DbError> {
    let sql = "SELECT v.key FROM memories m INDEXED BY memories_type
                   JOIN memory_vectors v ON v.memory_id = m.id WHERE m.memory_type = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([memory_type.as_str()], |row| row.get(0))?;
    let mut keys = rows.map(|key| key.map(unsigned)).collect::<Result<Vec<u64>, _>>()?;
    keys.sort_unstable();
    Ok(keys)
}

/// `related_to`, or `updates` from the newer to the older when they say the same; what may contradict each
/// other is proposed. The weight goes from 0.5 to 1 with the cosine.
pub(super) fn tie(
    connection: &Connection,
    upkeep: &MemoryUpkeepConfig,
    (one, other, cosine): &(String, String, f64),
) -> Result<(), DbError> {
    let (Some(one), Some(other)) = (store::get(connection, one)?, store::get(connection, other)?) else {
        return Ok(());
    };
    let order = |memory: &Memory| (memory.created_at, memory.change_seq);
    let (newer, older) = if order(&one) >= order(&other) { (one, other) } else { (other, one) };
    let disagree = proposals::disagree(&newer, &older);
    if disagree {
        proposals::propose(connection, &newer, &older, *cosine)?;
    }
    // What came from outside does not take the place of somebody's word.
    let may = newer.is_trusted() || !older.is_trusted();
    let same =
        *cosine >= upkeep.merge_similarity && newer.memory_type == older.memory_type && !disagree && may;
    let relation = if same { "updates" } else { "related_to" };
    let alike = upkeep.tie_similarity;
    // Where only the same is tied, there is nothing between.
    let weight =
        if alike < 1.0 { 0.5 + 0.5 * ((cosine - alike) / (1.0 - alike)).clamp(0.0, 1.0) } else { 1.0 };
    store::tie(connection, &newer.id, &older.id, relation, weight, newer.updated_at)
}

/// A tie alone does not say so: somebody may have written that one memory takes the place of another.
pub(super) fn duplicates(
    connection: &Connection,
    least: f64,
    limit: usize,
) -> Result<Vec<(String, String)>, DbError> {
    let sql = "SELECT a.source_id, a.target_id, v.vector, w.vector FROM associations a
                   JOIN memories s ON s.id = a.source_id AND s.forgotten = 0
                   JOIN memories t ON t.id = a.target_id AND t.forgotten = 0
                   JOIN memory_vectors v ON v.memory_id = s.id
                   JOIN memory_vectors w ON w.memory_id = t.id AND w.model = v.model
               WHERE a.relation_type = 'updates' AND s.memory_type = t.memory_type AND s.memory_type <> 'identity'";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let (mut found, mut one, mut other) = (Vec::new(), Vec::new(), Vec::new());
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        blob::decode(row.get_ref(2)?.as_blob()?, &mut one);
        blob::decode(row.get_ref(3)?.as_blob()?, &mut other);
        let cosine: f32 = one.iter().zip(&other).map(|(one, other)| one * other).sum();
        if f64::from(cosine) >= least {
            found.push((row.get(0)?, row.get(1)?));
        }
    }
    Ok(found)
}

pub(super) fn model_number(connection: &Connection, name: &str) -> Result<i64, DbError> {
    let sql = "SELECT id FROM embedding_models WHERE name = ?1";
    let number = |row: &crate::db::rusqlite::Row<'_>| row.get(0);
    if let Some(known) = connection.prepare_cached(sql)?.query_row([name], number).optional()? {
        return Ok(known);
    }
    connection.execute("INSERT INTO embedding_models (name) VALUES (?1)", [name])?;
    Ok(connection.last_insert_rowid())
}

/// How many memories have no vector of this model.
pub(super) fn missing(connection: &Connection, model: &str) -> Result<u64, DbError> {
    // A forgotten memory has none, so the difference of two counts is the answer.
    Ok(store::count_live(connection)?.saturating_sub(source::count(connection, model)?))
}

/// At most `limit` memories without a vector, the last changed first, before the change `before`.
pub(super) fn without_vector(
    connection: &Connection,
    model: i64,
    before: i64,
    limit: usize,
) -> Result<Vec<Waiting>, DbError> {
    let sql = "SELECT m.id, m.content, m.change_seq FROM memories m
                   LEFT JOIN memory_vectors v ON v.memory_id = m.id AND v.model = ?1
               WHERE m.forgotten = 0 AND m.change_seq < ?2 AND v.key IS NULL ORDER BY m.change_seq DESC LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let limit = i64::try_from(limit.min(BATCH)).unwrap_or(i64::MAX);
    let rows = statement
        .query_map(params![model, before, limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Stores a vector, unless the memory has changed or was forgotten since its text was read.
pub(super) fn insert(
    connection: &Connection,
    model: i64,
    (id, change, vector): &Made,
) -> Result<(), DbError> {
    let sql = "INSERT INTO memory_vectors (memory_id, model, vector)
                   SELECT id, ?2, ?3 FROM memories WHERE id = ?1 AND change_seq = ?4 AND forgotten = 0
               ON CONFLICT (memory_id) DO UPDATE SET model = excluded.model, vector = excluded.vector";
    connection.prepare_cached(sql)?.execute(params![id, model, blob::encode(vector), change])?;
    Ok(())
}
