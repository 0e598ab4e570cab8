//! The database as the vector index sees it: what changed among the vectors of one model, in order.

use super::blob;
use crate::db::rusqlite::{Connection, OptionalExtension, params};
use crate::db::{Db, DbError};
use crate::error::Fault;
use crate::memory::embed::DIMENSIONS;
use crate::memory::vector_index::{Change, Summary, VectorError, VectorSource};

/// Vectors of one model in one database.
pub(super) struct Stored {
    pub(super) db: Db,
    pub(super) model: String,
}

impl VectorSource for Stored {
    fn summary(&self) -> Result<Summary, VectorError> {
        let read = |connection: &Connection| {
            Ok(Summary { newest: newest_change(connection)?, vectors: count(connection, &self.model)? })
        };
        self.db.read(read).map_err(failed)
    }

    fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, VectorError> {
        self.db.read(|connection| changes(connection, &self.model, after, limit)).map_err(failed)
    }

    fn change_of(&self, key: u64) -> Result<Option<u64>, VectorError> {
        let sql = "SELECT sequence FROM vector_changes WHERE key = ?1";
        self.db
            .read(|connection| {
                let mut statement = connection.prepare_cached(sql)?;
                let found: Option<i64> = statement.query_row([signed(key)], |row| row.get(0)).optional()?;
                Ok(found.map(unsigned))
            })
            .map_err(failed)
    }

    fn vectors(&self, keys: &[u64], each: &mut dyn FnMut(u64, &[f32])) -> Result<(), VectorError> {
        self.db.read(|connection| vectors(connection, keys, each)).map_err(failed)
    }
}

fn failed(error: DbError) -> VectorError {
    VectorError::Source { reason: error.to_string(), kind: error.kind() }
}

/// Keys and changes count from 1 and never come near the largest number.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn newest_change(connection: &Connection) -> Result<u64, DbError> {
    let sql = "SELECT coalesce(max(sequence), 0) FROM vector_changes";
    Ok(unsigned(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?))
}

/// How many vectors of this model there are.
pub(super) fn count(connection: &Connection, model: &str) -> Result<u64, DbError> {
    let sql = "SELECT vectors FROM embedding_models WHERE name = ?1";
    let found = connection.prepare_cached(sql)?.query_row([model], |row| row.get(0)).optional()?;
    Ok(found.map_or(0, unsigned))
}

fn changes(connection: &Connection, model: &str, after: u64, limit: usize) -> Result<Vec<Change>, DbError> {
    let sql = "SELECT c.sequence, c.key, v.vector FROM vector_changes c
                   LEFT JOIN memory_vectors v ON v.key = c.key
                       AND v.model = (SELECT id FROM embedding_models WHERE name = ?1)
               WHERE c.sequence > ?2 ORDER BY c.sequence LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![model, signed(after), limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let vector = row.get_ref(2)?.as_blob_or_null()?.map(|bytes| {
            let mut vector = Vec::with_capacity(DIMENSIONS);
            blob::decode(bytes, &mut vector);
            vector
        });
        found.push(Change { sequence: unsigned(row.get(0)?), key: unsigned(row.get(1)?), vector });
    }
    Ok(found)
}

fn vectors(connection: &Connection, keys: &[u64], each: &mut dyn FnMut(u64, &[f32])) -> Result<(), DbError> {
    let sql = "SELECT v.key, v.vector FROM json_each(?1) wanted CROSS JOIN memory_vectors v ON v.key = wanted.value";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([key_list(keys)])?;
    let mut vector = Vec::with_capacity(DIMENSIONS);
    while let Some(row) = rows.next()? {
        blob::decode(row.get_ref(1)?.as_blob()?, &mut vector);
        each(unsigned(row.get(0)?), &vector);
    }
    Ok(())
}

/// For `json_each`: one statement, however many keys.
pub(super) fn key_list(keys: &[u64]) -> String {
    serde_json::Value::from_iter(keys.iter().map(|key| signed(*key))).to_string()
}
